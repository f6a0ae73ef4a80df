"""What a user waits for around the training: data, start-up, a whole run, the export."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter

import torch

from benchmarks.measurement import Measurement, compared
from benchmarks.plan import Network, Plan
from benchmarks.training import leaving
from benchmarks.turns import in_turns
from fno_runner.config import RunConfig
from fno_runner.data import load_dataset
from fno_runner.errors import MachineError
from fno_runner.result import Metrics, RunResult, run_folder, write_result

RECORDS = 300
OURS = "ours"


def measure_dataset(turns: int) -> list[Measurement]:
    """Simulate, and load again, the dataset of the study: 2 training objects and 1 test object."""
    with tempfile.TemporaryDirectory() as scratch:
        numbers = iter(range(turns + 1))

        def make() -> float:
            return _load(Path(scratch, str(next(numbers))))

        made = in_turns({OURS: make}, turns)
        loaded = in_turns({OURS: partial(_load, Path(scratch, "0"))}, turns)
    return [
        *compared("dataset, simulated and written", "", "s", made),
        *compared("dataset, from the cache", "", "s", loaded),
    ]


def measure_startup(network: Network, device: torch.device, plan: Plan) -> list[Measurement]:
    """From the start of `python -m agent.run` to the end of its first training step.

    Raises:
        MachineError: a run does not come to its first step.
    """
    load_dataset(RunConfig())  # a run that has to simulate first is no start-up

    def start(precision: str) -> float:
        begun = monotonic()
        told = _agent_run("benchmarks.first_step", network, precision, device, {})
        return float(json.loads(told.splitlines()[-1])["first_step_at"]) - begun

    times = in_turns({p: partial(start, p) for p in plan.precisions}, plan.turns + 1)
    return compared("start-up to first step", network.label, "s", times)


def measure_run(network: Network, device: torch.device, plan: Plan) -> list[Measurement]:
    """`python -m agent.run` from start to end, with one short epoch: all but the training's length.

    Raises:
        MachineError: a run fails.
    """
    load_dataset(RunConfig())
    options = {"epochs": 1, "train_patterns": leaving(plan.steps * network.batch)}

    def start(precision: str) -> float:
        begun = perf_counter()
        _agent_run("agent.run", network, precision, device, options)
        return perf_counter() - begun

    times = in_turns({p: partial(start, p) for p in plan.precisions}, plan.few_turns)
    return compared(f"whole run of {plan.steps} steps", network.label, "s", times)


def measure_export(turns: int) -> list[Measurement]:
    """`python -m agent.export` of a study of `RECORDS` runs, from start to end."""
    with tempfile.TemporaryDirectory() as scratch:
        study = Path(scratch, "study")
        for number in range(RECORDS):
            record = _record(number)
            write_result(record, run_folder(study, record.run_id))

        def export() -> float:
            begun = perf_counter()
            _python("agent.export", [str(study)], Path(scratch))
            return perf_counter() - begun

        times = in_turns({OURS: export}, turns)
    return compared(f"export of {RECORDS} runs", "", "s", times)


def _load(folder: Path) -> float:
    begun = perf_counter()
    load_dataset(RunConfig(data_dir=str(folder)))
    return perf_counter() - begun


def _agent_run(
    module: str, network: Network, precision: str, device: torch.device, options: dict[str, int]
) -> str:
    """What a run of this network in a process and a folder of its own printed."""
    with tempfile.TemporaryDirectory() as scratch:
        config = network.config(precision, device=device.type, output_dir=scratch, **options)
        given = config.model_dump(exclude_unset=True)
        return _python(module, [f"--{key}={value}" for key, value in given.items()], Path(scratch))


def _python(module: str, arguments: list[str], wandb_dir: Path) -> str:
    """What a module printed, called with these arguments, Weights & Biases offline.

    Raises:
        MachineError: its exit status is not 0; with the last line that it wrote.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**kept, "WANDB_MODE": "offline", "WANDB_DIR": str(wandb_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise MachineError(f"python -m {module}: exit status {done.returncode}: {last}")
    return done.stdout


def _record(number: int) -> RunResult:
    """A finished run as the study leaves them, its numbers made up."""
    quality = 0.3 + 0.6 * ((number * 37) % RECORDS) / RECORDS
    config = RunConfig(width=8 + number, seed=number % 3)
    pairs = dict.fromkeys(("ssim", "psnr", "mae", "pearson", "std_ratio"), (quality, quality))
    return RunResult(
        run_id=f"{number:012x}",
        status="finished",
        config=config.model_dump(),
        metrics=Metrics({**pairs}),
        metrics_against="truth",
        model_params=1000 * (number + 1),
        inference_time_s=0.1 + number / 100,
        timing={"train_time_s": 100.0},
        history=[{"epoch": n, "train_loss": 1.0 / n, "val_loss": 1.0 / n} for n in range(1, 21)],
        provenance={"host": "bench", "dataset": "noise"},
    )
