"""Send later what did not reach Weights & Biases: `python -m agent.sync [STUDY]`."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import wandb

from agent.server.client import Place, short
from agent.server.run_folders import LocalRun, find_runs, hold, is_held
from agent.server.server_copy import ServerCopies, ServerCopy
from agent.server.tracker import PROJECT
from agent.server.upload import complete, send
from agent.study.folder import newest_study
from fno_runner.cli import Parser, command, cut_off
from fno_runner.errors import MachineError, UserError

OF_A_RUN = tuple(
    f"WANDB_{word}"
    for word in ("NAME", "NOTES", "TAGS", "RUN_GROUP", "JOB_TYPE", "RUN_ID", "RESUME", "SWEEP_ID")
)
"""What the environment may say of a run that begins. None begins here, and the client would write
it into every run that it completes, over what the server has."""
BATCH = 8
"""Runs that are sent, and looked for, together."""

HELP = """\
Send to Weights & Biases the runs of a study that it does not have: those that ran offline, and
those during which the server went away. The command asks the server before and after. It leaves a
run alone that the server has, and sends only the rest of a run that the server has in part. No run
is sent twice, and nothing is deleted here. A run that was stopped before its end has no result and
is not sent.
"""

MORE = """\
examples:
  python -m agent.sync              the newest study
  python -m agent.sync STUDY        a study's folder, or what WANDB_DIR was for its runs
  python -m agent.sync --dry-run    say what would be sent

environment: WANDB_DIR (a default for STUDY), WANDB_ENTITY and WANDB_PROJECT (where a run does not
say where it belongs), WANDB_INIT_TIMEOUT and WANDB_FINISH_TIMEOUT (how long to wait, in seconds).

