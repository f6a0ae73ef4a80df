"""Fourier ring correlations of the pictured runs, as report.html draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agent.report.figures import OKABE_ITO
from fno_runner.result import RingCurves, RunResult
from fno_runner.score.frc import HALF, SEVENTH, last_crossing, smooth

Json = dict[str, Any]

KINDS = {"truth": HALF, "halves": SEVENTH, "reference": HALF}
"""What was correlated, the most telling first, and its fixed threshold."""


def correlations(records: Sequence[tuple[str, RunResult]]) -> Json | None:
    """The phase's curves of as many runs as there are colours; None where no record has any.

    kind: what all of them were correlated with. threshold: the fixed one.
    curves: label, colour; frequency [1/px], correlation (smoothed as it is judged) and half_bit,
        one element a ring; resolved, where the curve last crosses the fixed threshold [1/px], of
        halves the half-bit curve, which chance does not reach; at, the height of the crossing.

    Args:
        records: with the names that readers know their runs by.
    """
    kind = next((kind for kind in KINDS if any(kind in r.curves for _, r in records)), None)
    if kind is None:
        return None
    shown = [(label, record.curves[kind]) for label, record in records if kind in record.curves]
    return {
        "kind": kind,
        "threshold": KINDS[kind],
        "curves": [
            _curve(label, curves, colour, KINDS[kind])
            for (label, curves), colour in zip(shown, OKABE_ITO, strict=False)
        ],
    }


def _curve(label: str, curves: RingCurves, colour: str, threshold: float) -> Json:
    smoothed = smooth(np.array(curves.phase))
    frequency = curves.step * np.arange(1, len(smoothed) + 1)
    bound = np.array(curves.half_bit) if threshold == SEVENTH else np.full(len(smoothed), threshold)
    resolved = last_crossing(smoothed, bound, curves.step)
    return {
        "label": label,
        "colour": colour,
        "frequency": np.round(frequency, 5).tolist(),
        "correlation": np.round(smoothed, 4).tolist(),
        "half_bit": curves.half_bit,
        "resolved": round(resolved, 4),
        "at": round(float(np.interp(resolved, frequency, bound)), 4),
    }
