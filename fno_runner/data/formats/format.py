"""What a format is: how a file of it is told from others, and how a scan is read from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fno_runner.data import pixels
from fno_runner.data.contents import Contents
from fno_runner.data.measured import Flags, Frames, InMemory, Measured
from fno_runner.data.source import Source
from fno_runner.data.units import HC
from fno_runner.errors import UserError

SAME = 1e-5
"""Of its size: an object that varies by less has nothing in it."""


@dataclass(frozen=True)
class Format:
    """One of the layouts in which scans are kept.

    name: what its users call it.
    wanted: what a file of it has, in words, for whoever's file has none of it.
    claims: whether a file is of this format, by its content alone.
    read: what the file says; raises UserError where it says too little.
    entries: whether a file may have several scans, of which `Hints.entry` chooses.
    """

    name: str
    wanted: str
    claims: Callable[[Source], bool]
    read: Callable[[Source], Measured]
    entries: bool = False


def far_field_pixel(energy: float, distance: float, pitch: float, side: int) -> float:
    """λ·z / (side·pitch): what a pixel of the object is if the detector has `side` pixels [m].

    Args:
        energy: of a photon [J]. distance: of the detector [m]. pitch: of its pixels [m].
    """
    return HC / energy * distance / (side * pitch)


def square(sizes: Sequence[float], remarks: list[str]) -> float | None:
    """An object's pixel [m] of these two sizes, rows' first; None, and a remark, if not square."""
    high, wide = sizes
    if math.isclose(high, wide, rel_tol=1e-3):
        return high
    remarks.append(
        f"the object's pixels are {1e9 * high:.4g} nm high and {1e9 * wide:.4g} nm wide: lengths "
        f"are told in pixels"
    )
    return None


def rows_by_width(frames: Frames) -> float:
    """What rows [px] of programs that see H × W frames in their own pixels are multiplied by.

    A window H px high has rows of λ·z / (H·pitch) [m] at the object, `Measured` λ·z / (W·pitch).
    """
    height, width = frames.shape[1:]
    return width / height


def optional(file: Contents, what: str, remarks: list[str], *names: str) -> str | None:
    """The first of these names, of arrays that a scan can do without, that the file has.

    Whatever is looked up and may be missing passes here, or `Contents.named` where nothing else may
    stand for it: an array that the file names and that cannot be read is told.
    """
    for name in names:
        if file.has(name):
            return name
        if (why := file.why_not(name)) is not None:
            remarks.append(f"the file's {what} is left out: {why}")
    return None


def pixel_flags(
    file: Contents,
    remarks: list[str],
    name: str,
    bad: Callable[[np.ndarray], np.ndarray] = lambda marks: marks != 0,
) -> Flags | None:
    """Marks of pixels under this name, (H, W) or (F, H, W), if the file has them.

    Args:
        bad: which marks mean a bad pixel; by default all but 0.
    """
    if optional(file, "mask", remarks, name) is None:
        return None
    shape = file.shape(name)
    if math.prod(shape[:-2]) == 1:
        return Flags(InMemory(file.read(name).reshape(1, *shape[-2:])), bad)
    return Flags(file.frames(name), bad)


def _mean_frame(file: Contents, name: str) -> np.ndarray:
    """The mean (H, W) of frames, or of a single one, over values that are numbers; else NaN."""
    shape = file.shape(name)
    single = math.prod(shape[:-2]) == 1
    stack = InMemory(file.read(name).reshape(1, *shape[-2:])) if single else file.frames(name)
    total, counted = np.zeros(stack.shape[1:]), np.zeros(stack.shape[1:])
    for _, block in stack.blocks():
        with_value = pixels.dark_has_value(block)
        total += np.where(with_value, block, 0).sum(axis=0, dtype=np.float64)
        counted += with_value.sum(axis=0)
    return np.where(counted > 0, total / np.maximum(counted, 1), np.nan)


def modes(probe: np.ndarray) -> np.ndarray:
    """(…, M, S, S) as (M, S, S): of a probe that varies, what all frames have in common.

    (S, S, M), as older files have it, is brought into this order.
    """
    while probe.ndim > 3:
        probe = probe[0]
    if probe.ndim == 3 and probe.shape[0] == probe.shape[1] != probe.shape[2]:
        return np.moveaxis(probe, -1, 0)
    return probe


def usable(what: str, read: Callable[[], np.ndarray], remarks: list[str]) -> np.ndarray | None:
    """What `read` gives, of what a scan can do without: None, and a remark, where it fails."""
    try:
        return read()
    except UserError as error:
        remarks.append(f"the file's {what} is left out: {error}")
        return None


def probe_modes(file: Contents, remarks: list[str], *names: str) -> np.ndarray | None:
    """The probe under the first of these names, (S, S) or (M, S, S), if the file has one."""
    name = optional(file, "probe", remarks, *names)
    return None if name is None else usable("probe", lambda: modes(file.read(name)), remarks)


def background_of(file: Contents, remarks: list[str], *names: str) -> np.ndarray | None:
    """The mean dark or background (H, W) under the first of these names, if the file has one."""
    name = optional(file, "dark or background", remarks, *names)
    if name is None:
        return None
    return usable("dark or background", lambda: _mean_frame(file, name), remarks)


def reference_object(file: Contents, remarks: list[str], name: str) -> np.ndarray | None:
    """The object of this name, (H, W), if the file has one that is more than a first guess."""
    if optional(file, "object", remarks, name) is None:
        return None
    obj = usable("object", lambda: single_layer(file, name), remarks)
    if obj is not None and np.abs(obj - obj.flat[0]).max() <= SAME * np.abs(obj.flat[0]):
        remarks.append(f"'{name}' is the same everywhere: a first guess, and no reference")
        return None
    return obj


def single_layer(file: Contents, name: str) -> np.ndarray:
    """An object (H, W).

    Raises:
        UserError: it is not one layer of numbers.
    """
    obj = file.read(name)
    while obj.ndim > 2 and obj.shape[0] == 1:
        obj = obj[0]
    if obj.ndim != 2:
        raise UserError(f"'{name}' is {obj.shape}, not a single layer")
    obj = obj.astype(np.complex64)
    if not np.isfinite(obj).all():
        raise UserError(f"'{name}' has values that are NaN or infinite")
    return obj


def coordinates(file: Contents, *names: str) -> np.ndarray:
    """Coordinates of one axis, (F,), under the first of these names.

    Raises:
        UserError: there are none.
    """
    return file.read(file.needed("positions", *names)).reshape(-1)


def row_and_column(file: Contents, rows: np.ndarray, cols: np.ndarray, frames: int) -> np.ndarray:
    """Coordinates (F,) of rows and of columns as float64 (F, 2).

    Raises:
        UserError: there are not as many rows and columns as frames.
    """
    if not len(rows) == len(cols) == frames:
        raise UserError(
            f"{file.path}: positions are {len(rows)} rows and {len(cols)} columns for {frames} "
            f"frames"
        )
    return np.column_stack([rows, cols]).astype(np.float64)
