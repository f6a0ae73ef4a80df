"""The pair of files of pty-chi, PtychoViT and fold_slice: `…_dp.hdf5` and `…_para.hdf5`."""

from __future__ import annotations

from fno_runner.data import units
from fno_runner.data.contents import Contents
from fno_runner.data.formats.format import (
    Format,
    coordinates,
    probe_modes,
    reference_object,
    row_and_column,
    rows_by_width,
    square,
)
from fno_runner.data.formats.ptychodus import POSITIONS, from_centre, pixel_of
from fno_runner.data.measured import Measured
from fno_runner.data.source import Source
from fno_runner.errors import UserError

PATTERNS, PARAMETERS = "_dp", "_para"
FOLD_SLICE = ("ppY", "ppX")
"""Positions [m] where fold_slice prepared the pair; `dx` is the object's pixel [m]."""


def claims(source: Source) -> bool:
    """One of the two files, with the other beside it."""
    return source.file.has("dp") or _pair(source)[0] is not None


def read(source: Source) -> Measured:
    """`dp` (counts) of the one file; `object`, `probe`, positions [m] of the other.

    Raises:
        UserError: the other file is missing, or says too little.
    """
    patterns, parameters = _pair(source)
    if patterns is None or parameters is None:
        wanted = source.path.name.replace(PATTERNS, PARAMETERS)
        raise UserError(
            f"{source.path}: has 'dp', and its positions are looked for beside it, in '{wanted}'"
        )
    remarks: list[str] = []
    frames = patterns.frames("dp")
    reference = reference_object(parameters, remarks, "object")
    if parameters.has(POSITIONS[1]):
        pixel = pixel_of(parameters)
        stretch = rows_by_width(frames)
        positions = from_centre(parameters, pixel, reference) * (stretch, 1)
        pixel = (pixel[0] / stretch, pixel[1])
    else:
        width = units.given(parameters, "the object's pixel", "dx", units.OBJECT_PIXEL, "m")
        pixel, reference = (width, width), None
        rows, cols = (coordinates(parameters, name) for name in FOLD_SLICE)
        positions = row_and_column(parameters, rows, cols, frames.shape[0]) / width
        remarks.append("ppY is taken along rows and ppX along columns: --check-orientation asks")
    return Measured(
        path=source.path,
        format="pty-chi pair",
        frames=frames,
        frames_name="dp",
        kind="intensity",
        positions=positions,
        pixel_size=square(pixel, remarks),
        probe=probe_modes(parameters, remarks, "probe"),
        reference=reference,
        remarks=tuple(remarks),
    )


def _pair(source: Source) -> tuple[Contents | None, Contents | None]:
    """The file of the patterns and that of the parameters, whichever was named."""
    own = source.file
    stem, suffix = source.path.stem, source.path.suffix
    if own.has("dp"):
        if _has_positions(own):
            return own, own
        name = f"{stem.removesuffix(PATTERNS)}{PARAMETERS}{suffix}"
        beside = source.beside(name) if stem.endswith(PATTERNS) else None
        return own, beside if beside is not None and _has_positions(beside) else None
    if stem.endswith(PARAMETERS) and _has_positions(own):
        beside = source.beside(f"{stem.removesuffix(PARAMETERS)}{PATTERNS}{suffix}")
        return (beside if beside is not None and beside.has("dp") else None), own
    return None, None


def _has_positions(file: Contents) -> bool:
    return file.has(POSITIONS[1]) or file.has(FOLD_SLICE[1])


FORMAT = Format(
    "pty-chi pair",
    "dp in NAME_dp.hdf5 with probe_position_x_m (or ppX) in NAME_para.hdf5",
    claims,
    read,
)
