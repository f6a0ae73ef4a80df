"""How long inference takes: the one protocol, of every run and of `agent.retime`.

A pass is timed after warm-up, with the device synchronised before and after, by
`time.perf_counter`, as often as `ENOUGH` says. A pass over one test object gives the throughput at
`infer_batch_size`, a pass over one pattern the latency. Both count the copies to the device and
back and the network; not the stitching.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Complex64

from fno_runner.data.dataset import Patterns
from fno_runner.device import halve_until_it_fits, keep_freed_memory
from fno_runner.reconstruct.inference import make_predictor
from fno_runner.reconstructor import Reconstructor

T = TypeVar("T")
Timing = dict[str, float | int | bool]
"""The keys of result.json's `timing` that say how long something took, and how that was found."""

Enough = tuple[tuple[int, float], ...]
"""(repeats, seconds in all [s]): repeated until both of one of these are reached."""
ENOUGH: Enough = ((10, 1.0), (3, 5.0), (100, 0.0))
"""As a rule ten repeats and a second; three of something slow, and a hundred of something fast."""


_Timed = tuple[Complex64[np.ndarray, "b n n"], "Times", list[float]]


@dataclass(frozen=True)
class Times:
    """The wall times [s] of the same work, repeated."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def iqr(self) -> float:
        """The interquartile range."""
        low, high = np.quantile(self.seconds, (0.25, 0.75))
        return float(high - low)

    @property
    def p90(self) -> float:
        """What nine repeats of ten stay within."""
        return float(np.quantile(self.seconds, 0.9))


def timed_predict(
    model: Reconstructor,
    patterns: Patterns,
    scale: float,
    device: torch.device,
    infer_batch_size: int,
    enough: Enough = ENOUGH,
) -> tuple[Complex64[np.ndarray, "b n n"], Timing]:
    """The patches, and how long they take. Where memory runs out, again with half the slice.

    Args:
        enough: how often it is repeated.

    Returns:
        the patches, and
        inference_time_s (median), inference_time_iqr_s, inference_time_p90_s of a pass over all
        patterns in slices of infer_batch_size (the one that was timed; where it had to be halved
        for want of memory also infer_batch_size_asked), inference_repeats,
        inference_patterns_per_s; on a GPU inference_device_s (median), its own time for the
        network, without copies and the host's work;
        latency_s (median), latency_iqr_s, latency_p90_s of one pattern alone, latency_repeats;
        threads, and tf32: whether a GPU was allowed to round factors to it.

    Raises:
        DivergedError: a prediction is not a finite number.
        RuntimeError: not even one pattern at a time fits into memory.
    """

    def timed(some: Patterns, slice_size: int) -> _Timed:
        size = min(slice_size, len(some))
        predictor = make_predictor(model, some.probe, scale, device, size)
        predictor.warm_up(some)
        device_s: list[float] = []

        def one_pass() -> Complex64[np.ndarray, "b n n"]:
            patches = predictor(some)
            if predictor.device_s is not None:
                device_s.append(predictor.device_s)
            return patches

        return *repeat_timed(one_pass, device, enough), device_s

    if device.type == "cpu":
        keep_freed_memory()  # as a run does, and whoever times its model later
    (patches, passes, device_s), used = halve_until_it_fits(
        lambda slice_size: timed(patterns, slice_size), infer_batch_size
    )
    _, alone, _ = timed(patterns.take(slice(1)), 1)
    timing: Timing = {
        "inference_time_s": passes.median,
        "inference_time_iqr_s": passes.iqr,
        "inference_time_p90_s": passes.p90,
        "inference_repeats": len(passes.seconds),
        "inference_patterns_per_s": len(patterns) / passes.median,
        "infer_batch_size": used,
        "latency_s": alone.median,
        "latency_iqr_s": alone.iqr,
        "latency_p90_s": alone.p90,
        "latency_repeats": len(alone.seconds),
        "threads": torch.get_num_threads(),
        "tf32": device.type == "cuda" and torch.backends.cudnn.allow_tf32,
    }
    if device_s:
        timing["inference_device_s"] = float(np.median(device_s))
    if used != infer_batch_size:
        timing["infer_batch_size_asked"] = infer_batch_size
    return patches, timing


def lengthen_pass(timing: Timing, seconds: float) -> None:
    """Add the time [s] of what is done once after a pass over an object's patterns."""
    before = timing["inference_time_s"]
    timing["inference_time_s"] += seconds
    timing["inference_time_p90_s"] += seconds
    timing["inference_patterns_per_s"] *= before / timing["inference_time_s"]


def repeat_timed(
    work: Callable[[], T], device: torch.device, enough: Enough = ENOUGH
) -> tuple[T, Times]:
    """What `work` returns at last, and its wall times [s], as many as are `enough`."""
    seconds: list[float] = []
    while True:
        synchronise(device)
        start = perf_counter()
        result = work()
        synchronise(device)
        seconds.append(perf_counter() - start)
        if is_enough(seconds, enough):
            return result, Times(tuple(seconds))


def is_enough(seconds: Sequence[float], enough: Enough = ENOUGH) -> bool:
    """Whether so many repeats, of so many seconds each, will do."""
    return any(len(seconds) >= repeats and sum(seconds) >= in_all for repeats, in_all in enough)


def synchronise(device: torch.device) -> None:
    """Wait for all work on a CUDA device; nothing elsewhere."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
