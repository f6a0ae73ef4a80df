"""Which configurations are worth their cost: fronts, their uncertainty, hypervolume and knee."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from agent.analysis.choice_options import COST
from agent.analysis.configurations import (
    FLOPS,
    TIME,
    Configurations,
    devices,
    seed_means,
    timed_rows,
)
from agent.analysis.means import Means
from agent.analysis.probabilities import front_probabilities, on_front
from agent.study.quality import (
    PHASE_PSNR,
    PHASE_SSIM,
    R_FROM_OBJECT,
    R_HELD_OUT,
    R_TRAIN,
    Array,
    numbers,
)
from fno_runner.score.quantities import QUANTITIES, Quantity

SIMULATED = ((COST, PHASE_SSIM), (COST, PHASE_PSNR), (TIME, PHASE_SSIM), (FLOPS, PHASE_SSIM))
SCAN = ((COST, R_HELD_OUT), (COST, R_TRAIN), (TIME, R_HELD_OUT), (FLOPS, R_HELD_OUT))
CHOSEN_FROM_OBJECT = tuple((cost, R_FROM_OBJECT) for cost in (COST, TIME, FLOPS))
"""The fronts: costs, and what they buy."""


@dataclass(frozen=True)
class Axis:
    """A number of every configuration: mean and 95 % interval; NaN where unknown. float64 (k,)."""

    column: str
    mean: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Front:
    """The configurations of which no other is both cheaper and better, by their means.

    Arrays have one element a row of the series' `configs`.

    device: whose times the cost is; None where the cost is not a time.
    members: rows on the front, cheapest first.
    probability: of being on the front, by draws of the means; NaN for a configuration that is not
        compared, or where nothing is known of the scatter.
    reference: (cost, quality) up to which the hypervolume reaches.
    hypervolume: the area that the front dominates [decades of cost × unit of the quality].
    knee: the row after which more cost buys least; None where the front has no bend.
    """

    quality: Quantity
    cost: Axis
    value: Axis
    device: str | None
    members: list[int]
    probability: Array
    reference: tuple[float, float]
    hypervolume: float
    knee: int | None

    @property
    def name(self) -> str:
        """'model_params-ssim_phase'."""
        return f"{self.cost.column}-{self.quality.column}"


def fronts(
    runs: pd.DataFrame, configs: Configurations, by: Quantity, reported: Quantity
) -> list[Front]:
    """The fronts of a series that have a point; those over inference time once a device.

    Args:
        by: what is chosen by. Of a scan's object nothing but the held-out frames is known, so its
            first fronts are over that.
        reported: what is reported.
    """
    first = CHOSEN_FROM_OBJECT if by == R_FROM_OBJECT else ()
    kinds = (*first, *(SCAN if reported == R_HELD_OUT else SIMULATED))
    on = devices(runs)
    used = sorted({on[row] for mine in configs.seeds for row in mine})
    drawn = []
    for column, quality in kinds:
        if quality.column not in configs.means:
            continue
        for device in used if column == TIME else [None]:
            candidate = _front(runs, configs, column, quality, device, on)
            if candidate is not None:
                drawn.append(candidate)
            elif column == COST and quality == reported:
                return []  # what lacks these numbers is left out of the others as well
    return drawn


def front(cost: Sequence[float] | Array, quality: Sequence[float] | Array) -> list[int]:
    """Positions of the points that no other point dominates (`on_front`), cheapest first.

    Equal points are in their given order. A point with a number that is not finite is on no front.
    """
    costs = np.asarray(cost, dtype=float)
    qualities = np.asarray(quality, dtype=float)
    finite = np.flatnonzero(np.isfinite(costs) & np.isfinite(qualities))
    chosen = finite[on_front(costs[None, finite], qualities[None, finite])[0]]
    return [int(i) for i in chosen[np.argsort(costs[chosen], kind="stable")]]


def hypervolume(cost: Array, quality: Array, reference: tuple[float, float]) -> float:
    """The area between the points and `reference` that a point dominates, cost in decades.

    Zitzler & Thiele (1999), in two dimensions: points that cost more than the reference, or are
    worse, add nothing. More quality is better.
    """
    limit, floor = math.log10(reference[0]), reference[1]
    area, best = 0.0, floor
    for i in front(cost, quality):
        width = limit - math.log10(cost[i])
        if width > 0 and quality[i] > best:
            area += width * (quality[i] - best)
            best = float(quality[i])
    return area


def knee(cost: Array, quality: Array, members: Sequence[int]) -> int | None:
    """The member of a front that lies farthest above the line between the front's ends.

    Cost in decades and quality, each scaled to 0 … 1 along the front (the Kneedle of Satopää et
    al., 2011, without smoothing). None for a front of fewer than three different points or without
    a bend outwards.
    """
    if len({(cost[i], quality[i]) for i in members}) < 3:
        return None
    x, y = np.log10(cost[list(members)]), quality[list(members)]
    above = (y - y[0]) / (y[-1] - y[0]) - (x - x[0]) / (x[-1] - x[0])
    highest = int(np.argmax(above))
    return members[highest] if above[highest] > 1e-9 else None


def _front(
    runs: pd.DataFrame,
    configs: Configurations,
    column: str,
    quality: Quantity,
    device: str | None,
    on: list[str],
) -> Front | None:
    """A front; None where no configuration has both numbers."""
    value = configs.means[quality.column]
    cost = configs.means[column] if device is None else _timed(runs, configs, device, on)
    gain = quality.sign * value.mean
    members = front(cost.mean, gain)
    if not members:
        return None
    compared = np.flatnonzero(np.isfinite(cost.mean) & np.isfinite(gain))
    in_order = compared[np.argsort(cost.mean[compared], kind="stable")]
    probability = front_probabilities(value, cost, quality.sign, in_order)
    probability[np.isnan(value.error)] = math.nan
    reference = _reference(runs, cost.mean[compared], gain[compared], quality)
    return Front(
        quality=quality,
        cost=_axis(column, cost),
        value=_axis(quality.column, value),
        device=device,
        members=members,
        probability=probability,
        reference=reference,
        hypervolume=hypervolume(cost.mean, gain, (reference[0], quality.sign * reference[1])),
        knee=knee(cost.mean, gain, members),
    )


def _axis(column: str, of: Means) -> Axis:
    """A mean with its interval, cut where the quantity ends; none of what no seed changes."""
    ends = of.interval(QUANTITIES[column].low, QUANTITIES[column].high)
    low, high = np.where(of.error == 0, math.nan, ends)
    return Axis(column, of.mean, low, high)


def _timed(runs: pd.DataFrame, configs: Configurations, device: str, on: list[str]) -> Means:
    """Times of inference on one device, each run once."""
    names = runs["run_id"].tolist()
    members = [timed_rows(mine, names, on, device) for mine in configs.seeds]
    return seed_means(TIME, numbers(runs, TIME), runs["seed"].tolist(), members, configs.terms)


def _reference(
    runs: pd.DataFrame, cost: Array, gain: Array, quality: Quantity
) -> tuple[float, float]:
    """The power of ten next above every cost, and a quality that takes no network.

    For a metric of the object the flat phase's; for an R factor 1: nothing explained. Where the
    floor is not known, the worst of the compared qualities.
    """
    floor = numbers(runs, f"{quality.column}_flat")
    known = floor[np.isfinite(floor)]
    if quality.better == "lower":
        worst = 1.0
    elif known.size:
        worst = float(known.mean())
    else:
        worst = float(gain.min())
    return 10.0 ** (math.floor(math.log10(cost.max())) + 1), worst
