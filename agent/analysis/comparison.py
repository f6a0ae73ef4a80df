"""What changed between two studies: configuration by configuration, paired by seed and data."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from agent.analysis.configurations import (
    CONFIGURATION,
    LOST,
    configuration_names,
    devices,
    seconds,
)
from agent.analysis.differences import holm
from agent.analysis.means import CONFIDENCE
from agent.study.quality import Array, by_key, cells, numbers, words
from fno_runner.errors import UserError
from fno_runner.score.quantities import Quantity

Told = tuple[Any, ...]
"""The cells of a run that another one must have to be its pair, its seed first."""
Pairs = dict[Told, tuple[float, float]]
"""A configuration's numbers in A and in B."""
Verdict = Literal["better", "worse", "undecided", "one seed", "no pair"]

TIMES = ("train_time_s", "inference_time_s")
WATCHED = {"dataset": "data", "validation_object": "validation object", "code": "code"}
"""Columns beside the configuration's in which two studies may differ, and their names."""
MOST_TOLD = 5
"""Values of a key, and configurations, that a line tells."""


@dataclass(frozen=True)
class Change:
    """What changed from study A to study B, in one unit; NaN where it is not known.

    pairs: over how many pairs. a, b: the means of the pairs. change: b − a, or b / a of times.
    low, high: its 95 % interval by Student's t of the pairs; of times of their logarithms.
    p: that no change would look like this one or larger; adjusted by Holm's procedure where it is
        one of several configurations.
    """

    pairs: int
    a: float
    b: float
    change: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Compared:
    """A configuration that both studies have.

    name: what tells it from the others. quality: of seeds that finished in both.
    verdict: of study B, where the adjusted p is below 5 %.
    times: by column of `TIMES`, of seeds that both ran on one kind of device.
    runs: how many seeds were trained to their end in A and in B; collapsed: how many of them
        collapsed or diverged.
    """

    name: str
    quality: Change
    verdict: Verdict
    times: dict[str, Change]
    runs: tuple[int, int]
    collapsed: tuple[int, int]


@dataclass(frozen=True)
class Comparison:
    """Two studies, A and B.

    differ: what tells the studies apart: key → (its values in A, in B).
    overall: of the means of the configurations, each as one pair (`overall_change`).
    collapsed_only: seeds of both that collapsed or diverged in A only and in B only; collapse_p:
        that so uneven a split is chance (McNemar's exact test).
    only: configurations that one of them lacks, in A and in B.
    """

    quality: Quantity
    differ: dict[str, tuple[list[str], list[str]]]
    configurations: list[Compared]
    overall: Change
    collapsed_only: tuple[int, int]
    collapse_p: float
    only: tuple[int, int]


def compare(a: pd.DataFrame, b: pd.DataFrame, quality: Quantity) -> Comparison:
    """Compare two studies' tables of runs.

    A key that has one value in A and another one in B tells the studies apart. Configurations match
    on all other keys, those that either study sweeps among them. Their runs are paired by seed, and
    by data where the studies share some.

    Args:
        quality: what they are compared by.

    Raises:
        UserError: they have no configuration in common.
    """
    differ = _differ(a, b)
    keys = [key for key in CONFIGURATION if key not in differ and key in a and key in b]
    of_a, of_b = (_by_configuration(table, keys) for table in (a, b))
    common = [key for key in of_a if key in of_b]
    if not common:
        raise UserError(_nothing_in_common(a, b, keys))
    pairs = [(of_a[configuration], of_b[configuration]) for configuration in common]
    # By A's run; what B has another value of is told with both: 'width 8→16'.
    named = pd.DataFrame([runs.iloc[0] for runs, _ in pairs])
    for key in differ.keys() & set(CONFIGURATION):
        named[key] = "→".join(values[0] for values in differ[key])
    names = configuration_names(named)
    by = _paired_by(a, b, differ)
    paired = _paired_times if quality.unit == "s" else _paired
    measured = [paired(*pair, quality.column, by) for pair in pairs]
    changes = _adjusted([_difference(_array(of_one)) for of_one in measured])
    rows = []
    collapsed_only = [0, 0]
    for name, pair, change in zip(names, pairs, changes, strict=True):
        lost = [_trained(runs, LOST, by) for runs in pair]
        ran = [_trained(runs, ("finished", *LOST), by) for runs in pair]
        both = ran[0] & ran[1]
        for which in (0, 1):
            collapsed_only[which] += len((lost[which] - lost[1 - which]) & both)
        rows.append(
            Compared(
                name=name,
                quality=change,
                verdict=_verdict(change, quality),
                times={column: _ratio(_paired_times(*pair, column, by)) for column in TIMES},
                runs=(len(ran[0]), len(ran[1])),
                collapsed=(len(lost[0]), len(lost[1])),
            )
        )
    discordant = sum(collapsed_only)
    return Comparison(
        quality=quality,
        differ=differ,
        configurations=rows,
        overall=overall_change(measured),
        collapsed_only=(collapsed_only[0], collapsed_only[1]),
        collapse_p=float(stats.binomtest(collapsed_only[0], discordant).pvalue)
        if discordant
        else math.nan,
        only=(len(of_a) - len(common), len(of_b) - len(common)),
    )


