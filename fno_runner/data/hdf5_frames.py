"""Frames of an HDF5 dataset, a block at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from fno_runner.data.measured import BLOCK_BYTES, Frames, frames_a_block

UNPACKED = 8 * BLOCK_BYTES
"""Bytes of frames that are unpacked together at most, where chunks hold many."""


class Hdf5Frames(Frames):
    """Frames of a dataset (…, H, W), read in blocks of whole chunks where that can be.

    Args:
        swapped: it is (…, W, H), as MATLAB keeps it.
        user_errors: within it, whatever HDF5 raises becomes a UserError that names the file.
    """

    def __init__(
        self, dataset: Any, swapped: bool, user_errors: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._dataset, self._swapped, self._user_errors = dataset, swapped, user_errors
        self.leading = tuple(dataset.shape[:-2])
        height, width = dataset.shape[-2:]
        size = (width, height) if swapped else (height, width)
        self.shape = (math.prod(self.leading), *size)
        self.dtype = dataset.dtype

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        step = frames_a_block(self.shape, self.dtype)
        *outer, along = self.leading
        reach = self._frames_at_once(step)
        for row, place in enumerate(np.ndindex(*outer)):
            for first in range(0, along, reach):
                with self._user_errors():
                    read = self._dataset[(*place, slice(first, first + reach))]
                if self._swapped:
                    read = read.swapaxes(1, 2)
                for inner in range(0, len(read), step):
                    yield row * along + first + inner, read[inner : inner + step]

    def _frames_at_once(self, step: int) -> int:
        """Frames to unpack at once: those of whole chunks, as a chunk is unpacked for any of it."""
        if self._dataset.chunks is None:
            return step
        chunk = self._dataset.chunks[len(self.leading) - 1]
        if chunk <= step:
            return step - step % chunk
        frame = math.prod(self.shape[1:]) * self.dtype.itemsize
        return max(step, min(chunk, UNPACKED // max(frame, 1)))
