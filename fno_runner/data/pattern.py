"""What the mean pattern tells: where zero frequency is, and how far light reaches."""

from __future__ import annotations

import numpy as np

from fno_runner.data.measured import Measured
from fno_runner.data.pixels import isolated
from fno_runner.data.units import HC

FAR_OFF_CENTRE = 1.5
"""A pattern's centre of mass further than this from the middle is told [px]."""
IN_THE_CORNER, EACH_CORNER = 0.6, 0.05
"""Zero frequency is in the corner if the half of the frame about it has this share of all counts,
and each quarter of that half at least that share of it."""
FILLED = 0.3
"""A rim brighter than this share of the mean may be a near field's, or a frame cut too small."""


def zero_is_in_the_corner(mean: np.ndarray, by_format: bool, remarks: list[str]) -> bool:
    """Whether zero frequency is at pixel [0, 0], as a Fourier transform leaves it.

    It is where the format has it, unless the mean pattern clearly lies about the other place. What
    a wide pattern lies about, it does not tell.

    Args:
        by_format: whether the format has it there.
    """
    if by_format and lies_about_the_corner(to_the_middle(mean)):
        remarks.append("zero frequency is in the frames' middle, unlike the format's: it is left")
        return False
    corner = by_format or lies_about_the_corner(mean)
    if corner:
        remarks.append("zero frequency is in the frames' corner: it is brought to the middle")
    return corner


def lies_about_the_corner(mean: np.ndarray) -> bool:
    """Whether a mean pattern, or a probe's intensity, lies about pixel [0, 0], beyond doubt."""
    stored, turned = (_half_about_the_middle(pattern) for pattern in (mean, to_the_middle(mean)))
    about = turned.sum()
    rows, cols = (side // 2 for side in turned.shape)
    quarters = [
        turned[row, col].sum()
        for row in (slice(rows), slice(rows, None))
        for col in (slice(cols), slice(cols, None))
    ]
    return bool(
        about > IN_THE_CORNER * mean.sum()
        and about > 2 * stored.sum()
        and min(quarters) > EACH_CORNER * about
    )


def to_the_middle(array: np.ndarray) -> np.ndarray:
    """The last two axes with what is at [0, 0] brought to [H/2, W/2]."""
    return np.fft.fftshift(array, axes=(-2, -1))


def centre_of(mean: np.ndarray, with_probe: bool, remarks: list[str]) -> tuple[int, int]:
    """The pixel of zero frequency: the middle if there is a probe, which has it there, too.

    Else the centre of mass, to which single pixels far brighter than all around add nothing.
    """
    middle = (mean.shape[0] // 2, mean.shape[1] // 2)
    alone = isolated(mean)
    if alone.any():
        share = mean[alone].sum() / mean.sum()
        remarks.append(
            f"{int(alone.sum())} single pixels have {share:.0%} of the counts, far more than those "
            f"around them: hot?"
        )
    mass = _centre_of_mass(np.where(alone, 0, mean))
    off = float(np.hypot(mass[0] - middle[0], mass[1] - middle[1]))
    if off > FAR_OFF_CENTRE:
        what = "left, as the probe says" if with_probe else "moved to the middle"
        remarks.append(f"the pattern's centre is {off:.1f} px from the middle: {what}")
    return middle if with_probe else (round(mass[0]), round(mass[1]))


def tell_of_a_bright_rim(mean: np.ndarray, good: np.ndarray, remarks: list[str]) -> None:
    """A far field that is sampled finely enough is dark at the rim of its frame."""
    rim = good.copy()
    width = max(1, min(mean.shape) // 32)
    rim[width:-width, width:-width] = False
    if not rim.any() or not mean.any():
        return
    share = mean[rim].mean() / mean[good].mean()
    if share > FILLED:
        remarks.append(
            f"the frames' rim has {share:.0%} of the mean brightness: they are cut too small, or "
            f"are of a near field, which is not modelled"
        )


def tell_of_a_near_field(measured: Measured, remarks: list[str]) -> None:
    """The far field needs a Fresnel number a²/(λz) below 1 of the beam's width a on the sample.

    A file need not say which field its frames are of. The window that they would see in the far
    field, λz/pitch, is wider than the beam: where its number is below 1, so is the beam's.
    Nothing is told where energy, distance or pixel size are not known.
    """
    energy, distance, pixel_size = measured.energy, measured.distance, measured.pixel_size
    if energy is None or distance is None or pixel_size is None:
        return
    first_zone = HC / energy * distance  # λz [m²]
    window = measured.side * pixel_size
    number = window**2 / first_zone
    if number > 1:
        remarks.append(
            f"a window of {1e6 * window:.3g} µm has a Fresnel number of {number:.3g} at "
            f"{distance:.3g} m: a beam wider than {1e6 * first_zone**0.5:.3g} µm would leave a "
            f"near field there, which is not modelled"
        )


def _half_about_the_middle(pattern: np.ndarray) -> np.ndarray:
    height, width = pattern.shape
    rows, cols = height // 4, width // 4
    return pattern[height // 2 - rows : height // 2 + rows, width // 2 - cols : width // 2 + cols]


def _centre_of_mass(intensity: np.ndarray) -> tuple[float, float]:
    total = intensity.sum()
    if total <= 0:
        return intensity.shape[0] / 2, intensity.shape[1] / 2
    rows, cols = (np.arange(side) for side in intensity.shape)
    return (
        float((intensity.sum(axis=1) * rows).sum() / total),
        float((intensity.sum(axis=0) * cols).sum() / total),
    )
