"""The inference of a study's models, timed again on one machine: `python -m agent.retime STUDY`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from agent.study.folder import STUDIES, newest_study, read_study
from agent.study.records import MEASURED, read_records
from agent.study.retimes import (
    CONFIRMED,
    NEAR,
    UNSETTLED,
    Model,
    Protocol,
    Retiming,
    Times,
    is_settled,
    write_retiming,
)
from fno_runner.cli import Parser, command, count_of
from fno_runner.config import RunConfig
from fno_runner.data import NOT_OF_DATA, load_dataset
from fno_runner.data.dataset import Dataset
from fno_runner.device import allow_tf32, pick_device
from fno_runner.errors import DivergedError, MachineError, UserError
from fno_runner.provenance import device_name
from fno_runner.reconstruct.inference import predictor_for
from fno_runner.reconstruct.weights import load_weights
from fno_runner.result import WEIGHTS, RunResult, run_folder
from fno_runner.score.flops import flops_per_pattern
from fno_runner.score.timing import Enough, Timing, lengthen_pass, timed_predict
from fno_runner.train.network import build_model

ROUNDS = 60
"""At most so many visits to a model."""
VISIT: Enough = ((1, 1.0), (100, 0.0))
"""How often a pass is repeated at each visit: short visits, many of them. A machine that others
share is slow for some seconds, or a minute, at a time, which no visit sees past."""
AT_LEAST_S = 300.0
"""No model is done sooner [s]: a machine that others share may have one pattern take a third longer
for minutes on end, and all visits of those minutes agree."""
BUSY = 0.5
"""A load above this share of the cores, before anything is timed, is worth a warning."""

HELP = f"""\
Time the inference of all saved models of a study again, one after the other, on this machine.

Times of runs that shared a machine, or that come from several machines, are hard to compare. This
command times every model alone, in the way of a run (docs/performance.md). It visits all models for
a second or two each, then all of them again, and so on. A model's fastest visit counts. This goes
on for five minutes at least, and until each model's {CONFIRMED} fastest visits agree to {NEAR:.0%},
so that a slow minute does no harm, but never beyond --rounds visits. Leave the machine alone
meanwhile.

The command writes STUDY/retime.json. The export then takes the times and the device_name from
there; its column timed_by says so. The records stay as they are.
"""

MORE = """\
examples:
  python -m agent.retime                     the newest study on this disk
  python -m agent.retime STUDY --rounds 10   in a hurry: 10 visits to each at most
  python -m agent.retime STUDY --device cpu  on the CPU, whatever the runs were made on

environment: OMP_NUM_THREADS (default: all cores), CUDA_VISIBLE_DEVICES.

exit status: 0 every run that has a result was timed · 1 some could not be, and are named · 2 bad
input, or no model at all · 3 the device is not there, or the disk refuses · 130 stopped, nothing
was written
"""


def retime(
    study: Path, device: torch.device, rounds: int, console: Console
) -> tuple[Retiming, dict[str, str]]:
    """Time all models of a study, each once a round until its time is settled; nothing is written.

    Args:
        rounds: at most so many.
        console: where to show how far it is.

    Returns:
        the times, and run_id -> why a run that has a result could not be timed.

    Raises:
        MachineError: the cache of simulated data cannot be written.
    """
    results = [r for r in read_records(study).results if r.status in MEASURED]
    load = os.getloadavg()[0]
    refused: dict[str, str] = {}
    timings: dict[str, list[Timing]] = {result.run_id: [] for result in results}
    last_dataset: dict[str, Dataset] = {}
    begin = perf_counter()

    def done(name: str) -> bool:
        patient = perf_counter() - begin >= AT_LEAST_S
        return name in refused or (patient and _settled(timings[name]))

    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("models settled, after five minutes at least", total=len(results))
        for number in range(1, rounds + 1):
            for result in results:
                name = result.run_id
                if done(name):
                    continue
                try:
                    timing = _time(study, result, device, last_dataset)
                except MachineError:
                    raise
                except (UserError, DivergedError, RuntimeError) as error:
                    refused[name] = str(error)
                    continue
                timings[name].append(timing)
                if progress.disable:
                    times = f"{timing['inference_time_s']:.4g} s a pass"
                    times += f", {timing['latency_s']:.4g} s alone"
                    console.print(f"round {number}, {name}: {times}")
                progress.update(task, completed=sum(map(done, timings)))
    models = {
        result.run_id: _model(result, timings[result.run_id], device)
        for result in results
        if result.run_id not in refused
    }
    warm_up = predictor_for(device).warm_up_slices
    protocol = Protocol(rounds=rounds, warm_up=warm_up, enough=list(VISIT), load=load)
    return Retiming(protocol=protocol, models=models), refused


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Retime a study; the exit status."""
    try:
        return _main(_parser().parse_args(argv))
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130


