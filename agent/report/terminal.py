"""What an export found, and how it is told: counts, failures, fronts, recommendations."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.analysis.configurations import label
from agent.analysis.probabilities import percent
from agent.analysis.series import Series
from agent.report.words import advice, count, writable
from agent.study.coverage import Attempts
from agent.study.records import Rejected, counted
from agent.study.sweepfile import Sweep, point_name
from fno_runner.cli import lines_to
from fno_runner.result import WEIGHTS, Status, run_folder
from fno_runner.score.quantities import QUANTITIES

CSV = "study_results.csv"
CONFIGS = "study_configs.csv"
RECOMMENDATION = "recommendation.json"
MOST_LINES = 10
"""So many failures, refused records and missing points are told in the terminal."""
MOST_LETTERS = 300
"""Of a message there."""

FRONT_COLUMNS = (
    *("model_params", "inference_time_s", "ssim_phase", "psnr_phase", "mae_phase"),
    *("val_ssim_phase", "r_held_out_from_object", "r_held_out", "r_train"),
)
"""The quantities that are told of a front's configurations, where they are known."""
NOT_OF_A_SCAN = ("psnr_phase", "mae_phase")
"""Left out where R is told: how like another method's object a scan's is, one number says."""


@dataclass(frozen=True)
class Material:
    """What there is to export, wherever it was read.

    name: for humans: 'study quickstart-1a2b3c4d', 'sweep team/project/id'.
    source: what it was read from, as the user wrote it.
    folder: where the files go unless told otherwise.
    sweep: None where the runs are of no sweep, or of several.
    table: every run, as in study_results.csv.
    rejected: records that are not believed, with the reason.
    remarks: what else there is to know, a line each.
    """

    name: str
    source: str
    folder: Path
    sweep: Sweep | None
    table: pd.DataFrame
    rejected: list[Rejected]
    remarks: list[str]

    @property
    def counted(self) -> pd.DataFrame:
        """The rows that count."""
        return counted(self.table)

    @property
    def counts(self) -> str:
        """'4 runs: 3 finished, 1 failed; 1 record rejected'."""
        counted = Counter(self.table["status"])
        ways = [*get_args(Status), *sorted(counted.keys() - get_args(Status))]
        ended = ", ".join(f"{counted[way]} {way}" for way in ways if counted[way])
        text = f"{count(len(self.table), 'run')}{': ' if ended else ''}{ended}"
        refused = len(self.rejected)
        return f"{text}; {count(refused, 'record')} rejected" if refused else text


@dataclass(frozen=True)
class ExportResult:
    """What an export found and wrote.

    series: runs that may be compared, with their fronts and recommendations.
    folder: where the files are.
    pictures: what there was something to show in, and report.html.
    grid: the points of the sweep's grid with their runs; None where there is no grid.
    """

    material: Material
    series: list[Series]
    folder: Path
    pictures: list[Path]
    grid: list[Attempts] | None

    @property
    def coverage(self) -> str:
        """'53 of the grid's 54 points are finished'; empty where there is no grid."""
        if self.grid is None:
            return ""
        done = sum(point.done for point in self.grid)
        stopped = (self.material.table["status"] == "stopped").any()
        how = "finished or stopped" if stopped else "finished"
        return f"{done} of the grid's {len(self.grid)} points are {how}"

    @property
    def missing(self) -> list[str]:
        """The names of the grid's points that are not."""
        sweep = self.material.sweep
        if self.grid is None or sweep is None:
            return []
        return [point_name(sweep, attempts.point) for attempts in self.grid if not attempts.done]

    def use(self, series: Series) -> str:
        """The command that reconstructs a scan with a series' recommended network.

        Empty where nothing is recommended, or its weights are not in this folder: a server keeps
        none.
        """
        if series.recommendation is None:
            return ""
        folder = self.material.folder
        run_ids = str(series.configs["run_ids"][series.recommendation.config]).split()
        here = [run_folder(folder, name) for name in run_ids]
        here = [run for run in here if (run / WEIGHTS).is_file()]
        if not here:
            return ""
        # A study that recommends one configuration says itself which of its networks is the best.
        recommended = sum(each.recommendation is not None for each in self.series)
        alone = recommended == 1 and self.folder == folder
        place = folder if alone else here[0]
        return f"python -m fno_runner.reconstruct {shlex.quote(str(place))} SCAN"


