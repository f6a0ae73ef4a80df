"""Which runs are worth their cost: comparable series, the front, the recommendation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from fno_runner.config import IN_NO_RUN_ID, RunConfig

COST = "model_params"
"""What the recommendation saves: trainable parameters, counted as real numbers."""

MUST_AGREE = (
    *("conditioning", "epochs", "train_patterns", "metrics_against"),
    *("nimgs_train", "nimgs_test", "nphotons", "data_seed"),
    *(key for key in RunConfig.model_fields if key.startswith("probe_")),
    "dataset",
)
"""Columns in which runs must agree to be compared: the input, the training effort, the data.

`dataset` is the fingerprint of the files' content; the parameters before it say in words what a
fingerprint cannot."""

CONFIGURATION = tuple(
    key
    for key in RunConfig.model_fields
    if key not in ("seed", "replicates", "data_seed", *IN_NO_RUN_ID)
)
"""Columns that make two runs the same configuration; runs may differ in their seeds beyond it."""

ROUNDING = 1e-9
"""0.72 and 0.70 are within 0.02 of each other, though their binary difference is larger."""


@dataclass(frozen=True)
class Criterion:
    """The number runs are chosen by: its column, its name, which way is better, how near is near.

    tolerance: absolute, in the number's own unit.
    """

    column: str
    name: str
    better: Literal["higher", "lower"]
    tolerance: float

    def quality(self, runs: pd.DataFrame) -> npt.NDArray[np.float64]:
        """The number of each run, signed so that more is better; NaN where it is missing."""
        return numbers(runs, self.column) * (1 if self.better == "higher" else -1)


PHASE_SSIM = Criterion("ssim_phase", "phase SSIM", "higher", 0.02)
R_HELD_OUT = Criterion("r_held_out", "R on held-out frames", "lower", 0.002)
"""For an experimental scan that has no reference object."""


@dataclass(frozen=True)
class Recommendation:
    """The cheapest run that is near enough to the best one.

    run: position of the recommended run in its series' `runs`; `best` and `runner_up` (the next
        by the same rule that is of another configuration, or None) likewise.
    margin: how much worse than the best it is, in the criterion's unit; never negative.
    rule: the rule and its figures in words.
    """

    run: int
    best: int
    runner_up: int | None
    margin: float
    rule: str


@dataclass(frozen=True)
class Series:
    """Runs of a study that may be compared with each other.

    name: what tells this series from the study's others; empty where there is one only.
    runs: finished runs with a cost and a quality, in the table's order.
    front: positions in `runs` of the front of cost against quality, cheapest first.
    collapsed: runs that recovered nothing; they are shown, never compared.
    incomplete: names of finished runs that lack the cost or the quality and are left out.
    """

    name: str
    criterion: Criterion
    runs: pd.DataFrame
    front: list[int]
    recommendation: Recommendation | None
    collapsed: pd.DataFrame
    incomplete: list[str]


def front(cost: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Positions of the points that no other point dominates, cheapest first.

    A point dominates another if it costs no more, is no worse, and is strictly better in one of
    the two (Pareto dominance). Equal points do not dominate each other: all of them are on the
    front, in their given order. A point with a number that is not finite is on no front.
    """
    costs = np.asarray(cost, dtype=float)
    qualities = np.asarray(quality, dtype=float)
    order = [
        int(i)
        for i in np.lexsort((-qualities, costs))  # stable: by cost, then the better one first
        if np.isfinite(costs[i]) and np.isfinite(qualities[i])
    ]
    chosen: list[int] = []
    for i in order:
        equal_to_last = bool(chosen) and (
            (costs[i], qualities[i]) == (costs[chosen[-1]], qualities[chosen[-1]])
        )
        if not chosen or qualities[i] > qualities[chosen[-1]] or equal_to_last:
            chosen.append(i)
    return chosen


