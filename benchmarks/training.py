"""Training steps, epochs and memory: our loop and the baseline's, each as it is, in turns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch

from benchmarks import baseline
from benchmarks.floor import Floor, floor, work
from benchmarks.machine import Rates
from benchmarks.measurement import BASELINE, Measurement, compared
from benchmarks.plan import Network, Plan, noise, sides
from benchmarks.turns import Paused, in_turns
from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset
from fno_runner.train.progress import Epoch
from fno_runner.train.training import VALIDATION, train

STUDY_STEPS = 819
"""Steps of an epoch of sweep.yaml: 13,778 patterns, less 5 % for validation, 16 at a time."""
STACKED = 8
"""Seeds that are trained at once, where that is measured."""
ENDLESS = 100_000
"""Epochs: more than anybody waits for. A held training is left, not finished."""

Train = Callable[[Callable[[float], None]], object]
"""A training loop that calls back after each epoch with the wall time [s] of its steps."""


def measure_step(
    network: Network, device: torch.device, rates: Rates, plan: Plan
) -> list[Measurement]:
    """A training step, and an epoch of the study with all that a loop does, validation too."""
    configs = {side: network.config(side, epochs=ENDLESS) for side in sides(device)}
    times = _epochs(configs, device, plan)
    step = {side: [steps / plan.steps for steps, _ in of] for side, of in times.items()}
    epoch = {
        side: [whole / plan.steps * STUDY_STEPS for _, whole in of] for side, of in times.items()
    }
    least = {side: _floor(config, rates) for side, config in configs.items()}
    of_epoch = {side: Floor(f.seconds * STUDY_STEPS, f.bound) for side, f in least.items()}
    return [
        *compared("training step", network.label, "s", step, least),
        *compared(f"epoch of {STUDY_STEPS} steps", network.label, "s", epoch, of_epoch),
    ]


def measure_stacked(
    network: Network, device: torch.device, rates: Rates, plan: Plan
) -> list[Measurement]:
    """What a training step takes of a seed, when `STACKED` seeds are trained in one program."""
    seeds = {side: 1 if side == BASELINE else STACKED for side in sides(device)}
    configs = {
        side: network.config(side, epochs=ENDLESS, **({"replicates": n} if n > 1 else {}))
        for side, n in seeds.items()
    }
    times = _epochs(configs, device, plan)
    step = {
        side: [steps / plan.steps / seeds[side] for steps, _ in of] for side, of in times.items()
    }
    least = {side: _floor(network.config(side), rates) for side in configs}
    name = f"training step, {STACKED} seeds at once, of each"
    return compared(name, network.label, "s", step, least)


def measure_memory(
    network: Network, device: torch.device, of: Sequence[str], patterns: int = 64
) -> list[Measurement]:
    """Peak memory of training, each side in a process of its own."""
    values = {}
    for side in of:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.training_memory", side, network.architecture),
                *(str(n) for n in (network.width, network.modes, network.batch, patterns)),
                device.type,
            ],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        values[side] = [json.loads(done.stdout)["peak_mib"]]
    return compared("peak memory of training", network.label, "MiB", values)


def training(side: str, config: RunConfig, data: Dataset, device: torch.device) -> Train:
    """The training loop of a side; several replicates are trained in one program."""
    if side == BASELINE:
        return partial(baseline.train, config, data.train, device)

    def ours(on_epoch: Callable[[float], None]) -> None:
        def seconds(entry: Epoch) -> None:
            elapsed = entry["epoch_time_s"]
            assert elapsed is not None
            on_epoch(elapsed)

        train(config, data, device, together=config.replicates > 1, on_epoch=seconds)

    return ours


def _epochs(
    configs: Mapping[str, RunConfig], device: torch.device, plan: Plan
) -> dict[str, list[tuple[float, float]]]:
    """Wall times [s] of an epoch's steps, and of all of it, of each side in each turn."""
    batch = next(iter(configs.values())).batch_size
    data = noise(leaving(plan.steps * batch), 1)
    with ExitStack() as stack:
        held = {
            side: stack.enter_context(Paused(training(side, config, data, device)))
            for side, config in configs.items()
        }
        return in_turns({side: training.epoch for side, training in held.items()}, plan.turns)


def leaving(fit: int) -> int:
    """How many patterns leave `fit` to train on, once the validation patterns are taken out."""
    return next(n for n in range(fit + 1, 2 * fit + 2) if n - max(1, round(VALIDATION * n)) == fit)


def _floor(config: RunConfig, rates: Rates) -> Floor:
    return floor(work(config, config.batch_size, training=True), rates)
