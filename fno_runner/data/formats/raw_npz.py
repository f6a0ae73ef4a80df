"""The raw NPZ of groups around PtychoPINN, its older layouts, and ptychodus's export to it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Complex64

from fno_runner.data import units
from fno_runner.data.contents import Contents
from fno_runner.data.formats.format import (
    Format,
    background_of,
    coordinates,
    optional,
    pixel_flags,
    probe_modes,
    reference_object,
    row_and_column,
)
from fno_runner.data.frames import Outline
from fno_runner.data.measured import Frames, Measured
from fno_runner.data.source import Source
from fno_runner.errors import UserError

FRAMES = ("diff3d", "diffraction")
AXES = (("ycoords", "ycoords_start"), ("xcoords", "xcoords_start"))


def claims(source: Source) -> bool:
    """Frames under one of their names; grid lines have `coords_offsets` and are no scan."""
    return source.file.first(*FRAMES) is not None and not source.file.has("coords_offsets")


def read(source: Source) -> Measured:
    """`diff3d` or `diffraction` (amplitudes), `xcoords`, `ycoords` [px].

    Optional: `probeGuess`, `objectGuess`, `mask` (true is good), `bad_pixels` (true is bad),
    `background` (an intensity), `pixel_size_m`, `photon_energy_ev`, `detector_distance_m`,
    `counts_held` (the share of the detector's counts that the frames have).

    Older files have frames (H, W, F), `xcoords_start` only, a probe (N, N, 1). ptychodus exports
    counts as they are, and `bad_pixels` beside them; its coordinates are those of pixels' centres,
    half a pixel less than the raw layout's, whose patch of n px is obj[y − n/2 : y + n/2, …].

    Raises:
        UserError: an array is missing or damaged.
    """
    file = source.file
    name = file.first(*FRAMES)
    assert name is not None
    rows, cols = (coordinates(file, *names) for names in AXES)
    remarks: list[str] = []
    frames = _frames(source, name, len(rows), remarks)
    positions = row_and_column(file, rows, cols, frames.shape[0])
    # Whether it is an export decides what coordinates are.
    exported = file.named("ptychodus's bad pixels", "bad_pixels") is not None
    if exported:
        remarks.append("has bad_pixels, as ptychodus's export: coordinates are of pixels' centres")
    if frames.shape[1] != frames.shape[2]:
        remarks.append(
            f"frames are not square: positions are taken in pixels of a window {frames.shape[2]} "
            f"px wide, along rows too"
        )
    held = _number(file, remarks, "counts_held", (0.0, 1.0), "of 1")
    reference = reference_object(file, remarks, "objectGuess")
    return Measured(
        path=source.path,
        format="ptychodus export (NPZ)" if exported else "raw NPZ",
        frames=frames,
        frames_name=name,
        kind="amplitude",
        counts_if_whole=exported,
        positions=positions + (0.5 if exported else 0.0),
        pixel_size=_number(file, remarks, "pixel_size_m", units.OBJECT_PIXEL, "m"),
        energy=_number(
            file, remarks, "photon_energy_ev", units.PHOTON_ENERGY, "eV", units.ELECTRONVOLT
        ),
        distance=_number(file, remarks, "detector_distance_m", units.DISTANCE, "m"),
        counts_held=1.0 if held is None else held,
        flags=pixel_flags(file, remarks, "bad_pixels")
        if exported
        else pixel_flags(file, remarks, "mask", np.logical_not),
        background=background_of(file, remarks, "background"),
        probe=probe_modes(file, remarks, "probeGuess"),
        reference=reference,
        remarks=tuple(remarks),
    )


def arrays_of(scan: Outline, obj: Complex64[np.ndarray, "h w"]) -> dict[str, np.ndarray]:
    """An object and what is known of its scan but for the frames, as `read` finds it again.

    scan: has a probe, and positions that belong to the object.
    """
    assert scan.probe is not None
    numbers = {
        "pixel_size_m": scan.pixel_size,
        "photon_energy_ev": None if scan.energy is None else scan.energy / units.ELECTRONVOLT,
        "detector_distance_m": scan.distance,
    }
    return {
        "objectGuess": obj,
        "probeGuess": scan.probe[0] if len(scan.probe) == 1 else scan.probe,
        "xcoords": scan.positions[:, 1],
        "ycoords": scan.positions[:, 0],
        **{name: np.array(value) for name, value in numbers.items() if value is not None},
    }


def _number(
    file: Contents,
    remarks: list[str],
    name: str,
    bounds: tuple[float, float],
    unit: str,
    si: float = 1.0,
) -> float | None:
    """A number in SI units, of which `unit` has `si`, if the file has it."""
    if optional(file, name, remarks, name) is None:
        return None
    return units.given(file, name, name, bounds, unit, si)


def _frames(source: Source, name: str, positions: int, remarks: list[str]) -> Frames:
    """The frames, whichever axis counts them."""
    shape = source.file.shape(name)
    first, last = (len(shape) >= 3 and shape[axis] == positions for axis in (0, -1))
    if first and last:
        remarks.append(f"'{name}' is {shape}: read as (frames, rows, columns)")
    if not first and last:
        remarks.append(f"'{name}' is {shape}: read as (rows, columns, frames)")
        return source.file.frames(name, last=True)
    if len(shape) < 3:
        raise UserError(f"{source.path}: '{name}' is {shape}, not (frames, rows, columns)")
    return source.file.frames(name)


FORMAT = Format(
    "raw NPZ",
    "diff3d or diffraction with xcoords and ycoords",
    claims,
    read,
)
