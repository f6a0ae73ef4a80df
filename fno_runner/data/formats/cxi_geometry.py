"""Photon energy and detector of a CXI or NeXus entry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fno_runner.data import units
from fno_runner.data.formats.nexus_axes import direction_of
from fno_runner.data.hdf5 import Hdf5File
from fno_runner.data.measured import Frames
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


def detector_of(
    file: Hdf5File, entry: str, name: str, frames: Frames, remarks: list[str]
) -> Detector:
    """The detector that took these frames, of those that an entry describes.

    Args:
        name: of the frames.

    Raises:
        UserError: it says too little of it, or what cannot be.
    """
    group = _described(file, entry, name, frames, remarks)
    basis = _basis(file, group)
    said = "basis_vectors"
    if basis is None:
        basis, said = _pixel_directions(file, group, remarks), "slow and fast pixel_direction"
    pitch = _pitch(file, group, basis, remarks)
    if basis is None:
        rows, cols = (np.array(direction) for direction in DIRECTIONS)
        turned = f"{group}/geometry_1/orientation"
        if file.has(turned) and not np.allclose(np.abs(file.read(turned)).reshape(-1)[:2], (1, 0)):
            remarks.append(f"'{turned}' is there and is not used: --check-orientation asks")
    else:
        rows, cols = (vector / np.linalg.norm(vector) for vector in basis)
        if not np.array_equal(np.rint([rows, cols]), DIRECTIONS):
            remarks.append(f"positions follow the detector's {said}, which are turned")
    return Detector(group, _distance(file, group, rows, cols, remarks), pitch, (rows, cols))


def _described(file: Hdf5File, entry: str, name: str, frames: Frames, remarks: list[str]) -> str:
    """The group of the detector that has these frames: as its data, or else data of their size."""
    first = _group(file, _group(file, entry, INSTRUMENTS), DETECTORS)
    others = [
        detector
        for instrument in INSTRUMENTS
        for detector in file.within(f"{entry}/{instrument}")
        if detector.startswith(f"{entry}/{instrument}/detector") and detector != first
    ]
    if not others:
        return first
    # What they link to is opened, and then of the fingerprint: only if there is a choice, and the
    # first one before others.
    for group in (first, *others):
        if file.is_same(f"{group}/data", name):
            return group
    # A virtual dataset, or a copy.
    height, width = frames.shape[1:]
    alike = [group for group in (first, *others)
             if file.shape(f"{group}/data")[-2:] == (height, width)]  # fmt: skip
    if alike != [first]:
        chosen = alike[0] if alike else first
        remarks.append(
            f"geometry and mask are those of '{chosen}'; that '{name}' is its data is not said"
        )
        return chosen
    return first


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


def _pixel_directions(file: Hdf5File, group: str, remarks: list[str]) -> np.ndarray | None:
    """As `_basis`, of an NXdetector_module: sizes of pixels along its slow and fast direction."""
    modules = [child for child in file.within(group) if "module" in child.rsplit("/", 1)[1]]
    for place in (group, *modules):
        steps = [f"{place}/{speed}_pixel_direction" for speed in ("slow", "fast")]
        if all(file.has(step) for step in steps):
            return np.stack([
                units.length(file, step, units.PITCH) * direction_of(file, step, usual, remarks)
                for step, usual in zip(steps, DIRECTIONS, strict=True)
            ])  # fmt: skip
    return None


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
