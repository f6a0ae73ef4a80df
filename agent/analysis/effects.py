"""How much each swept key matters: marginal means with intervals, and optuna's fANOVA."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from agent.analysis.configurations import CONFIGURATION, Configurations
from agent.analysis.means import CONFIDENCE, cut
from agent.study.quality import Array, by_key
from agent.study.records import Cell
from fno_runner.score.quantities import Quantity

FEWEST = 4
"""With fewer configurations nothing is said of importance."""
SEED = 0
ROUNDING = 1e-12
"""Of the largest mean: what is no difference."""
SPLIT = 1e-4
"""Numbers that span less are stretched: a forest splits nothing that varies by some 1e-8, in
whatever unit, and then has no variance to share out."""
TREES, DEPTH = 64, 8
"""Of the forest. Deeper trees say the same to two digits and take twice the time."""


@dataclass(frozen=True)
class Effect:
    """What one key does to the quality, averaged over all else that was swept.

    values: what the key took, numbers in order, words by name.
    mean, low, high: for each value, the mean over its configurations' means, and the ends of the
        95 % interval that the seeds leave, cut where the quality ends; NaN where no configuration
        of the study has two seeds. float64.
    importance: the part of the variance between configurations that the key explains by itself and
        with others [0 to 1, all keys together 1] (Hutter, Hoos & Leyton-Brown, 2014); NaN where
        there are too few configurations.
    balanced: whether each value met the same values of all other keys; if not, part of the effect
        may be theirs.
    """

    key: str
    values: list[Cell]
    mean: Array
    low: Array
    high: Array
    importance: float
    balanced: bool


def effects(configs: Configurations, quality: Quantity) -> list[Effect]:
    """The main effect on a quality of every key that varies among configurations that have it."""
    if quality.column not in configs.means:
        return []
    of = configs.means[quality.column]
    compared = np.flatnonzero(np.isfinite(of.mean))
    told = configs.table.iloc[compared]
    values = {key: told[key].tolist() for key in CONFIGURATION}
    varied = {key: column for key, column in values.items() if len(set(map(str, column))) > 1}
    importance = _importance(varied, of.mean[compared])
    found = []
    for key, column in varied.items():
        levels = _in_order(column)
        groups = [compared[[value == level for value in column]] for level in levels]
        mean, error, freedom = np.transpose([of.together(group) for group in groups])
        reach = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error
        low, high = cut(mean, reach, quality.low, quality.high)
        found.append(
            Effect(
                key=key,
                values=levels,
                mean=mean,
                low=low,
                high=high,
                importance=importance[key],
                balanced=_is_balanced(key, varied),
            )
        )
    return found


def _in_order(column: list[Cell]) -> list[Cell]:
    """Each value once: no value first, then numbers, then words."""

    def place(value: Cell) -> tuple[int, float, str]:
        if isinstance(value, int | float):
            return 1, float(value), ""
        return (0, 0.0, "") if value is None else (2, 0.0, value)

    return sorted(set(column), key=place)


def _is_balanced(key: str, varied: dict[str, list[Cell]]) -> bool:
    """Whether every value of the key met the same combinations of the others."""
    others = [column for name, column in varied.items() if name != key]
    first, *rest = (
        sorted([str(column[row]) for column in others] for row in rows)
        for rows in by_key(varied[key]).values()
    )
    return all(combinations == first for combinations in rest)


def _importance(varied: dict[str, list[Cell]], means: Array) -> dict[str, float]:
    """optuna's fANOVA over the configurations' means: a forest of `TREES` trees, seeded."""
    # Rounding is no difference: a forest of equal leaves explains nothing.
    if not varied or len(means) < FEWEST or np.ptp(means) <= ROUNDING * np.abs(means).max():
        return dict.fromkeys(varied, math.nan)
    # optuna takes seconds to import, and only an export of enough configurations needs it.
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def distribution(levels: list[Cell]) -> Any:
        if all(isinstance(level, int | float) for level in levels):
            return optuna.distributions.IntDistribution(0, len(levels) - 1)
        return optuna.distributions.CategoricalDistribution(range(len(levels)))

    # Values by their places in order: each weighs the same, however far it is from the next. By
    # themselves 1e-4 would weigh next to nothing beside 1e-1.
    levels = {key: _in_order(column) for key, column in varied.items()}
    choices = {key: distribution(values) for key, values in levels.items()}
    if np.ptp(means) < SPLIT:
        means = (means - means.mean()) / np.ptp(means)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=SEED))
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={key: levels[key].index(column[row]) for key, column in varied.items()},
                distributions=choices,
                value=float(mean),
            )
            for row, mean in enumerate(means)
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(
        n_trees=TREES, max_depth=DEPTH, seed=SEED
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        importances = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(importances[key]) for key in varied}
