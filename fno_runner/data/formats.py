"""The files that beamlines and programs write, each as a `Scan`. Detection is by content.

raw NPZ: what groups around PtychoPINN exchange.
CXI (HDF5): Maia, Nature Methods 9, 854 (2012) and cxidb.org; NXcxi_ptycho of NeXus.
ptychodus product (HDF5 or NPZ): positions, probe and object; its patterns lie beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from fno_runner.config import SIZES, N
from fno_runner.data.crop import choose_size
from fno_runner.data.frames import Scan, bring_to_size
from fno_runner.data.hdf5 import Hdf5, content_hash, is_hdf5, open_hdf5
from fno_runner.data.measured import InMemory, Kind, Measured
from fno_runner.data.npz import array_names, fingerprint, read_array
from fno_runner.data.recording import clean
from fno_runner.errors import UserError

HC = 1.98644586e-25
"""Planck's constant times the speed of light [J·m]."""
JOULES = (1.6e-18, 1.6e-13)
"""Photon energies that can be (10 eV … 1 MeV) [J]."""
METRES = {"distance": (1e-4, 1e3), "pixel": (1e-7, 1e-2), "travel": (0.0, 1.0)}
"""Detector distances, detector pixels and lengths of a scan that can be [m]."""
CXI_INFORMATION = 0xFFFF
"""Bits of a CXI mask that name a fault; the higher ones only tell of signal."""


class Npz:
    """An NPZ file as `Arrays`; what HDF5 keeps beside a dataset is an array of its own here."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = array_names(path)

    def first(self, *names: str) -> str | None:
        """The first of these names that the file has."""
        return next((name for name in names if name in self.names), None)

    def read(self, name: str) -> np.ndarray:
        """An array.

        Raises:
            UserError: it is damaged or holds no numbers.
        """
        return read_array(self.path, name)

    def attribute(self, dataset: str, name: str) -> float | None:
        """`object_center_x_m` for the object's `center_x_m`."""
        key = self.first(f"{dataset}_{name}")
        return None if key is None else float(self.read(key).reshape(-1)[0])


Arrays = Npz | Hdf5


def read_scan(
    path: Path,
    kind: Kind | None = None,
    start: str | None = None,
    size: int | None = None,
    binning: int = 1,
) -> Scan:
    """A scan of any known format, checked and brought to N × N.

    Args:
        kind: what the frames are, where they are not what the format says.
        start: the name of an array of the file to take as the probe, in place of its own.
        size, binning: as `bring_to_size` takes them.

    Raises:
        UserError: the file is of no known format or cannot be used; says why in one line.
    """
    measured = _measured(path, kind, start)
    return bring_to_size(clean(measured), size, binning)


def size_of_scan(path: Path, binning: int = 1) -> int:
    """The size that `read_scan` brings a scan to by itself [px].

    Raises:
        UserError: the file is of no known format or cannot be used; says why in one line.
    """
    measured = _measured(path)
    if max(measured.frames.shape[1:], default=0) <= SIZES[0] * binning:
        return SIZES[0]  # whatever is in them: no need to read them
    return choose_size(clean(measured), binning)


def _measured(path: Path, kind: Kind | None = None, start: str | None = None) -> Measured:
    """What a file's reader finds."""
    with open_arrays(path) as arrays:
        measured = loader(path, arrays)(path, arrays)
        if start is not None:
            name = arrays.first(start)
            if name is None:
                raise UserError(f"{path}: has no array '{start}'")
            measured = replace(measured, probe=_modes(arrays.read(name)))
    return measured if kind is None else replace(measured, kind=kind)


def fingerprint_scan(path: Path) -> str:
    """What a scan's data are, 64 hex digits, whatever the file's name and place.

    Raises:
        UserError: the file cannot be read.
    """
    own = content_hash(path) if is_hdf5(path) else fingerprint(path)
    with open_arrays(path) as arrays:
        if loader(path, arrays) is not load_ptychodus or arrays.first("patterns") is not None:
            return own
    beside = _patterns_beside(path)
    other = content_hash(beside) if is_hdf5(beside) else fingerprint(beside)
    return hashlib.sha256((own + other).encode()).hexdigest()


def open_arrays(path: Path) -> AbstractContextManager[Arrays]:
    """A file's arrays, whether it is HDF5 or NPZ.

    Raises:
        UserError: it is neither, or cannot be read.
    """
    return open_hdf5(path) if is_hdf5(path) else nullcontext(Npz(path))


def loader(path: Path, arrays: Arrays) -> Callable[[Path, Arrays], Measured]:
    """The loader of a file's format.

    Raises:
        UserError: the format is not known.
    """
    if arrays.first("probe_position_x_m") is not None:
        return load_ptychodus
    if isinstance(arrays, Hdf5):
        if arrays.first(*CXI_DATA, *CXI_TRANSLATION) is not None:
            return load_cxi
        raise UserError(f"{path}: HDF5, but neither CXI (entry_1/…) nor a ptychodus product")
    return load_raw_npz


