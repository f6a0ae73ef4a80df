"""What a server's sweep still lacks, and running it here: `python -m agent.retry`."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.analysis.choice_options import add_choice_options, add_settle_options, settling_of
from agent.scheduling.driver import Driver
from agent.scheduling.grid import named_grid
from agent.scheduling.per_gpu import points_per_gpu
from agent.scheduling.queue import open_queue
from agent.scheduling.slots import Slot, add_slot_options, asked_slots
from agent.server.client import Place, Server, ServerRun, parse_sweep_place
from agent.server.rows import server_row, with_records_here
from agent.server.stop_request import SWEEP_ID
from agent.study.coverage import attempts
from agent.study.folder import STUDIES, adopt_study, server_study
from agent.study.records import ACTIVE, assemble, counted, read_records, table
from agent.study.sweepfile import Point, Sweep, point_name, points
from fno_runner.cli import Parser, command, lines_to
from fno_runner.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from agent.analysis.settle import Settling

HELP = """\
List the points of a sweep's grid that have no finished run on the server, and what became of them.
With --run, run them here, each in a process of its own, as runs of the same sweep.
"""

MORE = f"""\
A point that runs now is left alone, and a point that was stopped at the server on purpose counts as
done. A point that has its finished record in {STUDIES}/SWEEP_ID, but
not on the server, is not run again: python -m agent.sync sends it. All others are run, also those
that failed, diverged or collapsed, which the server gives to no agent again. Use the command on one
machine at a time: two of them, unlike agents, may run the same point twice.

examples:
  python -m agent.retry team/fno-hyperparam-study/a1b2c3d4          what is missing, and why
  python -m agent.retry team/fno-hyperparam-study/a1b2c3d4 --run --workers 2
  python -m agent.retry team/fno-hyperparam-study/a1b2c3d4 --run --per-gpu 1   on every GPU
  python -m agent.retry team/fno-hyperparam-study/a1b2c3d4 --run --settle 0.9
                                                 then add seeds until the choice is 90 % sure

