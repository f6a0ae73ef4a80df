"""The simulated illumination: a defocused zone plate with a central stop and aberrations."""

from __future__ import annotations

import numpy as np
from jaxtyping import Complex64

from fno_runner.config import N, RunConfig


def zone_plate_probe(config: RunConfig) -> Complex64[np.ndarray, "n n"]:
    """The probe at the sample, mean modulus 0.25.

    Its modulus is the focus of a pupil that is open for stop ≤ r ≤ 1, r = |k| / radius with k in
    FFT bins, with the phase [rad]

        defocus·r² + astigmatism·r²·cos 2θ + coma·r³·cos θ .

    Its phase is a parabola, −curvature·(x² + y²)·64/N with x, y in px, as PtychoPINN's generator
    smooths the phase of its probes: a diverging wave, whose far field is close to a picture of
    what it lights. Coma makes the modulus asymmetric, which matters: under a flat, real, symmetric
    probe O(r) and conj(O(−r)) give the same pattern, and nothing can tell them apart.

    A larger N is a sample further from the focus: the beam is wider in proportion to N and in
    proportion less curved, so that its light fills the same part of window and detector.

    Returns:
        complex64 (N, N), centred at pixel (N/2, N/2).
    """
    size = config.size
    k = np.fft.fftfreq(size, 1 / size)
    rows, cols = np.meshgrid(k, k, indexing="ij")
    r = np.hypot(rows, cols) / config.probe_radius
    theta = np.arctan2(rows, cols)
    phase = (
        config.probe_defocus * r**2
        + config.probe_astigmatism * r**2 * np.cos(2 * theta)
        + config.probe_coma * r**3 * np.cos(theta)
    )
    pupil = ((config.probe_stop <= r) & (r <= 1)) * np.exp(1j * phase)
    modulus = np.abs(np.fft.fftshift(np.fft.ifft2(pupil)))
    y, x = np.indices((size, size)) - size // 2
    curvature = config.probe_curvature * N / size
    probe = modulus * np.exp(-1j * curvature * (x**2 + y**2))
    return (probe / (4 * np.abs(probe).mean())).astype(np.complex64)
