"""Numbers with units: a file's `units` attribute is obeyed, and what cannot be is refused."""

from __future__ import annotations

import numpy as np

from fno_runner.data.contents import Contents
from fno_runner.errors import UserError

ELECTRONVOLT = 1.602176634e-19
"""[J]"""
HC = 1.98644586e-25
"""Planck's constant times the speed of light [J·m]."""

LENGTH = {
    "m": 1.0,
    "cm": 1e-2,
    "mm": 1e-3,
    "um": 1e-6,
    "nm": 1e-9,
    "pm": 1e-12,
    "a": 1e-10,
    "angstrom": 1e-10,
    "ångström": 1e-10,
    "å": 1e-10,
    "micron": 1e-6,
    "micrometer": 1e-6,
    "micrometre": 1e-6,
    "millimeter": 1e-3,
    "millimetre": 1e-3,
    "nanometer": 1e-9,
    "nanometre": 1e-9,
    "meter": 1.0,
    "metre": 1.0,
}
"""Metres in a unit of length, by its name in lower case and in the singular."""
ENERGY = {
    "j": 1.0,
    "joule": 1.0,
    "ev": ELECTRONVOLT,
    "kev": 1e3 * ELECTRONVOLT,
    "mev": 1e6 * ELECTRONVOLT,
    "gev": 1e9 * ELECTRONVOLT,
    "electronvolt": ELECTRONVOLT,
}
"""Joules in a unit of energy; a photon's is never milli-electronvolts, so that MeV is what is
meant whatever its case."""

PHOTON_ENERGY = (10 * ELECTRONVOLT, 1e6 * ELECTRONVOLT)
"""Plausible energies of a photon [J]."""
WAVELENGTH = (HC / PHOTON_ENERGY[1], HC / PHOTON_ENERGY[0])
"""Plausible wavelengths of a photon [m]."""
DISTANCE = (1e-4, 1e3)
"""Plausible distances of the detector [m]."""
PITCH = (1e-7, 1e-2)
"""Plausible widths of a detector's pixel [m]."""
TRAVEL = (0.0, 1.0)
"""Plausible lengths of a scan [m]."""
OBJECT_PIXEL = (1e-12, 1e-3)
"""Plausible widths of an object's pixel [m]."""


def factor(file: Contents, name: str, units: dict[str, float]) -> float:
    """What an array's numbers are to be multiplied by to be in SI units; 1 where it has no unit.

    Raises:
        UserError: a unit that is not known.
    """
    unit = file.text(name, "units") or file.text(name, "unit")
    if unit is None or not unit.strip():
        return 1.0
    word = unit.strip().replace("µ", "u").replace("μ", "u").lower()
    for candidate in (word, word.removesuffix("s")):
        if candidate in units:
            return units[candidate]
    known = ", ".join(list(units)[:6])
    raise UserError(f"{file.path}: '{name}' has the unit '{unit}'; known are {known} …")


def number(file: Contents, name: str, units: dict[str, float]) -> float:
    """A number in SI units.

    Raises:
        UserError: it is none, or has a unit that is not known.
    """
    value = file.number(name) * factor(file, name, units)
    if not np.isfinite(value):
        raise UserError(f"{file.path}: '{name}' is {value}, not a number")
    return value


def length(file: Contents, name: str, bounds: tuple[float, float]) -> float:
    """A length [m] within these bounds.

    Raises:
        UserError: it is none, is out of bounds, or has a unit that is not known.
    """
    return plausible(file, name, number(file, name, LENGTH), bounds, "m")


def check_travel(file: Contents, name: str, positions: np.ndarray) -> None:
    """Positions (F, …) [m]; those that are no numbers do not count.

    Raises:
        UserError: they span more than a scan can.
    """
    finite = positions[np.isfinite(positions).all(axis=1)]
    travel = float(np.ptp(finite, axis=0).max()) if len(finite) > 0 else 0.0
    plausible(file, name, travel, TRAVEL, "m between its ends")


def given(
    file: Contents,
    what: str,
    name: str,
    bounds: tuple[float, float],
    unit: str,
    si: float = 1.0,
) -> float:
    """A number that tells `what`, which the file has in this unit, in SI units.

    Args:
        bounds: in SI units. si: a unit in SI units.

    Raises:
        UserError: there is none, or it is out of bounds; names them in the file's unit.
    """
    low, high = bounds
    value = file.number(file.needed(f"{what} [{unit}]", name))
    return si * plausible(file, name, value, (low / si, high / si), unit)


def known(value: float | None, bounds: tuple[float, float], unit: float = 1.0) -> float | None:
    """An optional number in SI units; None where the file has none, or one out of bounds."""
    low, high = bounds
    return value * unit if value is not None and low <= value * unit <= high else None


def plausible(
    file: Contents, name: str, value: float, bounds: tuple[float, float], unit: str
) -> float:
    """`value`, if it is within the bounds.

    Raises:
        UserError: it is out of bounds; names them.
    """
    low, high = bounds
    if not low <= value <= high:
        raise UserError(f"{file.path}: '{name}' is {value:g} {unit}; allowed is {low:g} … {high:g}")
    return value
