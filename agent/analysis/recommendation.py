"""The choice: which configuration is worth its cost at a price, how sure that is, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from agent.analysis.choice_options import COST, ChoiceOptions, Limit
from agent.analysis.configurations import Configurations
from agent.analysis.differences import Difference, differences
from agent.analysis.means import Means
from agent.analysis.pareto import front
from agent.analysis.price import FRUGAL, Price, Rule, Rung, Tolerance, ladder
from agent.analysis.probabilities import choice_probabilities
from agent.study.quality import (
    PHASE_SSIM,
    R_FROM_OBJECT,
    R_HELD_OUT,
    VALIDATED_SSIM,
    Array,
    Mask,
    Rows,
    numbers,
)
from fno_runner.score.quantities import QUANTITIES, Quantity

CONTENDER = 0.01
"""What is the choice with at least this probability is compared with it."""
MOST_CONTENDERS = 8
NOTHING = "no finished run to recommend"


@dataclass(frozen=True)
class Choice:
    """What configurations are chosen by, and what is reported of them.

    by: the criterion of the choice; `reported` is that of the test object, or of held-out frames.
    caveat: why the choice has seen what is reported; empty where it has not.
    """

    by: Quantity
    reported: Quantity
    caveat: str

    @property
    def price(self) -> float:
        """What a doubling of the cost must bring unless asked otherwise: 0.01 in phase SSIM."""
        return self.by.tolerance / 2

    @property
    def equal(self) -> float:
        """A difference within it does not matter unless asked otherwise: 0.005 in phase SSIM."""
        return self.by.tolerance / 4


@dataclass(frozen=True)
class Pick:
    """What the rule gives at a price: a configuration (a row), and how probably it is that.

    name: frugal, sweet spot or best.
    """

    name: str
    price: float
    config: int
    probability: float


@dataclass(frozen=True)
class Recommendation:
    """The choice among a series' configurations. Numbers of configurations are rows of its table.

    price: what a doubling of the cost must bring. equal: a difference within it does not matter.
    config: the recommended one: the sweet spot, or the cheapest within a tolerance if asked so.
    best: the one of the best mean.
    picks: what the rule gives at a high price, at the asked one and at none.
    rungs: the choice at every price, from 0 up.
    probability: of each being the recommended one, (k,); NaN where not compared or not known. What
        misses a limit by its mean may meet it, and none may.
    contenders: those that may be the choice as well, against it, the most probable first.
    runner_up: the next by the same rule, or None.
    next_better: the cheapest one whose mean is better than the recommended one's, or None.
    candidates: whether each is one to choose from (k,).
    left_out: why configurations were not, with their names.
    margin: how much worse than the best's the recommended one's mean is; never negative.
    provisional: why seeds could change this; empty where they are taken into account.
    """

    choice: Choice
    options: ChoiceOptions
    price: float
    equal: float
    config: int
    best: int
    picks: list[Pick]
    rungs: list[Rung]
    probability: Array
    contenders: list[Difference]
    runner_up: int | None
    next_better: int | None
    candidates: Mask
    left_out: dict[str, list[str]]
    margin: float
    provisional: str

    @property
    def cost(self) -> Quantity:
        """What is paid."""
        return QUANTITIES[self.options.cost]

    @property
    def compared(self) -> int:
        """How many configurations there were to choose from."""
        return int(self.candidates.sum())


def choose_by(finished: pd.DataFrame) -> Choice:
    """What a series' configurations are chosen by.

    Of a scan R on held-out frames, as the object of the training frames predicts them where all
    runs have that. Else the validation object's phase SSIM where every finished run with a phase
    SSIM has it, and the phase SSIM of the test object where not.
    """
    ssim = np.isfinite(numbers(finished, PHASE_SSIM.column))
    validated = np.isfinite(numbers(finished, VALIDATED_SSIM.column))
    scanned = np.isfinite(numbers(finished, R_HELD_OUT.column))
    if scanned.any():
        caveat = "a scan has no second object: chosen by the held-out frames that are reported"
        from_object = np.isfinite(numbers(finished, R_FROM_OBJECT.column))
        by = R_FROM_OBJECT if from_object[scanned].all() else R_HELD_OUT
        return Choice(by, R_HELD_OUT, caveat)
    if not ssim.any():
        return Choice(PHASE_SSIM, PHASE_SSIM, "")
    if validated[ssim].all():
        return Choice(VALIDATED_SSIM, PHASE_SSIM, "")
    lacking = f"{int((ssim & ~validated).sum())} of {int(ssim.sum())} finished runs"
    caveat = (
        f"chosen by the same test object that is reported: {lacking} have no validation metrics"
    )
    return Choice(PHASE_SSIM, PHASE_SSIM, caveat)


def recommend(
    configs: Configurations, choice: Choice, options: ChoiceOptions
) -> Recommendation | str:
    """The choice, or why there is none.

    Chosen is what maximises quality − price · log₂(cost), of the means. What collapsed or diverged
    in a seed, or does not meet a limit, is no candidate.
    """
    by = choice.by
    price = choice.price if options.price is None else options.price
    equal = choice.equal if options.equal is None else options.equal
    measured = np.isfinite(_mean(configs, by.column)) & np.isfinite(
        _mean(configs, choice.reported.column)
    )
    if not measured.any():
        return NOTHING
    candidates = _candidates(configs, measured, options)
    if isinstance(candidates, str):
        return candidates
    kept, eligible, left_out = candidates
    quality, cost = configs.means[by.column], configs.means[options.cost]
    gain, paid = by.sign * quality.mean, cost.mean
    # Cheapest first, and by name: of equal ones the rules take the first.
    rows, drawn = (some[np.argsort(paid[some], kind="stable")] for some in (kept, eligible))
    scatter_is_known = bool(np.isfinite(quality.error[drawn]).all())
    limits = [(limit, configs.means[limit.column]) for limit in options.limits]

    def chosen_by(rule: Rule) -> tuple[int, Array]:
        probability = np.full(len(gain), math.nan)
        if scatter_is_known:
            probability = choice_probabilities(quality, cost, by.sign, rule, drawn, limits)
        return int(rows[rule.choose(gain[rows], paid[rows])]), probability

    picks = []
    for name, at in (("frugal", FRUGAL * price), ("sweet spot", price), ("best", 0.0)):
        config, probability = chosen_by(Price(at))
        picks.append(Pick(name, at, config, float(probability[config])))
    rule: Rule = Price(price) if options.tolerance is None else Tolerance(options.tolerance)
    config, probability = chosen_by(rule)
    others = rows[rows != config]
    shown = np.full(len(gain), math.nan)
    shown[rows] = gain[rows]
    better = [i for i in front(paid, shown) if gain[i] > gain[config]]
    best = picks[-1].config
    return Recommendation(
        choice=choice,
        options=options,
        price=price,
        equal=equal,
        config=config,
        best=best,
        picks=picks,
        rungs=ladder(shown, paid),
        probability=probability,
        contenders=_contenders(quality, by.sign, config, best, probability, equal),
        runner_up=int(others[rule.choose(gain[others], paid[others])]) if others.size else None,
        next_better=better[0] if better else None,
        candidates=np.isfinite(shown),
        left_out=left_out,
        margin=float(gain[best] - gain[config]),
        provisional="" if scatter_is_known else _provisional(configs.table),
    )


def _provisional(table: pd.DataFrame) -> str:
    """Why seeds could change the choice, of configurations of which none has two that finished."""
    has = "ran with one seed" if numbers(table, "n_runs").max() == 1 else "has one finished seed"
    return f"each configuration {has}: another seed may change the choice"


def _contenders(
    quality: Means, sign: int, config: int, best: int, probability: Array, equal: float
) -> list[Difference]:
    """The best, and what may be the choice as well, against the choice."""
    if np.isnan(quality.error[config]):
        return []
    in_order = map(int, np.argsort(-np.nan_to_num(probability), kind="stable"))
    likely = [i for i in in_order if i != config and probability[i] >= CONTENDER][:MOST_CONTENDERS]
    if best != config and best not in likely:
        likely.append(best)
    return differences(quality, sign, config, likely, equal)


def _candidates(
    configs: Configurations, measured: Mask, options: ChoiceOptions
) -> tuple[Rows, Rows, dict[str, list[str]]] | str:
    """What there is to choose from, what there is without limits, and what is left out by reason.

    Or why nothing is left.
    """
    table, names = configs.table, configs.table["configuration"].tolist()
    left_out: dict[str, list[str]] = {}
    kept = measured.copy()

    def leave_out(rows: Mask, reason: str) -> None:
        nonlocal kept
        if dropped := [names[i] for i in np.flatnonzero(kept & rows)]:
            left_out[reason] = dropped
        kept = kept & ~rows

    cost = QUANTITIES[options.cost]
    paid = _mean(configs, options.cost)
    if not np.isfinite(paid[measured]).any():
        return NOTHING if options.cost == COST else f"no finished run has {cost.label}"
    leave_out(~(np.isfinite(paid) & (paid > 0)), f"without {cost.label}")
    if not options.allow_collapse:
        failed = (numbers(table, "n_collapsed") + numbers(table, "n_diverged")) > 0
        finished = int(kept.sum())
        leave_out(failed, "collapsed or diverged in a seed")
        if finished and not kept.any():
            every = f"all {finished} configurations" if finished > 1 else "the only configuration"
            return (
                f"{every} to choose from collapsed or diverged in a seed; --allow-collapse lets "
                "the choice have it"
            )
    before = kept.copy()
    for limit in options.limits:
        leave_out(~limit.is_met(_mean(configs, limit.column)), f"not {limit.words}")
    if not kept.any():
        asked = " and ".join(limit.words for limit in options.limits)
        return f"no configuration has {asked}; {_nearest(configs, before, options.limits)}"
    return np.flatnonzero(kept), np.flatnonzero(before), left_out


def _nearest(configs: Configurations, candidates: Mask, limits: Sequence[Limit]) -> str:
    """The candidate that misses the limits by least, each in parts of what others miss it by."""
    missed = np.zeros(len(candidates))
    for limit in limits:
        values = _mean(configs, limit.column)
        short = limit.bound - values if limit.least else values - limit.bound
        off = np.abs(values[candidates] - limit.bound)
        spread = float(off[np.isfinite(off)].max(initial=0.0)) or 1.0
        missed = np.maximum(
            missed, np.where(np.isfinite(short), np.maximum(short, 0), spread) / spread
        )
    nearest = int(min(np.flatnonzero(candidates), key=lambda i: missed[i]))
    has = []
    for limit in limits:
        quantity, value = QUANTITIES[limit.column], float(_mean(configs, limit.column)[nearest])
        known = math.isfinite(value)
        has.append(f"{quantity.label} {quantity.shown(value)}" if known else f"no {quantity.label}")
    return f"the nearest is {configs.table['configuration'][nearest]} with {', '.join(has)}"


def _mean(configs: Configurations, column: str) -> Array:
    if column not in configs.means:
        return np.full(len(configs.table), math.nan)
    return configs.means[column].mean
