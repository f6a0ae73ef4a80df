"""A scan's frames a block at a time, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from fno_runner.batches import mask_of
from fno_runner.data.dataset import Patterns
from fno_runner.data.frames import (
    FrameBlocks,
    Outline,
    Scan,
    amplitudes,
    mean_intensity,
    with_frames,
)
from fno_runner.data.recording import Recording
from fno_runner.data.scan import patterns, probe_of
from fno_runner.reconstructor import input_scale_factor

BLOCK_BYTES = 8 * 2**20
"""Frames that are dealt with at a time have about so many bytes, their patches twice as many."""


@dataclass(frozen=True)
class Stream:
    """A scan that has a probe, and whose frames may be read again and again.

    mean_intensity: Σ A² of a frame, mean over the scan.
    """

    scan: Outline
    mean_intensity: float
    _frames: Callable[[], FrameBlocks]

    @classmethod
    def of(cls, scan: Scan) -> Stream:
        """Of frames in memory."""
        return cls(scan, mean_intensity(scan, scan.blocks()), scan.blocks)

    @classmethod
    def reading(cls, scan: Outline, recording: Recording) -> Stream:
        """Of frames that stay in their file, which has to be open as long.

        Raises:
            UserError: frames without counts, or all alike, are no scan.
        """

        def frames() -> FrameBlocks:
            return amplitudes(recording, scan.crop)

        return cls(scan, mean_intensity(scan, frames()), frames)

    @property
    def input_scale(self) -> float:
        """The input scale factor of its frames."""
        probe = torch.from_numpy(probe_of(self.scan))
        return input_scale_factor(self.mean_intensity, probe, mask_of(self.scan))

    def __len__(self) -> int:
        return len(self.scan)

    @cached_property
    def whole(self) -> Scan:
        """The scan with all its frames in memory, for what has to go through them at random."""
        return self.scan if isinstance(self.scan, Scan) else with_frames(self.scan, self._frames())

    def blocks(self, multiple: int = 1) -> Iterator[Patterns]:
        """Every frame once, as many at a time as `BLOCK_BYTES` hold.

        Args:
            multiple: their number is one of it, but for the last ones'.
        """
        held = max(1, BLOCK_BYTES // (4 * self.scan.size**2 * multiple)) * multiple
        rows = np.zeros(0, int)
        amplitude = np.zeros((0, self.scan.size, self.scan.size), np.float32)
        for more_rows, more in self._frames():
            rows = np.concatenate([rows, more_rows])
            amplitude = np.concatenate([amplitude, more])
            while len(rows) >= held:
                yield patterns(self.scan, amplitude[:held], rows[:held])
                rows, amplitude = rows[held:], amplitude[held:]
        if len(rows):
            yield patterns(self.scan, amplitude, rows)
