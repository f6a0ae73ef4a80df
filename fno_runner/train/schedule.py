"""The learning rate of each step: one cycle, up to its peak and down to nearly nothing."""

from __future__ import annotations

import math

RISE = 0.2
"""The share of all steps in which the rate rises."""
START, END = 1 / 25, 1 / 25e4
"""What it begins and ends with, of its peak."""


def one_cycle(peak: float, step: int, steps: int, rise: float = RISE) -> float:
    """The rate of step 0, 1, … of so many steps (Smith & Topin, 2018: super-convergence).

    The numbers are those of PyTorch's OneCycleLR, of two steps at least. As a function of the
    step's number alone it leaves nothing to remember, and costs a GPU's host next to nothing.
    """
    steps = max(steps, 2)
    top = rise * steps - 1
    if step <= top and top > 0:
        return _cosine(peak * START, peak, step / top)
    return _cosine(peak, peak * END, (step - top) / (steps - 1 - top))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)
