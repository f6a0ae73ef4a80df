"""What changed between two studies: `python -m agent.compare A B`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from agent.analysis.comparison import as_table, compare
from agent.report.compare_page import print_comparison, render_comparison
from agent.study.csv_files import as_csv
from agent.study.folder import read_study
from agent.study.quality import PHASE_SSIM, R_FROM_OBJECT, R_HELD_OUT, numbers
from agent.study.retimes import runs_of
from fno_runner.cli import Parser, command
from fno_runner.errors import UserError
from fno_runner.files import make_folder, write_text_atomically
from fno_runner.score.quantities import QUANTITIES, Quantity

CSV, PAGE = "comparison.csv", "comparison.html"

HELP = """\
Compare two studies, configuration by configuration, by the seeds that finished in both, on the same
data. The result says what changed in quality, in time and in collapses, with 95 % intervals.

The command finds in the records which keys tell the studies apart (precision, conditioning, …):
those that have one value in A and another one in B. Configurations are compared that agree in all
other keys.
"""

MORE = """\
examples:
  python -m agent.compare STUDY_FLOAT32 STUDY_BF16
  python -m agent.compare STUDY_AMPLITUDE STUDY_PROJECTION --metric psnr_phase

It writes comparison.csv and comparison.html, a page that opens offline.

exit status: 0 done · 2 bad input, or studies without a configuration in common · 3 the files cannot
be written
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Compare two studies; the exit status."""
    args = _parser().parse_args(argv)
    runs_a, runs_b = _runs(args.a), _runs(args.b)
    comparison = compare(runs_a, runs_b, _quality(args.metric, (runs_a, runs_b)))
    names = args.a.resolve().name, args.b.resolve().name
    folder = args.output_dir or args.b / f"compared-with-{names[0]}"
    make_folder(folder)
    write_text_atomically(folder / CSV, as_csv(as_table(comparison)))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_text_atomically(folder / PAGE, render_comparison(comparison, names, now))
    print(f"A: {args.a}\nB: {args.b}")
    print_comparison(comparison, Console(width=None if sys.stdout.isatty() else 160))
    print(f"table  {folder / CSV}\npage   {folder / PAGE}")
    return 0


def _runs(study: Path) -> pd.DataFrame:
    """The runs of a study's folder.

    Raises:
        UserError: it is no study, or has no run.
    """
    read_study(study)
    runs = runs_of(study)
    if runs.empty:
        raise UserError(f"{study}: no run to compare")
    return runs


def _quality(name: str | None, tables: Sequence[pd.DataFrame]) -> Quantity:
    """What the studies are compared by.

    Raises:
        UserError: there is no such metric, or a study has it nowhere.
    """
    # A scan by what it is chosen by: likeness to another method's object is no quality.
    scanned = [np.isfinite(numbers(runs, R_HELD_OUT.column)) for runs in tables]
    by_object = all(
        np.isfinite(numbers(runs, R_FROM_OBJECT.column))[known].all()
        for runs, known in zip(tables, scanned, strict=True)
    )
    wanted = [*([R_FROM_OBJECT] if by_object else []), R_HELD_OUT, PHASE_SSIM]
    if name is not None:
        if name not in QUANTITIES or QUANTITIES[name].better is None:
            raise UserError(f"--metric {name}: known are {', '.join(sorted(QUANTITIES))}")
        wanted = [QUANTITIES[name]]
    for quality in wanted:
        known = [runs[np.isfinite(numbers(runs, quality.column))] for runs in tables]
        if all(len(runs) for runs in known):
            _check_against(quality, known)
            return quality
    raise UserError(
        f"no {' nor '.join(quality.column for quality in wanted)} that both studies have"
    )


def _check_against(quality: Quantity, known: Sequence[pd.DataFrame]) -> None:
    """
    Raises:
        UserError: one study's objects are compared with a truth, the other's with a reference.
    """
    of_a, of_b = ({*runs["metrics_against"].dropna()} for runs in known)
    if quality.of == "object" and of_a and of_b and of_a.isdisjoint(of_b):
        raise UserError(
            f"{quality.column} is against a {' or '.join(sorted(of_a))} in A and a "
            f"{' or '.join(sorted(of_b))} in B: these do not compare; --metric names another "
            f"column, such as train_time_s"
        )


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m agent.compare", HELP, MORE)
    add = parser.add_argument
    add("a", type=Path, metavar="A", help="a study's folder: what was before")
    add("b", type=Path, metavar="B", help="another one: what came after")
    add("--metric", metavar="COLUMN",
        help="what they are compared by (default: ssim_phase; of scans "
        "r_held_out_from_object)")  # fmt: skip
    add("--output-dir", "--output_dir", type=Path, metavar="DIR",
        help="where the files go (default: B/compared-with-A)")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
