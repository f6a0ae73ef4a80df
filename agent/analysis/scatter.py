"""How much seeds scatter: each configuration's own variance, moderated by that of all others.

Two or three seeds say little of a configuration's scatter, and fifty configurations say much of
how seeds scatter in general. Empirical Bayes (Smyth, 2004, doi:10.2202/1544-6115.1027) joins the
two: the variances of the configurations are taken as draws from one distribution, whose centre and
width the study itself tells, and each is shrunk towards the centre by as much as its own seeds
leave open.

    s² | σ² ~ σ² χ²(d) / d,   σ² ~ s0² d0 / χ²(d0),   s0² = exp(x·β)

d is the number of seeds less one, d0 the degrees of freedom that the others are worth, and x·β the
trend of the scatter: with the architecture, with the cost, with the level of the quality, and with
whether a seed of the configuration collapsed. Smyth fits by moments of log s², which with one
degree of freedom are dominated by the smallest s²; the marginal likelihood is used here instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from agent.study.quality import Array, Counts, Mask
from fno_runner.score.quantities import Quantity

Scale = Literal["linear", "log", "logit"]
"""Where scatter is expected to be even: in the number itself, in its logarithm (what is positive
and without an upper end), or in the logit between −1 and 1 (SSIM, Pearson)."""

TREND = 2.0
"""Prior standard deviation of what each term of the trend changes in log σ² across the study: a
factor of e in σ. Weak: 54 configurations of two seeds overrule it, four do not."""
INVERSE_FREEDOM = np.concatenate([[1e-6], np.geomspace(0.01, 1.0, 24)])
"""Values of 1/d0 that are weighed; 0 (all configurations follow the trend exactly) to 1."""
LEAST_LEVEL = 1e-3
"""Of the median level: a mean of zero would have no scatter at all."""
STEPS = 50
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Scatter:
    """The scatter of seeds of each configuration, in the quality's own unit; float64 (k,) each.

    own: the standard deviation (n − 1) of its own seeds; NaN of fewer than two.
    expected: what the trend over the other configurations lets expect.
    std: the moderated standard deviation, between the two.
    freedom: the degrees of freedom of `std`; NaN, as `expected` and `std`, where no configuration
        has two seeds.
    """

    own: Array
    expected: Array
    std: Array
    freedom: Array


def moderated(own: Array, counts: Counts, level: Array, scale: Scale, terms: Array) -> Scatter:
    """The moderated scatter of k configurations.

    Args:
        own: standard deviations (n − 1) of the seeds (k,); NaN of fewer than two.
        counts: how many seeds (k,).
        level: the means (k,); NaN where there is none.
        scale: where the scatter is expected to be even.
        terms: of the trend (k, t), as `trend_terms` makes them; they must be finite.
    """
    known = np.isfinite(own) & (counts > 1)
    nothing = np.full(len(own), np.nan)
    if not known.any():
        return Scatter(own, nothing, nothing, nothing)
    squares = np.square(own[known])
    freedom = (counts[known] - 1).astype(float)
    offset = expected_change(level, scale)
    pooled = float(np.sum(freedom * squares / np.exp(offset[known])) / freedom.sum())
    if pooled == 0:  # seeds that are all equal leave no room for any
        even = np.zeros(len(own))
        return Scatter(own, even, even, np.full(len(own), freedom.sum()))
    columns = np.column_stack([np.ones(len(own)), terms, _unit_range(offset)])
    precision = np.full(columns.shape[1], TREND**-2)
    precision[0] = 1e-9  # the common scatter is the study's alone to tell
    ratios = squares / np.exp(offset[known]) / pooled
    inverse = _inverse_freedom(ratios, freedom, columns[known], precision)
    _, coefficients, information = _fit(
        ratios, freedom, columns[known], precision, np.array([inverse])
    )
    trend, uncertain = columns @ coefficients[0], _leverage(columns, information[0])
    # What one's own seeds say enters the variance by itself, and may not be counted twice: without
    # them the trend, and how uncertain it is, lie a step of scoring from those of all.
    weights, pull = _pull(ratios, freedom, trend[known], 1 / inverse)
    apart = uncertain[known] / (1 - weights * uncertain[known])
    trend[known] -= pull * apart
    uncertain[known] = apart
    expected = pooled * np.exp(offset + trend)
    # How uncertain log s0² is adds to how widely log σ² is spread about it.
    spread = special.polygamma(1, 0.5 / inverse) + uncertain
    prior = 2 * trigamma_inverse(spread)
    own_freedom = np.where(known, counts - 1, 0).astype(float)
    total = prior + own_freedom
    variance = (prior * expected + own_freedom * np.where(known, np.square(own), 0)) / total
    return Scatter(own, np.sqrt(expected), np.sqrt(variance), total)


def scale_of(quantity: Quantity) -> Scale:
    """Where a quantity is expected to scatter evenly, by its bounds."""
    if (quantity.low, quantity.high) == (-1, 1):
        return "logit"
    return "log" if (quantity.low, quantity.high) == (0, np.inf) else "linear"


def trend_terms(architecture: Sequence[str], cost: Array, collapsed: Mask) -> Array:
    """What scatter may follow, of k configurations, as columns (k, t).

    A column a value of the architecture, the logarithm of the cost, and whether a seed collapsed;
    each spans a range of one and has mean 0. What does not vary is left out. An unknown cost
    counts as the mean one.
    """
    columns = []
    names = sorted(set(architecture))
    if len(names) > 1:
        # Of columns half as variable each, differences of two vary by TREND.
        columns += [np.array([a == n for a in architecture]) / np.sqrt(2) for n in names]
    with np.errstate(invalid="ignore", divide="ignore"):
        decades = np.log(cost)
    decades = np.where(np.isfinite(decades), decades, np.nan)
    if np.isfinite(decades).any():
        columns.append(_unit_range(np.where(np.isnan(decades), np.nanmean(decades), decades)))
    columns.append(_unit_range(collapsed.astype(float)))
    kept = [column - column.mean() for column in columns if np.ptp(column) > 0]
    return np.column_stack(kept) if kept else np.empty((len(architecture), 0))


def trigamma_inverse(values: Array) -> Array:
    """The y > 0 of which trigamma(y) is each value (Smyth, 2004, appendix); values > 0."""
    y = 0.5 + 1 / np.asarray(values, dtype=float)
    for _ in range(STEPS):
        trigamma = special.polygamma(1, y)
        step = trigamma * (1 - trigamma / values) / special.polygamma(2, y)
        y = y + step
        if np.max(np.abs(step / y), initial=0) < TOLERANCE:
            break
    return np.asarray(y)


def expected_change(level: Array, scale: Scale) -> Array:
    """By how much log σ² differs from configuration to configuration if the scale is even.

    By the delta method σ(y) = σ(g) / g'(y); mean 0, and 0 where the level is not known.
    """
    if scale == "linear":
        return np.zeros(len(level))
    known = np.isfinite(level)
    slope = np.ones(len(level))
    if scale == "log":
        size = np.abs(level[known])
        slope[known] = np.maximum(size, LEAST_LEVEL * max(float(np.median(size)), 1e-300))
    else:
        # Means this near the end are rounding: 1 − 1e-6 would otherwise have no scatter at all.
        slope[known] = np.maximum(1 - np.square(level[known]), 1e-4)
    change = 2 * np.log(slope)
    if known.any():
        change = np.where(known, change - change[known].mean(), 0)
    return change


def _unit_range(values: Array) -> Array:
    """Shifted to mean 0 and stretched to a range of one; zeros stay zeros."""
    span = np.ptp(values)
    return np.zeros_like(values) if span == 0 else (values - values.mean()) / span


def _inverse_freedom(ratios: Array, freedom: Array, columns: Array, precision: Array) -> float:
    """The mean of 1/d0 over its marginal likelihood between 0 and 1."""
    loglikelihood, coefficients, information = _fit(
        ratios, freedom, columns, precision, INVERSE_FREEDOM
    )
    # Laplace: the trend is integrated out.
    evidence = loglikelihood - 0.5 * np.linalg.slogdet(information)[1]
    evidence -= 0.5 * np.square(coefficients) @ precision
    weight = np.exp(evidence - evidence.max()) * np.gradient(INVERSE_FREEDOM)
    return float(np.sum(weight * INVERSE_FREEDOM) / weight.sum())


def _fit(
    ratios: Array, freedom: Array, columns: Array, precision: Array, inverse: Array
) -> tuple[Array, Array, Array]:
    """The trend for each value of 1/d0, by Fisher scoring; s²/s0² ~ F(d, d0).

    Args:
        ratios: variances, in a common unit (k,).
        freedom: of each (k,).
        columns: of the trend (k, p). precision: of their priors (p,).
        inverse: values of 1/d0 (g,).

    Returns:
        log likelihood (g,), coefficients (g, p), information with the priors' (g, p, p).
    """
    prior = 1 / inverse[:, None]  # (g, 1)
    weights, _ = _pull(ratios, freedom, np.zeros(len(ratios)), prior)  # (g, k)
    information = np.einsum("gk,kp,kq->gpq", weights, columns, columns) + np.diag(precision)
    coefficients = np.zeros((len(inverse), columns.shape[1]))
    for _ in range(STEPS):
        _, pull = _pull(ratios, freedom, coefficients @ columns.T, prior)
        score = pull @ columns - coefficients * precision
        step = np.clip(np.linalg.solve(information, score[..., None])[..., 0], -2, 2)
        coefficients += step
        if np.max(np.abs(step)) < TOLERANCE:
            break
    trend = coefficients @ columns.T
    scaled = freedom * ratios * np.exp(-trend)
    loglikelihood = (
        special.gammaln((prior + freedom) / 2)
        - special.gammaln(prior / 2)
        - freedom / 2 * np.log(prior)
        - (prior + freedom) / 2 * np.log1p(scaled / prior)
        - freedom / 2 * trend
    ).sum(axis=1)
    return loglikelihood, coefficients, information


def _pull(ratios: Array, freedom: Array, trend: Array, prior: Array | float) -> tuple[Array, Array]:
    """Fisher information and score of log s0², of each variance, at log s0² = trend."""
    scaled = freedom * ratios * np.exp(-trend)
    weights = freedom * prior / (2 * (freedom + prior + 2))
    return weights, ((freedom + prior) * scaled / (prior + scaled) - freedom) / 2


def _leverage(columns: Array, information: Array) -> Array:
    """The variance of x·β of each row."""
    return np.asarray(np.einsum("kp,pq,kq->k", columns, np.linalg.inv(information), columns))
