"""How much of a quality's scatter is the seed's, the object's, or neither's; and a new object's.

Of a configuration with n seeds and m test objects, y is the quality of the network of seed s on
object o. Seeds and objects are drawn at random and cross each other:

    y = μ + seed(s) + object(o) + rest(s, o)

The balanced analysis of variance has the components in closed form, which is also what REML gives
where none is negative (Searle, Casella & McCulloch, 1992, section 4.7):

    σ²(rest) = MS(rest)
    σ²(seed) = (MS(seed) − MS(rest)) / m
    σ²(object) = (MS(object) − MS(rest)) / n

Two or three seeds say little of their own scatter: MS(seed) is moderated by that of all
configurations (agent.analysis.scatter), and MS(rest) is pooled over them. MS(object) is each
configuration's own, with m − 1 degrees of freedom: all configurations saw the same objects, so that
one does not tell more than another. Intervals are by Student's t with Satterthwaite's (1946)
degrees of freedom.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from agent.analysis.means import CONFIDENCE, ObjectChange
from agent.analysis.scatter import Scale, expected_change, moderated, scale_of
from agent.study.quality import Array, numbers
from fno_runner.score.quantities import Quantity, object_column


@dataclass(frozen=True)
class Components:
    """What scatters the quality of k configurations; float64 (k,) each, in the quality's unit.

    seed, object, rest: standard deviations of the components; 0 where the estimate is negative, NaN
        where seeds or objects are too few to tell.
    objects_low, objects_high: 95 % interval of the mean over objects like these.
    new_low, new_high: 95 % prediction interval for one new object, reconstructed by one network
        that is trained anew.
    """

    seed: Array
    object: Array
    rest: Array
    objects_low: Array
    objects_high: Array
    new_low: Array
    new_high: Array


def components(samples: Sequence[Array], scale: Scale) -> Components:
    """The variance components of k configurations.

    Args:
        samples: of each configuration its numbers, float64 (n, m): a row a seed, a column an
            object. All have the same m; n may differ, and be 0.
        scale: where the scatter of seeds is expected to be even.
    """
    k = len(samples)
    n = np.array([len(sample) for sample in samples])
    m = max((sample.shape[1] for sample in samples if len(sample)), default=0)
    if m < 2 or not np.any(n > 1):
        return Components(*np.full((7, k), math.nan))
    mean, seed_own, ms_object = np.full((3, k), math.nan)
    rest_sum = rest_freedom = 0.0
    for i, sample in enumerate(samples):
        if not len(sample):
            continue
        by_seed, by_object = sample.mean(axis=1), sample.mean(axis=0)
        mean[i] = sample.mean()
        ms_object[i] = len(sample) * by_object.var(ddof=1)
        if len(sample) > 1:
            seed_own[i] = by_seed.std(ddof=1)
            rest = sample - by_seed[:, None] - by_object + mean[i]
            rest_sum += float(np.square(rest).sum())
            rest_freedom += (len(sample) - 1) * (m - 1)
    ms_rest = rest_sum / rest_freedom
    scatter = moderated(seed_own, n, mean, scale, np.empty((k, 0)))
    ms_seed = m * np.square(scatter.std)
    some = np.where(n > 0, n, math.nan)
    of = (ms_seed, ms_object, np.full(k, ms_rest))
    freedom = (scatter.freedom, np.full(k, m - 1.0), np.full(k, rest_freedom))
    per_run = 1 / (some * m)
    reach = _reach(of, freedom, (per_run, per_run, -per_run))
    weights = (1 / m + per_run, 1 / some + per_run, 1 - 1 / some - 1 / m - per_run)
    of_new = _reach(of, freedom, weights)
    of_new = np.fmax(of_new, reach)  # which more degrees of freedom may turn round
    return Components(
        seed=np.sqrt(np.maximum(ms_seed - ms_rest, 0) / m),
        object=np.sqrt(np.maximum(ms_object - ms_rest, 0) / some),
        rest=np.where(n > 0, math.sqrt(ms_rest), math.nan),
        objects_low=mean - reach,
        objects_high=mean + reach,
        new_low=mean - of_new,
        new_high=mean + of_new,
    )


def interaction(samples: Sequence[Array], scale: Scale) -> ObjectChange | None:
    """How far configurations change places from object to object.

    With the same m objects for all, a configuration's mean on an object is

        y(c, o) = μ(c) + measure(c) · (object(o) + change(c, o))

    where what all have in common of an object, object(o), decides nothing between two of one
    measure. The measure is how far the quality may move at its level: on the logit of SSIM what is
    near 1 moves little, and what is poor does not tell how far the good ones change places.

    Args:
        samples: as those of `components`.
        scale: where configurations are expected to change evenly.

    Returns:
        None where fewer than two configurations, seeds or objects leave it unknown.
    """
    level = np.array([sample.mean() if len(sample) else math.nan for sample in samples])
    measure = np.exp(expected_change(level, scale) / 2)
    pairs = zip(samples, measure, strict=True)
    whole = [(sample - sample.mean()) / of for sample, of in pairs if len(sample)]
    k, m = len(whole), max((sample.shape[1] for sample in whole), default=0)
    freedom = sum((len(sample) - 1) * (m - 1) for sample in whole)
    if k < 2 or m < 2 or not freedom:
        return None
    by_object = np.array([sample.mean(axis=0) for sample in whole])  # (k, m)
    rest = sum(
        float(np.square(sample - mean - (sample - mean).mean(axis=1, keepdims=True)).sum())
        for sample, mean in zip(whole, by_object, strict=True)
    )
    together = by_object.mean(axis=0)
    between = float(np.square(by_object - together).sum()) / ((k - 1) * (m - 1))
    per_mean = float(np.mean([1 / len(sample) for sample in whole]))
    own = math.sqrt(max(0.0, between - rest / freedom * per_mean))
    common = math.sqrt(max(0.0, float(together.var(ddof=1)) - between / k))
    return ObjectChange(own * measure, (k - 1.0) * (m - 1), common * measure, m - 1.0)


def _reach(squares: Sequence[Array], freedom: Sequence[Array], weights: Sequence[Array]) -> Array:
    """t·√Σ(weight · mean square), by Satterthwaite's degrees of freedom.

    A negative component counts as none: no less than what seeds or objects alone leave. What is
    subtracted may not take more degrees of freedom than the fewest that one mean square has.
    """
    parts = [weight * square for weight, square in zip(weights, squares, strict=True)]
    variance = np.maximum(sum(parts), np.fmax(parts[0], parts[1]))
    spread = sum(np.square(p) / f for p, f in zip(parts, freedom, strict=True))
    effective = np.divide(
        np.square(variance), spread, out=np.full(len(variance), math.inf), where=spread > 0
    )
    effective = np.fmax(effective, np.fmin(freedom[0], freedom[1]))
    return np.asarray(stats.t.ppf((1 + CONFIDENCE) / 2, effective) * np.sqrt(variance))


def object_columns(column: str, table: pd.DataFrame) -> list[str]:
    """The columns of a table of runs that have a metric of each test object, in their order."""
    numbered = (object_column(column, number) for number in itertools.count(1))
    return list(itertools.takewhile(table.__contains__, numbered))


def object_samples(column: str, runs: pd.DataFrame, seeds: Sequence[Sequence[int]]) -> list[Array]:
    """Of each configuration a metric of each test object, float64 (n, m): a row a seed.

    Args:
        seeds: for each configuration the positions in `runs` of its seeds.
    """
    names = object_columns(column, runs) or [column]
    values = np.column_stack([numbers(runs, name) for name in names])
    whole = np.asarray(np.isfinite(values).all(axis=1))
    return [values[[row for row in rows if whole[row]]] for rows in seeds]


def component_columns(
    quality: Quantity, runs: pd.DataFrame, seeds: Sequence[Sequence[int]]
) -> pd.DataFrame:
    """A row a configuration; the columns' names go behind the metric's.

    With one test object there are no components, and every interval is for this object only.

    Args:
        seeds: for each configuration the positions in `runs` of its seeds.
    """
    column, bounds = quality.column, (quality.low, quality.high)
    samples = object_samples(column, runs, seeds)
    estimate = components(samples, scale_of(quality))
    columns = {
        "n_objects": [sample.shape[1] if len(sample) else 0 for sample in samples],
        "seed_sd": estimate.seed,
        "object_sd": estimate.object,
        "rest_sd": estimate.rest,
        "objects_low": np.clip(estimate.objects_low, *bounds),
        "objects_high": np.clip(estimate.objects_high, *bounds),
        "new_object_low": np.clip(estimate.new_low, *bounds),
        "new_object_high": np.clip(estimate.new_high, *bounds),
    }
    return pd.DataFrame(columns, dtype=object).add_prefix(f"{column}_")
