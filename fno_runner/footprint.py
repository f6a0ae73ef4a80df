"""How much memory of a GPU a run takes, computed before it begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from fno_runner.config import RunConfig
from fno_runner.data.gridlines import raster_starts, step_of
from fno_runner.device import CONTEXT_BYTES
from fno_runner.physics import LOSSES
from fno_runner.reconstructor import Reconstructor

SIZE_KEYS = (
    *("modes", "width", "blocks", "cnn_blocks", "batch_size"),
    *("replicates", "nimgs_train", "patch_size"),
)  # fmt: skip
"""Keys of a configuration: the larger, the more memory it takes."""
COPIES = 6
"""Arrays as large as the weights: weights, gradient, Adam's two moments, the best state, a cast."""
ACTIVATIONS = 3.0
"""What a step holds, in units of what its forward pass keeps for the backward one: a captured step
and the plain one of an epoch's last batch have their own each, and the backward pass adds gradients
and the libraries' workspaces."""


def memory_need(config: RunConfig, data_bytes: int) -> int:
    """About how much memory of a card a run takes, its process's context included [bytes].

    Computed, not measured: a record's `peak_memory_bytes` says what PyTorch really took of it.

    Args:
        data_bytes: the patterns of the training set, which lie on the card, as float32.
    """
    weights, kept = _of_one_pattern(config)
    networks = config.replicates * (
        COPIES * weights + math.ceil(ACTIVATIONS * kept * config.batch_size)
    )
    return CONTEXT_BYTES + data_bytes + networks


def data_bytes_of(config: RunConfig) -> int:
    """About how large a configuration's training patterns are, before they are read [bytes].

    A file counts with its size, 0 where it is not there.
    """
    if (named := config.train_npz or config.scan) is not None:
        path = Path(named)
        return path.stat().st_size if path.is_file() else 0
    patterns = config.nimgs_train * len(raster_starts(step_of(config, "train"), config.size))
    return patterns * config.size**2 * 4


def largest(configs: Iterable[RunConfig]) -> Iterator[RunConfig]:
    """For each architecture a configuration that needs at least the memory of any of these."""
    by_architecture: dict[str, list[RunConfig]] = {}
    for config in configs:
        by_architecture.setdefault(config.architecture, []).append(config)
    for same in by_architecture.values():
        yield same[0].model_copy(
            update={
                key: max(getattr(config, key) or 0 for config in same) or None for key in SIZE_KEYS
            }
        )


def _of_one_pattern(config: RunConfig) -> tuple[int, int]:
    """A network's weights, and what the forward pass of one pattern keeps for the backward [bytes].

    By a forward pass on the CPU, whatever the architecture; in float32, as an upper bound.
    """
    n = config.size
    with torch.random.fork_rng(devices=[]):
        model = Reconstructor(config.model_copy(update={"precision": "float32"}))
    storages = [parameter.untyped_storage() for parameter in model.parameters()]
    weights = {storage.data_ptr(): storage.nbytes() for storage in storages}
    x = torch.ones(1, 1, n, n)
    probe = torch.ones(n, n, dtype=torch.complex64)
    positions, factor = torch.zeros(1, 1, 2, 1), torch.ones(1, 1, 1, 1)
    kept = kept_for_backward(lambda: LOSSES[config.loss](model(x, positions, probe, factor), x))
    activations = (size for place, size in kept.items() if place not in weights)
    return sum(weights.values()), sum(activations)


def kept_for_backward(forward: Callable[[], object]) -> dict[int, int]:
    """What a forward pass keeps for the backward one: the address of each storage → bytes."""
    kept: dict[int, Tensor] = {}  # held here, so that no address is given out again

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return {place: tensor.untyped_storage().nbytes() for place, tensor in kept.items()}
