"""ptypy's prepared data (.ptyd): chunks of frames with their positions."""

from __future__ import annotations

import math

import numpy as np

from fno_runner.data import units
from fno_runner.data.formats.format import Format, far_field_pixel, optional, square
from fno_runner.data.hdf5 import Hdf5File
from fno_runner.data.measured import Chained, Flags, Frames, InMemory, Measured
from fno_runner.data.source import Source
from fno_runner.errors import UserError


def claims(source: Source) -> bool:
    """`chunks` of frames, and `meta`."""
    file = source.file
    return isinstance(file, Hdf5File) and file.has_group("chunks") and file.has_group("meta")


def read(source: Source) -> Measured:
    """`chunks/<n>/data` (counts), `positions` (row and column) [m], `weights` (0 is bad).

    Weights (H, W) are those of all frames of a chunk. A chunk may lie in another file; where that
    cannot be opened, the others are read, and it is told.

    `meta` has the detector's distance [m], its pixels' size [m] and the photons' energy [keV].

    Raises:
        UserError: a chunk has no data or other positions, or a number is missing or cannot be.
    """
    file = source.file
    assert isinstance(file, Hdf5File)
    remarks: list[str] = []
    chunks = _chunks(file, remarks)
    parts: list[Frames] = []
    weights: list[Frames | None] = []
    positions = []
    for chunk in chunks:
        part = file.frames(f"{chunk}/data")
        if parts and part.shape[1:] != parts[0].shape[1:]:
            raise UserError(f"{source.path}: '{chunk}/data' is {part.shape}, unlike the others")
        placed = file.read(f"{chunk}/positions")
        if placed.shape != (part.shape[0], 2):
            raise UserError(
                f"{source.path}: '{chunk}/positions' is {placed.shape} for {part.shape[0]} frames"
            )
        parts.append(part)
        positions.append(placed.astype(np.float64))
        weights.append(_weights(file, chunk, part.shape, remarks))
    what = "the geometry of a ptyd file"
    kev = 1e3 * units.ELECTRONVOLT
    energy = units.given(file, what, "meta/energy", units.PHOTON_ENERGY, "keV", kev)
    distance = units.given(file, what, "meta/distance", units.DISTANCE, "m")
    pitch = [
        units.plausible(file, "meta/psize", value, units.PITCH, "m")
        for value in np.resize(file.read("meta/psize").astype(np.float64).reshape(-1), 2)
    ]
    side = parts[0].shape[-1]
    pixel = [far_field_pixel(energy, distance, width, side) for width in pitch]
    return Measured(
        path=source.path,
        format="ptyd",
        frames=Chained(parts),
        frames_name="data",
        kind="intensity",
        positions=np.concatenate(positions) / pixel,
        pixel_size=square(pixel, remarks),
        energy=energy,
        distance=distance,
        flags=_flags(parts, weights),
        remarks=tuple(remarks),
    )


def _chunks(file: Hdf5File, remarks: list[str]) -> list[str]:
    """The chunks that can be opened, in order of their numbers.

    Raises:
        UserError: there are none; says why.
    """
    numbered = {int(number): chunk for chunk in file.within("chunks")
                if (number := chunk.rsplit("/", 1)[1]).isdigit()}  # fmt: skip
    chunks = []
    for _, chunk in sorted(numbered.items()):
        if file.has_group(chunk):
            chunks.append(chunk)
        elif (why := file.why_not(chunk)) is not None:
            remarks.append(f"frames are left out: {why}")
    if not chunks:
        raise file.missing("frames of a ptyd file", *numbered.values(), "chunks/0/data")
    return chunks


def _weights(
    file: Hdf5File, chunk: str, frames: tuple[int, ...], remarks: list[str]
) -> Frames | None:
    """Weights of the pixels of a chunk's frames (F, H, W); None where all count."""
    name = optional(file, "weights", remarks, f"{chunk}/weights")
    if name is None or 0 in file.shape(name):  # ptypy writes none as an empty array
        return None
    shape = file.shape(name)
    if shape == frames:
        return file.frames(name)
    if shape[-2:] == frames[1:] and math.prod(shape[:-2]) == 1:
        return InMemory(np.broadcast_to(file.read(name).reshape(frames[1:]), frames))
    remarks.append(f"'{name}' is left out: it is {shape}, the frames are {frames}")
    return None


def _flags(parts: list[Frames], weights: list[Frames | None]) -> Flags | None:
    """The weights of all chunks as flags; None where no chunk has any."""
    if all(weight is None for weight in weights):
        return None
    one = np.ones((), np.float32)
    of_all = [InMemory(np.broadcast_to(one, part.shape)) if weight is None else weight
              for part, weight in zip(parts, weights, strict=True)]  # fmt: skip
    return Flags(Chained(of_all), lambda marks: marks == 0)


FORMAT = Format("ptyd", "chunks/0/data and meta (ptypy)", claims, read)