def load_raw_npz(path: Path, arrays: Arrays) -> Measured:
    """`diff3d` or `diffraction` (amplitudes), `xcoords`, `ycoords` [px].

    Optional: `probeGuess`, `objectGuess`, `mask` (true is good), `background` (an intensity),
    `pixel_size_m`, `counts_held` (the share of the detector's counts that the frames have).

    Raises:
        UserError: an array is missing or damaged.
    """
    name = arrays.first("diff3d", "diffraction")
    if name is None:
        raise UserError(f"{path}: has no array 'diff3d'")
    data = arrays.read(name)
    data = data[..., 0] if data.ndim == 4 and data.shape[-1] == 1 else data
    columns = []
    for key in ("ycoords", "xcoords"):
        if arrays.first(key) is None:
            raise UserError(f"{path}: has no array '{key}'")
        columns.append(arrays.read(key).squeeze())
        if columns[-1].ndim != 1 or len(columns[-1]) != len(data):
            raise UserError(f"{path}: '{key}' is {columns[-1].shape} for {len(data)} frames")
    side = data.shape[-1]
    probe = arrays.first("probeGuess")
    reference = arrays.first("objectGuess")
    pixel = arrays.first("pixel_size_m")
    held = arrays.first("counts_held")
    return Measured(
        path,
        "raw NPZ",
        InMemory(data),
        "amplitude",
        np.stack(columns, axis=1),
        side,
        mask=_optional(arrays, "mask"),
        background=_optional(arrays, "background"),
        probe=None if probe is None else _modes(arrays.read(probe)),
        pixel_size=None if pixel is None else float(arrays.read(pixel).reshape(-1)[0]),
        reference=None if reference is None else _object(path, arrays.read(reference)),
        counts_held=1.0 if held is None else float(arrays.read(held).reshape(-1)[0]),
    )


DETECTOR = "entry_1/instrument_1/detector_1"
SOURCE = "entry_1/instrument_1/source_1"
CXI_DATA = ("entry_1/data_1/data", f"{DETECTOR}/data", "entry_1/image_1/data")
CXI_TRANSLATION = (
    "entry_1/data_1/translation",
    "entry_1/sample_1/geometry_1/translation",
    f"{DETECTOR}/translation",
)


def load_cxi(path: Path, arrays: Arrays) -> Measured:
    """CXI: frames (intensities), mask, dark frames, translations [m] → positions [px].

    A pixel of the object is λ·z / (N·pitch). Translations are read as the beam's on the sample, x
    along columns and y along rows; for what a beamline means by them, ask `--check-orientation`.

    Raises:
        UserError: data or a needed number is missing, or has a unit that cannot be.
    """

    def number(what: str, *names: str) -> float:
        name = arrays.first(*names)
        if name is None:
            raise UserError(f"{path}: has no '{names[0]}' ({what})")
        return float(arrays.read(name).reshape(-1)[0])

    name = arrays.first(*CXI_DATA)
    if name is None:
        raise UserError(f"{path}: a CXI file without data ('{CXI_DATA[0]}')")
    place = arrays.first(*CXI_TRANSLATION)
    if place is None:
        raise UserError(f"{path}: a CXI file without '{CXI_TRANSLATION[0]}' (positions)")
    distance = number("detector distance [m]", f"{DETECTOR}/distance")
    _plausible(path, f"{DETECTOR}/distance", distance, METRES["distance"], "m")
    pitch = [number("pixel pitch [m]", f"{DETECTOR}/{axis}_pixel_size") for axis in "yx"]
    for axis, value in zip("yx", pitch, strict=True):
        _plausible(path, f"{DETECTOR}/{axis}_pixel_size", value, METRES["pixel"], "m")
    if not np.isclose(pitch[0], pitch[1], rtol=1e-3):
        raise UserError(f"{path}: detector pixels of {pitch[0]:g} × {pitch[1]:g} m are not square")
    if arrays.first(f"{SOURCE}/energy") is not None:
        energy = number("photon energy [J]", f"{SOURCE}/energy")
    else:
        energy = HC / max(number("photon energy [J]", f"{SOURCE}/wavelength"), 1e-30)
    _plausible(path, f"{SOURCE}/energy", energy, JOULES, "J")
    data = arrays.read(name)
    moved = arrays.read(place)
    if moved.ndim != 2 or len(data) not in moved.shape or min(moved.shape) not in (2, 3):
        raise UserError(f"{path}: '{place}' is {moved.shape} for {len(data)} frames")
    moved = moved if len(moved) == len(data) else moved.T
    travel = float(np.ptp(moved[:, :2], axis=0).max())
    _plausible(path, place, travel, METRES["travel"], "m between its ends")
    pixel = HC / energy * distance / (N * pitch[0])
    mask = _optional(arrays, f"{DETECTOR}/mask")
    if mask is not None:
        mask = (mask & CXI_INFORMATION) == 0 if mask.dtype.kind in "iu" else mask == 0
        mask = mask.all(axis=0) if mask.ndim == 3 else mask
    dark = arrays.first(f"{DETECTOR}/data_dark", f"{DETECTOR}/background")
    background = None if dark is None else arrays.read(dark)
    if background is not None and background.ndim == 3:
        background = background.mean(axis=0)
    probe = arrays.first(f"{SOURCE}/probe", f"{SOURCE}/illumination", f"{DETECTOR}/probe")
    return Measured(
        path,
        "CXI",
        InMemory(data),
        "intensity",
        moved[:, 1::-1] / pixel,
        N,
        mask=mask,
        background=background,
        probe=None if probe is None else _modes(arrays.read(probe)),
        pixel_size=pixel,
    )


