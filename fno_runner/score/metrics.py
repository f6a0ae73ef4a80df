"""How well an object was reconstructed: [amplitude, phase] pairs.

An absolute phase, and a linear phase ramp with it, cannot be seen in diffraction: both are removed
before phases are compared. Every data range is the truth's own peak-to-peak: with the 2π of a full
circle, a phase that is flat and empty would score an SSIM of 0.84.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Complex64

from fno_runner.result import RingCurves
from fno_runner.score.frc import Image, Mask, as_curves, frc50, frc_half_bit, ring_correlation
from fno_runner.score.wraps import off_the_cut, ramp_between

Scores = dict[str, tuple[float, float]]
"""Metrics by name, each (of the amplitude, of the phase)."""

TRIM = 2
"""Pixels left out at each side before comparing."""
FLAT = 1e-5
"""Of its size, or rad: a truth of a smaller range is flat. What is relative to its range, or to how
it varies, has no value then."""
RELATIVE = frozenset(
    {"ssim", "ms_ssim", "psnr", "frc50", "frc_half_bit", "pearson", "std_ratio", "ssim_2pi"}
)
"""Metrics that have no value, NaN, where the truth is flat, but for the phase's `ssim_2pi`. Neither
have `ms_ssim` of a small image, `ssim` of a mask without room for a window, and `psnr` of a perfect
image."""
SSIM_WINDOW = 7
"""Side of the window of structural similarity [px]."""
MS_SSIM_SIDE = 176
"""An image of fewer pixels a side has no five scales under an 11 px window."""


def align(
    prediction: Complex64[np.ndarray, "h w"], truth: Complex64[np.ndarray, "h w"], mask: Mask
) -> tuple[tuple[Image, Image], tuple[Image, Image]]:
    """(amplitudes, phases [rad]) of prediction and truth, each pair ready to be compared.

    Before an angle is taken, both are turned so that the truth's phase is off the cut at ±π, and
    the global phase between them, angle(Σ prediction · conj(truth)), is removed, with the ramp by
    which they differ, if there is one. So no constant and no ramp can wrap, whosever they are. Then
    a plane, fitted inside the mask, is removed from both phases.
    """
    known = truth.astype(np.complex128)
    turn = off_the_cut(known, mask)
    true = np.abs(truth).astype(np.float64), _without_plane(np.angle(known * turn), mask)
    if prediction is truth:  # of which only its own phase is wanted
        return (true[0], true[0]), (true[1], true[1])
    seen = prediction.astype(np.complex128)
    if (ramp := ramp_between(seen * known.conj(), mask)) is not None:
        seen = seen * ramp.conj()
    offset = np.angle(np.sum((seen * known.conj())[mask]))
    predicted = _without_plane(np.angle(seen * np.exp(-1j * offset) * turn), mask)
    return (np.abs(prediction).astype(np.float64), true[0]), (predicted, true[1])


def score(
    predictions: Complex64[np.ndarray, "o h w"],
    truths: Complex64[np.ndarray, "o h w"],
    masks: Bool[np.ndarray, "o h w"],
) -> Scores:
    """name → (amplitude, phase) for every metric, the mean over objects.

    ssim, ms_ssim: structural similarity, one scale or five. psnr [dB]. mae, mse: of the phase in
    rad, rad². pearson. frc50, frc_half_bit: up to which frequency [1/px] the Fourier ring
    correlation with the truth is at least one half, or the half-bit curve (`fno_runner.score.frc`;
    0.5 is the finest there is). std_ratio: spread over the truth's spread. ssim_2pi: structural
    similarity as PtychoPINN's study computes it for the phase ((φ+π)/2π, data range 1), for
    comparison with it only. Metrics of `RELATIVE` are NaN where they have no value.
    """
    return mean_over_objects(score_each(predictions, truths, masks))


def score_each(
    predictions: Complex64[np.ndarray, "o h w"],
    truths: Complex64[np.ndarray, "o h w"],
    masks: Bool[np.ndarray, "o h w"],
) -> list[Scores]:
    """The same of each object by itself."""
    return [_score_one(p, t, m) for p, t, m in zip(predictions, truths, masks, strict=True)]


def mean_over_objects(scores: Sequence[Scores]) -> Scores:
    """Of each metric the mean (amplitude, phase) over objects."""
    return {
        name: (
            float(np.mean([of_object[name][0] for of_object in scores])),
            float(np.mean([of_object[name][1] for of_object in scores])),
        )
        for name in scores[0]
    }


def ring_curves(
    predictions: Complex64[np.ndarray, "o h w"],
    truths: Complex64[np.ndarray, "o h w"],
    masks: Bool[np.ndarray, "o h w"],
) -> RingCurves:
    """The curves behind frc50 and frc_half_bit, the mean over objects."""
    curves = []
    for prediction, truth, mask in zip(predictions, truths, masks, strict=True):
        seen, true, inside = crop_to(mask, prediction, truth)
        pairs = align(seen, true, inside)
        amplitude, phase = (ring_correlation(*pair, inside) for pair in pairs)
        curves.append(as_curves(amplitude, phase, phase.half_bit_of_truth))
    return RingCurves.mean(curves)


def _score_one(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> Scores:
    prediction, truth, mask = crop_to(mask, prediction, truth)
    amplitudes, phases = align(prediction, truth, mask)
    sizes = float(np.abs(truth[mask]).max()), 1.0  # of the phase a radian
    flat = [
        bool(np.ptp(pair[1][mask]) <= FLAT * size)
        for pair, size in zip((amplitudes, phases), sizes, strict=True)
    ]

    def value(name: str, part: int) -> float:
        if name in RELATIVE and flat[part]:
            return math.nan
        return METRICS[name](*(amplitudes, phases)[part], mask)

    pairs = {name: (value(name, 0), value(name, 1)) for name in METRICS}
    circle = [(phase + np.pi) / (2 * np.pi) for phase in phases]
    pairs["ssim_2pi"] = (pairs["ssim"][0], _ssim(circle[0], circle[1], mask, 1.0))
    return pairs


def crop_to(mask: np.ndarray, *images: np.ndarray) -> tuple[np.ndarray, ...]:
    """The images, and the mask at last, in the mask's bounding box less `TRIM` pixels a side."""
    box = bounding_box(mask, TRIM)
    return tuple(image[box] for image in (*images, mask))


