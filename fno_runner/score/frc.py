"""Fourier ring correlation: up to which spatial frequency two images agree.

Two images are transformed, and the coefficients of each ring of frequencies are correlated (Saxton
& Baumeister, 1982; van Heel et al., 1982). One number comes of this curve in three steps.

Smoothing: a Hann window over five rings. Other programs do likewise (corrct), average seven rings,
or fit a local polynomial to a twentieth of the rings (Nieuwenhuizen et al., 2013). The taper of the
image leaves a ring about ten independent coefficients at a tenth of the finest frequency, so that
one ring alone decides nothing.

Threshold: one half against a truth, which is what 1/7 is between two halves of the data (Rosenthal
& Henderson, 2003). Beside it stands the half-bit curve (van Heel & Schatz, 2005), which
ptychography reports; it rises where a ring has few coefficients.

The last crossing of the smoothed curve, which RELION's refinement and Bsoft take; PtychoShelves
tells the first and the last. Where an object has little power in some band, the curve of every
reconstruction dips there, although finer detail is right: the first crossing would tell about the
object. The price is that a reconstruction whose coarse structure is wrong can still end late. The
curve shows it, and so do the other metrics.

Version 0.1 took the first single ring below the threshold (`DEFINITION` 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float64

from fno_runner.result import RingCurves

DEFINITION = 2
"""Of every number made here; raised where the same images would give other numbers."""
HALF = 0.5
"""The threshold against a truth."""
SEVENTH = 1 / 7
"""The threshold between two halves of the data (Rosenthal & Henderson, 2003)."""
FINEST = 0.5
"""The finest frequency there is [1/px]."""
HALF_BIT_SNR = math.sqrt(2) - 1
"""Power of signal over noise at which a coefficient holds half a bit: log₂(1 + SNR) = 1/2."""
KERNEL = np.hanning(7)[1:-1]
"""Weights of the rings that a point of the smoothed curve averages."""
MASK_EDGE = 8
"""Width of the mask's edge [px]: of a sharp one around holes, or between places that hardly
overlap, two images have the edge itself in common, at all frequencies."""
DIGITS = 4
"""Of the curves in a record, behind the point."""

Array = npt.NDArray[np.float64]
Image = Float64[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class RingCorrelation:
    """The correlation of two images, ring by ring; the mean, ring 0, is left out.

    step: distance of neighbouring rings, and their width [1/px]; ring k of 1, 2, … is at k · step.
    correlation: float64 (rings,), −1 … 1; 0 where an image has no power.
    independent: float64 (rings,), how many independent Fourier coefficients (of both signs of the
        frequency) a point of the smoothed curve rests on.
    """

    step: float
    correlation: Array
    independent: Array

    @property
    def smoothed(self) -> Array:
        """The correlation, smoothed over rings."""
        return smooth(self.correlation)

    @property
    def half_bit(self) -> Array:
        """The half-bit curve of two halves of the data, each with half the signal to noise.

        T = (S + 2√S/√n + 1/√n) / (S + 2√S/√n + 1) with S = (√2 − 1)/2 = 0.2071, eq. 17 of van Heel
        & Schatz (2005).
        """
        snr, few = HALF_BIT_SNR / 2, 1 / np.sqrt(self.independent)
        signal = snr + 2 * math.sqrt(snr) * few
        return np.asarray((signal + few) / (signal + 1))

    @property
    def half_bit_of_truth(self) -> Array:
        """The half-bit curve where one of the images has no noise.

        The same reasoning with the noise of one image only, of all data:
        T = (√S + 1/√n) / √(S + 2√S/√n + 1) with S = √2 − 1. It tends to 0.54.
        """
        snr, few = HALF_BIT_SNR, 1 / np.sqrt(self.independent)
        root = math.sqrt(snr)
        return np.asarray((root + few) / np.sqrt(snr + 2 * root * few + 1))

    @property
    def seventh(self) -> Array:
        """1/7, and where a ring has few coefficients what chance reaches: three of its deviations.

        The last crossing would otherwise be anywhere in a small image of noise.
        """
        return np.asarray(np.maximum(SEVENTH, 3 / np.sqrt(self.independent)))

    def resolved(self, threshold: float | Array) -> float:
        """Where the smoothed curve falls below `threshold` for the last time [1/px].

        Between two rings by linear interpolation; 0 if the curve is below everywhere, `FINEST` if
        it ends above.
        """
        return last_crossing(self.smoothed, threshold, self.step)


def smooth(correlation: Array) -> Array:
    """The mean of each ring and its neighbours, weighted by `KERNEL`; of fewer at both ends."""
    weight = np.convolve(np.ones(len(correlation)), KERNEL)
    total = np.convolve(correlation, KERNEL)
    ends = len(KERNEL) // 2
    return np.asarray(total[ends:-ends] / weight[ends:-ends])


def last_crossing(curve: Array, threshold: float | Array, step: float) -> float:
    """See `RingCorrelation.resolved`; `curve` is smoothed."""
    above = curve - threshold
    reached = np.flatnonzero(above >= 0)
    if reached.size == 0:
        return 0.0
    last = int(reached[-1])
    if last == len(above) - 1:
        return FINEST
    part = above[last] / (above[last] - above[last + 1])
    return min(FINEST, step * (last + 1 + float(part)))


def ring_correlation(first: Image, second: Image, mask: Mask) -> RingCorrelation:
    """The Fourier ring correlation of two images inside a mask.

    A Hann window suppresses the image's edges, and a mask falls to zero over `MASK_EDGE` px. Both
    make neighbouring coefficients depend on each other: of n in an area, n · (Σw²)² / (HW · Σw⁴)
    are independent, w being window times mask.

    Args:
        first, second: float64 (H, W).
        mask: bool (H, W), where both are known.
    """
    height, width = second.shape
    window = np.hanning(height)[:, None] * np.hanning(width) * _softened(mask)
    a, b = (np.fft.fft2((image - image[mask].mean()) * window) for image in (first, second))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    side = min(height, width)
    ring = np.rint(frequency * side).astype(int)
    inside = ring <= side // 2  # whole rings: of one cut off, few coefficients would decide
    cross, power_a, power_b, count = (
        np.bincount(ring[inside], weights=values[inside])[1:]
        for values in (
            (a * b.conj()).real,
            np.square(np.abs(a)),
            np.square(np.abs(b)),
            np.ones(frequency.shape),
        )
    )
    # An image without any structure correlates with nothing.
    norm = np.sqrt(power_a * power_b)
    correlation = np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 0)
    squares = np.square(window)
    spread = window.size * np.square(squares).sum() / squares.sum() ** 2
    averaged = KERNEL.sum() ** 2 / np.square(KERNEL).sum()  # rings that weigh as much, each fully
    return RingCorrelation(1 / side, correlation, count * averaged / spread)


def _softened(mask: Mask) -> Image:
    """The mask as a weight that rises from its edge as a squared sine; 1 where all is inside."""
    from scipy.ndimage import distance_transform_edt

    if mask.all():
        return np.ones(mask.shape)
    deep = np.minimum(1, distance_transform_edt(mask) / (MASK_EDGE + 1))
    return np.asarray(np.square(np.sin(np.pi / 2 * deep)))


def as_curves(amplitude: RingCorrelation, phase: RingCorrelation, half_bit: Array) -> RingCurves:
    """What the record keeps of the correlations of amplitude and phase of one pair of objects."""
    amp, of_phase, threshold = (
        np.round(values, DIGITS).tolist()
        for values in (amplitude.correlation, phase.correlation, half_bit)
    )
    return RingCurves(
        definition=DEFINITION, step=phase.step, amp=amp, phase=of_phase, half_bit=threshold
    )


def frc50(prediction: Image, truth: Image, mask: Mask) -> float:
    """Up to which frequency [1/px] the correlation with the truth is one half or more."""
    return ring_correlation(prediction, truth, mask).resolved(HALF)


def frc_half_bit(prediction: Image, truth: Image, mask: Mask) -> float:
    """Up to which frequency [1/px] a coefficient tells half a bit or more of the truth."""
    curve = ring_correlation(prediction, truth, mask)
    return curve.resolved(curve.half_bit_of_truth)