def _main(args: argparse.Namespace) -> int:
    study = args.study or newest_study()
    read_study(study)
    device = pick_device(args.device)
    console = Console(soft_wrap=True, highlight=False)
    name = device_name(device)
    console.print(f"{study}: timed on {name}, {torch.get_num_threads()} threads", markup=False)
    _warn(study, name)

    retiming, refused = retime(study, device, args.rounds, console)
    for run_id, reason in refused.items():
        print(f"error: {run_id} is not timed: {reason}", file=sys.stderr)
    if not retiming.models:
        raise UserError(f"{study}: no model that could be timed")
    path = write_retiming(study, retiming)
    settled = sum(model.settled for model in retiming.models.values())
    console.print(f"{settled} of {len(retiming.models)} models settled: {path}", markup=False)
    if restless := len(retiming.models) - settled:
        print(
            f"warning: {restless} of {len(retiming.models)} models are not settled, as {UNSETTLED}"
            ": leave the machine alone, or ask for more --rounds",
            file=sys.stderr,
        )
    return 1 if refused else 0


def _warn(study: Path, name: str) -> None:
    """Say what makes times doubtful, before they are taken."""
    results = read_records(study).results
    made_on = {str(r.provenance.get("device_name")) for r in results if r.status in MEASURED}
    if others := made_on - {name}:
        print(f"note: runs were made on {', '.join(sorted(others))}", file=sys.stderr)
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > BUSY * cores:
        print(f"warning: the machine is busy (load {load:.1f}, {cores} cores)", file=sys.stderr)


def _dataset(config: RunConfig, last: dict[str, Dataset]) -> Dataset:
    """A configuration's dataset; `last` keeps it for the next one, which mostly has the same."""
    key = config.model_dump_json(exclude=NOT_OF_DATA)
    if key not in last:
        last.clear()
        last[key] = load_dataset(config)
    return last[key]


def _time(study: Path, result: RunResult, device: torch.device, last: dict[str, Dataset]) -> Timing:
    """One visit to one model, which is on the device no longer than that."""
    config = result.run_config
    dataset = _dataset(config, last)
    model = build_model(config, dataset, device)
    scale = load_weights(run_folder(study, result.run_id) / WEIGHTS, model)
    allow_tf32(config.precision == "tf32")
    patterns, slice_size = dataset.of_first_object, config.infer_batch_size
    _, timing = timed_predict(model, patterns, scale, device, slice_size, VISIT)
    lengthen_pass(timing, result.timing.get("overlap_time_s") or 0.0)
    return timing | {"flops_per_pattern": flops_per_pattern(model, dataset.test.probe)}


def _model(result: RunResult, timings: list[Timing], device: torch.device) -> Model:
    """The fastest pass and the fastest pattern alone, each with what its visit says of it."""
    times: dict[str, Any] = {**_fastest(timings, "inference_time_s")}
    times |= {k: v for k, v in _fastest(timings, "latency_s").items() if k.startswith("latency_")}
    started = result.provenance.get("started")
    return Model(
        run_started=None if started is None else str(started),
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        host=platform.node(),
        torch=torch.__version__,
        times=Times(**times, device_name=device_name(device)),
        rounds_s=[(timing["inference_time_s"], timing["latency_s"]) for timing in timings],
    )


def _fastest(timings: Sequence[Timing], key: str) -> Timing:
    return min(timings, key=lambda timing: timing[key])


def _settled(timings: Sequence[Timing]) -> bool:
    keys = ("inference_time_s", "latency_s")
    return all(is_settled([timing[key] for timing in timings]) for key in keys)


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m agent.retime", HELP, MORE)
    add = parser.add_argument
    add("study", nargs="?", type=Path, metavar="STUDY_DIR",
        help=f"the study (default: the newest folder in {STUDIES})")  # fmt: skip
    add("--rounds", type=count_of(100), default=ROUNDS, metavar="N",
        help=f"visits to each model at most (default: {ROUNDS})")  # fmt: skip
    add("--device", choices=("auto", "cpu", "cuda"), default="auto",
        help="where to compute (default: a GPU if there is one)")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
