"""Contenders against the choice: better, worse, equal or undecided; several tests allowed for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from agent.analysis.means import CONFIDENCE, Means
from agent.study.quality import Array

Verdict = Literal["better", "worse", "equal", "undecided"]


@dataclass(frozen=True)
class Difference:
    """How much better than the choice a contender is.

    config: the contender's row.
    gain: by how much its mean is better; negative where it is worse.
    low, high: ends of the interval of the gain, at the level that Holm's procedure gives it.
    p: that a difference of zero would look like this one or larger, adjusted (Holm).
    verdict: "equal" where it is shown to be within the margin of practical equality, "better" or
        "worse" where it is shown to be that, "undecided" where seeds do not tell.
    """

    config: int
    gain: float
    low: float
    high: float
    p: float
    verdict: Verdict


def differences(
    quality: Means, sign: int, choice: int, contenders: Sequence[int], margin: float
) -> list[Difference]:
    """Each contender against the choice, by the seeds that they share.

    Two families of t tests, each at 5 % in all by Holm's procedure (1979): that there is no
    difference, and that there is one of at least the margin (two one-sided tests, Schuirmann 1987).

    Args:
        sign: what the quality is multiplied by so that more is better.
        contenders: rows of configurations whose means have errors, as the choice's has.
        margin: a difference within it does not matter, in the quality's unit.
    """
    if not contenders:
        return []
    more, error, freedom = np.transpose([quality.difference(row, choice) for row in contenders])
    gain = sign * more
    # Seeds that leave no room at all decide everything.
    error = np.maximum(error, np.finfo(float).tiny)
    differs = np.asarray(2 * stats.t.sf(np.abs(gain) / error, freedom))
    matters = np.asarray(stats.t.sf((margin - np.abs(gain)) / error, freedom))
    ranks = stats.rankdata(differs, method="ordinal")
    levels = (1 - CONFIDENCE) / (len(ranks) + 1 - ranks)  # at which Holm's procedure tests each
    reach = stats.t.isf(levels / 2, freedom) * error
    numbers = np.transpose([gain, gain - reach, gain + reach, holm(differs), holm(matters)])
    told = []
    for row, (better_by, low, high, p, same) in zip(contenders, numbers.tolist(), strict=True):
        verdict: Verdict = "undecided"
        if same <= 1 - CONFIDENCE:
            verdict = "equal"
        elif p <= 1 - CONFIDENCE:
            verdict = "better" if better_by > 0 else "worse"
        told.append(Difference(row, better_by, low, high, p, verdict))
    return told


def holm(p: Array) -> Array:
    """p values adjusted for as many tests (Holm, 1979)."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted
