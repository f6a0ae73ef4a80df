"""How much each swept key matters: marginal means with intervals, and optuna's fANOVA."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from agent.analysis.configurations import CONFIGURATION, Configurations
from agent.analysis.means import CONFIDENCE, Means
from fno_runner.score.quantities import Quantity

FEWEST = 4
"""With fewer configurations nothing is said of importance."""
SEED = 0
TREES, DEPTH = 64, 8
"""Of the forest. Deeper trees say the same to two digits and take twice the time."""


@dataclass(frozen=True)
class Effect:
    """What one key does to the quality, averaged over all else that was swept.

    values: what the key took, numbers in order, words by name.
    mean, low, high: for each value, the mean over its configurations' means, and the ends of the
        95 % interval that the seeds leave; NaN where a configuration has one seed. float64.
    count: how many configurations have the value.
    importance: the part of the variance between configurations that the key explains by itself and
        with others [0 to 1, all keys together 1] (Hutter, Hoos & Leyton-Brown, 2014); NaN where
        there are too few configurations.
    balanced: whether each value met the same values of all other keys; if not, part of the effect
        may be theirs.
    """

    key: str
    values: list[str | int | float | None]
    mean: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    count: list[int]
    importance: float
    balanced: bool


def effects(configs: Configurations, quality: Quantity) -> list[Effect]:
    """The main effect of every key that varies among the compared configurations.

    Args:
        configs: a series' configurations.
        quality: what is reported.
    """
    if quality.column not in configs.means:
        return []
    of = configs.means[quality.column]
    compared = np.flatnonzero(np.isfinite(of.mean))
    told = configs.table.iloc[compared]
    values = {key: told[key].tolist() for key in CONFIGURATION if key in told}
    varied = {key: column for key, column in values.items() if len(set(map(str, column))) > 1}
    if not varied:
        return []
    importance = _importance(varied, of.mean[compared])
    return [
        _effect(key, column, of, compared, importance[key], _is_balanced(key, varied))
        for key, column in varied.items()
    ]


def _effect(
    key: str,
    column: list[str | int | float | None],
    of: Means,
    compared: npt.NDArray[np.intp],
    importance: float,
    balanced: bool,
) -> Effect:
    levels = _in_order(column)
    groups = [compared[[value == level for value in column]] for level in levels]
    told = [of.together(group) for group in groups]
    mean, error, freedom = (np.array(part) for part in zip(*told, strict=True))
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error
    return Effect(
        key=key,
        values=levels,
        mean=mean,
        low=mean - reach,
        high=mean + reach,
        count=[len(group) for group in groups],
        importance=importance,
        balanced=balanced,
    )


def _in_order(column: list[str | int | float | None]) -> list[str | int | float | None]:
    """Each value once: no value first, then numbers, then words."""

    def place(value: str | int | float | None) -> tuple[int, float, str]:
        if isinstance(value, int | float):
            return 1, float(value), ""
        return (0, 0.0, "") if value is None else (2, 0.0, value)

    return sorted(set(column), key=place)


def _is_balanced(key: str, varied: dict[str, list[str | int | float | None]]) -> bool:
    """Whether every value of the key met the same combinations of the others."""
    others = [column for name, column in varied.items() if name != key]
    met: dict[str | int | float | None, list[tuple[str, ...]]] = {}
    for row, value in enumerate(varied[key]):
        met.setdefault(value, []).append(tuple(str(column[row]) for column in others))
    first, *rest = (sorted(combinations) for combinations in met.values())
    return all(combinations == first for combinations in rest)


def _importance(
    varied: dict[str, list[str | int | float | None]], means: npt.NDArray[np.float64]
) -> dict[str, float]:
    """optuna's fANOVA over the configurations' means: a forest of `TREES` trees, seeded."""
    nothing = dict.fromkeys(varied, math.nan)
    if len(means) < FEWEST or np.ptp(means) == 0:
        return nothing
    # optuna takes seconds to import, and only an export of enough configurations needs it.
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def distribution(column: list[str | int | float | None]) -> Any:
        values = [value for value in column if isinstance(value, int | float)]
        if len(values) == len(column):
            return optuna.distributions.FloatDistribution(float(min(values)), float(max(values)))
        return optuna.distributions.CategoricalDistribution(_in_order(column))

    choices = {key: distribution(column) for key, column in varied.items()}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=SEED))
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={key: column[row] for key, column in varied.items()},
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
    return nothing | {key: float(importances[key]) for key in varied}
