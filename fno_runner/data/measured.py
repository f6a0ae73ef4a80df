"""What a format's reader finds in a file: frames, still unread, and all that is known of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
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

    shape: (F, H, W), or what the file has instead. dtype: as the file stores them.
    """

    shape: tuple[int, ...]
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

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        step = frames_a_block(self.shape, self.dtype)
        for first in range(0, len(self.array), step):
            yield first, self.array[first : first + step]


def frames_a_block(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """How many frames of a stack (F, H, W) make a block; at least 1."""
    frame = int(np.prod(shape[1:], dtype=np.int64)) * max(dtype.itemsize, 4)
    return max(1, BLOCK_BYTES // max(frame, 1))


@dataclass(frozen=True)
class Measured:
    """What a reader found, in the file's own size and units. Nothing of it is checked yet.

    frames: (F, H, W), of this kind.
    positions: (F, 2), row and column [px] of an object that is sampled as a probe of `side` px is:
        λ·z / (side · detector pixel) [m] a pixel.
    pixel_size: [m], of that sampling, where the file tells.
    mask: bool (H, W), true at good pixels.
    background: (H, W), an intensity that is subtracted.
    probe: (M, S, S), or (S, S). reference: (H', W'), another method's object.
    counts_held: the share of the detector's counts that the frames have, where they are a part.
    remarks: what was assumed or chosen in reading, a line each.
    """

    path: Path
    format: str
    frames: Frames
    kind: Kind
    positions: np.ndarray
    side: int
    mask: np.ndarray | None = None
    background: np.ndarray | None = None
    probe: np.ndarray | None = None
    pixel_size: float | None = None
    reference: np.ndarray | None = None
    counts_held: float = 1.0
    remarks: tuple[str, ...] = ()
