"""Batched inference, and the time it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Complex64, Float32

from fno_runner.data.dataset import Patterns
from fno_runner.errors import DivergedError
from fno_runner.memory import halve_until_it_fits
from fno_runner.physics import amplitude_of, local_probe, subpixel_remainder
from fno_runner.reconstructor import Reconstructor
from fno_runner.training import Inputs

T = TypeVar("T")
CPU = torch.device("cpu")
WARM_UP = 2
"""Slices computed before the clock starts: plans, caches, kernels."""
MIN_REPEATS, MAX_REPEATS, MIN_SECONDS = 3, 10, 1.0
"""A pass is repeated until there are enough repeats or, after the first few, enough seconds."""


@torch.inference_mode()
def predict(
    model: Reconstructor,
    patterns: Patterns,
    scale: float,
    device: torch.device,
    infer_batch_size: int,
) -> Complex64[np.ndarray, "b n n"]:
    """The object patch of every pattern, complex64 (B, N, N), on the CPU.

    Walks the patterns in slices of `infer_batch_size`: only a slice is ever on the device, so the
    memory it needs does not grow with the number of patterns beyond the result itself.

    Raises:
        DivergedError: a prediction is not a finite number.
    """
    patches = np.empty(patterns.amplitude.shape, np.complex64)
    for rows, prediction in _slices(model, patterns, scale, device, infer_batch_size):
        patches[rows] = prediction[:, 0].cpu().numpy()
        if not np.isfinite(patches[rows]).all():
            raise DivergedError("a predicted patch is not finite")
    return patches


def _slices(
    model: Reconstructor,
    patterns: Patterns,
    scale: float,
    device: torch.device,
    infer_batch_size: int,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """`forward_predict` of one slice after the other, still on the device."""
    model.eval()
    inputs = Inputs.of(patterns, [scale], CPU)
    probe = inputs.probe.to(device)
    for first in range(0, len(patterns), infer_batch_size):
        rows = slice(first, first + infer_batch_size)
        x, positions, _, factor = inputs.batch(rows)
        yield (
            rows,
            model.forward_predict(x.to(device), positions.to(device), probe, factor.to(device)),
        )


@torch.inference_mode()
def predicted_amplitude(
    patches: Complex64[np.ndarray, "b n n"], patterns: Patterns, infer_batch_size: int
) -> Float32[np.ndarray, "b n n"]:
    """What the patches would diffract to under the probe as it stood: float32 (B, N, N).

    0 at bad pixels, as measured amplitudes are.
    """
    amplitude = np.empty(patterns.amplitude.shape, np.float32)
    inputs = Inputs.of(patterns, [1.0], CPU)
    for first in range(0, len(patterns), infer_batch_size):
        rows = slice(first, first + infer_batch_size)
        probe = local_probe(inputs.probe, subpixel_remainder(inputs.positions[rows]))
        patch = torch.from_numpy(patches[rows])[:, None]
        amplitude[rows] = amplitude_of(patch, probe)[:, 0].numpy()
    return amplitude if patterns.mask is None else amplitude * patterns.mask


def timed_predict(
    model: Reconstructor,
    patterns: Patterns,
    scale: float,
    device: torch.device,
    infer_batch_size: int,
) -> tuple[Complex64[np.ndarray, "b n n"], dict[str, float | int]]:
    """`predict`, and the wall times [s] of one pass over all patterns.

    After warm-up, with the device synchronised before and after, `time.perf_counter`. Counted are
    the copies to the device and back and the network; not the stitching. Where memory runs out,
    all of it is done again with half the slice.

    Returns:
        the patches, and inference_time_s (median), inference_time_p90_s, inference_repeats,
        infer_batch_size (the one that was timed), inference_patterns_per_s; where it had to be
        halved for want of memory also infer_batch_size_asked.

    Raises:
        DivergedError: a prediction is not a finite number.
        RuntimeError: not even one pattern at a time fits into memory.
    """

    def repeated(slice_size: int) -> tuple[Complex64[np.ndarray, "b n n"], list[float]]:
        warm_up = patterns.take(np.arange(min(len(patterns), WARM_UP * slice_size)))
        predict(model, warm_up, scale, device, slice_size)
        return repeat_timed(lambda: predict(model, patterns, scale, device, slice_size), device)

    (patches, times), used = halve_until_it_fits(repeated, infer_batch_size)
    median = float(np.median(times))
    timing: dict[str, float | int] = {
        "inference_time_s": median,
        "inference_time_p90_s": float(np.quantile(times, 0.9)),
        "inference_repeats": len(times),
        "infer_batch_size": used,
        "inference_patterns_per_s": len(patterns) / median,
    }
    if used != infer_batch_size:
        timing["infer_batch_size_asked"] = infer_batch_size
    return patches, timing


def repeat_timed(work: Callable[[], T], device: torch.device) -> tuple[T, list[float]]:
    """What `work` returns, and its wall times [s], repeated until the median means something."""
    times: list[float] = []
    while True:
        synchronise(device)
        start = perf_counter()
        result = work()
        synchronise(device)
        times.append(perf_counter() - start)
        enough = len(times) >= MAX_REPEATS or sum(times) >= MIN_SECONDS
        if len(times) >= MIN_REPEATS and enough:
            return result, times


def synchronise(device: torch.device) -> None:
    """Wait for all work on a CUDA device; nothing elsewhere."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
