"""The forward model, from object patch to diffraction amplitude, and the losses on it.

All Fourier transforms are orthonormal, so that they conserve counts (Parseval).
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from fno_runner.data.dataset import CENTRE


def far_field(wave: Complex[Tensor, "... n n"]) -> Complex[Tensor, "... n n"]:
    """FFT of a wave, zero frequency at [n/2, n/2].

    A checkerboard of signs before the transform shifts its result by n/2 (shift theorem), without
    the copies of an fftshift.
    """
    return torch.fft.fft2(wave * _checkerboard(wave), norm="ortho")


def near_field(far: Complex[Tensor, "... n n"]) -> Complex[Tensor, "... n n"]:
    """The inverse of `far_field`."""
    return torch.fft.ifft2(far, norm="ortho") * _checkerboard(far)


def shift_probe(
    probe: Complex[Tensor, "n n"], shift: Float[Tensor, "... 2"]
) -> Complex[Tensor, "... n n"]:
    """The probe moved by (rows, columns) [px], fractions allowed, by the Fourier shift theorem."""
    k = torch.fft.fftfreq(probe.shape[-1], device=probe.device)
    ramp = k[:, None] * shift[..., 0, None, None] + k * shift[..., 1, None, None]
    ramp = torch.polar(torch.ones_like(ramp), -2 * torch.pi * ramp)
    return torch.fft.ifft2(torch.fft.fft2(probe) * ramp)


def subpixel_remainder(positions: Float[Tensor, "b 1 2 c"]) -> Float[Tensor, "b c 2"]:
    """What is left of a patch's first pixel's position [px] after rounding, in −0.5 … 0.5."""
    first = positions[:, 0].transpose(1, 2) - CENTRE  # (B, C, 2)
    return first - first.round()


def object_update(
    amplitude: Float[Tensor, "b c n n"],
    probe: Complex[Tensor, "... n n"],
    patch: Complex[Tensor, "b c n n"] | float = 1.0,
) -> Complex[Tensor, "b c n n"]:
    """One ePIE object update of `patch`, by default from vacuum (Maiden & Rodenburg, 2009).

    With ψ = P·O, Ψ = F ψ and ψ' = F⁻¹(A·Ψ/|Ψ|): ΔO = P*(ψ' − ψ) / max|P|².
    """
    wave = (probe * patch).expand(amplitude.shape)
    far = far_field(wave)
    projected = near_field(amplitude * torch.sgn(far))
    strongest = probe.abs().square().amax(dim=(-2, -1), keepdim=True)
    return probe.conj() * (projected - wave) / strongest


def amplitude_mae(
    predicted: Float[Tensor, "..."], measured: Float[Tensor, "..."]
) -> Float[Tensor, ""]:
    """Mean |predicted − measured| over the mean measured amplitude (the field's R factor)."""
    return (predicted - measured).abs().mean() / measured.mean()


def poisson_deviance(
    predicted: Float[Tensor, "..."], measured: Float[Tensor, "..."]
) -> Float[Tensor, ""]:
    """Poisson negative log-likelihood of counts ∝ amplitude², less its value at a perfect fit.

    With I the predicted and n the measured intensity: mean(I − n + n·ln(n / I)) / mean(n). The
    number of photons only scales it, and is divided out.
    """
    floor = 1e-6 * measured.square().mean()
    expected, counts = predicted.square() + floor, measured.square() + floor
    return (expected - counts + counts * (counts / expected).log()).mean() / counts.mean()


LOSSES = {"mae": amplitude_mae, "poisson": poisson_deviance}


def _checkerboard(wave: Tensor) -> Tensor:
    signs = 1 - 2 * (torch.arange(wave.shape[-1], device=wave.device) % 2).to(wave.real.dtype)
    return signs[:, None] * signs
