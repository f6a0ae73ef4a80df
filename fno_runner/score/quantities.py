"""One table of all numbers that a run is judged by, and of all that it costs.

Whoever reads, checks, compares, draws or names such a number takes its facts from here: the sweep
file, records, a server's runs, statistics, pictures, the page and the terminal. A new metric is a
function in `fno_runner.score.metrics` and a row here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

ROUNDING = 1e-6
"""How far beyond a bound a computed number may be."""
LARGEST = 2.0**63
"""No number of a run is larger, whatever its bounds."""
NO_DIFFERENCE = 1e-9
"""A number that is smaller is what rounding leaves of two equal ones."""
VALIDATION = "val_"
"""Before a column's name: the same metric of the validation object, which no training has seen.
Configurations are chosen by it and reported by the test object's."""


@dataclass(frozen=True)
class Quantity:
    """A number of a run.

    column: its name in tables of runs, in a server's summaries, and as a sweep's metric; in tables
        of configurations `<column>_mean` and so on.
    label: what sentences and tables call it.
    of: what has it: "object" a run that is compared with a true or a reference object,
        "validation" one with a third object that is neither trained on nor reported, "scan" one of
        an experimental scan; "cost" every run that finished.
    better: which way is better; None where neither is.
    low, high: the bounds, themselves included, but for 0 where the quantity is logarithmic.
    unit: empty for a pure number.
    title: what the axis of a picture says, without the unit, if not the label.
    digits: how many are shown behind the point; None for three significant ones.
    tolerance: what counts as near enough where no seeds tell, in the quantity's unit.
    whole: whether it is a count.
    logarithmic: whether it is positive, and shown on a logarithmic axis.
    """

    column: str
    label: str
    of: Literal["object", "validation", "scan", "cost"]
    better: Literal["higher", "lower"] | None
    low: float = 0.0
    high: float = math.inf
    unit: str = ""
    title: str = ""
    digits: int | None = 4
    tolerance: float = 0.0
    whole: bool = False
    logarithmic: bool = False

    @property
    def sign(self) -> int:
        """What the number is multiplied by so that more is better."""
        return 1 if self.better == "higher" else -1

    @property
    def heading(self) -> str:
        """'phase PSNR [dB]'."""
        return self._with_unit(self.label)

    @property
    def axis(self) -> str:
        """'inference time of a test object [s]'."""
        return self._with_unit(self.title or self.label)

    @property
    def least_span(self) -> float:
        """Less than this never fills an axis: noise would look like a difference."""
        return 2.5 * self.tolerance

    def shown(self, value: int | float) -> str:
        """'0.7312', '25.50', '12,345', '0.0123'; '2e-05' of what so many digits would call 0."""
        if self.digits is None:
            return f"{value:.3g}"
        if abs(value) <= NO_DIFFERENCE:
            value = 0.0
        is_small = 0 < abs(value) < 0.5 * 10.0**-self.digits
        return f"{value:.2g}" if is_small else f"{value:,.{self.digits}f}"

    def is_some(self, difference: int | float) -> bool:
        """Whether a difference of two such numbers is more than rounding leaves of equal ones."""
        return abs(difference) > NO_DIFFERENCE

    def check(self, value: object) -> None:
        """Doubt a cell of the quantity's column; None, which is missing, is no doubt.

        Raises:
            ValueError: it is no number, or none that the quantity can have.
        """
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{self.column}={value!r} is not a number")
        if self.whole and not isinstance(value, int):
            raise ValueError(f"{self.column} is not a count")
        if self.logarithmic and value <= 0:
            raise ValueError(f"{self.column} is not positive")
        low, high = max(self.low, -LARGEST), min(self.high, LARGEST)
        if not low - ROUNDING <= value <= high + ROUNDING:
            raise ValueError(f"{self.column} is not within {low:g} … {high:g}")

    def _with_unit(self, words: str) -> str:
        return f"{words} [{self.unit}]" if self.unit else words


def _of_object(
    name: str,
    label: str,
    better: Literal["higher", "lower"] | None,
    low: float,
    high: float,
    units: tuple[str, str] = ("", ""),
    digits: int = 4,
    tolerance: float = 0.0,
) -> tuple[Quantity, Quantity]:
    """A metric of `fno_runner.score.metrics`, of the amplitude and of the phase."""
    amplitude, phase = (
        Quantity(f"{name}_{suffix}", f"{part} {label}", "object", better, low, high, unit,
                 digits=digits, tolerance=tolerance)
        for suffix, part, unit in zip(("amp", "phase"), ("amplitude", "phase"), units, strict=True)
    )  # fmt: skip
    return amplitude, phase


