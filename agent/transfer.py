"""Does a ranking made on simulated data hold on a scan? `python -m agent.transfer SWEEP.yaml`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy.stats import bootstrap, kendalltau, rankdata

from agent import local
from agent.analysis.configurations import CONFIGURATION, configurations
from agent.analysis.means import CONFIDENCE
from agent.scheduling.grid import named_grid
from agent.scheduling.slots import add_slot_options, slot_words
from agent.study.csv_files import as_csv
from agent.study.quality import Array, Counts, numbers, words
from agent.study.records import read_records, table
from agent.study.sweepfile import Metric, Sweep, parse_sweep, read_sweep
from fno_runner.cli import Parser, command
from fno_runner.config import N, RunConfig, suggestion
from fno_runner.data import patch_size_of
from fno_runner.errors import UserError
from fno_runner.files import make_folder, write_text_atomically
from fno_runner.score.quantities import QUANTITIES

ROOT = Path("outputs/transfer")
READING = ("scan_data", "scan_entry")
"""Keys that say how a scan's file is read: simulated data have none of it."""
RESAMPLES = 4000
FEWEST = 5
"""Of fewer configurations no rank correlation says anything: four are in the same order, or in the
opposite one, in 2 of 24 cases by chance, and the bootstrap is then sure of it."""

HELP = """\
Run one grid twice, on simulated grid lines and on a scan, and compare how the two rank its
configurations. This answers whether one may choose a configuration on simulated data. What is done
already is not run again.

The comparison is fair if both trainings have equally many patterns: give the sweep a
`train_patterns` that the scan has.
"""

MORE = """\
examples:
  python -m agent.transfer sweeps/transfer.yaml --scan scan.probe1.npz
  python -m agent.transfer sweeps/transfer.yaml --scan scan.probe1.npz --workers 2

It prints both rankings, Kendall's τ with its 95 % interval, and what choosing on simulated data
would have cost on the scan. The means are in transfer.csv.

exit status: 0 done, also where some points failed · 2 bad input, or too few configurations to
compare · 3 this machine cannot run the points · 128 + signal when stopped
"""


