"""CXI (Maia, Nature Methods 9, 854 (2012)) and NeXus's NXcxi_ptycho, which names things alike."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np

from fno_runner.data import units
from fno_runner.data.formats.cxi_geometry import Detector, detector_of, photon_energy
from fno_runner.data.formats.format import (
    Format,
    background_of,
    far_field_pixel,
    optional,
    pixel_flags,
    probe_modes,
    square,
)
from fno_runner.data.formats.nexus_axes import direction_of, slow_axis
from fno_runner.data.hdf5 import Hdf5File
from fno_runner.data.measured import Flags, Frames, Measured
from fno_runner.data.source import Source
from fno_runner.errors import UserError

FAULTS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400
"""Bits of a CXI mask (version 1.6) by which a pixel has no value: invalid, saturated, hot, dead,
shadowed, to be ignored, bad, out of the resolution's limits, missing, noisy. Not among them: in a
peak (0x20), corrected (0x800), with signal (0x1000), in the support (0x10000)."""


DATA = ("data_1/data", "instrument_1/detector_1/data", "image_1/data", "data/data",
        "instrument/detector/data")  # fmt: skip
TRANSLATION = ("data_1/translation", "sample_1/geometry_1/translation",
               "instrument_1/detector_1/translation")  # fmt: skip
AXES = tuple(
    (f"{group}/{y}", f"{group}/{x}")
    for group in ("data", "data_1", "sample_1/transformations", "sample/transformations")
    for y, x in (("y", "x"), ("y_translation", "x_translation"), ("vertical", "horizontal"))
)
UP, LEFT = (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)
"""Where y and x lead, in CXI's coordinates, unless a file gives them vectors."""
MONITOR = ("instrument_1/monitor_1/data", "instrument_1/monitor/data", "monitor_1/data",
           "monitor/data", "control/data")  # fmt: skip
DARK = ("data_dark", "dark", "background", "darkfield")
"""Where an entry may keep what a scan needs, the likeliest place first."""


def claims(source: Source) -> bool:
    """An entry with frames or with translations."""
    return isinstance(source.file, Hdf5File) and bool(_entries(source.file))


def read(source: Source) -> Measured:
    """Frames (counts), mask, dark frames, monitor, translations [m] → positions [px].

    Translations are the sample's, in CXI's coordinates: x to the left as one looks along the beam,
    y up. A detector whose basis_vectors say nothing else has rows that run down and columns that
    run right, so that a patch's row is y and its column x, over the object's pixel λ·z / (N·pitch).

    Raises:
        UserError: data or a needed number is missing, or has a unit that cannot be.
    """
    file = source.file
    assert isinstance(file, Hdf5File)
    remarks: list[str] = []
    entry, name = _chosen(file, source.hints.entry, remarks)
    frames = file.frames(name)
    detector = detector_of(file, entry, name, frames, remarks)
    energy = photon_energy(file, entry)
    side = frames.shape[-1]
    pixel = [far_field_pixel(energy, detector.distance, pitch, side) for pitch in detector.pitch]
    moved = _translations(file, entry, frames, remarks)
    units.check_travel(file, f"{entry}/{TRANSLATION[0]}", moved)
    for flat in ("flatfield", "qe_mask"):
        if file.has(f"{detector.group}/{flat}"):
            remarks.append(f"'{detector.group}/{flat}' is there and is not used")
    source_group = detector.group.rsplit("/", 1)[0] + "/source_1"
    probes = (f"{source_group}/probe", f"{source_group}/illumination", f"{detector.group}/probe")
    # A text is the name of the radiation. What is behind the first one is not looked at: what it
    # links to would be of the file's fingerprint.
    named = (n for n in probes if file.has(n) or (not file.has_text(n) and file.why_not(n)))
    probe = probe_modes(file, remarks, *islice(named, 1))
    return Measured(
        path=source.path,
        format="CXI",
        frames=frames,
        frames_name=name,
        kind="intensity",
        # The beam moves the other way on a sample than the sample does.
        positions=-moved @ np.stack(detector.directions).T / pixel,
        pixel_size=square(pixel, remarks),
        energy=energy,
        distance=detector.distance,
        flags=_flags(file, detector, name, remarks),
        background=background_of(file, remarks, *_within(detector.group, DARK)),
        monitor=_monitor(file, entry, frames.shape[0], remarks),
        probe=probe,
        remarks=tuple(remarks),
    )


# --- which entry ----------------------------------------------------------------------------------


def _within(entry: str, names: Iterable[str]) -> list[str]:
    return [f"{entry}/{name}" for name in names]


def _entries(file: Hdf5File) -> list[str]:
    """The groups that hold frames or translations, first those that hold both."""
    has = {
        entry: (file.first(*_within(entry, DATA)) is not None, _has_positions(file, entry))
        for entry in file.groups("/")
    }
    return sorted(
        (entry for entry in has if any(has[entry])), key=lambda entry: not all(has[entry])
    )


def _has_positions(file: Hdf5File, entry: str) -> bool:
    return file.first(*_within(entry, TRANSLATION)) is not None or _axes(file, entry) is not None


