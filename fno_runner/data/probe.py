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

    Its phase is a parabola, −curvature·(x² + y²) with x, y in px, as PtychoPINN's generator
    smooths the phase of its probes: a diverging wave, whose far field is close to a picture of
    what it lights. Coma makes the modulus asymmetric, which matters: under a flat, real, symmetric
    probe O(r) and conj(O(−r)) give the same pattern, and nothing can tell them apart.

    Returns:
        complex64 (N, N), centred at pixel (N/2, N/2).
    """
    k = np.fft.fftfreq(N, 1 / N)
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
    y, x = np.indices((N, N)) - N // 2
    probe = modulus * np.exp(-1j * config.probe_curvature * (x**2 + y**2))
    return (probe / (4 * np.abs(probe).mean())).astype(np.complex64)
