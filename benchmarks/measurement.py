"""One line of the table: what was measured, on which side, against what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from benchmarks.floor import Floor

BASELINE = "baseline"


@dataclass(frozen=True)
class Measurement:
    """Values of one quantity, one a turn; the smaller the better.

    network: as `Network.label` says, or empty. side: `baseline`, a precision of ours, or `ours`.
    ratio: how many times less than the baseline. floor: the least that the machine can take [s].
    detail: how it was done, where that is not the same for all.
    """

    quantity: str
    network: str
    side: str
    unit: Literal["s", "MiB"]
    values: tuple[float, ...]
    ratio: float | None = None
    floor: Floor | None = None
    detail: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return median(self.values)

    def line(self) -> str:
        """The measurement in a line, while others are still being made."""
        where = ", ".join(part for part in (self.network, self.side, self.detail) if part)
        return f"{self.quantity} ({where}): {amount(self.value, self.unit)}"

    @property
    def share(self) -> float | None:
        """How much of the machine's limit is reached: 1 is all of it."""
        return None if self.floor is None else self.floor.seconds / self.value


def paired_ratio(baseline: Sequence[float], other: Sequence[float]) -> float:
    """How many times less `other` is: the median over turns, each compared with its own turn."""
    return median(a / b for a, b in zip(baseline, other, strict=True))


def compared(
    quantity: str,
    network: str,
    unit: Literal["s", "MiB"],
    values: Mapping[str, Sequence[float]],
    floors: Mapping[str, Floor] | None = None,
    details: Mapping[str, str] | None = None,
) -> list[Measurement]:
    """A measurement for each side, with its ratio to the side called `baseline` if there is one."""
    reference = values.get(BASELINE)
    return [
        Measurement(
            quantity,
            network,
            side,
            unit,
            tuple(of_side),
            None if reference is None else paired_ratio(reference, of_side),
            (floors or {}).get(side),
            (details or {}).get(side, ""),
        )
        for side, of_side in values.items()
    ]


def amount(value: float, unit: str) -> str:
    """Three digits, in a unit that suits them."""
    if unit != "s":
        return f"{value:,.0f} {unit}"
    factor, name = (1, "s") if value >= 1 else (1e3, "ms") if value >= 1e-3 else (1e6, "µs")
    number = value * factor
    return f"{number:.3g} {name}" if number < 1000 else f"{number:,.0f} {name}"
