"""The copies that a server has of the runs on this disk, and what they lack."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import wandb

from agent.server.client import PAGE, Place, in_one_line, runs_of
from agent.server.run_folders import LocalRun
from agent.server.tracker import exit_code
from fno_runner.result import RECORD

ANSWER_S = 60
"""How long one answer may take, the client's own retries included [s]."""


@dataclass(frozen=True)
class ServerCopy:
    """What a server has of a run.

    begun: it has at least a part, so that sending the whole again would double it.
    missing: what it lacks, in words; empty where it has all.
    """

    begun: bool
    missing: tuple[str, ...]


NOTHING = ServerCopy(begun=False, missing=("everything",))


class ServerCopies:
    """Asks the server that `wandb login` or WANDB_BASE_URL names."""

    def __init__(self) -> None:
        """
        Raises:
            UserError: no key, a key that is refused, or a server that does not answer.
        """
        with in_one_line("Weights & Biases"):
            self._api = wandb.Api(timeout=ANSWER_S)
            self._entity = os.environ.get("WANDB_ENTITY") or str(self._api.default_entity)

    def place(self, run: LocalRun, project: str) -> Place:
        """Where a run belongs; into `project` if it does not say."""
        return Place(run.address.entity or self._entity, run.address.project or project)

    def look(self, place: Place, runs: Sequence[LocalRun]) -> dict[str, ServerCopy]:
        """What the server has of runs of one project, by their ids.

        Whole pages tell all but the files, which cost a request for each run that lacks nothing
        else.

        Raises:
            UserError: the server does not answer.
        """
        wanted = {run.id: run for run in runs}
        copies = dict.fromkeys(wanted, NOTHING)
        self._api.flush()  # it would repeat what it once heard
        with in_one_line(str(place)):
            for there in self._runs(place, list(wanted)):
                copies[there.id] = _copy_of(wanted[there.id], there)
        return copies

    def history(self, place: Place, run: LocalRun) -> list[Mapping[str, Any]]:
        """Every line of a run's history that the server has.

        Raises:
            UserError: there is no such run, or the server does not answer.
        """
        self._api.flush()
        with in_one_line(f"{place}/{run.id}"):
            there = self._api.run(f"{place.entity}/{place.project}/{run.id}")
            return list(there.scan_history(use_cache=False))

    def _runs(self, place: Place, ids: list[str]) -> Iterator[Any]:
        """Those of the runs that the server knows."""
        for start in range(0, len(ids), PAGE):
            try:
                yield from runs_of(self._api, place, {"name": {"$in": ids[start : start + PAGE]}})
            except ValueError as error:
                if "Could not find project" not in str(error):
                    raise
                return  # nothing was ever sent to it


def _copy_of(run: LocalRun, there: Any) -> ServerCopy:
    """What the server has of a run; `there` is the run as the client's public API gives it."""
    result, rows, summary = run.result, there.historyLineCount, dict(there.summary)
    if not (rows or summary):
        # An agent's run exists on the server, empty, before its process has said a word.
        return NOTHING
    missing = []
    if (lacking := len(result.history) - rows) > 0:
        missing.append(f"{lacking} epochs")
    if summary.get("status") != result.status:
        missing.append("the summary")
    ends = ["failed" if exit_code(result) else "finished"]
    if result.status == "stopped":
        ends.append("killed")  # which a server may call a run that somebody stopped there
    if there.state not in ends:
        missing.append(f"its end (it is '{there.state}')")
    needed = [RECORD]
    if run.picture is not None:
        if "reconstruction" not in summary:
            missing.append("the picture")
        elif isinstance(shown := summary["reconstruction"], Mapping) and "path" in shown:
            needed.append(str(shown["path"]))
    if not missing:
        files = {file.name for file in there.files(per_page=PAGE)}
        missing = [name for name in needed if name not in files]
    return ServerCopy(True, tuple(missing))
