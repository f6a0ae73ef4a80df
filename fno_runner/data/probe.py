"""The simulated illumination: a defocused zone plate with a central stop and aberrations."""

from __future__ import annotations

import numpy as np
from jaxtyping import Complex64

from fno_runner.config import N, RunConfig


def zone_plate_probe(config: RunConfig) -> Complex64[np.ndarray, "n n"]:
    """The probe at the sample, mean modulus 0.25.

    The pupil is open for stop ≤ r ≤ 1, r = |k| / radius with k in FFT bins; its phase [rad] is

        defocus·r² + astigmatism·r²·cos 2θ + coma·r³·cos θ .

    The aberrations matter: under a flat, real, symmetric probe O(r) and conj(O(−r)) give the same
    pattern, so that a single pattern cannot tell the sign of the phase.

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
    probe = np.fft.fftshift(np.fft.ifft2(pupil))
    return (probe / (4 * np.abs(probe).mean())).astype(np.complex64)
