"""Rows that do not belong together: of other data, epochs, schema or code than the rest."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pandas as pd

from agent.analysis.series import MUST_AGREE
from agent.study.csv_files import read_csv
from agent.study.quality import by_key, cells, words
from agent.study.records import MEASURED
from agent.study.sweepfile import Sweep

GROUP = "group"
"""The column that names a row's group, where rows are mixed on request."""

WATCHED = {
    "dataset": "data",
    "validation_object": "validation object",
    "epochs": "epochs",
    "schema_version": "schema",
    "code": "code",
}
"""Columns in which runs are to agree unless their sweep sweeps them, and their names."""

DATA = ("train_npz", "test_npz", "val_npz", "scan", *(k for k in MUST_AGREE if k != "dataset"))
"""Keys that, swept, make runs differ on purpose."""
SHOWN = 7
"""Characters of a commit's name."""


def differ_unasked(table: pd.DataFrame, sweep: Sweep | None) -> dict[str, str]:
    """In which of `WATCHED` the finished and collapsed runs differ unasked, and how, in words.

    Runs with other values of a swept data key are series of their own, and compared with nothing
    here. What a run does not tell contradicts nothing.

    Args:
        table: a table of `agent.study.records`, of the rows that count.
        sweep: what the study asks; None for single runs and projects.
    """
    runs = table[table["status"].isin(MEASURED)]
    asked = [key for key in DATA if sweep is not None and key in sweep.swept and key in runs]
    commits = _commits(runs)
    told = {}
    for column, values in watched(runs).drop(columns=asked, errors="ignore").items():
        known = values.dropna()
        alike = by_key(words(runs.loc[known.index], asked)).values()
        if any(known.iloc[rows].nunique() > 1 for rows in alike):
            origins = commits[known.index] if column == "code" else known
            told[str(column)] = f"{WATCHED[str(column)]} ({', '.join(_count(known, origins))})"
    return told


def watched(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of `WATCHED` as words; None where a run does not tell.

    A run older than the fingerprint of its code is known by its commit.
    """
    told = {
        key: [None if value is None else str(value) for value in cells(table, key)]
        for key in WATCHED
    }
    codes = zip(told["code"], _commits(table), strict=True)
    told["code"] = [code or commit for code, commit in codes]
    return pd.DataFrame(told, index=table.index, dtype=object)


def with_groups(table: pd.DataFrame, told: dict[str, str]) -> pd.DataFrame:
    """The table with a column that names each row's group by what `differ_unasked` found."""
    names = [
        None if None in values else ", ".join(
            f"{WATCHED[key]} {value}" for key, value in zip(told, values, strict=True)
        )
        for values in watched(table)[list(told)].to_numpy().tolist()
    ]  # fmt: skip
    return table.assign(**{GROUP: pd.Series(names, index=table.index, dtype=object)})


def commits_of_one_code(table: pd.DataFrame) -> list[str]:
    """Commits that differ although the code that computed the runs does not; empty if none do."""
    different = sorted(set(_commits(table[table["status"].isin(MEASURED)]).dropna()))
    return different if len(different) > 1 else []


def only_in(written: Path, table: pd.DataFrame) -> int:
    """How many runs of a table that was written from a server's are not in this one.

    Nor are they if they were finished and are not any more, as where somebody edited them. A row
    without a run_id is no loss: of such a run nothing was known but that it was there.
    """
    here = set(table["run_id"])
    finished = set(table.loc[table["status"] == "finished", "run_id"])
    try:
        rows = [row for row in read_csv(written) if row.get("wandb_id")]
    except (OSError, UnicodeDecodeError, csv.Error):
        return 0
    lost = {
        row.get("run_id")
        for row in rows
        if row.get("run_id") not in (finished if row.get("status") == "finished" else here)
    }
    return len(lost - {"", None})


def _count(values: pd.Series, origins: pd.Series) -> list[str]:
    """'40 runs of 8f3a12c0d1e2 from commit 624ba5e' for each value, the most frequent first."""
    said = []
    for value, count in sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])):
        names = sorted(set(origins[values == value].dropna()) - {value})
        origin = f" from commit {' and '.join(names)}" if names else ""
        said.append(f"{count} run{'' if count == 1 else 's'} of {value}{origin}")
    return said


def _commits(table: pd.DataFrame) -> pd.Series:
    """The commit that each run came from, '+changes' where not all of it was committed."""
    committed = zip(cells(table, "git_commit"), cells(table, "git_dirty"), strict=True)
    names = [
        None if commit is None else f"{str(commit)[:SHOWN]}{'+changes' if changed else ''}"
        for commit, changed in committed
    ]
    return pd.Series(names, index=table.index, dtype=object)
