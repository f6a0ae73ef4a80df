"""Which part of a detector a frame of N × N px holds: the choice of N, and what a choice loses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Complex64, Float, Shaped

from fno_runner.config import BINNINGS, SIZES
from fno_runner.data.recording import Recording

ENOUGH = 0.99
"""The share of a detector's counts that a frame is to hold."""


@dataclass(frozen=True)
class Crop:
    """The N·b × N·b pixels about a detector's centre, of which b × b are summed to one.

    size: N [px]. binning: b. counts: the share of the detector's counts that is in them.
    light: the share of the probe's light that is within the N px at the sample, where binning makes
        that window narrower; None where it does not, or there is no probe.
    """

    size: int
    binning: int
    counts: float
    light: float | None

    @classmethod
    def of(cls, recording: Recording, size: int, binning: int) -> Crop:
        """What a size and a binning make of a recording."""
        reach = size * binning
        mean = binned(window(recording.mean, recording.centre, reach), binning)
        good = all_good(window(recording.mask, recording.centre, reach), binning)
        held, total = recording.measured.counts_held, float(recording.mean.sum())
        narrowed = None if binning == 1 else recording.probe
        return cls(
            size=size,
            binning=binning,
            counts=held * float(mean[good].sum()) / total if total > 0 else 0.0,
            light=None if narrowed is None else _light(narrowed, size, binning),
        )

    @property
    def reach(self) -> int:
        """The detector's pixels a side that it takes."""
        return self.size * self.binning

    def remarks(self, recording: Recording) -> list[str]:
        """What was done to frames that have another size, and what was lost, in words."""
        height, width = recording.frame_shape
        if (height, width) == (self.reach, self.reach) and self.binning == 1:
            return []
        n = self.size
        done = f"cropped to {n}×{n}"
        if self.binning > 1:
            done = f"brought to {n}×{n}, {self.binning}×{self.binning} pixels summed to one"
        elif min(height, width) <= n:
            done = f"padded to {n}×{n}; padded pixels are masked"
        said = [f"frames of {height}×{width} px are {done}: {self}"]
        if min(height, width) < self.reach and self.binning > 1:
            said.append(f"{self.reach} px a side are more than there are: the others are masked")
        return said

    def __str__(self) -> str:
        words = f"{100 * self.counts:.3g} % of the counts"
        if self.light is not None:
            words += f", {100 * self.light:.3g} % of the probe's light"
        return words


def choose_size(recording: Recording, binning: int) -> int:
    """The smallest N that holds `ENOUGH` of the counts; where none does, the one that holds most.

    Of sizes that the frames fill by half at least, and none beyond the first that holds them whole.
    """
    crops = [Crop.of(recording, size, binning) for size in _possible(recording, binning)]
    enough = (crop for crop in crops if crop.counts >= ENOUGH)
    return next(enough, max(crops, key=lambda crop: crop.counts)).size


def reason(recording: Recording, crop: Crop) -> list[str]:
    """Why `choose_size` chose a size, in words; nothing where 64 px hold enough."""
    if (held := recording.measured.counts_held) < ENOUGH:
        return [f"the file's frames hold {100 * held:.3g} % of the detector's counts"]
    if crop.counts < ENOUGH:
        return [f"no patch_size holds {100 * ENOUGH:g} % of the counts; {crop.size} holds most"]
    smaller = [Crop.of(recording, n, crop.binning) for n in SIZES if n < crop.size]
    return [f"patch_size {crop.size} was chosen: {c.size} would hold {c}" for c in smaller[-1:]]


def alternatives(recording: Recording) -> Iterator[Crop]:
    """What every size and binning would hold that needs no padding."""
    for binning in BINNINGS:
        for size in SIZES:
            if size * binning <= min(recording.frame_shape):
                yield Crop.of(recording, size, binning)


def is_filled(recording: Recording, size: int, binning: int) -> bool:
    """Whether the frames fill at least half of N·b px, either way."""
    return 2 * min(recording.frame_shape) >= size * binning


def _possible(recording: Recording, binning: int) -> tuple[int, ...]:
    smaller = [n for n in SIZES if n * binning < max(recording.frame_shape)]
    filled = [n for n in SIZES[: len(smaller) + 1] if is_filled(recording, n, binning)]
    return tuple(filled) or SIZES[:1]


def window(
    array: Shaped[np.ndarray, "*b h w"], centre: tuple[int, int], side: int
) -> Shaped[np.ndarray, "*b n n"]:
    """The last two axes as side × side about `centre`, which comes to side/2; else zeros."""
    out = np.zeros((*array.shape[:-2], side, side), array.dtype)
    into, out_of = [], []
    for middle, length in zip(centre, array.shape[-2:], strict=True):
        first = middle - side // 2
        low, high = max(first, 0), min(first + side, length)
        out_of.append(slice(low, high))
        into.append(slice(low - first, high - first))
    out[..., into[0], into[1]] = array[..., out_of[0], out_of[1]]
    return out


def binned(counts: Float[np.ndarray, "*b m m"], binning: int) -> Float[np.ndarray, "*b n n"]:
    """Sums of binning × binning pixels: exact for counts, a pattern's total up to 2⁵³."""
    if binning == 1:
        return counts
    return _tiles(counts, binning).sum(axis=(-3, -1), dtype=np.float64)


def all_good(mask: Bool[np.ndarray, "m m"], binning: int) -> Bool[np.ndarray, "n n"]:
    """Where all of binning × binning pixels are good."""
    return np.asarray(_tiles(mask, binning).all(axis=(-3, -1)))


def resample_probe(
    probe: Complex64[np.ndarray, "m s s"], size: int, binning: int = 1
) -> Complex64[np.ndarray, "m n n"]:
    """A probe of S × S px as N × N px for frames of N px that were `binning` times as many.

    Its far field is cropped or padded to N·b px, which keeps its extent at the sample. Of that the
    middle N px are kept, as far as binned frames see. The centre of b × b detector pixels is
    (b − 1)/2 of them off the first one's, where zero frequency is: a phase ramp over the probe.
    """
    reach = size * binning
    near = probe
    if probe.shape[-1] != reach:
        axes = (1, 2)
        middle = (probe.shape[-1] // 2, probe.shape[-1] // 2)
        far = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe, axes), norm="ortho"), axes)
        cropped = np.fft.ifftshift(window(far, middle, reach), axes)
        near = np.fft.fftshift(np.fft.ifft2(cropped, norm="ortho"), axes)
    if binning == 1:
        return near.astype(np.complex64)
    inner = window(near, (reach // 2, reach // 2), size)
    return (inner * bin_ramp(size, binning)).astype(np.complex64)


def bin_ramp(size: int, binning: int) -> Shaped[np.ndarray, "n n"]:
    """What the probe is multiplied by, as the centre of binned pixels is off the zero frequency."""
    x = np.arange(size) - size // 2
    ramp = np.exp(-1j * np.pi * (binning - 1) * x / (size * binning))
    return ramp[:, None] * ramp


def _light(probe: np.ndarray, size: int, binning: int) -> float:
    """The share of a probe's light within the window of N px that binned frames see."""
    whole = resample_probe(probe, size * binning)
    inner = resample_probe(probe, size, binning)
    return float(np.square(np.abs(inner)).sum() / np.square(np.abs(whole)).sum())


def _tiles(array: np.ndarray, binning: int) -> np.ndarray:
    """(…, N·b, N·b) as (…, N, b, N, b)."""
    *lead, rows, cols = array.shape
    return array.reshape(*lead, rows // binning, binning, cols // binning, binning)
