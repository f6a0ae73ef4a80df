"""All runs of a study as a table, a picture and a recommendation: `python -m agent.export`."""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.pareto import MUST_AGREE, PHASE_SSIM, Series, label, series
from agent.plots import pareto_figure, save_png
from agent.records import Rejected, read_records, table
from agent.study import STUDIES, StudyInfo, newest_study, read_study
from agent.sweepfile import points
from fno_runner.arguments import Parser
from fno_runner.config import IN_NO_RUN_ID, RunConfig
from fno_runner.errors import UserError
from fno_runner.files import make_folder, write_text_atomically
from fno_runner.result import Status

CSV = "study_results.csv"
PLOT = "pareto_plot.png"
MOST_LINES = 10
"""So many failures and refused records are told in the terminal; the table has them all."""
NO_PART_OF_A_POINT = ("output_dir", "data_dir", "device")
"""Keys that a run may have otherwise than its point says and still be that point's run."""

FRONT_COLUMNS = {
    "model_params": ("parameters", "{:,}"),
    "inference_time_s": ("inference [s]", "{:.3g}"),
    "ssim_phase": ("phase SSIM", "{:.4f}"),
    "psnr_phase": ("phase PSNR [dB]", "{:.2f}"),
    "mae_phase": ("phase MAE [rad]", "{:.4f}"),
    "r_held_out": ("R held-out", "{:.4f}"),
    "r_train": ("R training", "{:.4f}"),
}

HELP = """\
Write what the runs of a study came to: study_results.csv (one row a run, failed ones included) and
pareto_plot.png, and print the front and the recommended configuration. The study is only read.

examples:
  python -m agent.export                         the newest study
  python -m agent.export STUDY --tolerance 0.01  within 0.01 of the best is good enough

exit status: 0 done · 1 no finished run to recommend · 2 bad input · 3 the files cannot be written
"""


@dataclass(frozen=True)
class ExportResult:
    """What an export found and wrote.

    table: every record that is believed, as in study_results.csv.
    rejected: records that are not, with the reason.
    series: runs that may be compared, with their fronts and recommendations.
    plot: None where there is nothing to draw.
    points, points_finished: of the sweep's grid; None where the study is of no grid.
    """

    study: StudyInfo
    table: pd.DataFrame
    rejected: list[Rejected]
    series: list[Series]
    csv: Path
    plot: Path | None
    points: int | None
    points_finished: int | None

    @property
    def statuses(self) -> dict[str, int]:
        """How many runs ended in each way, in a fixed order, without zeros."""
        counted = Counter(self.table["status"])
        return {name: counted[name] for name in get_args(Status) if counted[name]}


def export(
    study: Path, output_dir: Path | None = None, tolerance: float | None = None
) -> ExportResult:
    """Read a study's records and write its table and its picture, each whole or not at all.

    The same records give the same bytes.

    Args:
        output_dir: where the two files go; the study's folder if None.
        tolerance: how far from the best is near enough, absolute, in the criterion's unit; None
            for the criterion's own (phase SSIM 0.02, R on held-out frames 0.002).

    Raises:
        UserError: `study` is not a study; nothing was written.
        MachineError: the files cannot be written.
    """
    info = read_study(study)
    records = read_records(study)
    runs = table(records.results)
    all_series = series(runs, tolerance)
    folder = make_folder(output_dir or study)
    csv, plot = folder / CSV, folder / PLOT
    write_text_atomically(csv, runs.to_csv(index=False, na_rep="NaN", lineterminator="\n"))
    wanted, finished = _points(info, runs)
    result = ExportResult(info, runs, records.rejected, all_series, csv, plot, wanted, finished)
    if any(len(one.runs) for one in all_series):
        save_png(pareto_figure(all_series, _counts(result)), plot)
        return result
    # A picture of an earlier export would show what the table no longer says.
    plot.unlink(missing_ok=True)
    return ExportResult(info, runs, records.rejected, all_series, csv, None, wanted, finished)


