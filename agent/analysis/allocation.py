"""Which configuration gets the next seed, so that the choice becomes sure with few runs."""

from __future__ import annotations

import numpy as np

from agent.study.quality import Array, Counts, Mask

FIRST = 5
"""The scatter of seeds is estimated from at least so many second seeds, of the most promising
configurations, before anything is said of probabilities."""


def next_second(probability: Array, value: Array, counts: Counts, may: Mask) -> int | None:
    """The configuration to get its second seed before any probability is told; None once none is.

    The scatter of one or two pairs of seeds makes a choice look sure that is not. Arguments as of
    `next_seed`.
    """
    if np.isfinite(probability).any() and np.maximum(counts - 1, 0).sum() >= FIRST:
        return None
    valued = np.flatnonzero(np.isfinite(value))
    first = valued[np.argsort(-value[valued], kind="stable")][:FIRST]
    lacking = first[may[first] & (counts[first] < 2)]
    return int(lacking[0]) if lacking.size else None


def next_seed(probability: Array, value: Array, counts: Counts, may: Mask) -> int | None:
    """The configuration whose next seed tells most about the choice; None where none may help.

    Top-two sampling (Russo, 2020, doi:10.1287/opre.2019.1911) in expectation: half of the seeds go
    to the choice, half to whatever else may turn out to be it, as probably as it may. The
    configuration that is farthest behind its share is next.

    Args:
        probability: of being the choice (k,); NaN where it is not compared or not known.
        value: what the choice maximises (k,), of the means; NaN where unknown.
        counts: seeds so far, those under way included (k,).
        may: which configurations may have another seed (k,).
    """
    if (second := next_second(probability, value, counts, may)) is not None:
        return second
    known = np.isfinite(probability)
    p = np.nan_to_num(probability)
    odds = np.divide(p, 1 - p, out=np.zeros_like(p), where=p < 1)
    share = p * (1 + odds.sum() - odds) / 2
    wanted = np.where(may & known, share / np.maximum(counts, 1), 0.0)
    best = int(np.argmax(wanted))
    return best if wanted[best] > 0 else None