def as_table(comparison: Comparison) -> pd.DataFrame:
    """comparison.csv: a row a configuration."""
    rows = [
        {
            "configuration": compared.name,
            "pairs": compared.quality.pairs,
            "a": compared.quality.a,
            "b": compared.quality.b,
            "change": compared.quality.change,
            "change_low": compared.quality.low,
            "change_high": compared.quality.high,
            "p_holm": compared.quality.p,
            "verdict": compared.verdict,
            "runs_a": compared.runs[0],
            "runs_b": compared.runs[1],
            "collapsed_a": compared.collapsed[0],
            "collapsed_b": compared.collapsed[1],
            **{
                f"{column.removesuffix('_s')}_ratio{end}": value
                for column, ratio in compared.times.items()
                for end, value in (("", ratio.change), ("_low", ratio.low), ("_high", ratio.high))
            },
        }
        for compared in comparison.configurations
    ]
    return pd.DataFrame(rows, dtype=object)


def _differ(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, tuple[list[str], list[str]]]:
    """Keys that have one value in each, another one; and what of `WATCHED` they do not share."""
    differing = {}
    for key in (*CONFIGURATION, *WATCHED):
        values = [
            sorted({str(v) for v in table[key] if key in CONFIGURATION or v is not None})
            if key in table
            else []
            for table in (a, b)
        ]
        fixed = key in WATCHED or len(values[0]) == len(values[1]) == 1
        if fixed and values[0] and values[1] and set(values[0]).isdisjoint(values[1]):
            differing[key] = (values[0], values[1])
    return differing


def _by_configuration(
    table: pd.DataFrame, keys: Sequence[str]
) -> dict[tuple[str, ...], pd.DataFrame]:
    rows = by_key(words(table, keys))
    return {key: table.iloc[places] for key, places in sorted(rows.items())}


def _paired_by(
    a: pd.DataFrame, b: pd.DataFrame, differ: Mapping[str, tuple[list[str], list[str]]]
) -> list[str]:
    """The columns in which two runs of a configuration must agree to be a pair."""
    # What died before its end may not say what it was to be trained on.
    trained = [table[table["status"].isin(("finished", *LOST))] for table in (a, b)]
    told = all("dataset" in runs and runs["dataset"].notna().all() for runs in trained)
    return ["seed", "dataset"] if told and "dataset" not in differ else ["seed"]


def _trained(
    runs: pd.DataFrame, statuses: Sequence[str], by: Sequence[str]
) -> set[tuple[str, ...]]:
    """What was trained to its end with one of these outcomes, once, however many runs it has."""
    return set(words(runs[runs["status"].isin(statuses)], by))


def overall_change(measured: Sequence[Pairs]) -> Change:
    """The change of the configurations' means, each as one pair.

    Interval and p are of the configurations, or of the seeds where that is the longer one: what a
    seed does to all configurations alike, such as its order of patterns, no number of them averages
    out.
    """
    known = [pairs for pairs in measured if pairs]
    overall = _difference(np.array([_array(pairs).mean(axis=0) for pairs in known]).reshape(-1, 2))
    of_seeds: defaultdict[Any, list[float]] = defaultdict(list)
    for pairs in known:
        before, after = _array(pairs).T
        beside = after - before - np.mean(after - before)
        for (seed, *_), change in zip(pairs, beside, strict=True):
            of_seeds[seed].append(float(change))
    means = [overall.change + float(np.mean(changes)) for changes in of_seeds.values()]
    low, high, p = _student(np.array(means))
    if high - low > overall.high - overall.low:
        return replace(overall, low=low, high=high, p=p)
    return overall


def _paired(a: pd.DataFrame, b: pd.DataFrame, column: str, by: Sequence[str]) -> Pairs:
    """The numbers of what finished in both; of several runs their mean."""
    return _joined(*(_means(runs, numbers(runs, column), _told(runs, by)) for runs in (a, b)))


