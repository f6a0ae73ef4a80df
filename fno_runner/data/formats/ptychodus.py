"""ptychodus's products (HDF5 or NPZ): positions, probe, object; their patterns lie beside them."""

from __future__ import annotations

import numpy as np

from fno_runner.data import units
from fno_runner.data.contents import Contents
from fno_runner.data.formats.format import (
    Format,
    coordinates,
    pixel_flags,
    probe_modes,
    rows_by_width,
    single_layer,
    square,
    usable,
)
from fno_runner.data.measured import Measured
from fno_runner.data.source import Source
from fno_runner.errors import UserError

POSITIONS = ("probe_position_y_m", "probe_position_x_m")
DIFFRACTION = ("diffraction.h5", "diffraction.npz")


def claims(source: Source) -> bool:
    """Positions in metres, and indexes or patterns, or patterns beside it."""
    file = source.file
    return file.has(POSITIONS[1]) and (
        file.first("probe_position_indexes", "patterns") is not None
        or source.beside(*DIFFRACTION) is not None
    )


def read(source: Source) -> Measured:
    """Probe, object and positions [m] from the object's centre; `patterns` (counts).

    The patterns are in the same file, or beside it as diffraction.h5 or diffraction.npz; frames
    and positions belong together by their indexes.

    Raises:
        UserError: patterns or a needed number are missing, a unit cannot be, or the detector is in
            the near field, which is not modelled.
    """
    file = source.file
    if file.attribute("/", "far_field") == 0:
        raise UserError(
            f"{source.path}: far_field is false: near-field ptychography is not modelled"
        )
    remarks: list[str] = []
    pixel = pixel_of(file)
    reference = usable("object", lambda: single_layer(file, "object"), remarks)
    positions = from_centre(file, pixel, reference)
    patterns = file if file.has("patterns") else source.beside(*DIFFRACTION)
    if patterns is None:
        raise UserError(
            f"{source.path}: a ptychodus product has no patterns; they are looked for in it as "
            f"'patterns', and beside it as diffraction.h5 or diffraction.npz"
        )
    frames = patterns.frames(patterns.needed("frames of a ptychodus diffraction file", "patterns"))
    stretch = rows_by_width(frames)
    taken = _indexes(patterns, "indexes", frames.shape[0])
    indexes = _indexes(file, "probe_position_indexes", len(positions))
    if len(taken) != frames.shape[0] or len(indexes) != len(positions):
        raise UserError(
            f"{source.path}: {len(taken)} indexes for {frames.shape[0]} frames, {len(indexes)} for "
            f"{len(positions)} positions"
        )
    common, of_frame, rows = np.intersect1d(taken, indexes, return_indices=True)
    if len(common) == 0:
        raise UserError(f"{source.path}: no pattern's index is among probe_position_indexes")
    if (left := frames.shape[0] - len(common)) or len(common) < len(positions):
        remarks.append(
            f"{len(common)} frames have a position; {left} frames have none, and "
            f"{len(positions) - len(common)} positions no frame"
        )
    return Measured(
        path=source.path,
        format="ptychodus product",
        frames=frames,
        frames_name="patterns",
        kind="intensity",
        positions=positions[rows] * (stretch, 1),
        of_frame=of_frame,
        indexes=taken,
        pixel_size=square((pixel[0] / stretch, pixel[1]), remarks),
        energy=units.known(
            file.attribute("/", "probe_energy_eV"), units.PHOTON_ENERGY, units.ELECTRONVOLT
        ),
        distance=units.known(file.attribute("/", "detector_object_distance_m"), units.DISTANCE),
        flags=pixel_flags(patterns, remarks, "bad_pixels"),
        probe=probe_modes(file, remarks, "probe"),
        reference=reference,
        remarks=tuple(remarks),
    )


def _indexes(file: Contents, name: str, count: int) -> np.ndarray:
    """The indexes under this name, or where the file has none 0, 1, 2, … of this count."""
    if file.named("which frames and positions belong together", name) is None:
        return np.arange(count)
    return file.read(name).reshape(-1)


def pixel_of(file: Contents) -> tuple[float, float]:
    """Height and width of the object's pixels [m].

    Raises:
        UserError: a length that cannot be, or none.
    """
    high, wide = (
        file.attribute("object", name) or file.attribute("probe", name)
        for name in ("pixel_height_m", "pixel_width_m")
    )
    high = wide if high is None else high
    wide = high if wide is None else wide
    low, top = units.OBJECT_PIXEL
    if high is None or wide is None or not (low < high < top and low < wide < top):
        raise UserError(f"{file.path}: the object's pixel_width_m is {wide}, not a length [m]")
    return high, wide


def from_centre(
    file: Contents, pixel: tuple[float, float], reference: np.ndarray | None
) -> np.ndarray:
    """Positions in metres from the world's origin, as pixels of the object, (F, 2).

    Raises:
        UserError: they span more than a scan can.
    """
    across = [coordinates(file, name) for name in POSITIONS]
    if len(across[0]) != len(across[1]):
        raise UserError(
            f"{file.path}: {len(across[0])} positions along y, {len(across[1])} along x"
        )
    units.check_travel(file, ", ".join(POSITIONS), np.column_stack(across))
    # Where there is no object, any origin will do.
    shape = (0, 0) if reference is None else reference.shape
    middle = [file.attribute("object", f"center_{axis}_m") or 0.0 for axis in "yx"]
    columns = [
        (column - centre) / size + side / 2
        for column, centre, size, side in zip(across, middle, pixel, shape, strict=True)
    ]
    return np.column_stack(columns).astype(np.float64)


FORMAT = Format(
    "ptychodus product",
    "probe_position_x_m with probe_position_indexes or patterns, or diffraction.h5 beside it",
    claims,
    read,
)
