"""What is known of configurations' means: intervals, draws, and differences between two of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from agent.analysis.scatter import Scale, Scatter, moderated
from agent.study.quality import Array, Counts, Mask, Rows

CONFIDENCE = 0.95
DRAWS = 4000
"""The error of a probability found by so many is below 0.008 (one standard error)."""
MOST_DRAWN = 2**23
"""Numbers drawn at most: of more than 2,097 configurations there are fewer draws."""
CHUNK = 2**18
"""Numbers held at once."""
MOST_FREEDOM = 1e9
"""Of a χ² that is drawn; more is as good as a constant."""
SURE = 0.9
"""Seeds count as correlated only as far as they show with this confidence: too much correlation
would make differences look surer than they are."""


@dataclass(frozen=True)
class ObjectChange:
    """How far means over objects may be from means of a few: standard deviations (k,), and freedom.

    own: what a configuration changes by beside the others, of `freedom` degrees.
    common: what all of them change by together, each by its measure; of `common_freedom` degrees.
    """

    own: Array
    freedom: float
    common: Array
    common_freedom: float

    def draws(self, rows: Rows, count: int, rng: np.random.Generator) -> Array:
        """Changes as they may be, a row a draw (count, rows); of variances that all have alike."""
        own, common = (
            np.sqrt(freedom / rng.chisquare(freedom, (count, 1)))
            for freedom in (self.freedom, self.common_freedom)
        )
        own = own * rng.standard_normal((count, len(rows))) * self.own[rows]
        return np.asarray(own + common * rng.standard_normal((count, 1)) * self.common[rows])

    @property
    def whole(self) -> Array:
        """Both together (k,)."""
        return np.hypot(self.own, self.common)

    def difference(self, of: int, to: int) -> tuple[float, float]:
        """The variance that it adds to a difference of two means, and its degrees of freedom."""
        own = float(self.own[of] ** 2 + self.own[to] ** 2)
        common = float(self.common[of] - self.common[to]) ** 2
        spread = own**2 / self.freedom + common**2 / self.common_freedom
        return own + common, (own + common) ** 2 / spread if spread > 0 else math.inf


@dataclass(frozen=True)
class Means:
    """Means of k configurations over their seeds, and how sure each is.

    A mean's error is t-distributed: the moderated standard deviation over √n, with its degrees of
    freedom. Errors of configurations that share seeds are correlated by what the seeds show.

    mean: (k,); NaN where there is no number.
    error: the standard error of the mean (k,); NaN where it is not known, 0 of what seeds do not
        change.
    freedom: its degrees of freedom (k,).
    counts: how many numbers each mean is over (k,).
    scatter: of the seeds.
    seeds: which seeds each mean is over (k, s).
    correlation: of two configurations' numbers of one seed [0 to 1].
    change: how far the mean over all objects may be from this one, where that is known; no interval
        of a mean has it, and draws and differences do.
    """

    mean: Array
    error: Array
    freedom: Array
    counts: Counts
    scatter: Scatter
    seeds: Mask
    correlation: float
    change: ObjectChange | None = None

    def interval(self, least: float = -math.inf, most: float = math.inf) -> tuple[Array, Array]:
        """Ends of each mean's 95 % interval by Student's t; NaN where the error is not known.

        Args:
            least: where the interval is cut, as no mean can be below it. most: … above it.
        """
        reach = stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom) * self.error
        return cut(self.mean, reach, least, most)

    def draws(self, rows: Rows, stream: int = 0) -> Iterator[Array]:
        """Means as they may be, a row a draw, in parts (some, len(rows)); the same every time.

        What has no known error stands still.

        Args:
            rows: the configurations that are drawn.
            stream: draws of different streams are independent.
        """
        error = np.nan_to_num(self.error[rows])
        freedom = np.minimum(np.nan_to_num(self.freedom[rows], nan=1.0), MOST_FREEDOM)
        shares = np.sqrt(self.correlation) * np.sqrt(self.counts[rows])[:, None]
        weights = shares * self.seeds[rows] / np.maximum(self.counts[rows], 1)[:, None]
        # What the shared part leaves of an error of variance 1.
        own = np.sqrt(np.maximum(0, 1 - np.square(weights).sum(axis=1)))
        together = bool(self.correlation > 0)
        some = max(1, CHUNK // max(1, len(rows)))
        for first in range(0, count_of_draws(len(rows)), some):
            rng = np.random.default_rng([stream, len(rows), first])
            count = min(some, count_of_draws(len(rows)) - first)
            normal = own * rng.standard_normal((count, len(rows)))
            if together:
                normal += rng.standard_normal((count, weights.shape[1])) @ weights.T
            chi = rng.chisquare(freedom, (count, len(rows)))
            drawn = self.mean[rows] + error * normal * np.sqrt(freedom / chi)
            if self.change is not None:
                drawn += self.change.draws(rows, count, rng)
            yield drawn

    def difference(self, of: int, to: int) -> tuple[float, float, float]:
        """mean[of] − mean[to], its standard error, and the error's degrees of freedom (Welch).

        They are no more than those of all seeds: what two errors borrow, they have in common.
        """
        first, second = self.error[of] ** 2, self.error[to] ** 2
        common = int(np.sum(self.seeds[of] & self.seeds[to]))
        shared = self.correlation * common / math.sqrt(self.counts[of] * self.counts[to])
        variance = first + second - 2 * shared * self.error[of] * self.error[to]
        parts = first**2 / self.freedom[of] + second**2 / self.freedom[to]
        freedom = (first + second) ** 2 / parts if parts > 0 else math.inf
        if (of_all := int(np.maximum(self.counts - 1, 0).sum())) > 0:
            freedom = min(freedom, of_all)
        variance = max(variance, 0.0)
        if self.change is not None:
            more, of_more = self.change.difference(of, to)
            spread = variance**2 / freedom + more**2 / of_more
            variance += more
            freedom = variance**2 / spread if spread > 0 else math.inf
        return float(self.mean[of] - self.mean[to]), math.sqrt(variance), float(freedom)

    def together(self, rows: Rows) -> tuple[float, float, float]:
        """Mean of the rows' means, its standard error, and the error's degrees of freedom."""
        squares = np.square(self.error[rows])
        weights = self.error[rows] / np.sqrt(np.maximum(self.counts[rows], 1))
        shared = np.square(weights @ self.seeds[rows]).sum()
        variance = (1 - self.correlation) * squares.sum() + self.correlation * shared
        parts = np.sum(np.square(squares) / self.freedom[rows])
        freedom = np.square(squares.sum()) / parts if parts > 0 else math.inf
        return float(self.mean[rows].mean()), math.sqrt(variance) / len(rows), float(freedom)


def cut(mean: Array, reach: Array, least: float, most: float) -> tuple[Array, Array]:
    """mean ± reach, cut at `least` and at `most`; never beyond the mean, which may be rounded."""
    low, high = np.maximum(mean - reach, least), np.minimum(mean + reach, most)
    return np.minimum(low, mean), np.maximum(high, mean)


def count_of_draws(rows: int) -> int:
    """So many draws are made of so many configurations."""
    return min(DRAWS, max(1, MOST_DRAWN // max(1, rows)))


def means(values: Array, scale: Scale, terms: Array, paired: bool = True) -> Means:
    """The means of k configurations.

    Args:
        values: a column a seed (k, s); NaN where a configuration lacks the number.
        scale: where the scatter is expected to be even (agent.analysis.scatter).
        terms: what the scatter may follow (k, t).
        paired: whether a column is one seed for all configurations.
    """
    seeds = np.isfinite(values)
    n = seeds.sum(axis=1)
    some, several = np.where(n > 0, n, math.nan), np.where(n > 1, n, math.nan)
    mean = np.where(seeds, values, 0).sum(axis=1) / some
    off = np.where(seeds, values - mean[:, None], 0)
    own = np.sqrt(np.square(off).sum(axis=1) / (several - 1))
    scatter = moderated(own, n, mean, scale, terms)
    standard = off / np.where(scatter.std > 0, scatter.std, 1)[:, None]
    residuals = np.where((n > 1)[:, None] & seeds, standard, math.nan)
    return Means(
        mean=mean,
        error=scatter.std / np.sqrt(some),
        freedom=np.where(n > 0, scatter.freedom, math.nan),
        counts=n,
        scatter=scatter,
        seeds=seeds,
        correlation=seed_correlation(residuals) if paired else 0.0,
    )


def exact(values: Array) -> Means:
    """Numbers that no seed changes, such as counts."""
    nothing, none = np.full(len(values), math.nan), np.zeros(len(values))
    return Means(
        mean=values,
        error=np.where(np.isfinite(values), 0.0, math.nan),
        freedom=np.full(len(values), math.inf),
        counts=np.isfinite(values).astype(int),
        scatter=Scatter(nothing, none, none, nothing),
        seeds=np.zeros((len(values), 1), bool),
        correlation=0.0,
    )


def seed_correlation(residuals: Array) -> float:
    """How far a seed moves all configurations together: a lower bound of the correlation.

    Two-way analysis of variance, configurations and seeds, over the seeds that most configurations
    have: the mean square of seeds over that of the rest is F-distributed. The bound is the one that
    is exceeded with confidence `SURE`; 0 where seeds show nothing.

    Args:
        residuals: each configuration's numbers less its mean, in standard deviations (k, s); NaN
            where there is none.
    """
    patterns, which, count = np.unique(
        np.isfinite(residuals), axis=0, return_inverse=True, return_counts=True
    )
    worth = count * np.maximum(patterns.sum(axis=1) - 1, 0)
    most = int(np.argmax(worth)) if worth.size else 0
    if not worth.size or worth[most] == 0 or count[most] < 2:
        return 0.0
    block = residuals[np.ravel(which) == most][:, patterns[most]]
    k, n = block.shape
    by_seed = block.mean(axis=0)
    seeds = k * float(np.square(by_seed).sum()) / (n - 1)
    rest = float(np.square(block - by_seed).sum()) / ((k - 1) * (n - 1))
    if rest == 0:
        return 0.0
    ratio = seeds / rest / stats.f.ppf(SURE, n - 1, (k - 1) * (n - 1))
    return max(0.0, float((ratio - 1) / (ratio + k - 1)))
