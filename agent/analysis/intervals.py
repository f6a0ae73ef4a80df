"""Bootstrap over seeds: intervals of means, and how probably a configuration is on a front."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 4000
"""Of each kind; the error of a probability found by so many is below 0.008 (one standard error)."""
SMOOTHING = 0.9
"""Width of the kernel: SMOOTHING · n^(−1/5) standard deviations (Silverman, 1986, eq. 3.31)."""
MANY = 200
"""Samples whose mean of means is as good as normal: resamples find |t|'s quantile to 0.03 only (one
standard error), and that of a normal variable is 1.96."""
CHUNK = 2**16
"""Numbers held at once by a thread: they stay in a processor's cache."""


def by_size(samples: Sequence[Array]) -> Iterator[tuple[npt.NDArray[np.intp], Array]]:
    """Samples of one size together, smallest first: which (k,), and their numbers (k, n)."""
    sizes = np.array([len(sample) for sample in samples], dtype=int)
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        yield rows, np.stack([samples[row] for row in rows.tolist()])


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
    with ThreadPoolExecutor() as pool:
        for rows, values in by_size(samples):
            if values.shape[1] > 1:
                parts = math.ceil(len(rows) * RESAMPLES / CHUNK)
                ends = pool.map(_intervals, np.array_split(values, parts))
                low[rows], high[rows] = np.hstack(list(ends))
    return low, high


def _intervals(values: Array) -> Array:
    """Ends of the interval of the mean of each row of `values` (k, n): (2, k)."""
    size = values.shape[1]
    mean = values.mean(axis=1)
    spread = values.std(axis=1, ddof=1)
    scale = np.where(spread > 0, spread, 1.0)[:, None]
    z = (values - mean[:, None]) / scale
    of_first, of_second = _resamples(size)
    one = np.ones((len(z), 1))
    # Moments of the resample x_j + e_j without making it: Σ(x + e) and Σ(x + e)² of each.
    first = np.hstack([z, one]) @ of_first  # (k, resamples)
    second = np.hstack([z * z, z, one]) @ of_second
    # With ρ = first² / second, t² = (n − 1)·ρ / (n − ρ), which grows with ρ: the quantile is found
    # first, and t of it only.
    np.square(first, out=first)
    first /= second
    at, part = divmod(CONFIDENCE * (RESAMPLES - 1), 1)
    first.partition(int(at) + 1, axis=1)
    ends = np.stack([first[:, : int(at) + 1].max(axis=1), first[:, int(at) + 1]])
    t = np.sqrt((size - 1) * ends / np.maximum(size - ends, np.finfo(float).tiny))
    reach = ((1 - part) * t[0] + part * t[1]) * spread / math.sqrt(size)
    return np.stack([mean - reach, mean + reach])


@cache
def _resamples(size: int) -> tuple[Array, Array]:
    """What makes Σ(x + e) and Σ(x + e)² of each resample out of a sample's n numbers x.

    Returns:
        (n + 1, resamples), to be multiplied by (x, 1): how often each is drawn, Σe;
        (2·n + 1, resamples), by (x², x, 1): the same, twice Σe at each, Σe².
    """
    rng = np.random.default_rng([size, RESAMPLES])
    drawn = rng.integers(0, size, (RESAMPLES, size))
    noise = rng.normal(0, SMOOTHING * size**-0.2, (RESAMPLES, size))
    counts = np.zeros((RESAMPLES, size))
    crossed = np.zeros((RESAMPLES, size))
    rows = np.arange(RESAMPLES)[:, None]
    np.add.at(counts, (rows, drawn), 1.0)
    np.add.at(crossed, (rows, drawn), noise)
    total, squares = noise.sum(axis=1), np.square(noise).sum(axis=1)
    return (
        np.column_stack([counts, total]).T.copy(),
        np.column_stack([counts, 2 * crossed, squares]).T.copy(),
    )


def grouped_mean_interval(samples: Sequence[Array]) -> tuple[float, float]:
    """Ends of the 95 % interval of the mean of the samples' means; NaN if one has fewer than two.

    As `mean_intervals`, each sample drawn from by itself: what is left is the uncertainty that the
    numbers within samples bring, not that of the choice of samples. Of `MANY` samples or more t
    is as good as normal, to more digits than resamples would find.
    """
    if not samples or min(len(sample) for sample in samples) < 2:
        return math.nan, math.nan
    error = math.sqrt(sum(sample.var(ddof=1) / len(sample) for sample in samples)) / len(samples)
    mean = float(np.mean([sample.mean() for sample in samples]))
    quantile = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    if len(samples) < MANY:
        quantile = _grouped_quantile(samples)
    return mean - quantile * error, mean + quantile * error


def _grouped_quantile(samples: Sequence[Array]) -> float:
    """The quantile of |t| of the mean of the samples' means, over resamples."""
    rng = np.random.default_rng([len(samples), RESAMPLES])
    shift = np.zeros(RESAMPLES)
    variance = np.zeros(RESAMPLES)
    for _, values in by_size(samples):
        size = values.shape[1]
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
    return float(np.quantile(t, CONFIDENCE))


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
    groups = [list(by_size([of[i] for i in usable])) for of in (costs, qualities)]
    stands = all(values.shape[1] == 1 for _, values in groups[0])
    some = max(1, CHUNK // len(usable))

    def count_hits(first: int) -> npt.NDArray[np.int_]:
        # A stream a chunk: the result does not depend on which thread draws when.
        rng = np.random.default_rng([len(usable), first])
        count = min(some, resamples - first)
        cost, quality = (_resampled_means(of, count, len(usable), rng) for of in groups)
        if stands:  # one row of it will do
            cost = cost[:1]
        return on_front(cost, quality).sum(axis=0)

    with ThreadPoolExecutor() as pool:
        hits = sum(pool.map(count_hits, range(0, resamples, some)))
    found[usable] = hits / resamples
    return found


def _resampled_means(
    groups: Sequence[tuple[npt.NDArray[np.intp], Array]],
    count: int,
    samples: int,
    rng: np.random.Generator,
) -> Array:
    """Means of `count` resamples of each sample, as `by_size` groups them: (count, samples)."""
    means = np.empty((count, samples))
    for rows, values in groups:
        size = values.shape[1]
        if size == 1:
            means[:, rows] = values[:, 0]
            continue
        total = np.zeros((count, len(rows)))
        for _ in range(size):
            total += values[np.arange(len(rows)), rng.integers(0, size, (count, len(rows)))]
        means[:, rows] = total / size
    return means


def on_front(cost: Array, quality: Array) -> npt.NDArray[np.bool_]:
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
    found = np.empty(q.shape, dtype=bool)
    np.put_along_axis(found, order, rises & (q == np.take_along_axis(best, end, axis=1)), axis=1)
    return found
