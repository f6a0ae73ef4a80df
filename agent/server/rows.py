"""Runs of a server as rows of the table, merged with the local records of the same runs."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, get_args

import pandas as pd

from agent.server.client import ServerRun, short
from agent.server.logged_config import CONFIG_HASH, config_hash, logged_config
from agent.study.folder import STUDIES, server_study
from agent.study.records import (
    ACTIVE,
    COLUMNS,
    SCORED,
    Cell,
    Parts,
    Records,
    assemble,
    check_cells,
    one_line,
    parts,
    read_records,
)
from agent.study.retimes import prefer_retimed
from fno_runner.config import PATHS, RunConfig
from fno_runner.errors import UserError
from fno_runner.identity import run_id
from fno_runner.result import RunResult, Status
from fno_runner.score.quantities import QUANTITIES, floor_of, object_of

INCOMPLETE, REJECTED = "incomplete", "rejected"
"""Statuses of an ended run whose summary lacks its result, and of one that is not believed."""

STATES = {
    **ACTIVE,
    "preempted": "was stopped before its end",
    "killed": "was stopped before its end",
    "crashed": "the server has not heard from it any more",
    "failed": "ended with an error and left no result",
}

LEFTOVERS = ("epoch", "train_loss", "val_loss", "epoch_time_s")
"""The history's last values, which the client puts into every summary beside the result's."""
GROUPS = ("metrics", "floors", "timing", "config", "provenance")
"""Of a row's columns, behind those of the contract."""
NOT_FINITE = ("NaN", "Infinity", "-Infinity")
"""How the wire spells a number that is not finite."""

TIMING = re.compile(r"(timing_|infer|latency_|flops_).+|threads|tf32|timed_beside|.+_(s|bytes)")
"""Keys of a summary that say how long something took, and how that was found."""


@dataclass(frozen=True)
class ServerRow:
    """What the server has of one run of this program.

    parts: its row, in the groups of a record's. `status` is the result's where the run has ended
        and has one that is believed; else the server's state, `incomplete` or `rejected`, without
        numbers and with the reason in `error`. `run_id` is empty where it cannot be told.
    """

    run: ServerRun
    parts: Parts

    def cell(self, key: str) -> Cell:
        """A cell of the row, or None."""
        return next((part[key] for part in self.parts if key in part), None)


@dataclass(frozen=True)
class MergedTable:
    """The server's runs and the local records as one table.

    table: as of `agent.study.records`, but of all runs of the server and of the records that the
        server does not have, ordered by run_id and age, with three more columns: `superseded`
        (another run of the run_id is finished or, failing that, newer), `wandb_id`, `wandb_state`.
    only_here: study -> run_ids of its records whose result the server does not have.
    """

    table: pd.DataFrame
    only_here: dict[str, list[str]]


def is_ours(run: ServerRun) -> bool:
    """Whether a run is one of this program, as far as its configuration tells.

    A run of this program logs its run_id as it begins. One of a sweep may not have begun: then it
    has the sweep's keys and has told nothing. Another program has an `epochs` or a `seed`, too.
    """
    if _logged_name(run) is not None:
        return True
    silent = run.sweep is not None and all(key.startswith("_") for key in run.summary)
    keys = run.config.keys() - {"run_id"}
    known = bool(keys) and keys <= RunConfig.model_fields.keys()
    return known and (silent or "status" in run.summary)


def server_row(run: ServerRun) -> ServerRow:
    """A run of this program; whatever is odd about it is told in its row."""
    run = _without_notes(run)
    config, fault = _config(run.config)
    cells, status, error = _outcome(run)
    name = _logged_name(run) or ("" if fault else _computed_name(run))
    if cells and not fault and _is_edited(run, name):
        fault = "config: edited at the server; it is not the one that the run was run with"
    if fault and cells:
        cells, status, error = {}, REJECTED, fault
    said = {**config, **cells, "run_id": name, "status": status, "error": error}
    groups: dict[str, dict[str, Cell]] = {group: {} for group in GROUPS}
    # As every record has them: a table of runs without results has these columns, too.
    groups["metrics"]["metrics_against"] = groups["provenance"]["schema_version"] = None
    for key in cells.keys() - set(COLUMNS):
        groups[_group(key)][key] = cells[key]
    groups["config"] = {k: config.get(k) for k in RunConfig.model_fields if k not in COLUMNS}
    return ServerRow(run, [{key: said.get(key) for key in COLUMNS}, *groups.values()])


