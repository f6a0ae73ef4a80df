"""Thin samples of several kinds: what a network may meet that is trained before its scan begins."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Complex64, Float64

PHASE = (0.3, 2.5)
"""Phase of a sample at its thickest [rad], either sign, as the sign of time is a convention."""
ABSORPTION = (0.0, 0.3)
"""−ln of the modulus there: samples of hard X-rays are phase objects, and nothing amplifies."""
EDGE = 0.7
"""Edges are blurred by this [px], as a pixel sees its whole area."""

Thickness = Float64[np.ndarray, "n n"]


def thin_sample(kind: str, side: int, rng: np.random.Generator) -> Complex64[np.ndarray, "n n"]:
    """A sample of one of `THICKNESS`' kinds, O = exp((iφ − α)·t), |O| ≤ 1.

    t, 0 … 1, is the thickness, and φ and α, drawn for the whole sample, are its phase and its
    absorption where that is 1: a homogeneous material in the projection approximation.
    """
    phase = rng.choice((-1, 1)) * rng.uniform(*PHASE)
    absorption = rng.uniform(*ABSORPTION)
    thickness = np.clip(THICKNESS[kind](side, rng), 0, 1)
    return np.exp((1j * phase - absorption) * thickness).astype(np.complex64)


def blurred_lines(side: int, rng: np.random.Generator, lines: int) -> Thickness:
    """G₁(L) + 2·G₅(L) + 5·G₁₀(L), with L the canvas of one-pixel lines and G a Gaussian blur."""
    from scipy.ndimage import gaussian_filter
    from skimage.draw import line

    canvas = np.zeros((side, side))
    for r0, c0, r1, c1 in rng.integers(0, side, size=(lines, 4)):
        canvas[line(r0, c0, r1, c1)] = 1.0
    blurred = (
        weight * gaussian_filter(canvas, sigma) for weight, sigma in ((1, 1), (2, 5), (5, 10))
    )
    return np.asarray(sum(blurred))


def _lines(side: int, rng: np.random.Generator) -> Thickness:
    lines = blurred_lines(side, rng, side // 2)
    return lines / lines.max()


def _discs(side: int, rng: np.random.Generator) -> Thickness:
    """Discs of 2 to 40 px radius and any height, each over those before it."""
    rows, cols = np.indices((side, side))
    thickness = np.zeros((side, side))
    for _ in range(max(1, side**2 // 800)):
        row, col = rng.uniform(0, side, 2)
        inside = (rows - row) ** 2 + (cols - col) ** 2 < np.exp(rng.uniform(*np.log((2, 40)))) ** 2
        thickness[inside] = rng.uniform()
    return _softened(thickness)


def _textures(side: int, rng: np.random.Generator) -> Thickness:
    """Noise whose amplitude spectrum falls as 1/|k| to 1/|k|², its middle 98 %."""
    k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    k[0, 0] = np.inf
    noise = np.fft.rfft2(rng.standard_normal((side, side))) * k ** -rng.uniform(1, 2)
    field = np.fft.irfft2(noise, s=(side, side))
    low, high = np.quantile(field, (0.01, 0.99))
    return (field - low) / (high - low)


def _stars(side: int, rng: np.random.Generator) -> Thickness:
    """Siemens stars of 8 to 40 spokes, cut into rings, as far apart as they are large."""
    rows, cols = np.indices((side, side))
    thickness = np.zeros((side, side))
    for _ in range(6):
        row, col = rng.uniform(0, side, 2)
        radius = np.hypot(rows - row, cols - col)
        angle = np.arctan2(rows - row, cols - col) + rng.uniform(0, 2 * np.pi)
        reach, ring = rng.uniform(0.15, 0.4) * side, rng.uniform(12, 40)
        star = (np.sin(rng.integers(8, 41) * angle) > 0) & (radius % ring > 0.1 * ring)
        thickness = np.where(radius < reach, star, thickness)
    return _softened(thickness)


def _softened(thickness: Thickness) -> Thickness:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(thickness, EDGE))


THICKNESS: dict[str, Callable[[int, np.random.Generator], Thickness]] = {
    "lines": _lines,
    "discs": _discs,
    "textures": _textures,
    "stars": _stars,
}
"""How thick a sample of each kind is, 0 … 1, from its side [px]."""
