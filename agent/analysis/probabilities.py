"""How probably a configuration is the choice, and on a front, by draws of the means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats

from agent.analysis.choice_options import Limit
from agent.analysis.means import Means, count_of_draws
from agent.analysis.price import ROUNDING, Price, Rule
from agent.study.quality import Array, Mask, Rows

NEVER = 1e-5
"""What is less probable than this at each of two means' ends is not drawn."""
LEAST_TIME = 1e-3
"""A drawn time is at least this part of the mean."""


def choice_probabilities(
    quality: Means,
    cost: Means,
    sign: int,
    rule: Rule,
    rows: Rows,
    limits: Sequence[tuple[Limit, Means]] = (),
) -> Array:
    """How probably each configuration is the choice: in which part of draws of the means it is.

    Args:
        quality: of k configurations. sign: what it is multiplied by so that more is better.
        cost: of k configurations; of a time, draws of its mean.
        rows: the configurations to choose from, cheapest first; they have both numbers.
        limits: conditions, each with what it is on. In each draw only what meets all of them is
            there to choose from; where nothing does there is no choice, and the sum is below 1.

    Returns:
        (k,); NaN for what is not compared.
    """
    probability = np.full(len(quality.mean), math.nan)
    probability[rows] = 0.0
    if isinstance(rule, Price) and not limits:
        rows = rows[_may_be_chosen(quality, cost, sign, rule, rows)]
    hits = np.zeros(len(rows))
    drawn = zip(_draws(quality, cost, sign, rows), _met(quality, cost, rows, limits), strict=True)
    for (gain, paid), met in drawn:
        chosen = rule.choose(np.where(met, gain, -math.inf), paid)
        hits += np.bincount(chosen, weights=met.any(axis=1), minlength=len(rows))
    probability[rows] = hits / count_of_draws(len(rows))
    return probability


def front_probabilities(quality: Means, cost: Means, sign: int, rows: Rows) -> Array:
    """How probably each configuration is on the front: no other one is both cheaper and better.

    Arguments and result as those of `choice_probabilities`; there is a row at least.
    """
    probability = np.full(len(quality.mean), math.nan)
    hits = np.zeros(len(rows))
    for gain, paid in _draws(quality, cost, sign, rows):
        hits += on_front(paid, gain).sum(axis=0)
    probability[rows] = hits / count_of_draws(len(rows))
    return probability


def _draws(quality: Means, cost: Means, sign: int, rows: Rows) -> Iterator[tuple[Array, Array]]:
    """Gains (some, rows) and costs (some or 1, rows)."""
    if not np.nan_to_num(cost.error[rows]).any():
        for drawn in quality.draws(rows):
            yield sign * drawn, cost.mean[None, rows]
        return
    # A time is not negative, however far out in the tail.
    least = LEAST_TIME * cost.mean[rows]
    for drawn, paid in zip(quality.draws(rows), cost.draws(rows, stream=1), strict=True):
        yield sign * drawn, np.maximum(paid, least)


def _met(
    quality: Means, cost: Means, rows: Rows, limits: Sequence[tuple[Limit, Means]]
) -> Iterator[Mask]:
    """Which rows meet all limits, a row a draw (some, rows), in the parts of `_draws`."""
    # A limit on what is chosen by, or on what is paid, is met or not by the very draws of that.
    own = {id(quality): 0, id(cost): 1}
    each = [of.draws(rows, own.get(id(of), n)) for n, (_, of) in enumerate(limits, start=2)]
    for gain, *drawn in zip(quality.draws(rows), *each, strict=True):
        met = np.ones(gain.shape, dtype=bool)
        for (limit, _), values in zip(limits, drawn, strict=True):
            met &= limit.is_met(values)
        yield met


def _may_be_chosen(quality: Means, cost: Means, sign: int, price: Price, rows: Rows) -> Mask:
    """Which of the rows are not far behind another one: the rest would be drawn in vain."""
    value = sign * quality.mean[rows] - price.amount * np.log2(cost.mean[rows])
    relative = np.nan_to_num(cost.error[rows]) / cost.mean[rows]
    error = np.hypot(np.nan_to_num(quality.error[rows]), price.amount * relative / math.log(2))
    freedom = np.fmin(quality.freedom[rows], cost.freedom[rows])
    if (change := quality.change) is not None:
        error = np.hypot(error, change.whole[rows])
        freedom = np.fmin(freedom, min(change.freedom, change.common_freedom))
    reach = np.where(error > 0, stats.t.ppf(1 - NEVER, freedom) * error, 0.0)
    return value + reach >= np.max(value - reach) - ROUNDING


def on_front(cost: Array, quality: Array) -> Mask:
    """Which points of each row (rows, points) no other point of the row dominates.

    A cost of one row (1, points) is that of all rows.

    A point dominates another if it costs no more, is no worse, and is strictly better in one of the
    two (Pareto dominance): equal points do not dominate each other.
    """
    order = np.argsort(cost, axis=1)
    c, q = (np.take_along_axis(values, order, axis=1) for values in (cost, quality))
    best = np.maximum.accumulate(q, axis=1)  # of a point and all before it
    place = np.arange(c.shape[1])
    dearer = np.ones_like(c, dtype=bool)  # than the one before
    dearer[:, 1:] = c[:, 1:] != c[:, :-1]
    # Where the points of equal cost begin and end.
    first = np.maximum.accumulate(np.where(dearer, place, 0), axis=1)
    last = np.ones_like(dearer)
    last[:, :-1] = dearer[:, 1:]
    end = np.minimum.accumulate(np.where(last, place, c.shape[1])[:, ::-1], axis=1)[:, ::-1]
    cheaper = np.take_along_axis(best, np.maximum(first - 1, 0), axis=1)
    rises = (first == 0) | (q > cheaper)
    member = np.empty(q.shape, dtype=bool)
    np.put_along_axis(member, order, rises & (q == np.take_along_axis(best, end, axis=1)), axis=1)
    return member


def percent(probability: float) -> str:
    """'87 %', as `whole_percents`."""
    return f"{whole_percents(np.array(probability)):.0f} %"


def whole_percents(probability: Array) -> Array:
    """Probabilities [%], rounded; neither 0 nor 100, which draws cannot tell."""
    return np.clip(np.round(100 * probability), 1, 99)