def with_records_here(
    runs: Sequence[ServerRun], names: Iterable[str]
) -> tuple[MergedTable, dict[str, Records], list[str]]:
    """A server's runs merged with what this disk has of their studies.

    Args:
        names: of further studies.

    Returns:
        the runs, with times that were taken again; the records by study; what there is to say of
        the times, a line each.
    """
    # A group's name is anybody's text: it must not lead out of the studies' folder.
    studies = {study_name(run) for run in runs} | set(names)
    plain = sorted(name for name in studies if re.fullmatch(r"[\w-][\w.-]{0,127}", name))
    records = {name: read_records(STUDIES / name) for name in plain}
    results = {name: here.results for name, here in records.items()}
    merged = merge(map(server_row, runs), results)
    timed, remarks = prefer_retimed(merged.table, [STUDIES / name for name in plain])
    return replace(merged, table=timed), records, remarks


def merge(there: Iterable[ServerRow], records: Mapping[str, Iterable[RunResult]]) -> MergedTable:
    """Merge runs of a server with the local records of the same runs.

    A record is whole where its mirror may be late or partial: its cells replace those of the run
    that it is the record of. Which one that is, the total time in both tells; failing that, it is
    the newest of its run_id that tells none. A record that is not finished replaces no other,
    finished run.

    Args:
        records: those of each local study, by its name (see `study_name`).

    Raises:
        UserError: a record's config is none that `fno_runner` knows.
    """
    attempts: defaultdict[tuple[str, Cell], list[ServerRow]] = defaultdict(list)
    for attempt in sorted(there, key=lambda attempt: (attempt.run.created, attempt.run.id)):
        attempts[study_name(attempt.run), attempt.cell("run_id")].append(attempt)
    record_of: dict[str, RunResult] = {}
    entries: list[_Entry] = []
    only_here: defaultdict[str, list[str]] = defaultdict(list)
    for study, results in records.items():
        for record in results:
            owner = _owner(record, attempts[study, record.run_id])
            if owner is None:
                entries.append(_Entry(_by_seed(record)))
            else:
                record_of[owner.run.id] = record
            if owner is None or _is_behind(owner, record):
                only_here[study].append(record.run_id)
    for attempt in (attempt for same in attempts.values() for attempt in same):
        own = record_of.get(attempt.run.id)
        entries.append(_Entry([attempt.parts] if own is None else _by_seed(own), attempt.run))
    entries.sort(key=lambda entry: (entry.run_id == "", entry.run_id, entry.age))
    in_order = sorted(entries, key=lambda entry: (entry.finished, entry.age))
    best = {entry.run_id: entry for entry in in_order}
    whole = [[*row, entry.origin(best[entry.run_id])] for entry in entries for row in entry.rows]
    return MergedTable(assemble(whole), dict(only_here))


def study_name(run: ServerRun) -> str:
    """The name of the local study that a run's record is in, if it is on this disk."""
    return server_study(run.sweep).name if run.sweep else run.group or ""


@dataclass(frozen=True, eq=False)
class _Entry:
    """The rows of a run; `run` is None for a record that the server does not have."""

    rows: Sequence[Parts]
    run: ServerRun | None = None

    @property
    def run_id(self) -> str:
        return str(self.rows[0][0]["run_id"])

    @property
    def finished(self) -> bool:
        return any(row[0]["status"] == "finished" for row in self.rows)

    @property
    def age(self) -> tuple[str, str]:
        """Sorts older rows first."""
        return ("", "") if self.run is None else (self.run.created, self.run.id)

    def origin(self, best: _Entry) -> dict[str, Cell]:
        """The last columns; `best` is the run of this run_id that counts."""
        name, state = ("", "") if self.run is None else (self.run.id, self.run.state)
        superseded = self.run_id != "" and self is not best
        return {
            "superseded": superseded,
            "wandb_id": one_line(name),
            "wandb_state": one_line(state),
        }


def _by_seed(record: RunResult) -> list[Parts]:
    return [parts(seed) for seed in record.by_seed()]


def _owner(record: RunResult, attempts: Sequence[ServerRow]) -> ServerRow | None:
    """The run that a record is the record of, among those of its run_id, oldest first."""
    if (time := record.timing.get("total_time_s")) is not None:
        told = [attempt.run.summary.get("total_time_s") for attempt in attempts]
        if same := [a for a, other in zip(attempts, told, strict=True) if other == time]:
            return same[-1]
        # What took another time is another run, whose numbers are not to be lost.
        attempts = [a for a, other in zip(attempts, told, strict=True) if other is None]
    if not attempts:
        return None
    newest = attempts[-1]
    loses = newest.cell("status") == "finished" and record.status != "finished"
    return None if loses else newest