def _cut_off(name: str, label: str) -> tuple[Quantity, Quantity]:
    """A frequency of `fno_runner.score.frc`, up to which amplitudes and phases agree."""
    return _of_object(name, label, "higher", 0.0, 0.5, ("1/px", "1/px"), tolerance=0.01)


def _of_frames(name: str, label: str, tolerance: float) -> list[Quantity]:
    """A misfit of `fno_runner.score.without_truth`, on each kind of frames."""
    frames = {
        "train": "on training frames",
        "held_out": "on held-out frames",
        "region": "on the held-out region",
        "held_out_from_object": "of held-out frames, from the object",
        "region_from_object": "of the held-out region, from the object",
    }
    return [
        Quantity(f"{name}_{key}", f"{label} {which}", "scan", "lower", tolerance=tolerance)
        for key, which in frames.items()
    ]


_OBJECT = (
    *_of_object("ssim", "SSIM", "higher", -1.0, 1.0, tolerance=0.02),
    *_of_object("ms_ssim", "MS-SSIM", "higher", -1.0, 1.0, tolerance=0.02),
    *_of_object("psnr", "PSNR", "higher", -math.inf, math.inf, ("dB", "dB"), 2, tolerance=0.5),
    *_of_object("mae", "MAE", "lower", 0.0, math.inf, ("", "rad"), tolerance=0.005),
    *_of_object("mse", "MSE", "lower", 0.0, math.inf, ("", "rad²"), tolerance=0.001),
    *_cut_off("frc50", "FRC cut-off"),
    *_cut_off("frc_half_bit", "FRC half-bit cut-off"),
    *_of_object("pearson", "Pearson", "higher", -1.0, 1.0, tolerance=0.01),
    *_of_object("std_ratio", "spread over the truth's", None, 0.0, math.inf, tolerance=0.02),
    *_of_object("ssim_2pi", "SSIM, range 2π", "higher", -1.0, 1.0, tolerance=0.02),
)
_SCAN = (
    *_of_frames("r", "R", tolerance=0.002),
    *_of_frames("deviance", "deviance", tolerance=0.001),
    *(
        replace(quantity, of="scan")
        for quantity in (
            *_cut_off("frc_halves", "FRC cut-off of halves"),
            *_cut_off("frc_halves_half_bit", "FRC half-bit cut-off of halves"),
        )
    ),
    Quantity(
        "resolution_px", "resolution", "scan", "lower", 1.0, unit="px", digits=2, tolerance=0.1
    ),
    Quantity("resolution_nm", "resolution", "scan", "lower", unit="nm", digits=1, tolerance=1.0),
)


def _cost(column: str, label: str, title: str, unit: str = "", digits: int | None = None,
          whole: bool = False) -> Quantity:  # fmt: skip
    return Quantity(column, label, "cost", "lower", unit=unit, title=title, digits=digits,
                    whole=whole, logarithmic=True)  # fmt: skip


COSTS = (
    _cost("model_params", "parameters", "trainable parameters", digits=0, whole=True),
    _cost("flops_per_pattern", "FLOPs a pattern", "floating-point operations a pattern"),
    _cost("train_time_s", "training", "training time of a seed", "s"),
    _cost("inference_time_s", "inference", "inference time of a test object", "s"),
    _cost("latency_s", "latency", "latency of one pattern", "s"),
)

QUANTITIES: dict[str, Quantity] = {
    quantity.column: quantity
    for quantity in (
        *_OBJECT,
        *_SCAN,
        *COSTS,
        *(
            replace(
                q, column=f"{VALIDATION}{q.column}", label=f"validation {q.label}", of="validation"
            )
            for q in _OBJECT
        ),
    )
}
"""By column. A sweep may aim at any of them."""

FLOORS = {"flat": "flat phase", "projection_1": "1 projection", "projection_50": "50 projections"}
"""Reconstructions that took no network. Behind the column of a metric of an object: that metric of
such a reconstruction (`ssim_phase_flat`)."""


def floor_of(column: str) -> Quantity | None:
    """The quantity of a floor's column ('ssim_phase_flat'); None where the column is no floor's."""
    for floor in FLOORS:
        metric = QUANTITIES.get(column.removesuffix(f"_{floor}"))
        if metric is not None and metric.of == "object" and metric.column != column:
            return replace(metric, column=column, label=f"{metric.label} ({FLOORS[floor]})")
    return None


def object_column(column: str, number: int) -> str:
    """The column of a metric of one of several test objects, numbered from 1."""
    return f"{column}_object{number}"


def object_of(column: str) -> Quantity | None:
    """The quantity of such a column ('ssim_phase_object2'); None where the column is none."""
    name, separator, number = column.rpartition("_object")
    metric = QUANTITIES.get(name)
    if not separator or not number.isdecimal() or metric is None or metric.of != "object":
        return None
    return replace(metric, column=column, label=f"{metric.label}, object {number}")
