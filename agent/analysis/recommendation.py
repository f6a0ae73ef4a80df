"""The cheapest configuration that is as good as the best, as far as seeds can tell; and why."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from agent.analysis.configurations import COST
from agent.analysis.pareto import front
from agent.study.quality import (
    PHASE_SSIM,
    R_FROM_OBJECT,
    R_HELD_OUT,
    VALIDATED_SSIM,
    Criterion,
    numbers,
)

ROUNDING = 1e-9
"""0.72 and 0.70 are within 0.02 of each other, though their binary difference is larger."""


@dataclass(frozen=True)
class Choice:
    """What configurations are chosen by, and what is reported of them.

    by: the criterion of the choice; `reported` is that of the test object, or of held-out frames.
    caveat: why the choice has seen what is reported; empty where it has not.
    """

    by: Criterion
    reported: Criterion
    caveat: str


@dataclass(frozen=True)
class Recommendation:
    """The cheapest configuration that is near enough to the best one, in the choice's criterion.

    Numbers of configurations are rows of the series' `configs`.

    config: the recommended one.
    best: the one of the best mean.
    runner_up: the next by the same rule, or None.
    next_better: the cheapest one whose mean is better than the recommended one's, or None.
    near, compared: how many are near enough, and of how many.
    allowance: how much worse than the best's mean is near enough.
    standard_error: whether the allowance is one standard error of the best's mean; else it is a
        stated tolerance.
    margin: how much worse than the best's the recommended one's mean is; never negative.
    provisional: why seeds could change this; empty where they are taken into account.
    """

    choice: Choice
    config: int
    best: int
    runner_up: int | None
    next_better: int | None
    near: int
    compared: int
    allowance: float
    standard_error: bool
    margin: float
    provisional: str


def choose_by(finished: pd.DataFrame, tolerance: float | None = None) -> Choice:
    """What a series' configurations are chosen by.

    Of a scan R on held-out frames, as the object of the training frames predicts them where all
    runs have that. Else the validation object's phase SSIM where every finished run with a phase
    SSIM has it, and the phase SSIM of the test object where not.

    Args:
        tolerance: in place of the criterion's own.
    """
    ssim = np.isfinite(numbers(finished, PHASE_SSIM.column))
    validated = np.isfinite(numbers(finished, VALIDATED_SSIM.column))
    scanned = np.isfinite(numbers(finished, R_HELD_OUT.column))
    if scanned.any():
        caveat = "a scan has no second object: chosen by the held-out frames that are reported"
        from_object = np.isfinite(numbers(finished, R_FROM_OBJECT.column))
        by = R_FROM_OBJECT if from_object[scanned].all() else R_HELD_OUT
        choice = Choice(by, R_HELD_OUT, caveat)
    elif ssim.any() and validated[ssim].all():
        choice = Choice(VALIDATED_SSIM, PHASE_SSIM, "")
    else:
        lacking = f"{int((ssim & ~validated).sum())} of {int(ssim.sum())} finished runs"
        caveat = (
            f"chosen by the same test object that is reported: {lacking} have no validation metrics"
        )
        choice = Choice(PHASE_SSIM, PHASE_SSIM, caveat)
    if tolerance is not None:
        choice = replace(choice, by=replace(choice.by, tolerance=tolerance))
    return choice


def recommend(
    configs: pd.DataFrame, choice: Choice, tolerance_only: bool = False
) -> Recommendation | None:
    """The configuration with the fewest parameters whose mean is near enough to the best one.

    Near enough is one standard error of the best's mean (Breiman et al., 1984, section 3.4.3:
    what is closer than that, seeds do not tell apart), or the criterion's tolerance where the best
    has one seed. Among equally many parameters the better one, then the first by name. None where
    no configuration has a cost and a quality.

    Args:
        configs: a table of `agent.analysis.configurations`.
        tolerance_only: the tolerance holds, whatever the seeds say.
    """
    by = choice.by
    cost, quality = numbers(configs, COST), by.sign * numbers(configs, f"{by.column}_mean")
    # What cannot be reported is not recommended.
    reported = numbers(configs, f"{choice.reported.column}_mean")
    usable = np.flatnonzero(np.isfinite(cost) & np.isfinite(quality) & np.isfinite(reported))
    if usable.size == 0:
        return None
    names = configs["configuration"].tolist()
    seeds = configs[f"{by.column}_n"].tolist()
    best = min(usable, key=lambda i: (-quality[i], cost[i], names[i]))
    error = numbers(configs, f"{by.column}_std")[best] / math.sqrt(seeds[best])
    by_error = bool(np.isfinite(error)) and not tolerance_only
    allowance = float(error) if by_error else by.tolerance
    near = [i for i in usable if quality[best] - quality[i] <= allowance + ROUNDING]
    near.sort(key=lambda i: (cost[i], -quality[i], names[i]))
    chosen = near[0]
    shown = np.full(len(cost), math.nan)
    shown[usable] = quality[usable]
    better = [i for i in front(cost, shown) if quality[i] > quality[chosen]]
    return Recommendation(
        choice=choice,
        config=int(chosen),
        best=int(best),
        runner_up=int(near[1]) if len(near) > 1 else None,
        next_better=better[0] if better else None,
        near=len(near),
        compared=int(usable.size),
        allowance=allowance,
        standard_error=by_error,
        margin=float(quality[best] - quality[chosen]),
        provisional=_provisional(seeds[chosen], seeds[best], chosen == best),
    )


def _provisional(chosen: int, best: int, same: bool) -> str:
    counts = [("it", chosen)] if same else [("it", chosen), ("the best", best)]
    lacking = [name for name, n in counts if n < 2]
    if not lacking:
        return ""
    return f"{' and '.join(lacking)} ran with one seed: another seed may change the choice"