def _paired_times(a: pd.DataFrame, b: pd.DataFrame, column: str, by: Sequence[str]) -> Pairs:
    """The same of a time [s], on the same device; replicates count once: they share a clock."""
    timed = []
    for runs in (a, b):
        told, on, run_ids = _told(runs, by), devices(runs), cells(runs, "run_id")
        known = [row for row, device in enumerate(on) if device]
        once = {known[same[0]] for same in by_key(run_ids[row] for row in known).values()}
        keys = [(*key, on[row]) if row in once else None for row, key in enumerate(told)]
        timed.append(_means(runs, seconds(runs, column), keys))
    return _joined(*timed)


def _told(runs: pd.DataFrame, by: Sequence[str]) -> list[Told]:
    """What each run is paired by."""
    return list(zip(*(cells(runs, key) for key in by), strict=True))


def _means(runs: pd.DataFrame, values: Array, keys: Sequence[Told | None]) -> dict[Told, float]:
    """The mean number of the finished runs of each key; a run that lacks a part of it has none."""
    # Not by pandas, of which some calls a configuration are minutes for thousands of them.
    finished = (runs["status"] == "finished").to_numpy(bool)
    groups: dict[Told, list[float]] = {}
    for key, value in zip(keys, np.where(finished, values, math.nan), strict=True):
        if key is not None and None not in key and math.isfinite(value):
            groups.setdefault(key, []).append(value)
    return {key: float(np.mean(of_key)) for key, of_key in groups.items()}


def _joined(a: dict[Told, float], b: dict[Told, float]) -> Pairs:
    """What both have, in the order of the keys."""
    return {key: (a[key], b[key]) for key in sorted(a.keys() & b.keys())}


def _array(pairs: Pairs) -> Array:
    """(n, 2)."""
    return np.array(list(pairs.values()), dtype=float).reshape(-1, 2)


def _difference(pairs: Array) -> Change:
    """b − a of the pairs (n, 2)."""
    if not len(pairs):
        return _nothing()
    a, b = map(float, pairs.mean(axis=0))
    change = pairs[:, 1] - pairs[:, 0]
    return Change(len(pairs), a, b, float(change.mean()), *_student(change))


def _ratio(pairs: Pairs) -> Change:
    """b / a, by the mean of logarithms."""
    if not pairs:
        return _nothing()
    of = _difference(np.log(_array(pairs)))
    a, b, change, low, high = (math.exp(log) for log in (of.a, of.b, of.change, of.low, of.high))
    return Change(of.pairs, a, b, change, low, high, of.p)


def _student(change: Array) -> tuple[float, float, float]:
    """Ends of the 95 % interval of the mean, and p of no change; NaN of one number."""
    if len(change) < 2:
        return math.nan, math.nan, math.nan
    if np.ptp(change) == 0:
        return float(change[0]), float(change[0]), 1.0 if change[0] == 0 else 0.0
    test = stats.ttest_1samp(change, 0)
    low, high = test.confidence_interval(CONFIDENCE)
    return float(low), float(high), float(test.pvalue)


def _nothing() -> Change:
    return Change(0, *(math.nan,) * 6)


def _adjusted(changes: Sequence[Change]) -> list[Change]:
    """The same with p adjusted for as many configurations as are tested."""
    p = np.array([change.p for change in changes])
    tested = np.isfinite(p)
    p[tested] = holm(p[tested])
    return [replace(change, p=float(value)) for change, value in zip(changes, p, strict=True)]


def _verdict(change: Change, quality: Quantity) -> Verdict:
    if change.pairs < 2:
        return "one seed" if change.pairs else "no pair"
    if change.p > 1 - CONFIDENCE:
        return "undecided"
    return "better" if quality.sign * change.change > 0 else "worse"


def _nothing_in_common(a: pd.DataFrame, b: pd.DataFrame, keys: Sequence[str]) -> str:
    """One line that says what each study has of the keys in which no configuration agrees."""
    said = []
    for name, table in (("A", a), ("B", b)):
        parts = []
        for key in keys:
            if len({*map(str, a[key]), *map(str, b[key])}) > 1:
                values = sorted(set(map(str, table[key])))
                more = " …" if len(values) > MOST_TOLD else ""
                parts.append(f"{key} {', '.join(values[:MOST_TOLD])}{more}")
        said.append(f"{name} has {'; '.join(parts)}")
    return f"the studies have no configuration in common: {'. '.join(said)}"
