"""A sweep without a server: `python -m agent.local SWEEP.yaml` runs its points on this machine."""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C waits for the end of the imports, which take a second
    from fno_runner.stop import StopSignals

    with StopSignals() as starting:
        import agent.local

        starting.release()
    raise SystemExit(agent.local.main())  # type: ignore[has-type]  # it stands below

import argparse
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.analysis.choice_options import add_choice_options, add_settle_options, settling_of
from agent.scheduling.display import COLOURS
from agent.scheduling.driver import Driver
from agent.scheduling.grid import named_grid, statuses
from agent.scheduling.per_gpu import points_per_gpu
from agent.scheduling.queue import Queue, open_queue
from agent.scheduling.slots import add_slot_options, asked_slots
from agent.scheduling.storage import FAILURES, check_storage, first_line
from agent.study.folder import STUDIES, check_study, open_study
from agent.study.retimes import runs_of
from agent.study.sweepfile import Point, Sweep, point_name, read_sweep, values_in_words
from fno_runner.cli import Parser, command, count_of, lines_to
from fno_runner.config import N, load_config
from fno_runner.errors import MachineError, UserError
from fno_runner.identity import run_id
from fno_runner.result import SETTLED

HELP = """\
Run the points of a sweep file on this machine, each in a process of its own.

The file is in Weights & Biases sweep syntax; neither a server nor an account is needed. Every run
leaves its record in STUDY/runs/<run_id>/result.json and its log in STUDY/logs/<run_id>.log. When
the command is started again, it runs only what is missing. Several of them may work on one study at
once, also on several machines that share its folder. No point is run twice.
"""

MORE = """\
examples:
  python -m agent.local sweep.yaml --dry-run       list the points and what is done of them
  python -m agent.local sweep.yaml                 run what is missing; on as many GPUs as there are
  python -m agent.local sweep.yaml --workers 4     four points at a time
  python -m agent.local sweep.yaml --per-gpu 4     four points at a time on every GPU
  python -m agent.local sweep.yaml --retry-failed  also run again what failed
  python -m agent.local sweep.yaml --settle 0.9    add seeds until the choice is 90 % sure
  python -m agent.local search.yaml --limit 20     20 points of a random or bayes sweep

Ctrl-C stops the runs and puts their points back; a second Ctrl-C does not wait for them. The next
call takes up what was killed, and a training goes on from its last checkpoint. The points of this
command on another machine are taken up once it has given no sign of life for 120 s.

environment: CUDA_VISIBLE_DEVICES limits the GPUs; OMP_NUM_THREADS (default: the cores shared out
among the points that run at a time), WANDB_MODE (default: offline), WANDB_DIR (default: the study's
folder; python -m agent.sync sends what lies there).

exit status: 0 every point finished (with --limit: every one of them, or all that there are; with
--settle: every point has its record, and the choice is settled) · 1 some did not, or it is not · 2
bad input · 3 this machine cannot run them · 128 + signal when stopped
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run a sweep; the exit status."""
    try:
        return _main(_parser().parse_args(argv))
    except FAILURES as error:
        raise MachineError(f"the queue's storage failed: {first_line(error)}") from None


def _main(args: argparse.Namespace) -> int:
    sweep = read_sweep(args.sweep)
    _check_options(args, sweep)
    folder: Path = args.study or STUDIES / sweep.study_id
    settling = settling_of(args, sweep, partial(runs_of, folder))
    grid = named_grid(sweep) if sweep.method == "grid" else None
    check_study(folder, sweep)
    console = Console()
    say = lines_to(console)
    if narrower := _recorded_with_64_px(folder, grid or {}):
        say(
            f"{narrower} of the points were run with frames of {N} px, which were all that version "
            f"0.1 knew; their scan now gets more, so they run again. To keep what there is, say "
            f"patch_size: {{value: {N}}} in the sweep file"
        )
    if args.dry_run:
        _list(console, sweep, folder, grid)
        if args.storage is not None:
            say("what other machines have done is in --storage, which is not read")
        return 0
    auto = partial(points_per_gpu, sweep, given=os.environ, say=say)
    slots = asked_slots(args, os.environ, auto)
    open_study(folder, sweep)
    queue = open_queue(args.storage, folder, sweep)
    total, done, failed = args.limit, 0, 0
    if grid is not None:
        before = _count(statuses(folder, queue), grid)
        done = before["finished"] + before["stopped"]
        failed = 0 if args.retry_failed else before["failed"]
        total = len(grid) if total is None else min(len(grid), done + failed + total)
    say(f"{sweep.name}: study {folder}")
    more = None if settling is None else settling.more
    driver = Driver(folder, sweep, grid, queue, slots, limit=args.limit, more=more)
    driver.run(console, (total, done, failed), args.retry_failed)
    everything = _summary(console, folder, grid, queue, driver)
    if settling is not None:
        say(settling.describe(driver.ended.keys() - (grid or {}).keys()))
    if (status := driver.early_end()) is not None:
        return status
    if settling is not None:
        is_recorded = (grid or {}).keys() <= statuses(folder).keys()
        return 0 if settling.is_settled and is_recorded else 1
    of_limit = args.limit == len(driver.ended) and set(driver.ended.values()) <= set(SETTLED)
    return 0 if everything or of_limit else 1


