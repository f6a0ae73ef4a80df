"""Each configuration at its best value of a key that is no question of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agent.analysis.choice_options import COST
from agent.analysis.configurations import CONFIGURATION, FLOPS
from agent.study.quality import Array, Mask, Rows, by_key, cells, numbers, words
from fno_runner.config import suggestion
from fno_runner.errors import UserError
from fno_runner.score.quantities import Quantity

BEST = "best"
"""What the key's column says in place of a value."""

Key = tuple[str, ...]


@dataclass(frozen=True)
class BestOver:
    """How each configuration came to its value of a key.

    values: by the words of the configuration's other keys the value that all its seeds together
        find best, which is the one to train with; NaN where none finished.
    words: the rule, and where a seed had to choose for itself.
    """

    key: str
    values: dict[Key, Any]
    words: str

    def of(self, configs: pd.DataFrame) -> list[Any]:
        """The value of each row of a table of configurations."""
        return [self.values.get(others, math.nan) for others in _others(configs, self.key)]


def check_key(key: str, table: pd.DataFrame, never: tuple[str, ...]) -> None:
    """Whether a table's configurations may count at their best value of a key.

    Args:
        never: keys in which runs must agree to be compared.

    Raises:
        UserError: they may not, and why.
    """
    if key not in CONFIGURATION:
        raise UserError(f"--best-over: '{key}' is no key of a configuration"
                        f"{suggestion(key, list(CONFIGURATION))}")  # fmt: skip
    if key in never:
        raise UserError(f"--best-over {key}: runs that differ in it are not compared")
    values = cells(table, key)
    alike = by_key(_others(table, key)).values()
    known = ([str(values[row]) for row in rows if values[row] is not None] for rows in alike)
    if all(len(set(some)) < 2 for some in known):
        raise UserError(
            f"--best-over {key}: it does not vary between runs that are otherwise alike"
        )


def at_best(runs: pd.DataFrame, key: str, by: Quantity) -> tuple[pd.DataFrame, BestOver]:
    """Of each configuration and seed the run of the value that the other seeds find best.

    A value that was found best by the very numbers that are averaged would look better than it is:
    of values that do not differ the luckiest would be taken. So no seed chooses for itself
    (`cross_fitted`). Where no other seed finished it must, and the words say for how many.

    Args:
        runs: comparable runs. by: the criterion that configurations are chosen by.

    Returns:
        The rows that count, with `BEST` in the key's column, and how they were found. Rows without
        a value or a seed stay as they are.

    Raises:
        UserError: the values of the key differ in cost, which is a question of the study.
    """
    value, seed, run_ids = (cells(runs, column) for column in (key, "seed", "run_id"))
    status = np.array(cells(runs, "status"), dtype=object)
    quality = by.sign * numbers(runs, by.column)
    costs = [numbers(runs, column) for column in (COST, FLOPS)]
    groups: dict[Key, list[int]] = {}
    kept: list[int] = []
    for row, others in enumerate(_others(runs, key)):
        if value[row] is None or seed[row] is None:
            kept.append(row)
        else:
            groups.setdefault(others, []).append(row)
    best: dict[Key, Any] = {}
    alone = several = 0
    chosen: list[int] = []
    for others, rows in groups.items():
        for cost in costs:
            if len({cost[row] for row in rows if math.isfinite(cost[row])}) > 1:
                raise UserError(f"--best-over {key}: its values differ in cost, which is a question"
                                " of the study")  # fmt: skip
        values, seeds = (sorted({of[row] for row in rows}) for of in (value, seed))
        place = np.full((len(values), len(seeds)), -1)
        # Of several runs of one point a finished one counts, of those the first by run_id.
        in_order = sorted(rows, key=lambda row: (status[row] != "finished", run_ids[row]))
        for row in reversed(in_order):
            place[values.index(value[row]), seeds.index(seed[row])] = row
        there = place >= 0
        told = np.where(there & (status[place] == "finished"), quality[place], math.nan)
        failed = there & np.isin(status[place], ("collapsed", "diverged"))
        picks, by_itself = cross_fitted(told, failed, there)
        chosen += [int(place[pick, number]) for number, pick in enumerate(picks)]
        overall = _best(told, failed, np.ones(len(values), bool))
        best[others] = math.nan if overall is None else values[overall]
        alone += bool(by_itself.any())
        several += not by_itself.any()
    kept = sorted([*kept, *chosen])
    counted = runs.iloc[kept].reset_index(drop=True)
    counted[key] = pd.Series(
        [None if value[row] is None else BEST for row in kept], counted.index, dtype=object
    )
    said = f"each configuration counts at its best {key} by {by.label}"
    if several:
        said += ", chosen for every seed by the other seeds"
    if alone:
        said += (
            f"; of {alone} of {alone + several} configurations a seed had no other that finished "
            f"and chose for itself, which flatters its {by.label}"
        )
    return counted, BestOver(key, best, said)


def cross_fitted(quality: Array, failed: Mask, there: Mask) -> tuple[Rows, Mask]:
    """For each seed the value that the other seeds find best, of those that it ran with.

    A value of which another seed failed to train comes behind those of which none did; then the
    mean counts, and of equal ones the first.

    Args:
        quality: a row a value, a column a seed (v, s), more is better; NaN where not finished.
        failed: collapsed or diverged (v, s). there: ran at all (v, s); every seed with some value.

    Returns:
        Rows (s,), and whether the seed had to choose for itself (s,): no other one finished.
    """
    seeds = quality.shape[1]
    chosen, alone = np.zeros(seeds, np.intp), np.zeros(seeds, bool)
    for seed in range(seeds):
        others = np.arange(seeds) != seed
        row = _best(quality[:, others], failed[:, others], there[:, seed])
        if row is None:
            own = slice(seed, seed + 1)
            row, alone[seed] = _best(quality[:, own], failed[:, own], there[:, seed]), True
        chosen[seed] = int(np.argmax(there[:, seed])) if row is None else row
    return chosen, alone


def _best(quality: Array, failed: Mask, allowed: Mask) -> int | None:
    """The best row by the mean of its finished seeds; None where no allowed row has one."""
    finished = np.isfinite(quality)
    rows = np.flatnonzero(allowed & finished.any(axis=1))
    if not rows.size:
        return None
    mean = np.where(finished, quality, 0).sum(axis=1) / np.maximum(finished.sum(axis=1), 1)
    return int(min(rows, key=lambda row: (bool(failed[row].any()), -mean[row], row)))


def _others(table: pd.DataFrame, key: str) -> list[Key]:
    """What makes each row's configuration, without the key."""
    return words(table, (other for other in CONFIGURATION if other != key))
