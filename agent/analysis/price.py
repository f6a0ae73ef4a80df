"""What a doubling of the cost must bring: the rule of the choice, and the choice at every price."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from agent.study.quality import Array, Rows

ROUNDING = 1e-9
"""0.72 and 0.70 differ by 0.02, though their binary difference is larger."""
FRUGAL = 4.0
"""The frugal pick's price, in units of the asked one."""


@dataclass(frozen=True)
class Price:
    """The choice maximises gain − amount · log₂(cost): a doubling of the cost must gain `amount`.

    At 0 it is the best (of equal ones the cheapest); the higher, the more frugal.
    """

    amount: float

    def choose(self, gain: Array, cost: Array) -> Rows:
        """The choice along the last axis; of equal ones the first. More gain is better."""
        value = gain - self.amount * np.log2(cost)
        best = value.max(axis=-1, keepdims=True)
        return np.argmax(value >= best - ROUNDING, axis=-1)


@dataclass(frozen=True)
class Tolerance:
    """The choice is the cheapest within `amount` of the best: the rule of version 0.1, if asked."""

    amount: float

    def choose(self, gain: Array, cost: Array) -> Rows:
        """The choice along the last axis; of equally cheap ones the better, then the first."""
        gain, cost = np.broadcast_arrays(gain, cost)
        near = gain >= gain.max(axis=-1, keepdims=True) - self.amount - ROUNDING
        paid = np.where(near, cost, math.inf)
        cheapest = paid == paid.min(axis=-1, keepdims=True)
        return np.argmax(np.where(cheapest, gain, -math.inf), axis=-1)


Rule = Price | Tolerance


@dataclass(frozen=True)
class Rung:
    """Prices, `low` to `high`, at which a configuration (a row) is the choice."""

    config: int
    low: float
    high: float


def ladder(gain: Array, cost: Array) -> list[Rung]:
    """The choice at every price from 0 up; the last rung's `high` is infinite.

    The choices at all prices are the corners of the upper hull of the points (log₂ cost, gain), and
    the prices at which the choice changes are the slopes between them.

    Args:
        gain: more is better (k,). cost: positive (k,). Rows with a number that is not finite are
            never a choice.
    """
    rows = [int(i) for i in np.flatnonzero(np.isfinite(gain) & np.isfinite(cost))]
    rows.sort(key=lambda i: (cost[i], -gain[i]))
    if not rows:
        return []
    hull: list[int] = []
    for row in rows:
        if hull and gain[row] <= gain[hull[-1]] + ROUNDING:
            continue  # dearer, and no better
        while len(hull) > 1 and _slope(gain, cost, hull[-2], hull[-1]) <= _slope(
            gain, cost, hull[-1], row
        ):
            hull.pop()
        hull.append(row)
    limits = [_slope(gain, cost, a, b) for a, b in pairwise(hull)]
    # Slopes fall towards the dearer end, where the price is lowest.
    highs, lows = [math.inf, *limits], [*limits, 0.0]
    return [Rung(*rung) for rung in zip(hull, lows, highs, strict=True)][::-1]


def _slope(gain: Array, cost: Array, of: int, to: int) -> float:
    """What a doubling of the cost brings from one configuration to a dearer one."""
    return float((gain[to] - gain[of]) / (math.log2(cost[to]) - math.log2(cost[of])))