def report(result: ExportResult, console: Console) -> None:
    """Print counts, failures, fronts, recommendations, and where the files are."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(f"study {result.study.study_id}: {_counts(result)}")
    if result.points is not None:
        say(f"{result.points_finished} of the grid's {result.points} points are finished")
    _print_failures(result, console)
    for rejected in result.rejected[:MOST_LINES]:
        say(f"rejected {rejected.path}: {rejected.reason}")
    if len(result.rejected) > MOST_LINES:
        say(f"… and {len(result.rejected) - MOST_LINES} more rejected records")
    if len(result.series) > 1:
        say("runs that differ in input, training effort or data are not compared:")
    for one in result.series:
        if one.name:
            console.print(Text(f"\n{one.name}", style="bold"))
        if one.incomplete:
            left_out = f"{len(one.incomplete)} finished without parameters or {one.criterion.name}"
            more = ", …" if len(one.incomplete) > MOST_LINES else ""
            say(f"{left_out}, left out: {', '.join(one.incomplete[:MOST_LINES])}{more}")
        if one.recommendation is None:
            say("no finished run to compare")
            continue
        console.print(_front_table(one))
        for line in recommendation_lines(one):
            say(line)
    say(f"\ntable  {result.csv}")
    if result.plot is not None:
        say(f"plot   {result.plot}")


def recommendation_lines(one: Series) -> list[str]:
    """A series' recommendation in words: the run, the rule, the margin, the runner-up."""
    chosen = one.recommendation
    if chosen is None:
        return []

    def describe(position: int) -> str:
        run = one.runs.iloc[position]
        return (
            f"{label(run)} (run {run['run_id']}): {run['model_params']:,} parameters, "
            f"{one.criterion.name} {run[one.criterion.column]:.4f}"
        )

    worse = "below" if one.criterion.better == "higher" else "above"
    margin = f"{chosen.margin:.4f} {worse} the best, {describe(chosen.best)}"
    second = "none within the tolerance" if chosen.runner_up is None else describe(chosen.runner_up)
    return [
        f"recommended  {describe(chosen.run)}",
        f"rule         {chosen.rule}",
        f"margin       {'it is the best' if chosen.run == chosen.best else margin}",
        f"runner-up    {second}",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Export a study; the exit status."""
    try:
        args = _parser().parse_args(argv)
        result = export(args.study or newest_study(), args.output_dir, args.tolerance)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    # Away from a terminal rich assumes 80 columns and breaks the table's words.
    width = None if sys.stdout.isatty() else 140
    report(result, Console(width=width))
    if any(one.recommendation for one in result.series):
        return 0
    print(f"error: {result.study.folder}: no finished run to recommend", file=sys.stderr)
    return 1


def _points(info: StudyInfo, runs: pd.DataFrame) -> tuple[int | None, int | None]:
    """How many points the study's grid has, and how many of them have a finished run."""
    if info.sweep is None or info.sweep.method != "grid":
        return None, None
    # Compared by value: a run's name would need the data files, which may be on another machine.
    keys = [key for key in info.sweep.parameters if key not in NO_PART_OF_A_POINT]
    asked = {tuple(point[key] for key in keys) for point in points(info.sweep)}
    finished = runs[runs["status"] == "finished"]
    done = {tuple(run) for run in finished.reindex(columns=keys).to_numpy().tolist()}
    return len(asked), len(asked & done)


def _counts(result: ExportResult) -> str:
    n = len(result.table)
    ended = ", ".join(f"{count} {status}" for status, count in result.statuses.items())
    text = f"{n} run{'' if n == 1 else 's'}{': ' if ended else ''}{ended}"
    n = len(result.rejected)
    return f"{text}; {n} record{'' if n == 1 else 's'} rejected" if n else text


def _print_failures(result: ExportResult, console: Console) -> None:
    failures = result.table[result.table["status"] != "finished"]
    if failures.empty:
        return
    printed = Table(title="not finished", title_justify="left")
    for heading in ("run", "configuration", "status", "error"):
        printed.add_column(heading)
    for _, run in failures.head(MOST_LINES).iterrows():
        # Text: a message may hold what rich would take for markup.
        printed.add_row(
            run["run_id"], Text(label(run)), run["status"], Text(run["error"][:300] or "–")
        )
    if len(failures) > MOST_LINES:
        printed.caption = f"and {len(failures) - MOST_LINES} more, in {CSV}"
    console.print(printed)


def _front_table(one: Series) -> Table:
    """The front of parameters against the criterion, cheapest first; ➤ is the recommended run."""
    in_label = ("architecture", "input_transform", "modes", "width")
    varied = [
        key
        for key in RunConfig.model_fields
        if key not in (*in_label, *MUST_AGREE, *IN_NO_RUN_ID) and one.runs[key].nunique() > 1
    ]
    measured = {
        key: spelt
        for key, spelt in FRONT_COLUMNS.items()
        if key in one.runs and one.runs[key].notna().any()
    }
    printed = Table(
        title=f"front: trainable parameters against {one.criterion.name}", title_justify="left"
    )
    printed.add_column("")
    printed.add_column("run", no_wrap=True)
    for heading in ("configuration", *varied):
        printed.add_column(heading)
    for heading, _ in measured.values():
        printed.add_column(Text(heading), justify="right")  # [s] is a unit, no markup
    for position in one.front:
        run = one.runs.iloc[position]
        chosen = one.recommendation is not None and position == one.recommendation.run
        printed.add_row(
            "➤" if chosen else "",
            *(run["run_id"], label(run), *(str(run[key]) for key in varied)),
            *("–" if run[key] is None else form.format(run[key])
              for key, (_, form) in measured.items()),
            style="bold" if chosen else "",
        )  # fmt: skip
    return printed


def _tolerance(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}': allowed is a number ≥ 0")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m agent.export",
        description=HELP,
    )
    add = parser.add_argument
    add("study", type=Path, nargs="?", metavar="STUDY_DIR",
        help=f"the study's folder (default: the newest in {STUDIES})")  # fmt: skip
    add("--output-dir", "--output_dir", type=Path, metavar="DIR",
        help="where the files go (default: the study's folder)")  # fmt: skip
    add("--tolerance", type=_tolerance, metavar="X",
        help="recommend the cheapest run within X of the best, absolute "
        f"(default: phase SSIM {PHASE_SSIM.tolerance}; R on held-out frames of a scan without "
        "a reference 0.002)")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