@dataclass(frozen=True)
class Transfer:
    """How two rankings of the same configurations agree.

    names, simulated, scanned: the configurations that both have, and their means.
    tau: Kendall's τ-b of the two, each signed so that more is better; low, high: the ends of its
        95 % bootstrap interval over configurations.
    chosen, best: the positions of the configuration that is best on simulated data, and of the one
        that is best on the scan.
    """

    names: list[str]
    simulated: Array
    scanned: Array
    tau: float
    low: float
    high: float
    chosen: int
    best: int


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run both grids and compare them; the exit status."""
    args = _parser().parse_args(argv)
    sweep = read_sweep(args.sweep)
    if sweep.method != "grid":
        raise UserError(f"{args.sweep}: method {sweep.method}; only a grid can be run twice")
    if "scan" in sweep.parameters:
        raise UserError(f"{args.sweep}: has a 'scan' already; --scan names it")
    if "data_seed" in sweep.swept:
        raise UserError(f"{args.sweep}: sweeps data_seed; a ranking is of one data set")
    if not args.scan.is_file():
        raise UserError(f"{args.scan}: no such file")
    options = dict(zip(READING, (args.data, args.entry), strict=True))
    given = {key: text for key, text in options.items() if text is not None}
    size = patch_size_of(RunConfig(scan=str(args.scan), **given))
    on_scan = {"scan": str(args.scan.resolve()), **given}
    folder: Path = make_folder(args.folder or ROOT / f"{sweep.study_id}-{args.scan.stem}")
    measures = (
        _metric("--metric", args.metric, "scan"),
        _metric("--scan-metric", args.scan_metric, "validation"),
    )
    # Both are checked before the first one trains.
    asked = {
        name: _with(sweep, name, on, measure, size)
        for name, on, measure in zip(("simulated", "scan"), ({}, on_scan), measures, strict=True)
    }
    studies = []
    for name, mapping in asked.items():
        studies.append(folder / name)
        file = folder / f"{name}.yaml"
        write_text_atomically(file, json.dumps(mapping, indent=1) + "\n")
        status = local.main([str(file), "--study", str(studies[-1]), *slot_words(args)])
        if status > 1:  # 1: some points failed, which the others can still be compared without
            return status
    simulated, scanned = (
        configurations(table(read_records(study).results)).table for study in studies
    )
    transfer = compare(simulated, scanned, *measures)
    console = Console(highlight=False, soft_wrap=True)
    print_transfer(transfer, *measures, console)
    console.print(f"table    {_write_csv(transfer, folder, *measures)}", markup=False)
    return 0


def compare(
    simulated: pd.DataFrame, scanned: pd.DataFrame, measure: Metric, scan_measure: Metric
) -> Transfer:
    """Compare two tables of configurations, such as `agent.analysis.configurations` makes.

    Raises:
        UserError: fewer than `FEWEST` configurations have both numbers.
    """
    keys = [key for key in CONFIGURATION if key not in READING]

    def by_configuration(configs: pd.DataFrame, metric: Metric) -> dict[tuple[str, ...], float]:
        means = zip(words(configs, keys), numbers(configs, f"{metric.name}_mean"), strict=True)
        return {key: mean for key, mean in means if np.isfinite(mean)}

    of_simulation = by_configuration(simulated, measure)
    of_scan = by_configuration(scanned, scan_measure)
    common = [key for key in of_simulation if key in of_scan]
    if len(common) < FEWEST:
        raise UserError(
            f"{len(common)} configurations have {measure.name} on simulated data and "
            f"{scan_measure.name} on the scan; at least {FEWEST} are needed"
        )
    names = dict(zip(words(simulated, keys), simulated["configuration"], strict=True))
    values = [np.array([means[key] for key in common]) for means in (of_simulation, of_scan)]
    quality = [
        v if m.maximize else -v for v, m in zip(values, (measure, scan_measure), strict=True)
    ]
    low, high = tau_interval(*quality)
    return Transfer(
        names=[names[key] for key in common],
        simulated=values[0],
        scanned=values[1],
        tau=kendall_tau(*quality),
        low=low,
        high=high,
        chosen=int(quality[0].argmax()),
        best=int(quality[1].argmax()),
    )


def kendall_tau(first: Array, second: Array) -> float:
    """Kendall's τ-b (Kendall, 1945); 0 where all of one are equal."""
    # The p-value that comes with it is not used: the asymptotic one takes no time.
    tau = float(kendalltau(first, second, method="asymptotic").statistic)
    return 0.0 if math.isnan(tau) else tau


def tau_interval(first: Array, second: Array) -> tuple[float, float]:
    """Ends of the 95 % percentile bootstrap interval of τ over configurations.

    A resample has configurations twice, which are tied in both; τ-b leaves such pairs out.
    """
    low, high = bootstrap(
        (first, second), kendall_tau, paired=True, vectorized=False, method="percentile",
        n_resamples=RESAMPLES, confidence_level=CONFIDENCE, rng=np.random.default_rng(len(first)),
    ).confidence_interval  # fmt: skip
    return float(low), float(high)


def print_transfer(
    transfer: Transfer, measure: Metric, scan_measure: Metric, console: Console
) -> None:
    """Print both rankings, τ, and what choosing on simulated data would have cost."""
    printed = Table("configuration", f"simulated {measure.name}", "rank",
                    f"scan {scan_measure.name}", "rank")  # fmt: skip
    ranks = [
        _ranks(values, metric)
        for values, metric in ((transfer.simulated, measure), (transfer.scanned, scan_measure))
    ]
    for i in np.argsort(ranks[0], kind="stable"):
        printed.add_row(transfer.names[i], f"{transfer.simulated[i]:.4f}", str(ranks[0][i]),
                        f"{transfer.scanned[i]:.4f}", str(ranks[1][i]))  # fmt: skip
    console.print(printed)
    names, chosen, best = transfer.names, transfer.chosen, transfer.best
    lines = [
        f"Kendall τ  {transfer.tau:.2f}, 95 % interval {transfer.low:.2f} … {transfer.high:.2f} "
        f"({len(names)} configurations)",
        f"verdict    {verdict(transfer)}",
        f"choice     best on simulated data: {names[chosen]}; on the scan its "
        f"{scan_measure.name} is {transfer.scanned[chosen]:.4f}, rank {ranks[1][chosen]}",
        f"           best on the scan: {names[best]}, {transfer.scanned[best]:.4f}",
    ]
    for line in lines:
        console.print(line, markup=False)