def bounding_box(mask: np.ndarray, trim: int = 0) -> tuple[slice, slice]:
    """The rows and columns that a mask is true in, less `trim` pixels a side."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0] + trim, rows[-1] + 1 - trim), slice(cols[0] + trim, cols[-1] + 1 - trim)


def _without_plane(phase: Image, mask: Mask) -> Image:
    """The phase [rad] less its least-squares plane inside the mask."""
    rows, cols = np.indices(phase.shape)
    basis = np.stack([rows, cols, np.ones_like(rows)], axis=-1).astype(np.float64)
    plane, *_ = np.linalg.lstsq(basis[mask], phase[mask], rcond=None)
    return np.asarray(phase - basis @ plane)


def ssim(prediction: Image, truth: Image, mask: Mask) -> float:
    """Structural similarity (Wang et al., 2004), the mean over all windows inside the mask.

    NaN where the mask has room for none.
    """
    return _ssim(prediction, truth, mask, float(np.ptp(truth[mask])))


def _ssim(prediction: Image, truth: Image, mask: Mask, data_range: float) -> float:
    from scipy.ndimage import binary_erosion
    from skimage.metrics import structural_similarity

    # A window that reaches beyond the mask, or the image, would see what is not compared.
    inside = binary_erosion(mask, np.ones((SSIM_WINDOW, SSIM_WINDOW), bool))
    if not inside.any():
        return float("nan")
    _, similarity = structural_similarity(
        prediction, truth, win_size=SSIM_WINDOW, data_range=data_range, full=True
    )
    return float(similarity[inside].mean(dtype=np.float64))


def ms_ssim(prediction: Image, truth: Image, mask: Mask) -> float:
    """Multi-scale structural similarity (Wang, Simoncelli & Bovik, 2003).

    Outside the mask both images take the truth's mean there. NaN for images too small for five
    scales.
    """
    # Imported here: they take seconds, and only scoring needs them.
    import torch
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure as measure,
    )

    if min(truth.shape) < MS_SSIM_SIDE:
        return float("nan")
    fill = truth[mask].mean()
    # In single precision it takes a ninth of the time and is the same to 1e-6.
    images = [
        torch.from_numpy(np.where(mask, i, fill).astype(np.float32))[None, None]
        for i in (prediction, truth)
    ]
    return float(measure(*images, data_range=float(np.ptp(truth[mask]))))


def psnr(prediction: Image, truth: Image, mask: Mask) -> float:
    """Peak signal-to-noise ratio [dB] inside the mask, the peak being the truth's range."""
    error = mse(prediction, truth, mask)
    peak = float(np.ptp(truth[mask]))
    return float(10 * np.log10(peak**2 / error)) if error > 0 else float("inf")


def mae(prediction: Image, truth: Image, mask: Mask) -> float:
    """Mean absolute error inside the mask."""
    return float(np.abs(prediction - truth)[mask].mean())


def mse(prediction: Image, truth: Image, mask: Mask) -> float:
    """Mean squared error inside the mask."""
    return float(np.square(prediction - truth)[mask].mean())


def pearson(prediction: Image, truth: Image, mask: Mask) -> float:
    """Pearson's correlation inside the mask; 0 for a constant prediction."""
    a, b = prediction[mask], truth[mask]
    spread = a.std() * b.std()
    if not spread > 1e-12 * np.square(b).mean():
        return 0.0
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread)


def std_ratio(prediction: Image, truth: Image, mask: Mask) -> float:
    """Standard deviation of the prediction over the truth's, inside the mask."""
    return float(prediction[mask].std() / truth[mask].std())


METRICS: dict[str, Callable[[Image, Image, Mask], float]] = {
    "ssim": ssim,
    "ms_ssim": ms_ssim,
    "psnr": psnr,
    "mae": mae,
    "mse": mse,
    "frc50": frc50,
    "frc_half_bit": frc_half_bit,
    "pearson": pearson,
    "std_ratio": std_ratio,
}


def r_factor(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Σ|predicted − measured| / Σ measured, of diffraction amplitudes."""
    return float(
        np.abs(predicted - measured).sum(dtype=np.float64) / measured.sum(dtype=np.float64)
    )
