"""Seeds where they would change the choice, and only there, until it is sure enough."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from agent.analysis.allocation import next_seed
from agent.analysis.configurations import CONFIGURATION, Configurations, configurations
from agent.analysis.recommendation import Asked, Recommendation, choose_by, recommend
from agent.analysis.series import comparable
from agent.study.coverage import attempts
from agent.study.quality import numbers
from agent.study.sweepfile import Point, Sweep, points
from fno_runner.cli import count_of
from fno_runner.config import load_config
from fno_runner.errors import UserError
from fno_runner.identity import run_id

MOST_SEEDS = 10


@dataclass(frozen=True)
class Standing:
    """How sure the choice of a series is.

    why_not: why there is no choice; empty where there is one.
    probability: that `choice` is it; NaN where no configuration has two seeds yet.
    """

    series: str
    choice: str
    probability: float
    why_not: str


class Settling:
    """Which seeds a sweep's study still needs.

    Every call looks at what is recorded: whoever records it, and however often this is begun again.
    """

    def __init__(
        self,
        sweep: Sweep,
        asked: Asked,
        target: float,
        most_seeds: int,
        runs: Callable[[], pd.DataFrame],
    ) -> None:
        """
        Args:
            target: the probability of the choice that is enough.
            most_seeds: no configuration gets more, those that it has included.
            runs: reads the table of the runs that count.

        Raises:
            UserError: the sweep has no list of points, or one configuration only.
        """
        if sweep.method != "grid":
            raise UserError(
                f"--settle: method {sweep.method} draws new configurations, and has none to "
                "replicate; only grid has"
            )
        if len({_key(load_config(point).model_dump()) for point in points(sweep)}) < 2:
            raise UserError("--settle: the sweep has one configuration: there is nothing to choose")
        self._sweep, self._asked, self._target = sweep, asked, target
        self._most, self._runs = most_seeds, runs
        self.standings: list[Standing] = []
        """Of each series, at the last look."""

    @property
    def is_settled(self) -> bool:
        """Whether every choice had the probability at the last look."""
        sure = [standing.probability >= self._target for standing in self.standings]
        return bool(sure) and all(sure)

    def spent(self, added: Collection[str]) -> str:
        """'7 seeds added, 312 s of training'."""
        table = self._runs()
        mine = table[table["run_id"].isin(list(added))]
        seconds = np.nansum(numbers(mine, "train_time_s"))
        return f"{len(added)} seeds added, {seconds:.0f} s of training"

    def more(self, under_way: Collection[str]) -> dict[str, Point]:
        """The run that would tell most now, by its run_id; none where all is settled or spent.

        Args:
            under_way: run_ids of runs that somebody has begun.
        """
        table = self._runs()
        asked_for = self._points_by_key(table)
        self.standings = []
        wanted: dict[str, Point] = {}
        for name, rows in comparable(table):
            runs = table.iloc[rows].reset_index(drop=True)
            configs = configurations(runs)
            choice = choose_by(runs[runs["status"] == "finished"])
            recommendation = recommend(configs, choice, self._asked)
            if isinstance(recommendation, str):
                self.standings.append(Standing(name, "", math.nan, recommendation))
                continue
            probability = float(recommendation.probability[recommendation.config])
            label = str(configs.table["configuration"][recommendation.config])
            self.standings.append(Standing(name, label, probability, ""))
            if not wanted and not probability >= self._target:
                wanted = self._next(runs, configs, recommendation, asked_for, under_way)
        return wanted

    def _next(
        self,
        runs: pd.DataFrame,
        configs: Configurations,
        recommendation: Recommendation,
        asked_for: dict[tuple[str, ...], Point],
        under_way: Collection[str],
    ) -> dict[str, Point]:
        used: dict[tuple[str, ...], set[int]] = {}
        for key, seed in zip(_keys(runs), runs["seed"].tolist(), strict=True):
            if isinstance(seed, int):
                used.setdefault(key, set()).add(seed)
        candidates: list[tuple[str, Point] | None] = []
        counts = []
        for key in _keys(configs.table):
            seeds = set(used.get(key, ()))
            point = asked_for.get(key)
            candidates.append(None if point is None else _another(point, seeds, under_way))
            counts.append(len(seeds))
        by = recommendation.choice.by
        gain = by.sign * configs.means[by.column].mean
        with np.errstate(invalid="ignore", divide="ignore"):
            value = gain - recommendation.price * np.log2(configs.means[self._asked.cost].mean)
        value[~recommendation.candidates] = math.nan
        may = np.array([c is not None and n < self._most
                        for c, n in zip(candidates, counts, strict=True)])  # fmt: skip
        row = next_seed(recommendation.probability, value, np.array(counts), may)
        chosen = None if row is None else candidates[row]
        return {} if chosen is None else dict([chosen])

    def _points_by_key(self, table: pd.DataFrame) -> dict[tuple[str, ...], Point]:
        """A point of the grid for each configuration that a run of it has."""
        keys = _keys(table)
        return {
            keys[row]: attempt.point
            for attempt in attempts(self._sweep, table)
            for row in attempt.rows
        }


def add_settle_options(parser: argparse.ArgumentParser) -> None:
    """The options of settling a choice."""
    add = parser.add_argument_group("settling the choice").add_argument
    add("--settle", type=_probability, metavar="P",
        help="when the grid is done, add seeds where they would change the choice, until it is the "
        "right one with probability P, such as 0.9")  # fmt: skip
    add("--most-seeds", type=count_of(), default=MOST_SEEDS, metavar="K",
        help=f"with --settle: at most K seeds a configuration (default: {MOST_SEEDS})")  # fmt: skip


def describe(settling: Settling, added: Collection[str]) -> list[str]:
    """How sure each choice is now, a line each, and what it took.

    Args:
        added: run_ids of the runs beyond the grid.
    """
    settling.more(())
    lines = [settling.spent(added)]
    for standing in settling.standings:
        name = f"{standing.series}: " if standing.series else ""
        if standing.why_not:
            lines.append(f"{name}no choice: {standing.why_not}")
        elif math.isnan(standing.probability):
            lines.append(f"{name}{standing.choice} so far; no configuration has two seeds")
        else:
            sure = f"{100 * standing.probability:.0f} % sure"
            lines.append(f"{name}{standing.choice} is the choice, {sure}")
    return lines


def _probability(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"'{text}': allowed is a probability above 0 and below 1")
    return number


def _another(point: Point, seeds: set[int], under_way: Collection[str]) -> tuple[str, Point]:
    """The point once more, with a seed that is not in `seeds` nor under way, which are added."""
    alone = {key: value for key, value in point.items() if key != "replicates"}
    seed = 0
    while True:
        if seed not in seeds:
            another: Point = {**alone, "seed": seed}
            name = run_id(load_config(another))
            if name not in under_way:
                return name, another
            seeds.add(seed)
        seed += 1


def _keys(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """What makes each row's configuration."""
    told = table.reindex(columns=list(CONFIGURATION)).to_numpy().tolist()
    return [tuple(map(str, values)) for values in told]


def _key(config: dict[str, object]) -> tuple[str, ...]:
    return tuple(str(config[key]) for key in CONFIGURATION)