exit status: 0 the server has all · 1 it has not, or --dry-run found something to send · 2 bad
input, or the server does not answer · 3 this disk, or a setting here, cannot be used · 128 + signal
when stopped
"""


class Outcomes:
    """What became of each run: a line printed at once, and a count for the end."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._reason = ""

    def add(self, fate: str, name: str, detail: str = "") -> None:
        """Say what became of a run; `fate` is one of those that `summary` counts."""
        self._counts[fate] += 1
        if fate == "failed":
            self._reason = detail
        print(f"{fate:<11}{name}  {detail}".rstrip(), flush=True)

    def summary(self) -> str:
        """All of it in one line."""
        count = self._counts
        words = [
            f"sent {count['sent']} {'run' if count['sent'] == 1 else 'runs'}",
            f"{count['there']} {'was' if count['there'] == 1 else 'were'} there already",
            f"{count['stopped']} stopped before {'its' if count['stopped'] == 1 else 'their'} end",
        ]
        words += [
            f"{count[fate]} {fate}" for fate in ("running", "in use", "to send") if count[fate]
        ]
        words.append(f"{count['failed']} failed" + (f": {self._reason}" if self._reason else ""))
        return ", ".join(words)

    @property
    def complete(self) -> bool:
        """Whether the server has every run that came to its end."""
        return not any(self._counts[fate] for fate in ("failed", "in use", "to send"))


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Send what is missing; the exit status."""
    signal.signal(signal.SIGTERM, _stop)
    args = _parser().parse_args(argv)
    study = args.study or Path(os.environ.get("WANDB_DIR") or newest_study())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        # The client writes where it likes, but not into the study.
        os.environ |= {"WANDB_DIR": scratch, "WANDB_SILENT": "true"}
        # Whoever calls this means the server, whatever mode the runs are in.
        for variable in ("WANDB_MODE", *OF_A_RUN):
            os.environ.pop(variable, None)
        return sync(study, args.dry_run)


@dataclass(frozen=True)
class ProjectRuns:
    """Runs that belong into one project, and what the server has of each, by its id."""

    server: ServerCopies
    place: Place
    runs: list[LocalRun]
    copies: dict[str, ServerCopy]


def sync(study: Path, dry_run: bool = False) -> int:
    """Bring every run of a study that came to its end to the server; the exit status.

    Raises:
        UserError: the study has no such runs, or the server does not answer.
        MachineError: the study's folder cannot be read, or not be written.
    """
    folder = study if study.name == "wandb" and not (study / "wandb").is_dir() else study / "wandb"
    if not folder.is_dir():
        what = "no runs of Weights & Biases in it" if study.is_dir() else "no such folder"
        raise UserError(f"{study}: {what}")
    runs, outcomes = find_runs(folder), Outcomes()
    projects = _by_project(runs.ended) if runs.ended else []
    for identifier, path in runs.unended.items():
        outcomes.add("running" if is_held(path) else "stopped", identifier, path.name)
    for rejected in runs.rejected:
        outcomes.add("failed", rejected.path.name, rejected.reason)
    for project in projects:
        rest = []
        for run in project.runs:
            missing = project.copies[run.id].missing
            if not missing:
                outcomes.add("there", _name(run))
            elif dry_run:
                outcomes.add("to send", _name(run), ", ".join(missing))
            else:
                rest.append(run)
        _deliver(project, rest, outcomes)
    print(outcomes.summary())
    return 0 if outcomes.complete else 1


def _by_project(runs: Sequence[LocalRun]) -> list[ProjectRuns]:
    """Ask the server what it has of the runs, a project at a time."""
    server, project = ServerCopies(), os.environ.get("WANDB_PROJECT", PROJECT)
    places: dict[Place, list[LocalRun]] = {}
    for run in runs:
        places.setdefault(server.place(run, project), []).append(run)
    return [ProjectRuns(server, at, its, server.look(at, its)) for at, its in places.items()]


def _deliver(project: ProjectRuns, runs: Sequence[LocalRun], outcomes: Outcomes) -> None:
    """Send what is missing of the runs, as long as the server answers."""
    for start in range(0, len(runs), BATCH):
        try:
            _deliver_batch(project, runs[start : start + BATCH], outcomes)
        except MachineError:
            raise
        except (UserError, wandb.errors.Error) as error:
            for run in runs[start:]:
                outcomes.add("failed", _name(run), short(error))
            return


def _deliver_batch(project: ProjectRuns, runs: Sequence[LocalRun], outcomes: Outcomes) -> None:
    """Send what is missing of some runs, then ask what the server has of them now."""
    server, place = project.server, project.place
    with ExitStack() as stack:
        held: dict[int, LocalRun] = {}
        for run in runs:
            descriptor = hold(run.folder)
            if descriptor is not None:
                stack.callback(os.close, descriptor)
                held[descriptor] = run
        mine = list(held.values())
        # Another one may have sent it since the server was asked.
        copies = server.look(place, mine)
        before = {name for name, copy in copies.items() if not copy.missing}
        new = [run for run in mine if not copies[run.id].begun]
        said: dict[str, str] = {}
        if new:
            try:
                send(place, new, held)
            except TimeoutError as error:
                said = {run.id: f"; {error}" for run in new}
            copies |= server.look(place, new)
        parts = [run for run in mine if copies[run.id].missing and run.id not in said]
        for run in parts:
            begun = copies[run.id].begun  # if not, this disk's log of the run is torn
            rows = server.history(place, run) if begun else []
            try:
                complete(place, run, begun, rows)
            except (wandb.errors.Error, TimeoutError) as error:
                said[run.id] = f"; {short(error)}"
        if parts:
            copies |= server.look(place, parts)
    for run in runs:
        if run not in mine:
            outcomes.add("in use", _name(run), "it ends now, or another agent.sync sends it")
        elif missing := copies[run.id].missing:
            lack = f"the server lacks {', '.join(missing)}{said.get(run.id, '')}"
            outcomes.add("failed", _name(run), lack)
        else:
            outcomes.add("there" if run.id in before else "sent", _name(run))


def _name(run: LocalRun) -> str:
    """'x7k2p9qa  0123456789ab  fno-sqrt-m12-w32-s0'."""
    what = "{architecture}-{input_transform}-m{modes}-w{width}-s{seed}".format(**run.result.config)
    return f"{run.id}  {run.result.run_id}  {what}"


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(cut_off(number))


def _parser() -> Parser:
    parser = Parser("python -m agent.sync", HELP, MORE)
    parser.add_argument("study", nargs="?", type=Path, metavar="STUDY",
        help="the study's folder (default: the newest study)")  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be sent; send nothing"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