def print_export(result: ExportResult, console: Console) -> None:
    """Print counts, failures, fronts, recommendations, and where the files are."""
    lines = lines_to(console)

    def say(text: str) -> None:
        lines(writable(text))

    material = result.material
    say(f"{material.name}: {material.counts}")
    if result.coverage:
        say(result.coverage)
    _say_most([f"missing: {name}" for name in result.missing], "points", say)
    for remark in material.remarks:
        say(remark)
    _print_failures(material.counted, console)
    refused = [f"rejected {rejected.path}: {rejected.reason}" for rejected in material.rejected]
    _say_most(refused, "rejected records", say)
    if len(result.series) > 1:
        say("runs that differ in input, training effort or data are not compared:")
    for series in result.series:
        if series.name:
            console.print(Text(f"\n{series.name}", style="bold"))
        if series.incomplete:
            say(f"{len(series.incomplete)} finished without parameters or {series.reported.label}, "
                f"left out: {first_of(series.incomplete)}")  # fmt: skip
        if series.recommendation is None:
            say(f"no recommendation: {series.why_not}")
            continue
        if series.fronts:  # none where no run tells its parameters
            console.print(_front_table(series))
        for what, text in advice(series):
            say(f"{what:<12} {text}")
        if use := result.use(series):
            say(f"{'use it':<12} {use}")
    say(f"\nruns            {result.folder / CSV}")
    say(f"configurations  {result.folder / CONFIGS}")
    say(f"recommendation  {result.folder / RECOMMENDATION}")
    for picture in result.pictures:
        say(f"{'report' if picture.suffix == '.html' else 'picture':<15} {picture}")


def first_of(names: Sequence[str]) -> str:
    """'a, b, c, …': the first `MOST_LINES`."""
    return ", ".join(names[:MOST_LINES]) + (", …" if len(names) > MOST_LINES else "")


def unfinished(runs: pd.DataFrame, most: int, letters: int) -> list[tuple[str, str, str, str]]:
    """Of runs that did not finish the name, the configuration, the status and the message.

    Args:
        most: so many runs. letters: of a message.
    """
    lost = runs[runs["status"] != "finished"].head(most)
    return [
        (
            run["run_id"] or f"W&B {run['wandb_id']}",
            "–" if run["architecture"] is None else f"{label(run)} seed {run['seed']}",
            run["status"],
            (run["error"] or "–")[:letters],
        )
        for _, run in lost.iterrows()
    ]


def _say_most(lines: list[str], what: str, say: Callable[[str], None]) -> None:
    for line in lines[:MOST_LINES]:
        say(line)
    if len(lines) > MOST_LINES:
        say(f"… and {len(lines) - MOST_LINES} more {what}")


def _print_failures(runs: pd.DataFrame, console: Console) -> None:
    failures = unfinished(runs, MOST_LINES, MOST_LETTERS)
    if not failures:
        return
    printed = Table(title="not finished", title_justify="left")
    for heading in ("run", "configuration", "status", "error"):
        printed.add_column(heading)
    for failure in failures:
        # Text: a message, or a server's word, may hold what rich would take for markup.
        printed.add_row(*map(Text, failure))
    if more := int((runs["status"] != "finished").sum()) - len(failures):
        printed.caption = f"and {more} more, in {CSV}"
    console.print(printed)


def _front_table(series: Series) -> Table:
    """The first front, cheapest configuration first; ➤ is the recommended one."""
    front = series.fronts[0]
    known = series.configs.columns[series.configs.notna().any()]
    columns = {"model_params": "model_params"} | {c: f"{c}_mean" for c in FRONT_COLUMNS[1:]}
    left_out = NOT_OF_A_SCAN if front.quality.of == "scan" else ()
    shown = {
        QUANTITIES[c]: column
        for c, column in columns.items()
        if column in known and c not in left_out
    }
    printed = Table(
        title=f"front: trainable parameters against {front.quality.label}", title_justify="left"
    )
    for heading in ("", "configuration"):
        printed.add_column(heading, min_width=len(heading))
    # Text: [s] is a unit, no markup.
    for heading in ("seeds", *(quantity.heading for quantity in shown), "on the front"):
        printed.add_column(Text(heading), justify="right")
    for position in front.members:
        row = series.configs.iloc[position]
        chosen = series.recommendation is not None and position == series.recommendation.config
        probability = front.probability[position]
        printed.add_row(
            "➤" if chosen else "",
            *(row["configuration"], str(row["n_seeds"])),
            *("–" if pd.isna(row[c]) else q.shown(row[c]) for q, c in shown.items()),
            "–" if pd.isna(probability) else percent(probability),
            style="bold" if chosen else "",
        )
    return printed
