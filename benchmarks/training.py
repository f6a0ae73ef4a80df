"""Training steps, epochs and memory: our loop and the baseline's, each as it is, in turns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch

from benchmarks import baseline
from benchmarks.floor import Floor, floor, work
from benchmarks.machine import Rates
from benchmarks.measurement import BASELINE, Measurement, compared
from benchmarks.plan import Network, Plan, burn_in, noise
from benchmarks.turns import Paused, in_turns
from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset
from fno_runner.train.network import VALIDATION
from fno_runner.train.progress import Epoch
from fno_runner.train.training import train

STUDY_STEPS = 819
"""Steps of an epoch of sweep.yaml: 13,778 patterns, less 5 % for validation, 16 at a time."""
AT_ONCE = 8
"""Networks that are trained at once, where that is measured."""
COMPILED = "bf16, compiled"
ENDLESS = 100_000
"""Epochs: more than anybody waits for. A held training is left, not finished."""

Train = Callable[[Callable[[float], None]], object]
"""A training loop that calls back after each epoch with the wall time [s] of its steps."""


def measure_step(
    network: Network, device: torch.device, rates: Rates, plan: Plan
) -> list[Measurement]:
    """A training step, and an epoch of the study with all that a loop does, validation too."""
    configs = {side: network.config(side, epochs=ENDLESS) for side in plan.sides}
    times = epochs(configs, device, plan)
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


def measure_replicates(
    network: Network, device: torch.device, rates: Rates, plan: Plan
) -> list[Measurement]:
    """What a training step takes of a network, when `AT_ONCE` of them train in one program."""
    networks = {side: 1 if side == BASELINE else AT_ONCE for side in plan.sides}
    configs = {
        side: network.config(side, epochs=ENDLESS, replicates=count)
        for side, count in networks.items()
    }
    times = epochs(configs, device, plan)
    step = {
        side: [steps / plan.steps / networks[side] for steps, _ in of] for side, of in times.items()
    }
    least = {side: _floor(network.config(side), rates) for side in configs}
    name = f"training step, {AT_ONCE} networks at once, of each"
    return compared(name, network.label, "s", step, least)


def measure_compiled(
    network: Network, device: torch.device, rates: Rates, plan: Plan
) -> list[Measurement]:
    """A training step whose blocks are compiled, beside one whose are not, and the compiling."""
    sides = {"bf16": False, COMPILED: True}
    data = noise(leaving(plan.steps * network.batch), 1)
    config = network.config("bf16", epochs=ENDLESS)
    least = _floor(config, rates)
    with TemporaryDirectory() as cache, ExitStack() as stack:
        trainings = {
            side: partial(training, "bf16", config, data, device, is_compiled and Path(cache))
            for side, is_compiled in sides.items()
        }
        held = {side: stack.enter_context(Paused(make())) for side, make in trainings.items()}
        first_s = {side: training.epoch()[1] for side, training in held.items()}
        times = in_turns(
            {side: training.epoch for side, training in held.items()}, plan.turns, burn_in(device)
        )
        torch.compiler.reset()  # what a process after this one would not have either
        again_s = stack.enter_context(Paused(trainings[COMPILED]())).epoch()[1]
    step = {side: [steps / plan.steps for steps, _ in of] for side, of in times.items()}
    compiling = {"at first": first_s[COMPILED], "from the folder": again_s}
    return [
        *compared("training step", network.label, "s", step, dict.fromkeys(sides, least)),
        *compared(
            "compiling", network.label, "s",
            {side: [seconds - first_s["bf16"]] for side, seconds in compiling.items()},
        ),
    ]  # fmt: skip


def measure_memory(
    network: Network, device: torch.device, of: Sequence[str], patterns: int = 64
) -> list[Measurement]:
    """Peak memory of training, each side in a process of its own."""
    values = {}
    for side in of:
        options = side, device.type, str(patterns), network.as_json()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.training_memory", *options],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        values[side] = [json.loads(done.stdout)["peak_mib"]]
    return compared("peak memory of training", network.label, "MiB", values)


def training(
    side: str,
    config: RunConfig,
    data: Dataset,
    device: torch.device,
    compiled_in: Path | Literal[False] = False,
) -> Train:
    """The training loop of a side; on a GPU several replicates train at once.

    Args:
        compiled_in: where compiled blocks are kept; False: blocks are not compiled.
    """
    if side == BASELINE:
        return partial(baseline.train, config, data.train, device)

    def ours(on_epoch: Callable[[float], None]) -> None:
        def seconds(entry: Epoch) -> None:
            elapsed = entry["epoch_time_s"]
            assert elapsed is not None
            on_epoch(elapsed)

        is_compiled, cache = bool(compiled_in), compiled_in or None
        train(config, data, device, compiled=is_compiled, cache=cache, on_epoch=seconds)

    return ours


def epochs(
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
        sides = {side: training.epoch for side, training in held.items()}
        return in_turns(sides, plan.turns, burn_in(device))


def leaving(fit: int) -> int:
    """How many patterns leave `fit` to train on, once the validation patterns are taken out."""
    return next(n for n in range(fit + 1, 2 * fit + 2) if n - max(1, round(VALIDATION * n)) == fit)


def _floor(config: RunConfig, rates: Rates) -> Floor:
    return floor(work(config, config.batch_size, training=True), rates)
