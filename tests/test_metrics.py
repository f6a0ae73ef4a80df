"""Metrics of what is known: the truth itself, an empty phase, a shifted one."""

from __future__ import annotations

import numpy as np
import pytest

from fno_runner.data.gridlines import grid_lines_object
from fno_runner.score.metrics import RELATIVE, align, score


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return grid_lines_object(np.random.default_rng(0))[None, :200, :200]


def everywhere(image: np.ndarray) -> np.ndarray:
    return np.ones(image.shape, bool)


def test_truth_against_itself_is_perfect(truth: np.ndarray) -> None:
    metrics = score(truth, truth, everywhere(truth))
    for name, perfect in {"ssim": 1, "ms_ssim": 1, "mae": 0, "mse": 0, "frc50": 0.5}.items():
        assert metrics[name] == pytest.approx((perfect, perfect), abs=1e-6), name
    for name in ("pearson", "std_ratio", "ssim_2pi"):
        assert metrics[name] == pytest.approx((1, 1), abs=1e-6), name
    assert min(metrics["psnr"]) > 100


def test_flat_phase_is_at_the_floor(truth: np.ndarray) -> None:
    """An empty phase scores nothing here, and 0.8 by the peer's way: that is why it is not ours."""
    flat = np.abs(truth).astype(np.complex64)
    metrics = score(flat, truth, everywhere(truth))
    assert metrics["ssim"][1] < 0.1
    assert metrics["pearson"][1] == 0
    assert metrics["std_ratio"][1] < 1e-6
    assert metrics["ssim_2pi"][1] > 0.75
    assert metrics["ssim"][0] == pytest.approx(1)


def test_amplitude_is_first_phase_second(truth: np.ndarray) -> None:
    wrong_amplitude = truth * np.linspace(0.5, 2, truth.shape[-1], dtype=np.float32)
    metrics = score(wrong_amplitude.astype(np.complex64), truth, everywhere(truth))
    assert metrics["mae"][0] > 0.1
    assert metrics["mae"][1] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1.5, 3.1, -3.1])
def test_global_phase_and_ramp_do_not_count(truth: np.ndarray, offset: float) -> None:
    """Neither can be seen in diffraction; no offset may wrap."""
    rows, cols = np.indices(truth.shape[1:])
    ramp = np.exp(1j * (offset + 0.001 * rows - 0.0005 * cols)).astype(np.complex64)
    metrics = score(truth * ramp, truth, everywhere(truth))
    assert metrics["mae"][1] == pytest.approx(0, abs=1e-4)
    assert metrics["ssim"][1] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("whose", ["truth", "prediction", "both"])
def test_nobodys_phase_or_ramp_wraps(truth: np.ndarray, whose: str) -> None:
    """A reference's own phase is as free as a prediction's, and a ramp may turn many times."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, *truth.shape))
    noisy = (truth * (1 + 0.1 * noise[0]) * np.exp(0.1j * noise[1])).astype(np.complex64)
    expected = score(noisy, truth, everywhere(truth))
    rows, cols = np.indices(truth.shape[1:])
    for offset, ramp in ((2.5, 0), (3.1, 0), (0, 0.03), (-2, 0.4)):
        turn = np.exp(1j * (offset + ramp * rows - 0.5 * ramp * cols)).astype(np.complex64)
        turned = score(
            noisy if whose == "truth" else noisy * turn,
            truth if whose == "prediction" else truth * turn,
            everywhere(truth),
        )
        for name, pair in turned.items():
            assert pair == pytest.approx(expected[name], abs=1e-3), (name, offset, ramp)


def test_where_a_thick_object_wraps_whatever_its_phase(truth: np.ndarray) -> None:
    """An object of more than a full circle wraps somewhere: always in the same place."""
    thick = (truth * np.exp(6j * np.abs(truth) / np.abs(truth).max())).astype(np.complex64)
    (expected, _), (wrapped, _) = align(thick[0], thick[0], everywhere(thick[0]))
    for offset in (1.0, -2.5):
        turned = (thick[0] * np.exp(1j * offset)).astype(np.complex64)
        (amplitude, _), (phase, _) = align(turned, turned, everywhere(turned))
        assert np.allclose(amplitude, expected)
        assert np.mean(np.abs(phase - wrapped) < 1e-3) > 0.999


def test_a_small_ramp_wraps_no_more_than_a_large_one() -> None:
    """Of a phase that nearly fills the circle: 1.4 rad of a ramp would push some of it over ±π."""
    rng = np.random.default_rng(0)
    rows = np.linspace(-0.5, 0.5, 96)[:, None]
    phase = np.clip(rng.normal(size=(96, 96)), -3.1, 3.1)
    truth = np.exp(1j * phase)[None].astype(np.complex64)
    for ramp in (0.0, 0.5, 1.4, 3.0):
        noisy = np.exp(1j * (phase + ramp * rows + 0.02 * rng.normal(size=phase.shape)))
        scores = score(noisy[None].astype(np.complex64), truth, everywhere(truth))
        assert scores["mae"][1] < 0.02, ramp


def test_no_ramp_is_found_in_a_prediction_of_nothing(truth: np.ndarray) -> None:
    """What agrees with no ramp any better is compared as it is."""
    rng = np.random.default_rng(0)
    noise = np.exp(1j * rng.uniform(-np.pi, np.pi, truth.shape)).astype(np.complex64)
    assert abs(score(noise, truth, everywhere(truth))["pearson"][1]) < 0.02


def test_noise_costs(truth: np.ndarray) -> None:
    """More noise is worse, in every metric."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, *truth.shape)) @ np.eye(truth.shape[-1])
    metrics = [
        score(
            (truth * np.exp(1j * s * noise[0]) + s * noise[1]).astype(np.complex64),
            truth,
            everywhere(truth),
        )
        for s in (0.05, 0.2)
    ]
    for name in ("ssim", "ms_ssim", "psnr", "pearson", "frc50"):
        for k in (0, 1):
            assert metrics[0][name][k] > metrics[1][name][k], (name, k)
    for name in ("mae", "mse"):
        for k in (0, 1):
            assert metrics[0][name][k] < metrics[1][name][k], (name, k)


