"""A trained network on disk: its weights and its input scale factor, as safetensors."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fno_runner.errors import UserError
from fno_runner.files import write_bytes_atomically
from fno_runner.reconstructor import Reconstructor

SCALE, TRANSFORM = "input_scale_factor", "input_transform"
MAX_HEADER = 2**20
"""A file that is larger than the network by more is refused unread [bytes]."""


def weights_of_seed(seed: int) -> str:
    """The file of a seed's network, where it is not the run's own (`fno_runner.result.WEIGHTS`)."""
    return f"model-seed{seed}.safetensors"


def write_weights(path: Path, model: Reconstructor, scale: float) -> None:
    """Write a network and the scale factor that it was trained with.

    Raises:
        MachineError: the disk refuses it.
    """
    weights = {name: weight.cpu().contiguous() for name, weight in model.state_dict().items()}
    metadata = {SCALE: repr(scale), TRANSFORM: model.input_transform}
    write_bytes_atomically(path, save(weights, metadata=metadata))


def load_weights(path: Path, model: Reconstructor) -> float:
    """Give `model` the weights of a file; the input scale factor that belongs to them.

    Raises:
        UserError: there is no such file, or it is not one of a network like `model`.
    """
    expected = model.state_dict()
    largest = MAX_HEADER + sum(weight.nbytes for weight in expected.values())
    try:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        if path.stat().st_size > largest:
            raise UserError(f"{path}: larger than the network of its configuration")
        with safe_open(path, "pt") as stream:
            metadata = stream.metadata() or {}
            weights = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a whole safetensors file ({reason})") from None
    if difference := _difference(weights, expected):
        raise UserError(f"{path}: {difference}; it is not of the network of its configuration")
    try:
        scale = float(metadata.get(SCALE, ""))
    except ValueError:
        scale = math.nan
    if not 0 < scale < math.inf:
        raise UserError(f"{path}: has no {SCALE}")
    # No weight tells it, and a network answers whatever it is given. Version 0.1 wrote none.
    ours, theirs = model.input_transform, metadata.get(TRANSFORM)
    if theirs not in (None, ours):
        raise UserError(f"{path}: learnt with {TRANSFORM}={theirs}, its record says {ours}")
    model.load_state_dict(weights)
    return scale


def _difference(stored: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    """What a file has otherwise than its network, in words; empty if nothing."""
    for name in sorted(stored.keys() | expected.keys()):
        if name not in stored:
            return f"has no '{name}'"
        if name not in expected:
            return f"has '{name}', which the network has not"
        ours, theirs = expected[name], stored[name]
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            shapes = f"{theirs.dtype} {tuple(theirs.shape)}, not {ours.dtype} {tuple(ours.shape)}"
            return f"'{name}' is {shapes}".replace("torch.", "")
    return ""