def verdict(transfer: Transfer) -> str:
    """What the interval allows to say, and no more."""
    if transfer.low > 0:
        return "the rankings agree: better on simulated data tends to be better on the scan"
    if transfer.high < 0:
        return "the rankings oppose each other: do not choose on simulated data"
    return "undecided: the interval has zero in it; these configurations do not tell"


def _ranks(values: Array, metric: Metric) -> Counts:
    """1 is the best."""
    return rankdata(-values if metric.maximize else values, method="ordinal").astype(int)


def _with(
    sweep: Sweep, name: str, on: dict[str, str], metric: Metric, size: int
) -> dict[str, object]:
    """The sweep on one kind of data, as its file would have it, patterns of one size in both.

    Raises:
        UserError: it is no grid that can be run there.
    """
    mapping = sweep.as_mapping()
    parameters = dict(mapping["parameters"])
    parameters |= {key: {"value": value} for key, value in on.items()}
    if size != N:
        parameters.setdefault("patch_size", {"value": size})
    changed = {
        **mapping,
        "name": f"{sweep.name} {name}",
        "metric": metric.as_mapping(),
        "parameters": parameters,
    }
    named_grid(parse_sweep(changed, name))
    return changed


def _write_csv(transfer: Transfer, folder: Path, measure: Metric, scan_measure: Metric) -> Path:
    path = folder / "transfer.csv"
    columns = {
        "configuration": transfer.names,
        f"simulated_{measure.name}": transfer.simulated,
        f"scan_{scan_measure.name}": transfer.scanned,
    }
    write_text_atomically(path, as_csv(pd.DataFrame(columns)))
    return path


def _metric(option: str, name: str, not_of: str) -> Metric:
    """What a ranking is by, and which way is better.

    Args:
        option: that names it.
        not_of: what the data has none of: a simulation no scan's scores, a scan no validation.

    Raises:
        UserError: there is no such metric, or the data has none, or no way of it is better.
    """
    quantity = QUANTITIES.get(name)
    if quantity is None:
        raise UserError(f"{option} {name}: not known{suggestion(name, QUANTITIES)}")
    if quantity.of == not_of:
        raise UserError(f"{option} {name}: none of this data, only a {not_of} has it")
    if quantity.better is None:
        raise UserError(f"{option} {name}: ranks nothing, neither more nor less of it is better")
    return Metric(name, quantity.better == "higher")


def _parser() -> Parser:
    parser = Parser("python -m agent.transfer", HELP, MORE)
    add = parser.add_argument
    add("sweep", type=Path, metavar="SWEEP.yaml", help="a grid, without data of its own")
    add("--scan", type=Path, required=True, metavar="FILE", help="the scan")
    add("--data", choices=("amplitude", "intensity"),
        help="what the scan's frames hold (default: what its format says)")  # fmt: skip
    add("--entry", metavar="NAME", help="which entry of the scan's file (default: the first)")
    add("--metric", default="ssim_phase", metavar="COLUMN",
        help="what ranks on simulated data (default: ssim_phase)")  # fmt: skip
    add("--scan-metric", default="r_held_out_from_object", metavar="COLUMN",
        help="what ranks on the scan (default: r_held_out_from_object)")  # fmt: skip
    add_slot_options(parser)
    add("--folder", type=Path, metavar="DIR",
        help="where both studies and transfer.csv go "
        f"(default: {ROOT}/<sweep>-<hash>-<scan>)")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
