"""tike's arrays: counts with zero frequency in the corner, and the corners of the patches."""

from __future__ import annotations

from fno_runner.data.formats.format import (
    Format,
    probe_modes,
    reference_object,
    row_and_column,
)
from fno_runner.data.measured import Measured
from fno_runner.data.source import Source


def claims(source: Source) -> bool:
    """Frames under `data`, and a `scan` of pairs."""
    file = source.file
    return file.has("data") and file.has("scan") and file.shape("scan")[-1:] == (2,)


def read(source: Source) -> Measured:
    """`data` (counts), `scan` (row and column of a patch's first pixel) [px], `probe`, `psi`.

    Raises:
        UserError: an array is missing or damaged.
    """
    file = source.file
    remarks: list[str] = []
    frames = file.frames("data")
    scan = file.read("scan").reshape(-1, 2)
    corners = row_and_column(file, scan[:, 0], scan[:, 1], frames.shape[0])
    reference = reference_object(file, remarks, "psi")
    return Measured(
        path=source.path,
        format="tike",
        frames=frames,
        frames_name="data",
        kind="intensity",
        in_the_corner=True,
        positions=corners + frames.shape[-1] // 2,
        probe=probe_modes(file, remarks, "probe"),
        reference=reference,
        remarks=tuple(remarks),
    )


FORMAT = Format("tike", "data with scan (…, frames, 2)", claims, read)
