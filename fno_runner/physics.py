"""The forward model, from object patch to diffraction amplitude, and the losses on it.

All Fourier transforms are orthonormal, so that they conserve counts (Parseval).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from fno_runner.config import centre

MODES_NDIM = 5
"""A local probe of so many axes has several modes: (B, C, M, N, N)."""


def far_field(wave: Complex[Tensor, "... n n"]) -> Complex[Tensor, "... n n"]:
    """FFT of a wave, zero frequency at [n/2, n/2]."""
    return torch.fft.fft2(centring(wave), norm="ortho")


def centring(wave: Complex[Tensor, "... n n"]) -> Complex[Tensor, "... n n"]:
    """The wave whose plain FFT has its zero frequency at [n/2, n/2].

    A checkerboard of signs before the transform shifts its result by n/2 (shift theorem), without
    the copies of an fftshift.
    """
    return wave * _checkerboard(wave)


def near_field(far: Complex[Tensor, "... n n"]) -> Complex[Tensor, "... n n"]:
    """The inverse of `far_field`."""
    return torch.fft.ifft2(far, norm="ortho") * _checkerboard(far)


def amplitude_of(
    patch: Complex[Tensor, "b c n n"], probe: Complex[Tensor, "..."]
) -> Float[Tensor, "b c n n"]:
    """Far-field amplitude of probe · patch; the intensities of several modes add up.

    probe: (n, n) or (b, c, n, n); of m incoherent modes (·, ·, m, n, n), · being 1 or b and c.
    """
    return amplitude_by(patch, centring(probe))


def amplitude_by(
    patch: Complex[Tensor, "b c n n"], centred: Complex[Tensor, "..."]
) -> Float[Tensor, "b c n n"]:
    """As `amplitude_of`, with the probe as `centring` gives it."""
    if centred.ndim < MODES_NDIM:
        return torch.fft.fft2(patch * centred, norm="ortho").abs()
    waves = torch.fft.fft2(patch.unsqueeze(2) * centred, norm="ortho")
    return torch.linalg.vector_norm(waves, dim=2)


def local_probe(
    probe: Complex[Tensor, "*m n n"], shift: Float[Tensor, "b c 2"] | None = None
) -> Complex[Tensor, "..."]:
    """The probe as `amplitude_of` takes it, moved by each pattern's `shift` [px], if any."""
    if shift is not None:
        return shift_probe(probe, shift)
    return probe if probe.ndim == 2 else probe[None, None]


def shift_probe(
    probe: Complex[Tensor, "*m n n"], shift: Float[Tensor, "... 2"]
) -> Complex[Tensor, "..."]:
    """The probe moved by (rows, columns) [px], fractions allowed, by the Fourier shift theorem.

    Returns:
        (..., n, n), of several modes (..., m, n, n).
    """
    k = torch.fft.fftfreq(probe.shape[-1], device=probe.device)
    ramp = k[:, None] * shift[..., 0, None, None] + k * shift[..., 1, None, None]
    ramp = torch.polar(torch.ones_like(ramp), -2 * torch.pi * ramp)
    if probe.ndim == 3:
        ramp = ramp.unsqueeze(-3)
    return torch.fft.ifft2(torch.fft.fft2(probe) * ramp)


def subpixel_remainder(positions: Float[Tensor, "b 1 2 c"], size: int) -> Float[Tensor, "b c 2"]:
    """What is left of a patch's first pixel's position [px] after rounding, in −0.5 … 0.5.

    size: the patches' side [px]; positions are of their centres.
    """
    first = positions[:, 0].transpose(1, 2) - centre(size)  # (B, C, 2)
    return first - first.round()


def object_update(
    amplitude: Float[Tensor, "b c n n"],
    probe: Complex[Tensor, "..."],
    patch: Complex[Tensor, "b c n n"] | None = None,
    mask: Bool[Tensor, "n n"] | None = None,
) -> Complex[Tensor, "b c n n"]:
    """One ePIE object update of `patch`, by default from vacuum (Maiden & Rodenburg, 2009).

    With ψ = P·O, Ψ = F ψ and ψ' = F⁻¹(A·Ψ/|Ψ|): ΔO = P*(ψ' − ψ) / max|P|². Of several modes |Ψ|²
    is their sum, and so are ΔO and |P|² (Thibault & Menzel, 2013). Outside the mask Ψ is kept.

    probe: as `amplitude_of` takes it.
    """
    if probe.ndim == MODES_NDIM:
        return _object_update_of_modes(amplitude, probe, patch, mask)
    wave = (probe if patch is None else probe * patch).expand(amplitude.shape)
    far = far_field(wave)
    corrected = amplitude * torch.sgn(far)
    if mask is not None:
        corrected = torch.where(mask, corrected, far)
    projected = near_field(corrected)
    strongest = probe.abs().square().amax(dim=(-2, -1), keepdim=True)
    return probe.conj() * (projected - wave) / strongest


def _object_update_of_modes(
    amplitude: Tensor, probe: Tensor, patch: Tensor | None, mask: Tensor | None
) -> Tensor:
    wave = probe if patch is None else probe * patch.unsqueeze(2)  # (B, C, M, N, N)
    far = far_field(wave)
    total = torch.linalg.vector_norm(far, dim=2, keepdim=True)
    factor = amplitude.unsqueeze(2) / total.clamp_min(torch.finfo(total.dtype).tiny)
    if mask is not None:
        factor = torch.where(mask, factor, 1.0)
    projected = near_field(far * factor)
    strongest = probe.abs().square().sum(2).amax(dim=(-2, -1), keepdim=True)
    return (probe.conj() * (projected - wave)).sum(2) / strongest


def amplitude_mae(
    predicted: Float[Tensor, "..."], measured: Float[Tensor, "..."]
) -> Float[Tensor, ""]:
    """Mean |predicted − measured| over the mean measured amplitude (the field's R factor)."""
    return (predicted - measured).abs().mean() / _or_one(measured.mean())


def poisson_deviance(
    predicted: Float[Tensor, "..."], measured: Float[Tensor, "..."]
) -> Float[Tensor, ""]:
    """Poisson negative log-likelihood of counts ∝ amplitude², less its value at a perfect fit.

    With I the predicted and n the measured intensity: mean(I − n + n·ln(n / I)) / mean(n). The
    number of photons only scales it, and is divided out.
    """
    floor = 1e-6 * _or_one(measured.square().mean())
    expected, counts = predicted.square() + floor, measured.square() + floor
    return (expected - counts + counts * (counts / expected).log()).mean() / counts.mean()


LOSSES = {"mae": amplitude_mae, "poisson": poisson_deviance}


def _or_one(mean: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """A mean to divide by: 1 where nothing was measured, as in a faint batch without a photon.

    A number as small as a type allows would let the gradient overflow.
    """
    return mean + (mean == 0)


def _checkerboard(wave: Tensor) -> Tensor:
    signs = torch.ones(wave.shape[-1], dtype=wave.real.dtype, device=wave.device)
    signs[1::2].fill_(-1)
    return signs[:, None] * signs
