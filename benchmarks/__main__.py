"""`python -m benchmarks`: how fast this is, against a plain eager model and the machine's floor."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.beside import measure_beside
from benchmarks.growth import ladder, measure_growth
from benchmarks.growth_plot import draw_growth
from benchmarks.inference import measure_inference
from benchmarks.machine import Rates, describe, measure_rates
from benchmarks.measurement import Measurement
from benchmarks.plan import Network, Plan, network_named, plan, precisions
from benchmarks.processes import measure_dataset, measure_export, measure_run, measure_startup
from benchmarks.report import print_report, write_report
from benchmarks.training import measure_compiled, measure_memory, measure_replicates, measure_step
from benchmarks.turns import one_heap
from fno_runner.cli import Parser, command
from fno_runner.device import pick_device
from fno_runner.errors import UserError

HELP = """\
Measure what a user waits for, and write a table: training step and epoch, inference, memory of
training, compiled blocks, several processes and several networks at once, dataset, start-up, a
whole run, export. Networks are ours in each precision and, in turns with them, the same ones as a
competent user writes them with neuraloperator.
"""

MORE = """\
examples:
  python -m benchmarks                         everything; leave the machine alone meanwhile
  python -m benchmarks --quick                 the smallest networks, few turns
  python -m benchmarks --only step,inference   these quantities
  python -m benchmarks --growth                cost against width, modes, batch and patterns: a plot

exit status: 0 done · 2 bad input · 3 this machine cannot do it
"""

GROWTH = Path("docs/pictures/growth.png")
BUSY = 0.3
"""A load a core from which on other programs spoil the numbers."""

Job = Callable[[torch.device, Rates, Plan], Iterable[Measurement]]


def _each(measure: Callable[[Network, torch.device, Rates, Plan], list[Measurement]]) -> Job:
    """A measurement of one network, for every network of a plan."""

    def job(device: torch.device, rates: Rates, plan: Plan) -> Iterator[Measurement]:
        for network in plan.networks:
            yield from measure(network, device, rates, plan)

    return job


def _on_a_gpu(job: Job) -> Job:
    """A measurement of what is done on a GPU only."""

    def checked(device: torch.device, rates: Rates, plan: Plan) -> Iterable[Measurement]:
        if device.type == "cpu":
            raise UserError("it is done on a GPU only")
        return job(device, rates, plan)

    return checked


QUANTITIES: dict[str, Job] = {
    "step": _each(measure_step),
    "inference": _each(measure_inference),
    "memory": lambda device, _, plan: measure_memory(plan.networks[-1], device, plan.sides),
    "compiled": _on_a_gpu(_each(measure_compiled)),
    "processes": _on_a_gpu(_each(measure_beside)),
    "replicates": _on_a_gpu(
        lambda device, rates, plan: measure_replicates(plan.networks[0], device, rates, plan)
    ),
    "dataset": lambda _, __, plan: measure_dataset(plan.few_turns),
    "startup": lambda device, _, plan: measure_startup(plan.networks[0], device, plan),
    "run": lambda device, _, plan: measure_run(plan.networks[0], device, plan),
    "export": lambda _, __, plan: measure_export(plan.few_turns),
}


def measure(
    names: Iterable[str], device: torch.device, rates: Rates, plan: Plan, console: Console
) -> list[Measurement]:
    """The quantities of these names; one that cannot be had here is left out, with a line."""
    measurements: list[Measurement] = []
    for name in names:
        try:
            for measurement in QUANTITIES[name](device, rates, plan):
                measurements.append(measurement)
                console.print(measurement.line(), highlight=False, soft_wrap=True)
        except UserError as error:
            console.print(f"{name} is left out: {error}", markup=False, soft_wrap=True)
    return measurements


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write; the exit status."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    args = _parser().parse_args(argv)
    device = pick_device(args.device)
    one_heap()  # trainings are held in threads here; a run's is in the main one
    load = os.getloadavg()[0]
    if load > BUSY * (os.cpu_count() or 1):
        print(f"warning: the machine is busy (load {load:.1f})", file=sys.stderr)
    rates = measure_rates(device, precisions(device))
    machine = describe(device, rates, load)
    if args.growth is not None:
        grown = []
        for grown_one in measure_growth(device, rates, ladder(device)):
            grown.append(grown_one)
            console.print(grown_one.measurement.line(), highlight=False, soft_wrap=True)
        where = machine["processor"] if device.type == "cpu" else machine["device"]
        draw_growth(grown, f"{where}: {machine['cores']}", args.growth)
        console.print(str(args.growth), markup=False, soft_wrap=True)
        measurements = [grown_one.measurement for grown_one in grown]
    else:
        sizes = plan(device, quick=args.quick)
        if args.networks:
            sizes = replace(sizes, networks=args.networks)
        if args.precisions:
            sizes = replace(sizes, precisions=args.precisions)
        measurements = measure(args.only, device, rates, sizes, console)
    print_report(measurements, machine, console)
    for path in write_report(measurements, machine, args.output):
        console.print(str(path), markup=False, soft_wrap=True)
    return 0


def _quantities(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in QUANTITIES:
            raise argparse.ArgumentTypeError(f"'{name}': known are {', '.join(QUANTITIES)}")
    return names


def _precisions(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in (known := precisions(torch.device("cuda"))):
            raise argparse.ArgumentTypeError(f"'{name}': known are {', '.join(known)}")
    return names


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(network_named(word) for word in text.split(","))


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks", description=HELP, epilog=MORE)
    add = parser.add_argument
    add("--quick", action="store_true", help="the smallest networks and few turns: a look")
    add("--only", type=_quantities, default=list(QUANTITIES), metavar="A,B",
        help=f"of {', '.join(QUANTITIES)} (default: all)")  # fmt: skip
    add("--networks", type=_networks, metavar="A,B",
        help="of these sizes (width and modes) only, such as fno-32-12,hybrid-64-24")  # fmt: skip
    add("--precisions", type=_precisions, metavar="A,B",
        help="of ours only in these, such as bf16 (default: all that the device has)")  # fmt: skip
    add("--growth", type=Path, nargs="?", const=GROWTH, metavar="PNG",
        help=f"measure growth instead, and draw it (default: {GROWTH})")  # fmt: skip
    add("--device", choices=["auto", "cpu", "cuda"], default="auto",
        help="where to compute (default: auto, a GPU if there is one)")  # fmt: skip
    add("--output", type=Path, default=Path("outputs/bench"), metavar="DIR",
        help="where the CSV and the Markdown go (default: outputs/bench)")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
