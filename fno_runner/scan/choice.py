"""How smooth an object is to be, and how many passes to fit it: chosen by frames that are left out.

A fit to few frames, or to noisy ones, goes on explaining them better while it predicts others
worse. What a careful user does about it is done here: a tenth of the frames, here and there, is
left out, and decides.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from fno_runner.data.frames import Scan
from fno_runner.data.scan import hold_out
from fno_runner.scan.iterative import Fit, residual

log = logging.getLogger("fno_runner")

WEIGHTS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Of the total variation, in this order as long as each is better than the one before."""
PASSES = (5, 10, 20, 40, 80, 160)
"""Likewise."""
FOR_WEIGHTS = 20
"""Passes with which weights are compared."""
GAIN = 2e-3
"""More passes are worth it if they bring R of frames left out down by this share of it."""

Value = TypeVar("Value")
Fitting = Callable[..., Fit]
"""`reconstruct` of one scan, as to modes, probe and device; gets smooth, iterations and frames."""


@dataclass(frozen=True)
class Choice:
    """smooth, passes: as `reconstruct` takes them. r_left_out: R of the frames that chose."""

    smooth: float
    passes: int
    r_left_out: float


def choose(fit: Fitting, scan: Scan, smooth: float | None, passes: int | None) -> Choice:
    """Choose what is None by frames left out; one after the other, first how smooth."""
    left_out, _ = hold_out(scan.positions, 0)

    def r_of(weight: float, iterations: int) -> float:
        made = fit(scan, smooth=weight, iterations=iterations, frames=~left_out)
        r = residual(made, scan, left_out)
        log.info("smooth %g, %d passes: R of frames left out %.4f", weight, iterations, r)
        return r

    if smooth is None:
        smoothest = _last_better(WEIGHTS, lambda weight: r_of(weight, passes or FOR_WEIGHTS))
        smooth, r = smoothest
    elif passes is not None:
        r = r_of(smooth, passes)
    if passes is None:
        longest = _last_better(PASSES, partial(r_of, smooth), GAIN)
        passes, r = longest
    return Choice(smooth, passes, r)


def _last_better(
    values: Sequence[Value], r_of: Callable[[Value], float], gain: float = 0.0
) -> tuple[Value, float]:
    """The last value in a row that each brought R down by more than this share of it, and its R."""
    chosen, best = values[0], math.inf
    for value in values:
        if (r := r_of(value)) >= best * (1 - gain):
            break
        chosen, best = value, r
    return chosen, best
