"""Bootstrap over seeds: intervals of means, and how probably a configuration is on a front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 4000
"""Of each kind; the error of a probability found by so many is below 0.008 (one standard error)."""
SMOOTHING = 0.9
"""Width of the kernel: SMOOTHING · n^(−1/5) standard deviations (Silverman, 1986, eq. 3.31)."""
CHUNK = 2**22
"""Numbers held at once."""


def mean_intervals(samples: Sequence[Array]) -> tuple[Array, Array]:
    """Ends of the 95 % interval of the mean of each sample; NaN for fewer than two numbers.

    The symmetric studentised bootstrap (Hall, 1988) of a smoothed sample (Polansky & Schucany,
    1997): mean ± q·s/√n, q the 95 % quantile of |t| over the resamples. Why this one and what it
    covers is in docs/statistics.md: percentiles of so few seeds cover 84 % at n = 5, and without
    smoothing a resample of equal numbers has no t. Samples of one size share their resamples,
    drawn from a fixed seed: an interval depends on its own numbers only.
    """
    low = np.full(len(samples), math.nan)
    high = np.full(len(samples), math.nan)
    sizes = np.array([len(sample) for sample in samples], dtype=int)
    for size in sorted({int(n) for n in sizes if n > 1}):
        rows = np.flatnonzero(sizes == size)
        for some in np.array_split(rows, math.ceil(len(rows) * RESAMPLES / CHUNK)):
            values = np.stack([samples[int(row)] for row in some])  # (k, n)
            low[some], high[some] = _intervals(values)
    return low, high


def _intervals(values: Array) -> tuple[Array, Array]:
    """Intervals of the mean of each row of `values` (k, n)."""
    size = values.shape[1]
    mean = values.mean(axis=1)
    spread = values.std(axis=1, ddof=1)
    scale = np.where(spread > 0, spread, 1.0)[:, None]
    z = (values - mean[:, None]) / scale
    counts, noise, crossed, squares = _resamples(size)
    # Moments of the resample x_j + e_j without making it: Σx, Σx², Σe, Σxe, Σe² of each.
    total = z @ counts.T + noise  # (k, resamples)
    of_squares = (z * z) @ counts.T + 2 * z @ crossed.T + squares
    variance = (of_squares - total**2 / size) / (size - 1)
    t = total / np.sqrt(np.maximum(variance, np.finfo(float).tiny) * size)
    reach = np.quantile(np.abs(t), CONFIDENCE, axis=1) * spread / math.sqrt(size)
    return mean - reach, mean + reach


@cache
def _resamples(size: int) -> tuple[Array, Array, Array, Array]:
    """How often each of `size` values is drawn, Σe, Σe at each value, and Σe², of each resample."""
    rng = np.random.default_rng([size, RESAMPLES])
    drawn = rng.integers(0, size, (RESAMPLES, size))
    noise = rng.normal(0, SMOOTHING * size**-0.2, (RESAMPLES, size))
    counts = np.zeros((RESAMPLES, size))
    crossed = np.zeros((RESAMPLES, size))
    rows = np.arange(RESAMPLES)[:, None]
    np.add.at(counts, (rows, drawn), 1.0)
    np.add.at(crossed, (rows, drawn), noise)
    return counts, noise.sum(axis=1), crossed, np.square(noise).sum(axis=1)


def grouped_mean_interval(samples: Sequence[Array]) -> tuple[float, float]:
    """Ends of the 95 % interval of the mean of the samples' means; NaN if one has fewer than two.

    As `mean_intervals`, each sample drawn from by itself: what is left is the uncertainty that the
    numbers within samples bring, not that of the choice of samples.
    """
    if not samples or min(len(sample) for sample in samples) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng([len(samples), RESAMPLES])
    shift = np.zeros(RESAMPLES)
    variance = np.zeros(RESAMPLES)
    for size in sorted({len(sample) for sample in samples}):
        values = np.stack([sample for sample in samples if len(sample) == size])  # (k, n)
        values = values - values.mean(axis=1, keepdims=True)
        kernel = SMOOTHING * size**-0.2 * values.std(axis=1, ddof=1, keepdims=True)
        parts = math.ceil(values.size * RESAMPLES / CHUNK)
        for rows in np.array_split(np.arange(len(values)), parts):
            drawn = rng.integers(0, size, (RESAMPLES, len(rows), size))
            noise = rng.normal(size=drawn.shape) * kernel[rows]
            resample = values[rows[:, None], drawn] + noise
            shift += resample.mean(axis=2).sum(axis=1)
            variance += resample.var(axis=2, ddof=1).sum(axis=1) / size
    t = np.abs(shift) / np.sqrt(np.maximum(variance, np.finfo(float).tiny))
    error = math.sqrt(sum(sample.var(ddof=1) / len(sample) for sample in samples)) / len(samples)
    mean = float(np.mean([sample.mean() for sample in samples]))
    reach = float(np.quantile(t, CONFIDENCE)) * error
    return mean - reach, mean + reach


def front_probabilities(
    costs: Sequence[Array], qualities: Sequence[Array], resamples: int = RESAMPLES
) -> Array:
    """How probably each configuration is on the front of mean cost against mean quality.

    Each configuration's costs and qualities are drawn anew from its own, with replacement, as many
    as there are; the part of resamples in which no other configuration dominates it. A
    configuration with a single quality stands still in every resample.

    Args:
        costs: of each configuration; less is better. One number for a cost that no seed changes.
        qualities: of each configuration; more is better.

    Returns:
        float64, one a configuration; NaN where a cost or a quality is missing.
    """
    found = np.full(len(costs), math.nan)
    usable = [i for i, (c, q) in enumerate(zip(costs, qualities, strict=True)) if c.size and q.size]
    if not usable:
        return found
    rng = np.random.default_rng(len(usable))
    hits = np.zeros(len(usable))
    some = max(1, CHUNK // len(usable))
    for first in range(0, resamples, some):
        count = min(some, resamples - first)
        cost = _resampled_means([costs[i] for i in usable], count, rng)
        quality = _resampled_means([qualities[i] for i in usable], count, rng)
        hits += on_front(cost, quality).sum(axis=0)
    found[usable] = hits / resamples
    return found


def _resampled_means(samples: Sequence[Array], count: int, rng: np.random.Generator) -> Array:
    """Means of `count` resamples of each sample: (count, samples)."""
    means = np.empty((count, len(samples)))
    sizes = np.array([len(sample) for sample in samples])
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        values = np.stack([samples[int(row)] for row in rows])  # (k, n)
        if size == 1:
            means[:, rows] = values[:, 0]
            continue
        total = np.zeros((count, len(rows)))
        for _ in range(int(size)):
            total += values[np.arange(len(rows)), rng.integers(0, size, (count, len(rows)))]
        means[:, rows] = total / size
    return means


def on_front(cost: Array, quality: Array) -> npt.NDArray[np.bool_]:
    """Which points of each row (rows, points) no other point of the row dominates.

    A point dominates another if it costs no more, is no worse, and is strictly better in one of the
    two (Pareto dominance): equal points do not dominate each other.
    """
    order = np.lexsort((-quality, cost), axis=1)
    c, q = (np.take_along_axis(values, order, axis=1) for values in (cost, quality))
    best = np.maximum.accumulate(q, axis=1)
    rises = np.ones_like(c, dtype=bool)
    rises[:, 1:] = q[:, 1:] > best[:, :-1]
    # Equal to a point on the front: sorted, equal points stand together, and the first one rises.
    same = np.zeros_like(rises)
    same[:, 1:] = (c[:, 1:] == c[:, :-1]) & (q[:, 1:] == q[:, :-1])
    leader = np.maximum.accumulate(np.where(same, 0, np.arange(c.shape[1])), axis=1)
    found = np.zeros_like(rises)
    np.put_along_axis(found, order, np.take_along_axis(rises, leader, axis=1), axis=1)
    return found