def recommend(runs: pd.DataFrame, criterion: Criterion) -> Recommendation | None:
    """The run with the fewest parameters whose quality is within the tolerance of the best.

    Among equally many parameters the better one, then the first by run_id. Every run counts by
    itself: the seeds of a configuration are not averaged. None where no run qualifies.

    Args:
        runs: a table of `agent.records.table`; rows that are not finished or lack the cost or
            the quality are passed over.
        criterion: what is compared, and its tolerance.
    """
    cost, quality = numbers(runs, COST), criterion.quality(runs)
    usable = np.flatnonzero(_comparable(runs, criterion))
    if usable.size == 0:
        return None
    identifiers = runs["run_id"].tolist()
    best = min(usable, key=lambda i: (-quality[i], cost[i], identifiers[i]))
    near = [i for i in usable if quality[best] - quality[i] <= criterion.tolerance + ROUNDING]
    near.sort(key=lambda i: (cost[i], -quality[i], identifiers[i]))
    configurations = runs[[key for key in CONFIGURATION if key in runs]].to_numpy().tolist()
    others = [i for i in near if configurations[i] != configurations[near[0]]]
    best_value = numbers(runs, criterion.column)[best]
    rule = (
        f"fewest trainable parameters among the {len(near)} of {usable.size} finished runs whose "
        f"{criterion.name} is within {criterion.tolerance:g} of the best ({best_value:.4g})"
    )
    return Recommendation(
        run=int(near[0]),
        best=int(best),
        runner_up=int(others[0]) if others else None,
        margin=float(quality[best] - quality[near[0]]),
        rule=rule,
    )


def series(table: pd.DataFrame, tolerance: float | None = None) -> list[Series]:
    """Split a study's table into series of comparable runs; in each, its front and recommendation.

    Runs that differ in a column of `MUST_AGREE` never share a series. A series' criterion is the
    phase SSIM, or R on held-out frames where no run of it has a phase SSIM but one has that.
    Failed and diverged runs are in no series.

    Args:
        table: a table of `agent.records.table`.
        tolerance: in place of the criterion's own.
    """
    shown = table[table["status"].isin(["finished", "collapsed"])]
    if shown.empty:
        return []
    words = pd.DataFrame(
        {key: shown[key].map(_word) for key in MUST_AGREE if key in shown}, index=shown.index
    )
    keys = [key for key in words if words[key].nunique() > 1]
    readable = [key for key in keys if key != "dataset"]
    # A fingerprint tells a reader little: it is left out where other keys tell as much apart.
    if len(_combinations(words[readable])) == len(_combinations(words[keys])):
        keys = readable
    names = [
        ", ".join(f"{key} {word}" for key, word in zip(keys, values, strict=True))
        for values in words[keys].to_numpy().tolist()
    ]
    return [
        _series(str(name), runs, tolerance)
        for name, runs in shown.groupby(pd.Series(names, index=shown.index, dtype=str))
    ]


def numbers(runs: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    """A column as floats; NaN where a number, or the whole column, is missing."""
    if column not in runs:
        return np.full(len(runs), np.nan)
    return np.asarray(runs[column].tolist(), dtype=float)


def label(run: pd.Series) -> str:
    """A configuration in a few words: 'fno sqrt modes 12 width 32'."""
    return (
        f"{run['architecture']} {run['input_transform']} modes {run['modes']} width {run['width']}"
    )


def _series(name: str, runs: pd.DataFrame, tolerance: float | None) -> Series:
    finished = runs[runs["status"] == "finished"]
    no_object = np.isnan(numbers(finished, PHASE_SSIM.column)).all()
    scanned = not np.isnan(numbers(finished, R_HELD_OUT.column)).all()
    criterion = R_HELD_OUT if no_object and scanned else PHASE_SSIM
    if tolerance is not None:
        criterion = Criterion(criterion.column, criterion.name, criterion.better, tolerance)
    usable = _comparable(finished, criterion)
    compared = finished[usable].reset_index(drop=True)
    return Series(
        name=name,
        criterion=criterion,
        runs=compared,
        front=front(numbers(compared, COST).tolist(), criterion.quality(compared).tolist()),
        recommendation=recommend(compared, criterion),
        collapsed=runs[runs["status"] == "collapsed"].reset_index(drop=True),
        incomplete=finished[~usable]["run_id"].tolist(),
    )


def _comparable(runs: pd.DataFrame, criterion: Criterion) -> npt.NDArray[np.bool_]:
    finished = (runs["status"] == "finished").to_numpy(dtype=bool)
    known = np.isfinite(numbers(runs, COST)) & np.isfinite(criterion.quality(runs))
    return finished & known


def _combinations(words: pd.DataFrame) -> set[tuple[str, ...]]:
    return set(map(tuple, words.to_numpy().tolist()))


def _word(value: object) -> str:
    return "none" if value is None else str(value)
