"""How step time, memory and inference time grow with width, modes, batch and patterns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Literal

import torch

from benchmarks.floor import floor, least_memory, work
from benchmarks.inference import one_pass
from benchmarks.machine import Rates
from benchmarks.measurement import Measurement, compared
from benchmarks.plan import Network, burn_in, noise
from benchmarks.training import ENDLESS, leaving, measure_memory, training
from benchmarks.turns import Paused, in_turns
from fno_runner.config import N

STEP, MEMORY, PASS = "training step", "peak memory of training", "inference, one pass"
ARCHITECTURES: tuple[Literal["fno", "hybrid"], ...] = ("fno", "hybrid")
SIDE = "float32"


@dataclass(frozen=True)
class Ladder:
    """From `base` and `patterns`, one thing grows at a time through the values of its axis."""

    base: Network
    patterns: int
    axes: Mapping[str, tuple[int, ...]]
    turns: int


def ladder(device: torch.device) -> Ladder:
    """Sizes for a device. On a GPU an epoch has steps enough for its beginning not to count."""
    patterns = 32 if device.type == "cpu" else 2048
    return Ladder(
        Network("fno", 32, 12),
        patterns,
        {
            "width": (8, 16, 32, 64),
            "modes": (4, 8, 16, 32),
            "batch": (1, 4, 16, 32),
            "patterns": (patterns, 2 * patterns, 4 * patterns),
        },
        turns=3,  # of two, one that the machine sleeps through is half the median
    )


@dataclass(frozen=True)
class Grown:
    """A measurement where `axis` is `at`, and what was to be expected there [its unit]."""

    axis: str
    at: int
    measurement: Measurement
    expected: float


@dataclass(frozen=True)
class _Rung:
    axis: str
    at: int
    network: Network
    patterns: int


def measure_growth(device: torch.device, rates: Rates, ladder: Ladder) -> Iterator[Grown]:
    """Every quantity at every value of every axis, for both architectures.

    Expected are the floor, for times, and what has to be held at once, for memory.
    """
    for axis in ladder.axes:
        for architecture in ARCHITECTURES:
            rungs = list(_rungs(ladder, axis, architecture))
            for rung, times in _steps(rungs, device, ladder.turns).items():
                config = rung.network.config(SIDE)
                least = floor(work(config, rung.network.batch, training=True), rates).seconds
                yield _grown(rung, compared(STEP, rung.network.label, "s", times), least)
            for rung, times in _passes(rungs, device, ladder.turns).items():
                config, size = rung.network.config(SIDE), rung.network.batch
                of_slice = floor(work(config, size, training=False), rates).seconds
                least = rung.patterns / size * of_slice
                yield _grown(rung, compared(PASS, rung.network.label, "s", times), least)
            for rung in rungs:
                measured = measure_memory(rung.network, device, [SIDE], rung.patterns)
                held = least_memory(rung.network.config(SIDE), rung.network.batch)
                held += rung.patterns * N * N * 4
                yield _grown(rung, measured, held / 2**20)


def _rungs(ladder: Ladder, axis: str, architecture: Literal["fno", "hybrid"]) -> Iterator[_Rung]:
    base = replace(ladder.base, architecture=architecture)
    for at in ladder.axes[axis]:
        if axis == "patterns":
            yield _Rung(axis, at, base, at)
        else:
            changes: dict[str, Any] = {axis: at}
            yield _Rung(axis, at, replace(base, **changes), ladder.patterns)


def _steps(
    rungs: list[_Rung], device: torch.device, turns: int
) -> dict[_Rung, dict[str, list[float]]]:
    """Wall times [s] of a step, each the mean over an epoch."""
    with ExitStack() as stack:
        epochs, steps = {}, {}
        for rung in rungs:
            config = rung.network.config(SIDE, epochs=ENDLESS)
            fit = ceil(rung.patterns / rung.network.batch) * rung.network.batch
            steps[rung] = fit // rung.network.batch
            train = training(SIDE, config, noise(leaving(fit), 1), device)
            epochs[rung] = stack.enter_context(Paused(train)).epoch
        times = in_turns(epochs, turns, burn_in(device))
    return {rung: {SIDE: [t / steps[rung] for t, _ in times[rung]]} for rung in rungs}


def _passes(
    rungs: list[_Rung], device: torch.device, turns: int
) -> dict[_Rung, dict[str, list[float]]]:
    """Wall times [s] of a pass over all patterns, in slices of the network's batch."""
    passes = {
        rung: one_pass(SIDE, rung.network, noise(1, rung.patterns), device, rung.network.batch)
        for rung in rungs
    }
    return {rung: {SIDE: times} for rung, times in in_turns(passes, turns).items()}


def _grown(rung: _Rung, measured: list[Measurement], expected: float) -> Grown:
    (measurement,) = measured
    named = replace(measurement, detail=f"{rung.axis} {rung.at}")
    return Grown(rung.axis, rung.at, named, expected)