def load_ptychodus(path: Path, arrays: Arrays) -> Measured:
    """A ptychodus product: probe, object and positions [m]; its `patterns` (intensities).

    The patterns are in the same file, or beside it as diffraction.h5 or diffraction.npz; frames
    and positions belong together by their indexes.

    Raises:
        UserError: patterns or a needed number are missing, or a unit cannot be.
    """

    def size(of: str, name: str) -> float | None:
        return arrays.attribute(of, name)

    if arrays.first("probe") is None or arrays.first("object") is None:
        raise UserError(f"{path}: a ptychodus product without 'probe' or 'object'")
    obj = _object(path, arrays.read("object"))
    pixel = size("object", "pixel_width_m") or size("probe", "pixel_width_m")
    if pixel is None or not 1e-12 < pixel < 1e-3:
        raise UserError(f"{path}: the object's pixel_width_m is {pixel}, not a length in metres")
    across = [arrays.read(f"probe_position_{axis}_m").reshape(-1) for axis in "yx"]
    travel = float(max(np.ptp(column) for column in across))
    _plausible(path, "probe_position_x_m, …_y_m", travel, METRES["travel"], "m between its ends")
    middle = [size("object", f"center_{axis}_m") or 0.0 for axis in "yx"]
    positions = np.stack(
        [
            (column - centre) / pixel + side / 2
            for column, centre, side in zip(across, middle, obj.shape, strict=True)
        ],
        axis=1,
    )
    indexes = _optional(arrays, "probe_position_indexes")
    indexes = np.arange(len(positions)) if indexes is None else indexes.reshape(-1)
    if arrays.first("patterns") is not None:
        data, mask, taken = _patterns(arrays)
    else:
        with open_arrays(_patterns_beside(path)) as beside:
            data, mask, taken = _patterns(beside)
    common, frames, rows = np.intersect1d(taken, indexes, return_indices=True)
    if len(common) == 0:
        raise UserError(f"{path}: no pattern's index is among probe_position_indexes")
    return Measured(
        path,
        "ptychodus product",
        InMemory(data[frames]),
        "intensity",
        positions[rows],
        data.shape[-1],
        mask=mask,
        probe=_modes(arrays.read("probe")),
        pixel_size=pixel,
        reference=obj,
    )


def _patterns(arrays: Arrays) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """A diffraction file's patterns, good pixels and indexes."""
    if arrays.first("patterns") is None:
        raise UserError("a ptychodus diffraction file without 'patterns'")
    data = arrays.read("patterns")
    bad = _optional(arrays, "bad_pixels")
    indexes = _optional(arrays, "indexes")
    taken = np.arange(len(data)) if indexes is None else indexes.reshape(-1)
    return data, None if bad is None else ~bad.astype(bool), taken


def _patterns_beside(path: Path) -> Path:
    for name in ("diffraction.h5", "diffraction.npz"):
        if (beside := path.with_name(name)).is_file():
            return beside
    raise UserError(
        f"{path}: a ptychodus product has no patterns; they are looked for in it as 'patterns', "
        f"and beside it as diffraction.h5 or diffraction.npz"
    )


def _optional(arrays: Arrays, name: str) -> np.ndarray | None:
    return None if arrays.first(name) is None else arrays.read(name)


def _modes(probe: np.ndarray) -> np.ndarray:
    """(…, M, S, S) as (M, S, S): of a probe that varies, what all frames have in common."""
    while probe.ndim > 3:
        probe = probe[0]
    return probe


def _object(path: Path, obj: np.ndarray) -> np.ndarray:
    if obj.ndim == 3 and len(obj) == 1:
        obj = obj[0]
    if obj.ndim != 2 or obj.size == 0:
        raise UserError(f"{path}: the object is {obj.shape}, not (rows, columns) of one layer")
    if not np.isfinite(obj).all():
        raise UserError(f"{path}: the object has values that are NaN or infinite")
    return obj


def _plausible(path: Path, name: str, value: float, bounds: tuple[float, float], unit: str) -> None:
    low, high = bounds
    if not low <= value <= high:
        raise UserError(f"{path}: '{name}' is {value:g} {unit}; allowed is {low:g} … {high:g}")