def _axes(file: Hdf5File, entry: str) -> tuple[str, str] | None:
    """Where an entry has the positions of motors, y and x, if it has them."""
    pairs = (_within(entry, pair) for pair in AXES)
    return next(((y, x) for y, x in pairs if file.has(y) and file.has(x)), None)


def _chosen(file: Hdf5File, wanted: str | None, remarks: list[str]) -> tuple[str, str]:
    """The entry that is read, and its frames."""
    entries = _entries(file)
    if wanted is not None and wanted not in entries:
        raise UserError(f"{file.path}: has no entry '{wanted}'; it has {', '.join(entries)}")
    entry = entries[0] if wanted is None else wanted
    others = [e for e in entries if e != entry and _has_positions(file, e)]
    if wanted is None and others:
        remarks.append(f"'{entry}' is read; there is also {', '.join(others)} (--entry chooses)")
    return entry, file.needed("frames of a CXI file", *_within(entry, DATA))


# --- what it says ---------------------------------------------------------------------------------


def _translations(file: Hdf5File, entry: str, frames: Frames, remarks: list[str]) -> np.ndarray:
    """Where the sample was, (F, 3): x, y, z [m]."""
    count = frames.shape[0]
    places = _within(entry, TRANSLATION)
    place = file.first(*places)
    if place is None:
        axes = _axes(file, entry)
        if axes is None:
            raise file.missing("positions of a CXI file", *places)
        return _from_axes(file, *axes, frames, remarks)
    moved = file.read(place)
    if moved.ndim > 2:  # a raster's
        moved = moved.reshape(-1, moved.shape[-1])
    if moved.ndim != 2 or count not in moved.shape or min(moved.shape) not in (2, 3):
        raise UserError(f"{file.path}: '{place}' is {moved.shape} for {count} frames")
    moved = moved if len(moved) == count else moved.T
    if moved.shape[1] == 2:
        moved = np.column_stack([moved, np.zeros(count)])
    moved = moved.astype(np.float64) * units.factor(file, place, units.LENGTH)
    moved[~np.isfinite(moved[:, 2]), 2] = 0  # along the beam, which does not matter
    return moved


def _from_axes(file: Hdf5File, y: str, x: str, frames: Frames, remarks: list[str]) -> np.ndarray:
    """Positions of motors: a value a frame, or of a raster one for each of its rows and columns."""
    values = [file.read(name).astype(np.float64).squeeze() * units.factor(file, name, units.LENGTH)
              for name in (y, x)]  # fmt: skip
    count = frames.shape[0]
    if all(value.ndim == 1 for value in values) and len(frames.leading) == 2:
        sizes = tuple(len(value) for value in values)
        slow = slow_axis(file, y, x) or y  # what it says, where sizes do not
        if sizes[::-1] == frames.leading and (sizes != frames.leading or slow == x):
            values = [grid.T for grid in np.meshgrid(*values, indexing="ij")]
            remarks.append(f"a raster: '{x}' is taken for its slow axis")
        elif sizes == frames.leading:
            values = list(np.meshgrid(*values, indexing="ij"))
            remarks.append(f"a raster: '{y}' is taken for its slow axis")
    rows, cols = (value.reshape(-1) for value in values)
    if not len(rows) == len(cols) == count:
        raise UserError(f"{file.path}: '{y}' and '{x}' are {len(rows)} and {len(cols)} for {count} "
                        f"frames")  # fmt: skip
    up, left = direction_of(file, y, UP, remarks), direction_of(file, x, LEFT, remarks)
    return rows[:, None] * up + cols[:, None] * left


def _flags(file: Hdf5File, detector: Detector, frames: str, remarks: list[str]) -> Flags | None:
    """Marks of the detector's pixels: in its group, or beside the frames of this name."""
    beside, of_nexus = f"{frames.rsplit('/', 1)[0]}/mask", f"{detector.group}/pixel_mask"
    names = (f"{detector.group}/mask", beside, of_nexus)
    name = optional(file, "mask", remarks, *dict.fromkeys(names))
    if name is None:
        return None
    for other in names[names.index(name) + 1 :]:
        if file.has(other) and not file.is_same(other, name):
            remarks.append(f"'{other}' is there too, and is not used: '{name}' is")
    if name == of_nexus or file.dtype(name).kind not in "iu":
        return pixel_flags(file, remarks, name)  # any bit is a fault
    # In 64 bits, as a mask of 8 may have fewer bits than there are faults.
    return pixel_flags(file, remarks, name, lambda marks: (marks.astype(np.int64) & FAULTS) != 0)


def _monitor(file: Hdf5File, entry: str, count: int, remarks: list[str]) -> np.ndarray | None:
    """What fell on the sample during each frame, in any unit."""
    name = optional(file, "monitor", remarks, *_within(entry, MONITOR))
    if name is None:
        return None
    values = file.read(name)
    if values.size != count:
        remarks.append(
            f"the file's monitor is left out: '{name}' has {values.size} values for {count} frames"
        )
        return None
    return values.reshape(-1).astype(np.float64)


FORMAT = Format(
    "CXI",
    "entry_1/data_1/data with entry_1/data_1/translation (CXI, NeXus's NXcxi_ptycho)",
    claims,
    read,
    entries=True,
)