environment: WANDB_API_KEY (or wandb login), WANDB_BASE_URL (a server of your own), WANDB_MODE
(default: online), WANDB_RUN_GROUP (default: that of the sweep's runs), CUDA_VISIBLE_DEVICES limits
the GPUs, OMP_NUM_THREADS (default: the cores shared out among the points that run at a time).

exit status: 0 nothing is missing, or no longer · 1 points are missing, or the choice is not settled
· 2 bad input, or a server that cannot be read · 3 this machine cannot run them · 128 + signal when
stopped
"""

TO_RUN, RUNS_NOW, NOT_SENT = "to run", "runs now", "not sent"


@dataclass(frozen=True)
class Missing:
    """A point of the grid without a finished run on the server.

    what: `to run`, `runs now`, or `not sent` (its finished record is here).
    state, error: of its newest run, as in the table of an export.
    """

    point: Point
    what: str
    state: str
    error: str


def find_missing(sweep: Sweep, runs: Sequence[ServerRun], folder: Path) -> list[Missing]:
    """The points of a grid that no run of the server has finished, in the grid's order.

    Args:
        runs: all runs of the sweep, oldest first.
        folder: the sweep's study on this disk, if there is one.

    Raises:
        UserError: the folder's records cannot be listed.
    """
    rows = [server_row(run) for run in runs]
    there = attempts(sweep, assemble([row.parts for row in rows]))
    here = attempts(sweep, table(read_records(folder).results))
    missing = []
    for on_server, local in zip(there, here, strict=True):
        if on_server.done:
            continue
        own = [rows[row] for row in on_server.rows]
        what = NOT_SENT if local.done else TO_RUN
        if any(each.run.state in ACTIVE for each in own):
            what = RUNS_NOW
        last = own[-1] if own else None
        state, error = (last.cell("status"), last.cell("error")) if last else ("never begun", "")
        missing.append(Missing(on_server.point, what, str(state), str(error)))
    return missing


@command
def main(argv: Sequence[str] | None = None) -> int:
    """List, or run, what a sweep lacks; the exit status."""
    args = _parser().parse_args(argv)
    place = parse_sweep_place(args.sweep)
    server = Server()
    sweep = server.sweep(place)
    if sweep.method != "grid":
        raise UserError(f"{place}: method {sweep.method} has no list of points; only grid has")
    folder = server_study(str(place.sweep))
    console = Console(width=None if sys.stdout.isatty() else 140)
    runs = server.runs(place)
    missing = find_missing(sweep, runs, folder)
    _list(console, place, sweep, missing, folder)
    wanted = [entry.point for entry in missing if entry.what == TO_RUN]

    def runs_now() -> pd.DataFrame:
        """All runs of the sweep, there and here, that count."""
        nonlocal runs
        try:
            runs = server.runs(place)
        except UserError as error:
            # What runs here goes on meanwhile, and its records tell how it ended.
            print(f"warning: {error}; taken as it was when last asked", file=sys.stderr)
        merged, _, _ = with_records_here(runs, [folder.name])
        return counted(merged.table).reset_index(drop=True)

    settling = settling_of(args, sweep, runs_now)
    if args.run and (wanted or settling is not None):
        variables = _variables(place, runs)
        auto = partial(points_per_gpu, sweep, given=variables, say=lines_to(console))
        slots = asked_slots(args, variables, auto)
        status = _run(console, sweep, wanted, folder, slots, variables, settling)
        if status:
            return status
        missing = find_missing(sweep, server.runs(place), folder)
        _list(console, place, sweep, missing, folder)
    elif settling is not None:
        lines_to(console)(settling.describe(()))
    if not args.run and (wanted or settling is not None):
        lines_to(console)("--run runs what is to run, on this machine")
    return 1 if missing or (settling is not None and not settling.is_settled) else 0


def _run(
    console: Console,
    sweep: Sweep,
    wanted: Sequence[Point],
    folder: Path,
    slots: Sequence[Slot],
    variables: Mapping[str, str],
    settling: Settling | None,
) -> int:
    """Run points here, and what settles the choice; the exit status, 0 if all of them were run."""
    asked = {tuple(point.values()) for point in wanted}
    grid = {name: p for name, p in named_grid(sweep).items() if tuple(p.values()) in asked}
    adopt_study(folder, sweep)
    queue = open_queue(None, folder, sweep)
    more = None if settling is None else settling.more
    driver = Driver(folder, sweep, grid, queue, slots, given=variables, more=more)
    driver.run(console, (len(grid), 0, 0), retry_failed=True)
    if settling is not None:
        lines_to(console)(settling.describe(driver.ended.keys() - grid.keys()))
    return driver.early_end() or 0


def _variables(place: Place, runs: Sequence[ServerRun]) -> dict[str, str]:
    """The environment that makes a run one of the sweep's, beside those that are there."""
    groups = Counter(run.group for run in runs if run.group)
    defaults = {"WANDB_MODE": "online"}
    if groups:
        defaults["WANDB_RUN_GROUP"] = groups.most_common(1)[0][0]
    own = {"WANDB_ENTITY": place.entity, "WANDB_PROJECT": place.project}
    return {**defaults, **os.environ, **own, SWEEP_ID: str(place.sweep)}


def _list(
    console: Console, place: Place, sweep: Sweep, missing: Sequence[Missing], folder: Path
) -> None:
    if missing:
        printed = Table(title="no finished run on the server", title_justify="left")
        for heading in ("point", "", "newest run", "why"):
            printed.add_column(heading)
        for entry in missing:
            name = point_name(sweep, entry.point)
            printed.add_row(*map(Text, (name, entry.what, entry.state, entry.error[:300])))
        console.print(printed)
    total = len(points(sweep))
    counts = Counter(entry.what for entry in missing)
    words = [f"{counts[what]} {what}" for what in (TO_RUN, RUNS_NOW, NOT_SENT) if counts[what]]
    done = f"{total - len(missing)} of the grid's {total} points are finished"
    lines_to(console)(f"sweep {place}: {', '.join([done, *words])}")
    if counts[NOT_SENT]:
        lines_to(console)(f"python -m agent.sync {folder} sends what is finished here")


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m agent.retry", HELP, MORE)
    add = parser.add_argument
    add("sweep", metavar="ENTITY/PROJECT/SWEEP_ID", help="the sweep, as `wandb sweep` prints it")
    add("--run", action="store_true", help="run what is to run; otherwise nothing is written")
    add_slot_options(parser)
    add_settle_options(parser)
    add_choice_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
