"""The least time that a network's arithmetic and memory traffic can take on a machine.

Operations: all matrix products and convolutions (the DFTs are matrix products too), forward and,
in training, backward, as `torch.utils.flop_counter` counts them, over the measured rate of a large
matrix product in the precision that each is done in.

Bytes, over the measured bandwidth of a large copy. With A the outputs of all convolutions and
spectral convolutions (everything between two of them could be done on the way) and P the
parameters:

    inference   2·A + P        each output is written and read; parameters are read
    training    6·A + 10·P     the same for the activations and, twice, in the backward pass;
                               parameters are read in both passes and their gradient written (3),
                               Adam reads parameter, gradient and two moments and writes three (7)

The floor is the larger of the two: a machine can compute and copy at once. What stays in a cache
moves faster than a large copy, so a small network may come below its floor of bytes.

The least memory of training, likewise: what the backward pass needs of the forward one, and each
parameter with its gradient, two moments and the copy in the best state.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.machine import Rates
from fno_runner.config import RunConfig
from fno_runner.data.probe import zone_plate_probe
from fno_runner.footprint import kept_for_backward
from fno_runner.models.spectral import SpectralConv2d
from fno_runner.reconstructor import Reconstructor


@dataclass(frozen=True)
class Work:
    """What one pass over a batch takes.

    operations: by the precision they are done in. bytes: moved.
    """

    operations: dict[str, int]
    bytes: int


@dataclass(frozen=True)
class Floor:
    """seconds: the least time. bound: what sets it."""

    seconds: float
    bound: Literal["operations", "bytes"]


def work(config: RunConfig, batch: int, *, training: bool) -> Work:
    """Count one step, or one slice of inference, of `batch` patterns."""
    model = _model(config)
    activations: list[int] = []

    def note(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        activations.append(output.numel() * output.element_size())

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | SpectralConv2d):
            module.register_forward_hook(note)
    with torch.set_grad_enabled(training), _Operations() as operations:
        predicted = _of_one_pattern(model, config)
        if training:
            predicted.sum().backward()
    in_float32 = "float32" if config.precision == "bf16" else config.precision
    counted = {
        "bf16" if kind == torch.bfloat16 else in_float32: batch * count
        for kind, count in operations.counted.items()
    }
    passes, touches = (6, 10) if training else (2, 1)
    return Work(counted, passes * batch * sum(activations) + touches * _parameter_bytes(model))


def least_memory(config: RunConfig, batch: int) -> int:
    """What training on `batch` patterns at a time has to hold at once [bytes]."""
    model = _model(config)
    constant = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept = kept_for_backward(lambda: _of_one_pattern(model, config))
    activations = sum(size for address, size in kept.items() if address not in constant)
    return batch * activations + 5 * _parameter_bytes(model)


def floor(work: Work, rates: Rates) -> Floor:
    """The least time for `work` on a machine of these rates."""
    computing = sum(count / rates.operations[kind] for kind, count in work.operations.items())
    moving = work.bytes / rates.bytes
    return Floor(max(computing, moving), "operations" if computing > moving else "bytes")


def _model(config: RunConfig) -> Reconstructor:
    with torch.random.fork_rng(devices=[]):
        return Reconstructor(config)


def _of_one_pattern(model: Reconstructor, config: RunConfig) -> Tensor:
    """A forward pass on the CPU. Only the parameters' share does not grow with the batch."""
    x, unit = torch.ones(1, 1, config.size, config.size), torch.ones(1, 1, 1, 1)
    probe = torch.from_numpy(zone_plate_probe(config))
    # A compiled network hides its operations; eager, it does the same ones.
    with torch.compiler.set_stance("force_eager"):
        out: Tensor = model(x, torch.zeros(1, 1, 2, 1), probe, unit)
    return out


def _parameter_bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


class _Operations(TorchDispatchMode):
    """Floating-point operations of all products, by the type of their first factor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.counted[args[0].dtype] += count(*args, **(kwargs or {}), out_val=out)
        return out
