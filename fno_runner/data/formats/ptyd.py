"""ptypy's prepared data (.ptyd): chunks of frames with their positions."""

from __future__ import annotations

import numpy as np

from fno_runner.data import units
from fno_runner.data.formats.format import Format, far_field_pixel, square
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

    `meta` has the detector's distance [m], its pixels' size [m] and the photons' energy [keV].

    Raises:
        UserError: a chunk has no data or other positions, or a number is missing or cannot be.
    """
    file = source.file
    assert isinstance(file, Hdf5File)
    chunks = sorted(
        (chunk for chunk in file.groups("chunks") if chunk.rsplit("/", 1)[1].isdigit()),
        key=lambda chunk: int(chunk.rsplit("/", 1)[1]),
    )
    if not chunks:
        raise file.missing("frames of a ptyd file", "chunks/0/data")
    parts: list[Frames] = []
    weights: list[Frames] = []
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
        weight = f"{chunk}/weights"
        weighted = file.has(weight) and file.shape(weight) == part.shape
        weights.append(file.frames(weight) if weighted else _all_good(part.shape))
    energy = _meta(file, "energy") * 1e3 * units.ELECTRONVOLT
    units.plausible(file, "meta/energy", energy, units.PHOTON_ENERGY, "J")
    distance = units.plausible(file, "meta/distance", _meta(file, "distance"), units.DISTANCE, "m")
    pitch = [
        units.plausible(file, "meta/psize", value, units.PITCH, "m")
        for value in np.resize(file.read("meta/psize").astype(np.float64).reshape(-1), 2)
    ]
    side = parts[0].shape[-1]
    pixel = [far_field_pixel(energy, distance, width, side) for width in pitch]
    remarks: list[str] = []
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
        flags=None
        if all(isinstance(weight, InMemory) for weight in weights)
        else Flags(Chained(weights), lambda marks: marks == 0),
        remarks=tuple(remarks),
    )


def _all_good(shape: tuple[int, ...]) -> InMemory:
    return InMemory(np.broadcast_to(np.ones((), np.float32), shape))


def _meta(file: Hdf5File, name: str) -> float:
    return file.number(file.needed(f"the {name} of a ptyd file", f"meta/{name}"))


FORMAT = Format("ptyd", "chunks/0/data and meta (ptypy)", claims, read)
