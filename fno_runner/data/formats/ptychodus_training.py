"""ptychodus's training.h5: one file of patterns, probe, object and positions in pixels."""

from __future__ import annotations

from fno_runner.data import units
from fno_runner.data.formats.format import (
    Format,
    coordinates,
    optional,
    pixel_flags,
    probe_modes,
    reference_object,
    row_and_column,
    rows_by_width,
    square,
)
from fno_runner.data.measured import Measured
from fno_runner.data.source import Source

POSITIONS = ("probe_position_y_px", "probe_position_x_px")


def claims(source: Source) -> bool:
    """Patterns, and positions in pixels."""
    return source.file.has("patterns") and source.file.has(POSITIONS[1])


def read(source: Source) -> Measured:
    """`patterns` (counts), `bad_pixels`, `probe`, `object`, `probe_position_…_px`.

    A position is the index of the pixel in the middle of a patch, so half a pixel less than here,
    where a patch of n px is obj[row − n/2 : row + n/2, …].

    Raises:
        UserError: an array is missing or damaged.
    """
    file = source.file
    remarks: list[str] = []
    frames = file.frames("patterns")
    rows, cols = (coordinates(file, name) for name in POSITIONS)
    indices = row_and_column(file, rows, cols, frames.shape[0])
    pixel, stretch = None, rows_by_width(frames)
    sizes = ("object_pixel_height_m", "object_pixel_width_m")
    if all(optional(file, "object's pixel", remarks, name) is not None for name in sizes):
        high, wide = (units.length(file, name, units.OBJECT_PIXEL) for name in sizes)
        pixel = square((high / stretch, wide), remarks)
    reference = reference_object(file, remarks, "object")
    return Measured(
        path=source.path,
        format="ptychodus training data",
        frames=frames,
        frames_name="patterns",
        kind="intensity",
        positions=(indices + 0.5) * (stretch, 1),
        pixel_size=pixel,
        flags=pixel_flags(file, remarks, "bad_pixels"),
        probe=probe_modes(file, remarks, "probe"),
        reference=reference,
        remarks=tuple(remarks),
    )


FORMAT = Format(
    "ptychodus training data", "patterns with probe_position_x_px and …_y_px", claims, read
)
