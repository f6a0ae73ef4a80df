"""The forward model against what can be said of it without a computer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fno_runner.config import N, RunConfig
from fno_runner.data.probe import zone_plate_probe
from fno_runner.physics import (
    amplitude_mae,
    far_field,
    near_field,
    object_update,
    poisson_deviance,
    shift_probe,
    subpixel_remainder,
)
from fno_runner.reconstructor import input_scale_factor


def waves(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, N, N, generator=generator, dtype=torch.complex64)


@given(st.integers(0, 2**31 - 1))
def test_parseval(seed: int) -> None:
    """The far field has the exit wave's energy."""
    wave = waves(seed)
    energy = far_field(wave).abs().square().sum((-2, -1))
    torch.testing.assert_close(energy, wave.abs().square().sum((-2, -1)), rtol=1e-5, atol=0)


def test_zero_frequency_is_in_the_middle() -> None:
    """A plane wave's pattern is one bright pixel: at the centre, or where its tilt says."""
    y, x = torch.meshgrid(torch.arange(N), torch.arange(N), indexing="ij")
    for row, col in ((0, 0), (3, -5)):
        phase = 2 * math.pi * (row * y + col * x) / N
        pattern = far_field(torch.polar(torch.ones(N, N), phase.float())).abs()
        assert pattern[N // 2 + row, N // 2 + col] == pytest.approx(N, rel=1e-4)
        pattern[N // 2 + row, N // 2 + col] = 0
        assert pattern.max() < 1e-2


def test_far_field_is_the_shifted_fft() -> None:
    wave = waves()
    expected = torch.fft.fftshift(torch.fft.fft2(wave, norm="ortho"), dim=(-2, -1))
    torch.testing.assert_close(far_field(wave).abs(), expected.abs(), rtol=1e-4, atol=1e-4)


def test_near_field_undoes_far_field() -> None:
    torch.testing.assert_close(near_field(far_field(waves())), waves(), rtol=1e-4, atol=1e-5)


@given(st.integers(-20, 20), st.integers(-20, 20))
def test_whole_shifts_of_the_probe_are_rolls(rows: int, cols: int) -> None:
    probe = torch.from_numpy(zone_plate_probe(RunConfig()))
    shifted = shift_probe(probe, torch.tensor([rows, cols], dtype=torch.float32))
    expected = torch.roll(probe, (rows, cols), dims=(-2, -1))
    torch.testing.assert_close(shifted, expected, rtol=0, atol=2e-5)


def test_two_half_shifts_are_one_shift() -> None:
    # A band-limited probe: at the Nyquist frequency half a pixel has no unique meaning.
    spectrum = torch.zeros(N, N, dtype=torch.complex64)
    spectrum[:10, :10] = waves()[0, :10, :10]
    probe = torch.fft.ifft2(spectrum)
    half = shift_probe(shift_probe(probe, torch.tensor([0.5, 0.25])), torch.tensor([0.5, 0.75]))
    torch.testing.assert_close(half, torch.roll(probe, (1, 1), (-2, -1)), rtol=1e-4, atol=1e-6)


def test_subpixel_remainder() -> None:
    """A patch that starts at a whole pixel has no remainder."""
    positions = torch.tensor([[31.5, 41.5], [31.75, 40.9]])[:, None, :, None]  # (2, 1, 2, 1)
    expected = torch.tensor([[[0.0, 0.0]], [[0.25, 0.4]]])
    torch.testing.assert_close(subpixel_remainder(positions, N), expected, rtol=0, atol=1e-5)


def test_the_truth_needs_no_update() -> None:
    """A patch that explains its pattern is a fixed point of the projection."""
    probe = torch.from_numpy(zone_plate_probe(RunConfig()))
    patch = 1 + 0.1 * waves()[:, None]
    amplitude = far_field(probe * patch).abs()
    assert object_update(amplitude, probe, patch).abs().max() < 1e-5
    assert object_update(amplitude, probe).abs().max() > 1e-2


def test_vacuum_level() -> None:
    """An object of constant amplitude s scatters s² times the probe's energy."""
    probe = torch.from_numpy(zone_plate_probe(RunConfig()))
    intensity = float(far_field(3.0 * probe).abs().square().sum())
    assert input_scale_factor(intensity, probe) == pytest.approx(1 / 3, rel=1e-5)


@pytest.mark.parametrize("loss", [amplitude_mae, poisson_deviance])
def test_losses_are_zero_at_a_perfect_fit_only(loss: object) -> None:
    assert callable(loss)
    measured = far_field(waves()).abs()
    assert float(loss(measured, measured)) == pytest.approx(0, abs=1e-6)
    for factor in (0.9, 1.1):
        assert float(loss(factor * measured, measured)) > 1e-3


@pytest.mark.parametrize("loss", [amplitude_mae, poisson_deviance])
@pytest.mark.parametrize("level", [0.0, 1e-20, 1.0, 1e4])
def test_a_batch_without_a_photon_has_a_loss_and_a_gradient(loss: object, level: float) -> None:
    """As of few photons and small batches: the training goes on."""
    assert callable(loss)
    nothing = torch.zeros(1, 1, 8, 8)
    predicted = torch.full_like(nothing, level).requires_grad_()
    value = loss(predicted, nothing)
    value.backward()
    assert predicted.grad is not None
    assert value.isfinite() and predicted.grad.isfinite().all()


def test_mae_is_the_r_factor() -> None:
    measured = torch.tensor([1.0, 3.0])
    assert float(amplitude_mae(torch.tensor([1.5, 2.5]), measured)) == pytest.approx(0.25)


def test_poisson_deviance_against_the_formula() -> None:
    """On counts without zeros: mean(I − n + n ln(n/I)) / mean(n)."""
    rng = np.random.default_rng(0)
    n, i = rng.uniform(1, 9, (2, 50))
    expected = (i - n + n * np.log(n / i)).mean() / n.mean()
    got = poisson_deviance(torch.tensor(i).sqrt(), torch.tensor(n).sqrt())
    assert float(got) == pytest.approx(expected, rel=1e-4)
