"""What a format's reader finds in a file: frames, still unread, and all that is known of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Kind = Literal["amplitude", "intensity"]
"""What the numbers of a frame are: counts, or their square roots."""
BLOCK_BYTES = 16 * 2**20
"""Frames are read in blocks of about so many bytes, so that memory does not grow with the file."""


class Frames(ABC):
    """Frames of a file, read a block at a time, as often as asked.

    shape: (F, H, W). dtype: as the file stores them.
    leading: (F,), or of a raster of frames its rows and columns, whose product F is.
    """

    shape: tuple[int, ...]
    leading: tuple[int, ...]
    dtype: np.dtype

    @abstractmethod
    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The frames in order: the first one's number and (b, H, W), about BLOCK_BYTES each.

        Raises:
            UserError: the file is damaged, or has changed.
        """


class InMemory(Frames):
    """Frames that are here already."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.leading = array.shape[:1]

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        step = frames_a_block(self.shape, self.dtype)
        for first in range(0, len(self.array), step):
            yield first, self.array[first : first + step]


class Chained(Frames):
    """Stacks of frames of one size, one behind the other."""

    def __init__(self, parts: list[Frames]) -> None:
        self._parts = parts
        self.shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        self.leading = self.shape[:1]
        self.dtype = np.result_type(*(part.dtype for part in parts))

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        before = 0
        for part in self._parts:
            for first, block in part.blocks():
                yield before + first, block
            before += part.shape[0]


def frames_a_block(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """How many frames of a stack (F, H, W) make a block; at least 1."""
    frame = math.prod(shape[1:]) * max(dtype.itemsize, 4)
    return max(1, BLOCK_BYTES // max(frame, 1))


@dataclass(frozen=True)
class Flags:
    """What a file marks pixels with, in all frames alike (1, H, W) or in each of them (F, H, W).

    bad: which of the marks mean that a pixel has no value.
    """

    marks: Frames
    bad: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Measured:
    """What a reader found, in the file's own size and units. Nothing of it is checked yet.

    frames: (F', H, W), of this kind, under this name.
    positions: (F, 2), row and column [px] of an object that is sampled as a probe of `side` px is:
        λ·z / (side · detector pixel) [m] a pixel. A patch of n px is obj[row − n/2 : row + n/2, …].
    of_frame: (F,), which of the frames each position belongs to; None where they are in order.
    indexes: (F',), what the file calls each of the frames; None: 0, 1, 2 ….
    pixel_size: [m], of that sampling, where the file tells and where pixels are square.
    energy: of a photon [J]. distance: from the sample to the detector [m]. Where the file tells.
    in_the_corner: whether the format has zero frequency at pixel [0, 0], and not in the middle.
    settled: whether the user said what the frames are.
    counts_if_whole: whether amplitudes that are all whole numbers can only be counts.
    background: (H, W), an intensity that is subtracted.
    monitor: (F',), proportional to the intensity that fell on the sample during a frame.
    counts_held: the share of the detector's counts that the file's frames have.
    probe: (M, S, S), or (S, S). probe_named: whether the user said which array it is.
    reference: (H', W'), another method's object.
    remarks: what was assumed or chosen in reading, a line each.
    """

    path: Path
    format: str
    frames: Frames
    frames_name: str
    kind: Kind
    positions: np.ndarray
    of_frame: np.ndarray | None = None
    indexes: np.ndarray | None = None
    pixel_size: float | None = None
    energy: float | None = None
    distance: float | None = None
    in_the_corner: bool = False
    settled: bool = False
    counts_if_whole: bool = False
    flags: Flags | None = None
    background: np.ndarray | None = None
    monitor: np.ndarray | None = None
    counts_held: float = 1.0
    probe: np.ndarray | None = None
    probe_named: bool = False
    reference: np.ndarray | None = None
    remarks: tuple[str, ...] = ()

    @property
    def side(self) -> int:
        """The frames' width [px], which positions and `pixel_size` are sampled for."""
        return self.frames.shape[-1]
