"""A scan's frames a block at a time, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Complex64, Float32

from fno_runner.data.dataset import Patterns
from fno_runner.data.frames import Scan
from fno_runner.data.scan import patterns_of

BLOCK = 512
"""Frames a block; of 64 × 64 px their amplitudes take 8 MiB, their patches 16."""


@dataclass(frozen=True)
class Stream:
    """What is known of a scan before its frames are read.

    positions: float32 (F, 2), row and column of the patch's centre in the object [px].
    mean_intensity: Σ A² of a frame, mean over the scan.
    """

    scan: Scan
    positions: Float32[np.ndarray, "f 2"]
    probe: Complex64[np.ndarray, "*m n n"]
    mask: Bool[np.ndarray, "n n"] | None
    mean_intensity: float

    @classmethod
    def of(cls, scan: Scan) -> Stream:
        """A scan that has a probe."""
        patterns = patterns_of(scan)
        total = sum(
            float(np.square(patterns.amplitude[first : first + BLOCK]).sum(dtype=np.float64))
            for first in range(0, len(scan), BLOCK)
        )
        return cls(scan, patterns.positions, patterns.probe, patterns.mask, total / len(scan))

    def __len__(self) -> int:
        return len(self.positions)

    def blocks(self) -> Iterator[Patterns]:
        """All frames in order, `BLOCK` at a time; may be walked again."""
        for first in range(0, len(self), BLOCK):
            rows = slice(first, first + BLOCK)
            yield Patterns(self.scan.amplitude[rows], self.positions[rows], self.probe, self.mask)
