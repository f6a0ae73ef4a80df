"""Photon energy and detector of a CXI or NeXus entry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fno_runner.data import units
from fno_runner.data.hdf5 import Hdf5File
from fno_runner.errors import UserError

DIRECTIONS = ((0.0, -1.0, 0.0), (-1.0, 0.0, 0.0))
"""Which way rows and columns run where a file does not say: down, and right along the beam."""
INSTRUMENTS, DETECTORS = ("instrument_1", "instrument"), ("detector_1", "detector")


@dataclass(frozen=True)
class Detector:
    """group: where it is described. distance [m]. pitch: of rows and of columns [m].

    directions: unit vectors along which rows and columns are counted, in CXI's coordinates.
    """

    group: str
    distance: float
    pitch: tuple[float, float]
    directions: tuple[np.ndarray, np.ndarray]


def detector_of(file: Hdf5File, entry: str, frames: str, remarks: list[str]) -> Detector:
    """The detector that took these frames, of those that an entry describes.

    Raises:
        UserError: it says too little of it, or what cannot be.
    """
    first = _group(file, _group(file, entry, INSTRUMENTS), DETECTORS)
    others = [
        detector
        for instrument in INSTRUMENTS
        for detector in file.within(f"{entry}/{instrument}")
        if detector.startswith(f"{entry}/{instrument}/detector") and detector != first
    ]
    # What they link to is opened, and then of the fingerprint: only if there is a choice, and the
    # first one before others.
    described = (
        group for group in (first, *others) if others and file.is_same(f"{group}/data", frames)
    )
    group = next(described, first)
    basis = _basis(file, group)
    pitch = _pitch(file, group, basis, remarks)
    if basis is None:
        rows, cols = (np.array(direction) for direction in DIRECTIONS)
    else:
        rows, cols = (vector / np.linalg.norm(vector) for vector in basis)
        if not np.array_equal(np.rint([rows, cols]), DIRECTIONS):
            remarks.append("positions follow the detector's basis_vectors, which are turned")
    return Detector(group, _distance(file, group, rows, cols, remarks), pitch, (rows, cols))


def photon_energy(file: Hdf5File, entry: str) -> float:
    """Of a photon [J]: the beam's, not the machine's, which NeXus has as the source's.

    Raises:
        UserError: there is none, or it cannot be.
    """
    instrument = _group(file, entry, INSTRUMENTS)
    beams = [f"{group}/{beam}" for group in (instrument, f"{entry}/sample_1", f"{entry}/sample")
             for beam in ("beam_1", "beam")]  # fmt: skip
    beams += [f"{instrument}/monochromator_1", f"{instrument}/monochromator"]
    energies = [f"{beam}/{name}" for beam in beams
                for name in ("incident_beam_energy", "incident_energy", "energy")]  # fmt: skip
    wavelengths = [f"{beam}/{name}" for beam in beams
                   for name in ("incident_wavelength", "wavelength")]  # fmt: skip
    of_source, wave_of_source = f"{instrument}/source_1/energy", f"{instrument}/source_1/wavelength"

    def energy_of(name: str) -> float:
        if name.endswith("wavelength"):
            return units.HC / max(units.number(file, name, units.LENGTH), 1e-30)
        return units.number(file, name, units.ENERGY)

    what = "photon energy [J]"
    name = file.named(what, *energies, *wavelengths, of_source, wave_of_source)
    if name is None:
        raise file.missing(what, of_source)
    energy = energy_of(name)
    if (
        name == of_source
        and energy > units.PHOTON_ENERGY[1]
        and file.named(what, wave_of_source) is not None
    ):
        name = wave_of_source  # as the energy is the machine's
        energy = energy_of(name)
    return units.plausible(file, name, energy, units.PHOTON_ENERGY, "J")


def _group(file: Hdf5File, parent: str, names: tuple[str, ...]) -> str:
    return next((f"{parent}/{name}" for name in names if file.has_group(f"{parent}/{name}")),
                f"{parent}/{names[0]}")  # fmt: skip


def _basis(file: Hdf5File, group: str) -> np.ndarray | None:
    """Steps from a row to the next and from a column to the next, (2, 3) [m]."""
    name = f"{group}/basis_vectors"
    if file.named("which way rows and columns run", name) is None:
        return None
    vectors = file.read(name).astype(np.float64)
    if vectors.shape == (3, 2):  # as cdtools writes it
        vectors = vectors.T
    lengths = np.linalg.norm(vectors, axis=-1) if vectors.shape == (2, 3) else np.zeros(1)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise UserError(f"{file.path}: '{name}' is {vectors.shape}, not two vectors in space")
    return vectors * units.factor(file, name, units.LENGTH)


def _pitch(
    file: Hdf5File, group: str, basis: np.ndarray | None, remarks: list[str]
) -> tuple[float, float]:
    """Widths of the detector's pixels along rows and columns [m]."""
    given: list[float] = []
    for number, axis in enumerate("yx"):
        name, where = f"{group}/{axis}_pixel_size", f"{group}/basis_vectors"
        if file.named("pixel pitch [m]", name) is not None:
            given.append(units.length(file, name, units.PITCH))
        elif basis is not None:
            value = float(np.linalg.norm(basis[number]))
            given.append(units.plausible(file, where, value, units.PITCH, "m"))
    if not given:
        raise file.missing("pixel pitch [m]", f"{group}/y_pixel_size")
    if len(given) == 1:
        remarks.append("only one size of the detector's pixels is given: they are taken as square")
    return given[0], given[-1]


def _distance(
    file: Hdf5File, group: str, rows: np.ndarray, cols: np.ndarray, remarks: list[str]
) -> float:
    """From the sample to the detector's plane [m]."""
    what = "detector distance [m]"
    name = file.named(what, f"{group}/distance", f"{group}/detector_distance")
    if name is not None:
        return units.length(file, name, units.DISTANCE)
    name = f"{group}/corner_position"
    if not file.has(name):
        raise file.missing(what, f"{group}/distance", name)
    corner = file.read(name).astype(np.float64).reshape(-1) * units.factor(file, name, units.LENGTH)
    if corner.shape != (3,):
        raise UserError(f"{file.path}: '{name}' is {corner.shape}, not a place in space")
    value = float(abs(corner @ np.cross(rows, cols)))
    remarks.append(f"the detector's distance, {value:.4g} m, is that of its corner_position")
    return units.plausible(file, name, value, units.DISTANCE, "m")
