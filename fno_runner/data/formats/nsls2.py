"""What NSLS-II's ptychography prepares: `diffamp`, zero frequency in the corner, and `points`."""

from __future__ import annotations

import numpy as np

from fno_runner.data import units
from fno_runner.data.formats.format import Format, far_field_pixel, probe_modes
from fno_runner.data.measured import Measured
from fno_runner.data.source import Source
from fno_runner.errors import UserError


def claims(source: Source) -> bool:
    """Amplitudes and points."""
    return source.file.has("diffamp") and source.file.has("points")


def read(source: Source) -> Measured:
    """`diffamp` (amplitudes), `points` (2, F): x and y [µm], `z_m`, `lambda_nm`, `ccd_pixel_um`.

    x is taken along columns and y along rows, as ptychodus does; some beamlines turn their frames
    by 90°, which `--check-orientation` finds out.

    Raises:
        UserError: an array or a number is missing, damaged, or cannot be.
    """
    file = source.file
    frames = file.frames("diffamp")
    points = file.read("points").astype(np.float64)
    count = frames.shape[0]
    if points.ndim != 2 or sorted(points.shape) != sorted((2, count)):
        raise UserError(f"{source.path}: 'points' is {points.shape} for {count} frames")
    x, y = points if points.shape[0] == 2 else points.T
    what = "the geometry of a diffamp file"
    distance = units.given(file, what, "z_m", units.DISTANCE, "m")
    pitch = units.given(file, what, "ccd_pixel_um", units.PITCH, "µm", 1e-6)
    energy = units.HC / units.given(file, what, "lambda_nm", units.WAVELENGTH, "nm", 1e-9)
    pixel = far_field_pixel(energy, distance, pitch, frames.shape[-1])
    remarks = ["x is taken along columns and y along rows: --check-orientation asks"]
    return Measured(
        path=source.path,
        format="NSLS-II diffamp",
        frames=frames,
        frames_name="diffamp",
        kind="amplitude",
        in_the_corner=True,
        positions=np.column_stack([y, x]) * 1e-6 / pixel,
        pixel_size=pixel,
        energy=energy,
        distance=distance,
        probe=probe_modes(file, remarks, "probe", "prb"),
        remarks=tuple(remarks),
    )


FORMAT = Format("NSLS-II diffamp", "diffamp with points", claims, read)
