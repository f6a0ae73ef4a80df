"""Seeds where they would change the choice, and only there, until it is sure enough."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from agent.analysis.allocation import next_second, next_seed
from agent.analysis.choice_options import ChoiceOptions
from agent.analysis.configurations import CONFIGURATION, Configurations, configurations
from agent.analysis.probabilities import percent
from agent.analysis.recommendation import Recommendation, choose_by, recommend
from agent.analysis.series import comparable
from agent.study.coverage import attempts
from agent.study.quality import Array, Counts, Mask, cells, numbers, words
from agent.study.sweepfile import Point, Sweep, points
from fno_runner.config import load_config
from fno_runner.errors import UserError
from fno_runner.identity import run_id


@dataclass(frozen=True)
class Standing:
    """How sure the choice of a series is.

    why_not: why there is no choice; empty where there is one.
    probability: that `choice` is it; NaN where too few configurations have two seeds yet.
    by_seeds: the same if configurations did not change places from object to object.
    """

    series: str
    choice: str = ""
    probability: float = math.nan
    by_seeds: float = math.nan
    why_not: str = ""

    def needs_seeds(self, target: float) -> bool:
        """Whether seeds may make the choice surer: no number of them makes networks alike."""
        return not max(self.probability, self.by_seeds) >= target


class Settling:
    """Which seeds a sweep's study still needs.

    Every call looks anew at what is recorded: it does not matter who recorded it, nor how often
    settling was interrupted.
    Series of data that were replaced since are left alone: no run can be added to them.
    """

    def __init__(
        self,
        sweep: Sweep,
        options: ChoiceOptions,
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
        grid = pd.DataFrame(
            [load_config(point).model_dump() for point in points(sweep)], dtype=object
        )
        if len(set(words(grid, CONFIGURATION))) < 2:
            raise UserError("--settle: the sweep has one configuration: there is nothing to choose")
        self._sweep, self._options, self._target = sweep, options, target
        self._most, self._runs = most_seeds, runs
        self._names: dict[str, str] = {}
        self.standings: list[Standing] = []
        """Of each series, at the last look."""

    @property
    def is_settled(self) -> bool:
        """Whether there was a choice at the last look, and every one had the probability."""
        chosen = [standing for standing in self.standings if not standing.why_not]
        return bool(chosen) and all(each.probability >= self._target for each in chosen)

    def describe(self, added: Collection[str]) -> str:
        """What it took, and how sure each choice is now; a line each.

        Args:
            added: run_ids of the runs beyond the grid.
        """
        self.more(())
        table = self._runs()
        seconds = np.nansum(numbers(table[table["run_id"].isin(list(added))], "train_time_s"))
        lines = [f"{len(added)} seeds added, {seconds:.0f} s of training"]
        for standing in self.standings:
            name = f"{standing.series}: " if standing.series else ""
            if standing.why_not:
                lines.append(f"{name}no choice: {standing.why_not}")
            elif math.isnan(standing.probability):
                lines.append(f"{name}{standing.choice} so far; too few have a second seed")
            else:
                sure = f"{percent(standing.probability)} sure"
                if standing.probability < self._target <= standing.by_seeds:
                    sure += (
                        f": {percent(standing.by_seeds)} by seeds alone, but networks change "
                        "places from object to object: more validation objects tell, not more seeds"
                    )
                lines.append(f"{name}{standing.choice} is the choice, {sure}")
        return "\n".join(lines)

    def more(self, under_way: Collection[str]) -> dict[str, Point]:
        """The run that would tell most now, by its run_id; none where all is settled or spent.

        Args:
            under_way: run_ids of runs that somebody has begun.
        """
        table = self._runs()
        replicated = _replicated(self._sweep, table)
        self.standings = []
        wanted: dict[str, Point] = {}
        for name, rows in comparable(table):
            if not self._is_of_now(table, rows, replicated):
                continue
            runs = table.iloc[rows].reset_index(drop=True)
            configs = configurations(runs)
            choice = choose_by(runs[runs["status"] == "finished"])
            recommendation = recommend(configs, choice, self._options)
            if isinstance(recommendation, str):
                self.standings.append(Standing(name, why_not=recommendation))
                continue
            by_seeds = _by_seeds(configs, recommendation)
            keys = words(runs, CONFIGURATION)
            own = {k: replicated[r][0] for k, r in zip(keys, rows, strict=True) if r in replicated}
            contest = self._contest(configs, recommendation, by_seeds, own)
            chosen = recommendation.config
            standing = Standing(name, str(configs.table["configuration"][chosen]))
            if next_second(*contest.standing(self._most)) is None:
                standing = replace(
                    standing,
                    probability=float(recommendation.probability[chosen]),
                    by_seeds=float(by_seeds[chosen]),
                )
            self.standings.append(standing)
            if not wanted and standing.needs_seeds(self._target):
                wanted = self._next(contest, under_way)
        return wanted

    def _is_of_now(
        self,
        table: pd.DataFrame,
        rows: Sequence[int],
        replicated: Mapping[int, tuple[_Replicated, Point]],
    ) -> bool:
        """Whether a series has a run, of a point or an added seed, that would have its name now."""
        names, seeds = cells(table, "run_id"), cells(table, "seed")
        for row in rows:
            if row not in replicated:
                continue
            config, point = replicated[row]
            added = [config.with_seed(seeds[row])] if isinstance(seeds[row], int) else []
            try:
                if any(names[row] == self._name(each) for each in (point, *added)):
                    return True
            except UserError:  # the data are on another machine, where the runs were made
                return True
        return False

    def _name(self, point: Point) -> str:
        """A point's run_id, made once: it reads the data's fingerprint."""
        key = str(sorted(point.items()))
        if key not in self._names:
            self._names[key] = run_id(load_config(point))
        return self._names[key]

    def _contest(
        self,
        configs: Configurations,
        recommendation: Recommendation,
        by_seeds: Array,
        replicated: Mapping[tuple[str, ...], _Replicated],
    ) -> _Contest:
        candidates = [replicated.get(key) for key in words(configs.table, CONFIGURATION)]
        seeds = [set() if c is None else set(c.seeds) for c in candidates]
        by = recommendation.choice.by
        gain = by.sign * configs.means[by.column].mean
        with np.errstate(invalid="ignore", divide="ignore"):
            value = gain - recommendation.price * np.log2(configs.means[self._options.cost].mean)
        value[~recommendation.candidates] = math.nan
        return _Contest(candidates, seeds, by_seeds, value)

    def _next(self, contest: _Contest, under_way: Collection[str]) -> dict[str, Point]:
        candidates, seeds = contest.candidates, contest.seeds
        looked_at: set[int] = set()
        while True:
            row = next_seed(*contest.standing(self._most))
            config = None if row is None else candidates[row]
            if row is None or config is None:
                return {}
            if row in looked_at:
                break
            # Names cost a fingerprint of the data: only those of what comes next are made.
            looked_at.add(row)
            seeds[row] |= self._seeds_under_way(config, under_way)
        # Of so many seeds at least one is free, as the configuration has fewer.
        another = config.with_seed(min(set(range(self._most)) - seeds[row]))
        return {self._name(another): another}

    def _seeds_under_way(self, of: _Replicated, under_way: Collection[str]) -> set[int]:
        """Seeds that somebody has begun and not yet recorded, of those that settling gives."""
        if not under_way:
            return set()
        return {
            seed
            for seed in set(range(self._most)) - of.seeds
            if self._name(of.with_seed(seed)) in under_way
        }


def _by_seeds(configs: Configurations, recommendation: Recommendation) -> Array:
    """The probability of each being the choice (k,), if none changed places between objects."""
    if all(of.change is None for of in configs.means.values()):
        return recommendation.probability
    steady = {column: replace(of, change=None) for column, of in configs.means.items()}
    same = recommend(replace(configs, means=steady), recommendation.choice, recommendation.options)
    assert not isinstance(same, str)  # the means are the same
    return same.probability


@dataclass(frozen=True)
class _Replicated:
    """A configuration of the grid: a point without its seed, and the seeds that it has.

    seeds: those that the grid asks for, and those recorded in whatever series: a seed that ran with
        other data has its run_id all the same, and is not asked for again.
    """

    point: Point
    seeds: set[int]

    def with_seed(self, seed: int) -> Point:
        return {**self.point, "seed": seed}


@dataclass(frozen=True)
class _Contest:
    """What decides which configuration of a series gets the next seed.

    candidates: each as the grid has it; None where it is not of the grid. seeds: those of each.
    probability, value: as of `next_seed`.
    """

    candidates: list[_Replicated | None]
    seeds: list[set[int]]
    probability: Array
    value: Array

    def standing(self, most: int) -> tuple[Array, Array, Counts, Mask]:
        """The arguments of `next_seed`; none may have more seeds than `most`."""
        counts = np.array([len(some) for some in self.seeds])
        may = np.array([c is not None for c in self.candidates]) & (counts < most)
        return self.probability, self.value, counts, may


def _replicated(sweep: Sweep, table: pd.DataFrame) -> dict[int, tuple[_Replicated, Point]]:
    """The grid's configuration, and point, of each row of a table that is a run of a point."""
    told = words(table, (*CONFIGURATION, "data_seed"))
    recorded: defaultdict[tuple[str, ...], set[int]] = defaultdict(set)
    for key, seed in zip(told, cells(table, "seed"), strict=True):
        if isinstance(seed, int):
            recorded[key].add(seed)
    of_point: dict[str, _Replicated] = {}
    of_row: dict[int, tuple[_Replicated, Point]] = {}
    for attempt in attempts(sweep, table):
        alone = {k: v for k, v in attempt.point.items() if k not in ("seed", "replicates")}
        config = of_point.setdefault(str(sorted(alone.items())), _Replicated(alone, set()))
        config.seeds.update(replica.seed for replica in load_config(attempt.point).replicas())
        for row in attempt.rows:
            config.seeds.update(recorded[told[row]])
            of_row[row] = config, attempt.point
    return of_row
