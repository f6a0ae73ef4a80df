"""What one gets without a network: the honest floors beside every result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from fno_runner.batches import Inputs, mask_of
from fno_runner.data.dataset import Dataset, Freeform, Patterns
from fno_runner.files import write_text_atomically
from fno_runner.physics import local_probe, object_update, subpixel_remainder
from fno_runner.reconstruct.predictor import slices
from fno_runner.reconstruct.stitching import stitch
from fno_runner.reconstructor import input_scale_factor
from fno_runner.result import Pair, finite
from fno_runner.score.metrics import score

ITERATIONS = {"flat_phase": 0, "projection_1": 1, "projection_50": 50}
"""Object updates from vacuum, on each pattern alone; none at all leaves a flat phase."""
SLICE, GPU_PIXELS = 64, 2**22
"""Patterns at once on a CPU, whose cache keeps their waves; on a GPU pixels of waves, of which each
takes up to 80 bytes: enough to keep it at work, and a share of its memory whatever the patterns."""
CPU = torch.device("cpu")
VERSION = 3
"""Raised whenever the same data would give other floors."""

Floors = dict[str, dict[str, Pair]]


def floors(dataset: Dataset, cache_dir: Path, device: torch.device = CPU) -> Floors:
    """Metrics of the reconstructions that took no network, by name; empty without a reference.

    They depend on the data only: they are computed once, on `device`, and kept in
    `cache_dir`/floors under the data's fingerprint. Fifty projections of five objects take a CPU
    half a minute, in which a GPU would wait.

    Raises:
        MachineError: the cache cannot be written.
    """
    if dataset.reference is None:
        return {}
    key = hashlib.sha256(f"{VERSION} {dataset.fingerprint}".encode()).hexdigest()[:16]
    path = cache_dir / "floors" / f"{key}.json"
    if (cached := _read(path)) is not None:
        return cached
    subpixel = isinstance(dataset.geometry, Freeform)
    result: Floors = {}
    for name, count in ITERATIONS.items():
        patches = iterate(dataset.test, count, subpixel=subpixel, device=device)
        objects, mask = stitch(patches, dataset)
        result[name] = finite(score(objects, dataset.reference, mask))
    write_text_atomically(path, json.dumps(result, indent=1, allow_nan=False) + "\n")
    return result


def _read(path: Path) -> Floors | None:
    """Floors as an earlier run left them, or None where there are none to be believed."""
    try:
        cached = TypeAdapter(Floors).validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return cached if cached.keys() == ITERATIONS.keys() else None


@torch.inference_mode()
def iterate(
    patterns: Patterns, iterations: int, *, subpixel: bool, device: torch.device = CPU
) -> np.ndarray:
    """`iterations` object updates from vacuum on each pattern alone: complex64 (B, N, N)."""
    mean_intensity = np.square(patterns.amplitude).sum(dtype=np.float64) / len(patterns)
    mask = mask_of(patterns)
    vacuum = 1 / input_scale_factor(float(mean_intensity), torch.from_numpy(patterns.probe), mask)
    inputs = Inputs.of(patterns, 1.0, device)
    mask = None if mask is None else mask.to(device)
    count = patterns_at_once(inputs.probe)
    patches = np.empty(patterns.amplitude.shape, np.complex64)
    for rows in slices(len(patterns), count):
        x = inputs.x[rows]
        shift = subpixel_remainder(inputs.positions[rows], patterns.size) if subpixel else None
        probe = local_probe(inputs.probe, shift)
        patch = torch.full(x.shape, vacuum, dtype=torch.complex64, device=device)
        for _ in range(iterations):
            patch += object_update(x, probe, patch, mask)
        patches[rows] = patch[:, 0].cpu().numpy()
    return patches


def patterns_at_once(probe: Tensor) -> int:
    """How many patterns are worked on at once where this probe is, (N, N) or (M, N, N)."""
    return SLICE if probe.device.type == "cpu" else max(1, GPU_PIXELS // probe.numel())