def _check_options(args: argparse.Namespace, sweep: Sweep) -> None:
    """Refuse what does not go together, before any work."""
    if sweep.server_only:
        key = sweep.server_only[0]
        instead = "; use --limit N instead" if key == "run_cap" else ""
        raise UserError(f"{args.sweep}: '{key}' needs a Weights & Biases server{instead}")
    if sweep.method != "grid":
        if args.retry_failed:
            raise UserError("--retry-failed is for grids; a sampler draws new points")
        if args.limit is None and not args.dry_run and args.settle is None:
            raise UserError(f"method {sweep.method} never ends by itself: give --limit N")
    if args.storage is not None:
        check_storage(args.storage)
        if args.settle is not None:
            raise UserError("--settle reads the study's records; it needs a folder that all share")


def _list(console: Console, sweep: Sweep, folder: Path, grid: Mapping[str, Point] | None) -> None:
    """What `--dry-run` shows; nothing is written."""
    if grid is None:
        table = _titled(f"{sweep.name}: {sweep.method} search")
        for column in ("key", "takes"):
            table.add_column(column)
        for key, values in sorted(sweep.parameters.items()):
            table.add_row(key, Text(values_in_words(values)))
        console.print(table)
        return
    known = statuses(folder)
    table = _titled(f"{sweep.name}: {len(grid)} points")
    table.add_column("#", justify="right")
    for column in ("point", "run_id", "state"):
        table.add_column(column, no_wrap=column != "point")
    for number, (identifier, point) in enumerate(grid.items(), start=1):
        state = known.get(identifier, "missing")
        colour = "default" if state == "missing" else COLOURS.get(state, "red")
        shown = "done" if state == "finished" else state
        name = Text(point_name(sweep, point))
        table.add_row(str(number), name, identifier, Text(shown, style=colour))
    console.print(table)
    counts = _count(known, grid)
    missing = len(grid) - counts.total()
    lines_to(console)(
        f"{counts['finished']} done, {_stopped(counts)}{counts['failed']} failed, "
        f"{missing} missing · study {folder}"
    )


def _titled(title: str) -> Table:
    """A table; what a sweep file says is no markup, whatever brackets it has."""
    return Table(title=Text(title, style="table.title"), title_justify="left")


def _recorded_with_64_px(folder: Path, grid: Mapping[str, Point]) -> int:
    """How many points have no record, but would have one if their scan were cut as by 0.1."""
    scans = {n: p for n, p in grid.items() if "scan" in p and "patch_size" not in p}
    if not scans or not (known := statuses(folder).keys()):
        return 0
    return sum(
        name not in known and run_id(load_config({**point, "patch_size": N})) in known
        for name, point in scans.items()
        if int(point.get("modes") or 1) <= N
    )


def _summary(
    console: Console,
    folder: Path,
    grid: Mapping[str, Point] | None,
    queue: Queue,
    driver: Driver,
) -> bool:
    """Say where the study stands; whether every point that its sweep has is finished."""
    known = statuses(folder, queue) if grid is not None else dict(driver.ended)
    counts = _count(known, grid)
    words = [f"{counts['finished']} finished", f"{_stopped(counts)}{counts['failed']} failed"]
    complete = False
    if grid is not None:
        others = {i: host for i, host in queue.running_elsewhere().items() if i in grid}
        others = {i: host for i, host in others.items() if known.get(i) != "finished"}
        if others:
            hosts = ", ".join(sorted(set(others.values())))
            words.append(f"{len(others)} running in other drivers (on {hosts})")
        missing = sum(1 for i in grid if i not in known and i not in others)
        if missing:
            words.append(f"{missing} missing")
        words[0] += f" of {len(grid)}"
        complete = counts["finished"] + counts["stopped"] == len(grid)
    elif driver.is_exhausted:
        whole = set(statuses(folder, queue).values())
        complete = whole <= set(SETTLED) and not queue.running_elsewhere()
    lines_to(console)(f"{', '.join(words)} · study {folder}")
    return complete


def _count(known: Mapping[str, str], grid: Mapping[str, Point] | None) -> Counter[str]:
    """How many of the grid's points are `finished`, `stopped`, or `failed` in whatever way."""
    return Counter(
        status if status in SETTLED else "failed"
        for identifier, status in known.items()
        if grid is None or identifier in grid
    )


def _stopped(counts: Counter[str]) -> str:
    """What is said of points that were stopped on purpose, where there are such."""
    return f"{counts['stopped']} stopped, " if counts["stopped"] else ""


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m agent.local", HELP, MORE)
    add = parser.add_argument
    add("sweep", type=Path, metavar="SWEEP.yaml", help="the sweep file")
    add_slot_options(parser)
    add("--limit", type=count_of(), metavar="N",
        help="run at most N points in this call; random and bayes need it")  # fmt: skip
    add("--study", type=Path, metavar="DIR",
        help=f"the study's folder (default: {STUDIES}/<name>-<hash of the sweep>)")  # fmt: skip
    add("--dry-run", action="store_true", help="list the points and their state; write nothing")
    add("--retry-failed", action="store_true",
        help="also run again the points that failed, not those that were stopped on "
        "purpose")  # fmt: skip
    add("--storage", metavar="URL",
        help="postgresql://USER@HOST/DATABASE for machines that share no disk (the password from "
        "PGPASSWORD or ~/.pgpass); default: a journal in the study's folder")  # fmt: skip
    add_settle_options(parser)
    add_choice_options(parser)
    return parser