def _is_behind(attempt: ServerRow, record: RunResult) -> bool:
    """Whether the server lacks a record's result and will not get it by itself."""
    told = attempt.cell("status")
    return attempt.run.state not in ACTIVE and told not in (record.status, REJECTED)


def _outcome(run: ServerRun) -> tuple[dict[str, Cell], str, str]:
    """The cells of a run's summary, its status, and why it has no result."""
    if run.state in ACTIVE or "status" not in run.summary:
        if run.state == "finished":
            return {}, INCOMPLETE, "the server calls it finished, but its summary has no result"
        return {}, one_line(run.state), STATES.get(run.state, "has left no result")
    try:
        cells = _believed(run.summary)
    except ValueError as error:
        return {}, REJECTED, short(error)
    if cells["status"] == "finished":
        missing = [key for key in ("model_params", "inference_time_s") if cells.get(key) is None]
        if cells.get("ssim_phase") is None and cells.get("r_held_out") is None:
            missing.append("ssim_phase")
        if missing:
            return {}, INCOMPLETE, f"its summary has no {', '.join(missing)}"
    return cells, str(cells["status"]), str(cells["error"])


def _believed(summary: Mapping[str, Any]) -> dict[str, Cell]:
    """The cells of a result's summary; ValueError where they cannot be true."""
    cells = {
        key: _cell(value)
        for key, value in summary.items()
        if isinstance(value, str | int | float)
        and key.isidentifier()
        and not key.startswith("_")
        and key not in (*LEFTOVERS, CONFIG_HASH, *RunConfig.model_fields)
    }
    cells["error"] = one_line(str(summary.get("error") or ""))
    cells.setdefault("schema_version", 1)  # which did not say so
    for key in [key for key in cells if key.endswith("_flat_phase")]:
        cells[key.removesuffix("_phase")] = cells.pop(key)  # what schema 1 called the floor
    status = cells.get("status")
    if status not in get_args(Status):
        raise ValueError(f"status={summary['status']!r}: allowed is {', '.join(get_args(Status))}")
    check_cells(cells)
    return {k: cell for k, cell in cells.items() if status in SCORED or not _is_metric(k)}


def _config(given: Mapping[str, Any]) -> tuple[dict[str, Cell], str]:
    """A run's configuration as cells, and why it is none that this program knows, if so."""
    if not given.keys() - {"run_id"}:
        return {}, "config: empty"
    try:
        config = logged_config(given).model_dump()
    except UserError as error:
        readable = {
            key: _cell(given[key])
            for key in RunConfig.model_fields
            if isinstance(given.get(key), str | int | float)
        }
        return readable, short(f"config: {error}")
    # Paths are not logged, and their defaults would be guesses.
    return {k: _cell(v) if k not in PATHS or k in given else None for k, v in config.items()}, ""


def _without_notes(run: ServerRun) -> ServerRun:
    """The run without keys that somebody added to its configuration at the server.

    Only where the summary's hash tells that the rest is all that the run was run with: a key of a
    later version would be in that hash as well.
    """
    own = {"run_id", *RunConfig.model_fields}
    rest = replace(run, config={key: run.config[key] for key in run.config if key in own})
    name = _logged_name(run)
    if name is None or run.summary.get(CONFIG_HASH) is None or rest.config == run.config:
        return run
    with suppress(UserError):
        return run if _is_edited(rest, name) else rest
    return run


def _is_edited(run: ServerRun, name: str) -> bool:
    """Whether a run's configuration differs from the one of which its summary has the hash.

    A run of an earlier version has none there, and is taken at its word.
    """
    logged = run.summary.get(CONFIG_HASH)
    if logged is None:
        return False
    return bool(config_hash(logged_config(run.config), name) != logged)


def _logged_name(run: ServerRun) -> str | None:
    """The run_id that the run logged, if it is one."""
    name = run.config.get("run_id")
    return name if isinstance(name, str) and re.fullmatch(r"[0-9a-f]{12}", name) else None


def _computed_name(run: ServerRun) -> str:
    """The run_id of a run that has logged none, having never begun; empty without its data."""
    try:
        return run_id(logged_config(run.config))
    except UserError:
        return ""


def _is_metric(key: str) -> bool:
    return key in QUANTITIES and QUANTITIES[key].of != "cost"


def _group(key: str) -> str:
    """The group of columns that a key of a summary belongs to."""
    if _is_metric(key) or object_of(key) or key == "metrics_against":
        return "metrics"
    if floor_of(key):
        return "floors"
    return "timing" if TIMING.fullmatch(key) else "provenance"


def _cell(value: str | int | float | None) -> Cell:
    if isinstance(value, str):
        return None if value in NOT_FINITE else one_line(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
