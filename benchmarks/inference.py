"""Latency and throughput of inference, copies to the device and back included, in turns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter

import torch

from benchmarks import baseline
from benchmarks.floor import Floor, floor, work
from benchmarks.machine import Rates
from benchmarks.measurement import BASELINE, Measurement, compared
from benchmarks.plan import Network, Plan, noise
from benchmarks.turns import in_turns
from fno_runner.data.dataset import Dataset
from fno_runner.device import keep_freed_memory
from fno_runner.reconstruct.inference import make_predictor
from fno_runner.score.timing import synchronise
from fno_runner.train.network import build_model


def measure_inference(
    network: Network, device: torch.device, rates: Rates, plan: Plan
) -> list[Measurement]:
    """One pattern alone, and a pattern of many: each side with the slices that suit it best."""
    names = plan.sides
    alone = in_turns(
        {side: one_pass(side, network, noise(1, 1), device, 1) for side in names}, 3 * plan.turns
    )
    many = noise(1, plan.patterns)
    passes = {
        (side, size): one_pass(side, network, many, device, size)
        for side in names
        for size in plan.slices
    }
    times = in_turns(passes, plan.turns)
    best = {side: min(plan.slices, key=lambda size: median(times[side, size])) for side in names}
    of_many = {side: [t / plan.patterns for t in times[side, best[side]]] for side in names}

    def least(side: str, size: int) -> Floor:
        of_slice = floor(work(network.config(side), size, training=False), rates)
        return Floor(of_slice.seconds / size, of_slice.bound)

    return [
        *compared(
            "inference, one pattern alone", network.label, "s", alone,
            {side: least(side, 1) for side in names},
        ),
        *compared(
            "inference, a pattern of many", network.label, "s", of_many,
            {side: least(side, best[side]) for side in names},
            {side: f"slices of {best[side]}" for side in names},
        ),
    ]  # fmt: skip


def one_pass(
    side: str, network: Network, data: Dataset, device: torch.device, size: int
) -> Callable[[], float]:
    """Reconstruct all test patterns in slices of `size`: the wall time [s] of each call."""
    config = network.config(side)
    keep = False
    run: Callable[[], object] | None = None
    if side == BASELINE:
        probe = torch.from_numpy(data.test.probe)
        plain = baseline.PlainReconstructor(config, probe, 1.0).to(device)
        x = torch.from_numpy(data.test.amplitude)[:, None]
        run = partial(baseline.predict, plain, x, device, size)
    else:
        keep = device.type == "cpu"  # as a run does, after its training

    def make() -> Callable[[], object]:
        model = build_model(config, data, device)
        predictor = make_predictor(model, data.test.probe, 1.0, device, min(size, len(data.test)))
        predictor.warm_up(data.test)
        return partial(predictor, data.test)

    def timed() -> float:
        nonlocal run
        keep_freed_memory(keep)
        if run is None:  # in the side's own turn, with its own precision of the libraries
            run = make()
        synchronise(device)
        start = perf_counter()
        run()
        synchronise(device)
        return perf_counter() - start

    return timed
