"""Which way axes of NeXus lead: vectors, rotations that they depend on, the order of a raster."""

from __future__ import annotations

import numpy as np

from fno_runner.data import units
from fno_runner.data.hdf5 import Hdf5File
from fno_runner.errors import UserError

DEGREES = {"deg": 1.0, "degree": 1.0, "rad": 180 / np.pi, "radian": 180 / np.pi}
"""Degrees in a unit of angle, which is the one where a file names none."""
STEADY = 0.1
"""An angle that changes by less during a scan is one angle [degrees]."""
MAX_DEPTH = 64
"""An axis that depends on more others than this depends on itself."""


def direction_of(
    file: Hdf5File, name: str, usual: tuple[float, float, float], remarks: list[str]
) -> np.ndarray:
    """The unit vector (3,) along which an axis of NXtransformations moves what is mounted on it.

    In NeXus's coordinates, which are CXI's. An axis has its `vector` in the frame of what it
    `depends_on`: rotations down that chain turn it, translations do not.

    Args:
        usual: its vector, where the file gives none.

    Raises:
        UserError: a rotation changes during the scan, or has a unit that is not known.
    """
    along = _vector(file, name, remarks)
    along = np.array(usual) if along is None else along
    axis = name
    for _ in range(MAX_DEPTH):
        below = file.text(axis, "depends_on")
        if below is None or below.strip() in ("", "."):
            break
        found = file.relative(axis, below.strip())
        if found is None:
            remarks.append(f"'{axis}' depends on '{below}', which is not there: it turns nothing")
            break
        axis = found
        if file.text(axis, "transformation_type") == "rotation":
            about = _vector(file, axis, remarks)
            along = along if about is None else _turned(along, about, _angle(file, axis))
    if not np.allclose(along, usual, atol=1e-3):
        shown = ", ".join(f"{part:.3g}" for part in along)
        remarks.append(f"'{name}' leads along ({shown}), as its vector and what it depends on say")
    return along


def slow_axis(file: Hdf5File, y: str, x: str) -> str | None:
    """Which of two axes of one NXdata group changes slowest, as the group says; None if silent."""
    group = y.rsplit("/", 1)[0]
    names = [name.rsplit("/", 1)[1] for name in (y, x)]
    places = [file.attribute(group, f"{name}_indices") for name in names]
    axes = file.texts(group, "axes")
    if None in places and set(names) <= set(axes):
        places = [float(axes.index(name)) for name in names]
    first, second = places
    if first is None or second is None or first == second:
        return None
    return y if first < second else x


def _vector(file: Hdf5File, name: str, remarks: list[str]) -> np.ndarray | None:
    """The `vector` of an axis, of length 1."""
    vector = file.numbers(name, "vector")
    length = float(np.linalg.norm(vector))
    if vector.shape == (3,) and np.isfinite(length) and length > 0:
        return vector / length
    if vector.size > 0:
        remarks.append(f"the vector of '{name}', {vector.tolist()}, is no direction: not used")
    return None


def _angle(file: Hdf5File, name: str) -> float:
    """Of a rotation [rad]."""
    degrees = file.read(name).reshape(-1).astype(np.float64) * units.factor(file, name, DEGREES)
    degrees = degrees[np.isfinite(degrees)]
    if len(degrees) == 0 or np.ptp(degrees) > STEADY:
        seen = f"from {degrees.min():g}° to {degrees.max():g}°" if len(degrees) > 0 else "no number"
        raise UserError(
            f"{file.path}: the rotation '{name}' is {seen}; a scan has one, within {STEADY}°"
        )
    return float(np.radians(np.median(degrees)))


def _turned(vector: np.ndarray, about: np.ndarray, angle: float) -> np.ndarray:
    """A vector turned about a unit vector, counterclockwise as that points at one (Rodrigues)."""
    return np.asarray(
        vector * np.cos(angle)
        + np.cross(about, vector) * np.sin(angle)
        + about * (about @ vector) * (1 - np.cos(angle))
    )
