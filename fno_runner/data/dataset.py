"""What a run trains on, what it is scored on, and how its patches become an object."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Complex64, Float32, Float64


@dataclass(frozen=True)
class Patterns:
    """Diffraction patterns, where they were taken, and with which probe.

    amplitude: float32 (B, N, N), zero frequency at [N/2, N/2].
    positions: float32 (B, 2), row and column of the patch's centre in the object [px]; the patch's
        first pixel is at position − (N − 1)/2, which need not be whole.
    probe: complex64 (N, N), so that amplitude = |FFT(probe · object patch)| / N; or (M, N, N), M
        incoherent modes, whose intensities add up.
    mask: bool (N, N), true at good pixels; amplitude is 0 at the others. None where all are good.
    """

    amplitude: Float32[np.ndarray, "b n n"]
    positions: Float32[np.ndarray, "b 2"]
    probe: Complex64[np.ndarray, "*m n n"]
    mask: Bool[np.ndarray, "n n"] | None = None

    def __len__(self) -> int:
        return len(self.amplitude)

    @property
    def size(self) -> int:
        """N, the side of a pattern [px]."""
        return self.amplitude.shape[-1]

    @cached_property
    def intensity(self) -> Float64[np.ndarray, " b"]:
        """Σ A² of each pattern, float64 (B,)."""
        return np.square(self.amplitude).sum((1, 2), dtype=np.float64)

    def take(self, rows: np.ndarray | slice) -> Patterns:
        """The patterns of these indices, of this mask, or of this slice."""
        return Patterns(self.amplitude[rows], self.positions[rows], self.probe, self.mask)


@dataclass(frozen=True)
class Raster:
    """A regular scan: the central step × step pixels of the patches tile the object.

    scale: what the tiled patches are multiplied by to be in the truth's units.
    """

    step: int
    rows: int
    cols: int
    scale: float


@dataclass(frozen=True)
class Freeform:
    """A scan at any positions: patches are averaged, weighted by the probe's intensity.

    shape: of the object [px].
    """

    shape: tuple[int, int]


@dataclass(frozen=True)
class Dataset:
    """Everything a run needs to know of its data.

    train: patterns to train on. test: patterns to reconstruct from.
    held_out: bool (B,), which of `test` were never trained on.
    region: bool (B,), of a scan the frames of one place that were not trained on either.
    pixel_size: of the object [m], where it is known.
    counts_held: of a scan, the share of the detector's counts that its frames hold.
    reference: complex64 (objects, H, W), what the reconstruction is compared with, if anything:
        the `truth` of simulated data, or another method's `reference` reconstruction of a scan.
    fingerprint: of the files' content, but for the validation object's, which has its own.
    validation: the same with other objects to reconstruct: what configurations are chosen by.
    loading_s: how long it took to read, or to simulate [s].
    """

    train: Patterns
    test: Patterns
    held_out: Bool[np.ndarray, " b"]
    geometry: Raster | Freeform
    reference: Complex64[np.ndarray, "n h w"] | None
    reference_kind: Literal["truth", "reference"] | None
    fingerprint: str
    region: Bool[np.ndarray, " b"] | None = None
    pixel_size: float | None = None
    counts_held: float | None = None
    validation: Dataset | None = None
    loading_s: float = 0.0

    @property
    def of_first_object(self) -> Patterns:
        """The test patterns of the first object, of a scan all: what inference is timed on.

        A time of all objects would not compare with that of a run with another number of them.
        """
        if not isinstance(self.geometry, Raster):
            return self.test
        return self.test.take(slice(self.geometry.rows * self.geometry.cols))
