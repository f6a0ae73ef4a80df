"""Rows that do not belong together: of other data, epochs, schema or code than the rest."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pandas as pd

from agent.analysis.series import COMPARED, MUST_AGREE
from agent.study.csv_files import read_csv
from agent.study.quality import cells
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


def differences(table: pd.DataFrame, sweep: Sweep | None) -> dict[str, str]:
    """In which of `WATCHED` the finished and collapsed runs differ unasked, and how, in words.

    Runs with other values of a swept data key are series of their own, and compared with nothing
    here. What a run does not tell contradicts nothing.

    Args:
        table: a table of `agent.study.records`, of the rows that count.
        sweep: what the study asks; None for single runs and projects.
    """
    runs = table[table["status"].isin(COMPARED)]
    asked = [key for key in DATA if sweep is not None and key in sweep.swept and key in runs]
    words = watched(runs)
    told = {}
    for column, name in WATCHED.items():
        if column in asked or column not in words:
            continue
        known = words[column].notna()
        apart = [runs.loc[known, key].map(str) for key in asked] or [
            pd.Series("", runs.index)[known]
        ]
        if (words.loc[known, column].groupby(apart).nunique() > 1).any():
            counted = Counter(words.loc[known, column])
            told[column] = f"{name} ({', '.join(_count(runs, words, column, counted))})"
    return told


def watched(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of `WATCHED` as words; None where a run does not tell.

    A run older than the fingerprint of its code is known by its commit.
    """
    words = {
        key: [_word(value) for value in table[key].tolist()] for key in WATCHED if key in table
    }
    commits = _commits(table)
    if commits is not None:
        codes = words.get("code", [None] * len(table))
        words["code"] = [code or commit for code, commit in zip(codes, commits, strict=True)]
    return pd.DataFrame(words, index=table.index, dtype=object)


def with_groups(table: pd.DataFrame, told: dict[str, str]) -> pd.DataFrame:
    """The table with a column that names each row's group by what `differences` found."""
    words = watched(table)[list(told)]
    names = [
        None if None in values else ", ".join(
            f"{WATCHED[key]} {value}" for key, value in zip(told, values, strict=True)
        )
        for values in words.to_numpy().tolist()
    ]  # fmt: skip
    return table.assign(**{GROUP: pd.Series(names, index=table.index, dtype=object)})


def commits_of_one_code(table: pd.DataFrame) -> list[str]:
    """Commits that differ although the code that computed the runs does not; empty if none do."""
    commits = _commits(table[table["status"].isin(COMPARED)])
    different = [] if commits is None else sorted(set(commits.dropna()))
    return different if len(different) > 1 else []


def only_in(written: Path, table: pd.DataFrame) -> int:
    """How many rows of a table that was written from a server's runs are not in this one."""
    here = {
        (str(run_id), str(seed))
        for run_id, seed in zip(table["run_id"], table["seed"], strict=True)
    }
    try:
        rows = [row for row in read_csv(written) if row.get("wandb_id")]
    except (OSError, UnicodeDecodeError, csv.Error):
        return 0
    return sum((row.get("run_id"), row.get("seed")) not in here for row in rows)


def _count(
    runs: pd.DataFrame, words: pd.DataFrame, column: str, counted: Counter[str]
) -> list[str]:
    """'40 runs of 8f3a12c0d1e2 from commit 624ba5e' for each value, the most frequent first."""
    commits = _commits(runs)
    said = []
    for value, count in sorted(counted.items(), key=lambda item: (-item[1], item[0])):
        origin = ""
        if column == "code" and commits is not None:
            names = sorted(set(commits[words[column] == value].dropna()) - {value})
            origin = f" from commit {' and '.join(names)}" if names else ""
        said.append(f"{count} run{'' if count == 1 else 's'} of {value}{origin}")
    return said


def _commits(table: pd.DataFrame) -> pd.Series | None:
    """The commit that each run came from, '+changes' where not all of it was committed."""
    if "git_commit" not in table:
        return None
    dirty = cells(table, "git_dirty")
    names = [
        None if commit is None else f"{str(commit)[:SHOWN]}{'+changes' if changed else ''}"
        for commit, changed in zip(table["git_commit"].tolist(), dirty, strict=True)
    ]
    return pd.Series(names, index=table.index, dtype=object)


def _word(value: object) -> str | None:
    return None if value is None else str(value)