def test_outside_the_mask_nothing_counts(truth: np.ndarray) -> None:
    """Not even to a window that reaches over the mask's border, which is round here."""
    rows, cols = np.indices(truth.shape[1:]) - 100
    mask = (np.hypot(rows, cols) < 99)[None]
    rng = np.random.default_rng(0)
    noisy = (truth * np.exp(0.1j * rng.normal(size=truth.shape))).astype(np.complex64)
    spoiled, other = np.where(mask, noisy, 99j), np.where(mask, truth, -7)
    expected = score(noisy, truth, mask)
    for name, pair in score(spoiled, other.astype(np.complex64), mask).items():
        assert pair == pytest.approx(expected[name], abs=1e-6), name


def test_a_mask_without_room_for_a_window_has_no_ssim(truth: np.ndarray) -> None:
    mask = everywhere(truth)
    mask[:, ::6] = False
    metrics = score(truth, truth, mask)
    assert np.isnan([metrics["ssim"], metrics["ssim_2pi"]]).all()
    assert metrics["pearson"] == pytest.approx((1, 1))


def test_mean_psnr_by_hand() -> None:
    """A phase error of ±0.1 rad on a range of 2 rad: 10 log₁₀(2² / 0.1²) = 26.02 dB."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(-1, 1, (1, 180, 180))
    phase[0, 2, 2], phase[0, 2, 3] = -1, 1
    error = 0.1 * rng.permutation(np.repeat([-1.0, 1.0], phase.size // 2)).reshape(phase.shape)
    metrics = score(
        np.exp(1j * (phase + error)).astype(np.complex64),
        np.exp(1j * phase).astype(np.complex64),
        np.ones(phase.shape, bool),
    )
    assert metrics["psnr"][1] == pytest.approx(26.02, abs=0.1)
    assert metrics["mae"][1] == pytest.approx(0.1, abs=1e-3)


def test_align_leaves_the_amplitude_alone(truth: np.ndarray) -> None:
    (predicted, true), _ = align(2 * truth[0], truth[0], everywhere(truth[0]))
    np.testing.assert_allclose(predicted, 2 * true, rtol=1e-6)


@pytest.mark.parametrize("part", [0, 1], ids=["modulus", "phase"])
def test_of_a_truth_that_is_flat_only_errors_have_a_value(truth: np.ndarray, part: int) -> None:
    """A pure phase object's modulus is 1 to rounding, an absorber's phase 0."""
    flat = truth / np.abs(truth) if part == 0 else np.abs(truth)
    metrics = score(truth, flat.astype(np.complex64), everywhere(truth))
    for name, pair in metrics.items():
        has_none = name in RELATIVE and (name, part) != ("ssim_2pi", 1)
        assert np.isnan(pair[part]) == has_none, name
        assert not np.isnan(pair[1 - part]), name
