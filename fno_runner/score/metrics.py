"""How well an object was reconstructed: [amplitude, phase] pairs.

An absolute phase, and a linear phase ramp with it, cannot be seen in diffraction: both are removed
before phases are compared. Every data range is the truth's own peak-to-peak: with the 2π of a full
circle, a phase that is flat and empty would score an SSIM of 0.84.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Complex64, Float64

TRIM = 2
"""Pixels left out at each side before comparing."""
SSIM_WINDOW = 7
"""Side of the window of structural similarity [px]."""
MS_SSIM_SIDE = 176
"""An image of fewer pixels a side has no five scales under an 11 px window."""

Image = Float64[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]


def align(
    prediction: Complex64[np.ndarray, "h w"], truth: Complex64[np.ndarray, "h w"], mask: Mask
) -> tuple[tuple[Image, Image], tuple[Image, Image]]:
    """(amplitudes, phases [rad]) of prediction and truth, each pair ready to be compared.

    The global phase, angle(Σ prediction · conj(truth)), is removed before the angle is taken, so
    that no offset can wrap; then from both phases a plane, fitted inside the mask.
    """
    offset = np.angle(np.sum((prediction * truth.conj())[mask], dtype=np.complex128))
    predicted = np.angle(prediction.astype(np.complex128) * np.exp(-1j * offset))
    true = np.angle(truth.astype(np.complex128))
    amplitudes = (np.abs(prediction).astype(np.float64), np.abs(truth).astype(np.float64))
    return amplitudes, (_without_plane(predicted, mask), _without_plane(true, mask))


def score(
    predictions: Complex64[np.ndarray, "o h w"],
    truths: Complex64[np.ndarray, "o h w"],
    masks: Bool[np.ndarray, "o h w"],
) -> dict[str, tuple[float, float]]:
    """name → (amplitude, phase) for every metric, the mean over objects.

    ssim, ms_ssim: structural similarity, one scale or five. psnr [dB]. mae, mse: of the phase in
    rad, rad². pearson. frc50: the frequency [1/px] at which the Fourier ring correlation with the
    truth falls below one half (0.5 is the finest there is). std_ratio: spread over the truth's
    spread. ssim_2pi: structural similarity as PtychoPINN's study computes it for the phase
    ((φ+π)/2π, data range 1), for comparison with it only.
    """
    rows = [_score_one(p, t, m) for p, t, m in zip(predictions, truths, masks, strict=True)]
    return {
        name: (
            float(np.mean([row[name][0] for row in rows])),
            float(np.mean([row[name][1] for row in rows])),
        )
        for name in rows[0]
    }


def _score_one(
    prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray
) -> dict[str, tuple[float, float]]:
    prediction, truth, mask = crop_to(mask, prediction, truth)
    amplitudes, phases = align(prediction, truth, mask)
    pairs = {
        name: (metric(*amplitudes, mask), metric(*phases, mask)) for name, metric in METRICS.items()
    }
    circle = [np.where(mask, (phase + np.pi) / (2 * np.pi), 0.5) for phase in phases]
    pairs["ssim_2pi"] = (pairs["ssim"][0], _ssim(circle[0], circle[1], mask, 1.0))
    return pairs


def crop_to(mask: np.ndarray, *images: np.ndarray) -> tuple[np.ndarray, ...]:
    """The images, and the mask at last, in the mask's bounding box less `TRIM` pixels a side."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = slice(rows[0] + TRIM, rows[-1] + 1 - TRIM), slice(cols[0] + TRIM, cols[-1] + 1 - TRIM)
    return tuple(image[box] for image in (*images, mask))


def _without_plane(phase: Image, mask: Mask) -> Image:
    """The phase [rad] less its least-squares plane inside the mask."""
    rows, cols = np.indices(phase.shape)
    basis = np.stack([rows, cols, np.ones_like(rows)], axis=-1).astype(np.float64)
    plane, *_ = np.linalg.lstsq(basis[mask], phase[mask], rcond=None)
    return np.asarray(phase - basis @ plane)


def ssim(prediction: Image, truth: Image, mask: Mask) -> float:
    """Structural similarity (Wang et al., 2004), the mean inside the mask."""
    return _ssim(prediction, truth, mask, float(np.ptp(truth[mask])))


def _ssim(prediction: Image, truth: Image, mask: Mask, data_range: float) -> float:
    from skimage.metrics import structural_similarity

    _, similarity = structural_similarity(
        prediction, truth, win_size=SSIM_WINDOW, data_range=data_range, full=True
    )
    inside = mask.copy()
    border = SSIM_WINDOW // 2  # where the window would reach beyond the image
    inside[:border] = inside[-border:] = inside[:, :border] = inside[:, -border:] = False
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
    images = [torch.from_numpy(np.where(mask, i, fill))[None, None] for i in (prediction, truth)]
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


def frc50(prediction: Image, truth: Image, mask: Mask) -> float:
    """Where the Fourier ring correlation with the truth falls below one half [1/px]."""
    return first_below(prediction, truth, mask, 0.5)


def first_below(one: Image, other: Image, mask: Mask, threshold: float) -> float:
    """Where two images' Fourier ring correlation falls below `threshold` [1/px]; 0.5 if never.

    Rings are one frequency bin of the shorter side wide (van Heel & Keegstra, 1987; fixed
    thresholds after Banterle et al., 2013). A Hann window suppresses the edges.
    """
    height, width = other.shape
    window = np.hanning(height)[:, None] * np.hanning(width) * mask
    a, b = (np.fft.rfft2((image - image[mask].mean()) * window) for image in (one, other))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    side = min(height, width)
    ring = np.rint(frequency * side).astype(int)
    inside = frequency <= 0.5
    cross, power_a, power_b = (
        np.bincount(ring[inside], weights=values[inside])
        for values in ((a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2)
    )
    # An image without any structure correlates with nothing.
    correlation = np.divide(
        cross, np.sqrt(power_a * power_b), out=np.zeros_like(cross), where=power_a * power_b > 0
    )
    below = np.flatnonzero(correlation[1:] < threshold)  # ring 0 is the mean, which was removed
    return min(0.5, (int(below[0]) + 1) / side) if len(below) else 0.5


METRICS: dict[str, Callable[[Image, Image, Mask], float]] = {
    "ssim": ssim,
    "ms_ssim": ms_ssim,
    "psnr": psnr,
    "mae": mae,
    "mse": mse,
    "frc50": frc50,
    "pearson": pearson,
    "std_ratio": std_ratio,
}


def r_factor(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Σ|predicted − measured| / Σ measured, of diffraction amplitudes."""
    return float(
        np.abs(predicted - measured).sum(dtype=np.float64) / measured.sum(dtype=np.float64)
    )
