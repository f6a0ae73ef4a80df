"""The Fourier ring correlation of images whose resolution is known by construction."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fno_runner.data.dataset import Dataset, Freeform, Patterns
from fno_runner.result import Metrics
from fno_runner.score.frc import (
    FINEST,
    HALF,
    SEVENTH,
    RingCorrelation,
    frc50,
    frc_half_bit,
    ring_correlation,
)
from fno_runner.score.without_truth import add_halves, correlate_halves

SIDE = 326
"""Of the scored part of a test object [px]."""
EVERYWHERE = np.ones((SIDE, SIDE), bool)

FIFTY_PROJECTIONS = """
100 99 99 97 96 89 89 93 95 97 97 98 98 98 99 98 97 96 96 96 95 94 93 87 86 88 85 80 66 58 73 81 83
85 84 82 76 78 81 75 67 60 68 66 61 65 57 70 81 82 86 81 74 81 84 79 83 84 82 79 76 79 75 71 67 71
65 55 47 45 53 59 55 61 62 58 57 60 67 71 71 76 81 82 82 80 74 71 75 74 72 67 64 64 59 53 56 46 40
34 30 31 37 45 45 38 34 43 52 49 48 46 46 48 45 53 47 45 44 32 31 32 35 35 36 32 20 22 21 21 22 26
26 15 21 20 24 19 17 28 21 24 24 21 26 19 15 18 24 22 19 12 15 20 11 6 10 3 1 4 0 4 1
"""
"""Of the phase with the truth [percent], ring by ring: fifty projections of each pattern of the
test object of data_seed 0, without a network. Pearson 0.794; version 0.1 said 0.212 px⁻¹."""
SMALL_NETWORK = """
100 100 100 100 99 99 99 98 97 97 96 98 98 97 98 97 97 97 96 96 94 93 89 78 80 84 82 76 67 61 67 65
72 85 78 70 70 74 73 63 53 52 57 53 43 58 71 67 67 62 53 54 54 57 43 35 31 21 27 22 12 21 14 3 -1 0
1 9 2 -3 6 8 16 22 10 2 4 2 1 2 2 5 -1 -2 4 6 -7 -6 0 1 -7 -8 -8 -4 -4 -3 -5 -7 -7 -3 0 -1 -2 -2 4
15 11 1 1 3 0 3 5 3 3 -4 1 7 2 0 -4 -2 -5 -9 -3 3 9 5 -5 -2 -3 -3 -13 -7 -5 -5 3 1 -1 1 4 -1 -1
-8 2 2 -2 -2 -6 -7 -2 1 1 2 1 0 -4 1 -2 -1 1 -9 -9
"""
"""The same of `fno` of width 8 after 182 steps: Pearson 0.958; one ring of 0.43 in the middle."""


def curve(percent: str) -> RingCorrelation:
    correlation = np.array(percent.split(), float) / 100
    assert len(correlation) == SIDE // 2
    rings = np.arange(1.0, len(correlation) + 1)
    return RingCorrelation(1 / SIDE, correlation, 6 * rings)


def white(rng: np.random.Generator, count: int, side: int = SIDE) -> np.ndarray:
    return rng.normal(size=(count, side, side))


def frequency(side: int = SIDE) -> np.ndarray:
    along = np.fft.fftfreq(side)
    return np.hypot(along[:, None], along)


def filtered(image: np.ndarray, gain: np.ndarray) -> np.ndarray:
    return np.fft.ifft2(np.fft.fft2(image) * gain).real


def first_ring_below(rings: RingCorrelation, threshold: float) -> float:
    """What version 0.1 took."""
    return rings.step * (1 + int(np.flatnonzero(rings.correlation < threshold)[0]))


@pytest.mark.parametrize("cut", [0.05, 0.12, 0.3])
def test_detail_ends_where_the_truth_was_cut(cut: float) -> None:
    """Beyond the cut there is as much noise as truth, and nothing in common."""
    truth, noise = white(np.random.default_rng(0), 2)
    blurred = filtered(truth, frequency() <= cut) + filtered(noise, frequency() > cut)
    # Within the two rings that the smoothing reaches to, and the window's own ring.
    assert frc50(blurred, truth, EVERYWHERE) == pytest.approx(cut, abs=2.5 / SIDE)
    assert frc_half_bit(blurred, truth, EVERYWHERE) == pytest.approx(cut, abs=2.5 / SIDE)


@pytest.mark.parametrize(("seed", "at"), [(0, 0.1), (1, 0.2), (2, 0.35)])
def test_signal_to_noise_decides_where(seed: int, at: float) -> None:
    """With noise in one image only C = √(SNR / (1 + SNR)), which is one half at SNR = 1/3.

    The noise's amplitude grows exponentially with the frequency, through that of SNR 1/3 at `at`.
    """
    truth, noise = white(np.random.default_rng(seed), 2)
    growth = 12.0
    noisy = truth + filtered(noise, math.sqrt(3) * np.exp(growth * (frequency() - at)))
    assert frc50(noisy, truth, EVERYWHERE) == pytest.approx(at, abs=0.01)
    rings = ring_correlation(noisy, truth, EVERYWHERE)
    ring_frequency = rings.step * np.arange(1.0, len(rings.correlation) + 1)
    snr = np.exp(-2 * growth * (ring_frequency - at)) / 3
    expected = replace(rings, correlation=np.sqrt(snr / (1 + snr)))
    by_half_bit = expected.resolved(expected.half_bit_of_truth)
    assert (
        at - 0.03 < by_half_bit < at
    )  # half a bit is an SNR of 0.41, and more of few coefficients
    assert frc_half_bit(noisy, truth, EVERYWHERE) == pytest.approx(by_half_bit, abs=0.012)


def test_halves_reach_a_seventh_where_the_truth_reaches_a_half() -> None:
    """Two halves with twice the noise each: FSC = 1/7 where C with the truth is 1/2."""
    truth, a, b = white(np.random.default_rng(3), 3)
    growth, at = 12.0, 0.25
    sigma = math.sqrt(3) * np.exp(growth * (frequency() - at))
    halves = [truth + math.sqrt(2) * filtered(noise, sigma) for noise in (a, b)]
    correlation = ring_correlation(halves[0], halves[1], EVERYWHERE)
    assert correlation.resolved(correlation.seventh) == pytest.approx(at, abs=0.02)
    assert frc50((halves[0] + halves[1]) / 2, truth, EVERYWHERE) == pytest.approx(at, abs=0.01)


@pytest.mark.parametrize("side", [60, 120, SIDE])
def test_noise_alone_resolves_nothing(side: int) -> None:
    """A bare seventh is reached by chance, the more so the smaller the image."""
    rng = np.random.default_rng(0)
    mask = np.ones((side, side), bool)
    pairs = [white(rng, 2, side) for _ in range(40)]
    correlations = [ring_correlation(image, other, mask) for image, other in pairs]
    for threshold in ("half_bit", "seventh"):
        ends = np.array([curve.resolved(getattr(curve, threshold)) for curve in correlations])
        assert (ends > 5 / side).mean() <= 0.1
    if side == 60:
        assert np.mean([curve.resolved(SEVENTH) > 5 / side for curve in correlations]) > 0.3


def test_the_edge_of_a_mask_is_no_detail() -> None:
    """Beams that hardly overlap see islands: their shores, alike in both halves, say nothing."""
    coarse, a, b = white(np.random.default_rng(0), 3)
    coarse = filtered(coarse, frequency() < 0.05)
    halves = [coarse / coarse.std() + 0.3 * noise for noise in (a, b)]
    rows, cols = (np.indices((SIDE, SIDE)) % 30) - 15
    islands = np.hypot(rows, cols) < 11
    for mask, most in ((EVERYWHERE, 0.13), (islands, 0.2)):  # with a sharp edge it was 0.46
        correlation = ring_correlation(halves[0], halves[1], mask)
        for threshold in (correlation.half_bit, correlation.seventh):
            assert correlation.resolved(threshold) < most


@pytest.mark.parametrize(
    ("height", "width", "radius"), [(200, 200, 0), (120, 160, 0), (150, 150, 60)]
)
def test_so_many_coefficients_are_independent(height: int, width: int, radius: int) -> None:
    """The smoothed correlation of noise varies by 1/√n; a disc of known pixels has fewer."""
    rows, cols = np.indices((height, width))
    mask = np.hypot(rows - height / 2, cols - width / 2) < (radius or 1e9)
    rng = np.random.default_rng(0)
    pairs = [rng.normal(size=(2, height, width)) for _ in range(100)]
    correlations = [ring_correlation(image, other, mask) for image, other in pairs]
    varies = np.array([curve.smoothed for curve in correlations]).var(axis=0)
    ratio = 1 / varies / correlations[0].independent
    assert ratio[5:50].mean() == pytest.approx(1.1, abs=0.2)


def test_the_half_bit_curve_of_van_heel_and_schatz() -> None:
    """(0.2071 + 1.9102/√n) / (1.2071 + 0.9102/√n); with a truth √(S/(1 + S)) where n is large."""
    n = np.array([4.0, 100.0, 1e12])
    correlation = RingCorrelation(0.01, np.zeros(3), n)
    by_paper = (0.2071 + 1.9102 / np.sqrt(n)) / (1.2071 + 0.9102 / np.sqrt(n))
    np.testing.assert_allclose(correlation.half_bit, by_paper, atol=1e-4)
    of_truth = correlation.half_bit_of_truth
    assert of_truth[2] == pytest.approx(math.sqrt(0.41421 / 1.41421), abs=1e-4)
    assert np.all(np.diff(of_truth) < 0) and np.all(of_truth < 1)


def test_fifty_projections_end_behind_the_dip_of_the_object() -> None:
    """A failure of version 0.1: rings 69 and 70 are 0.47 and 0.45, and 20 of 0.8 come after."""
    correlation = curve(FIFTY_PROJECTIONS)
    assert first_ring_below(correlation, HALF) == pytest.approx(0.212, abs=0.001)
    assert correlation.resolved(HALF) == pytest.approx(0.2985, abs=0.005)


def test_a_small_network_is_not_judged_by_one_ring() -> None:
    correlation = curve(SMALL_NETWORK)
    assert first_ring_below(correlation, HALF) == pytest.approx(45 / SIDE)
    assert correlation.resolved(HALF) == pytest.approx(0.166, abs=0.003)


@pytest.mark.parametrize(("ring", "value"), [(25, 0.3), (25, -0.2), (140, 0.9)])
def test_one_noisy_ring_decides_nothing(ring: int, value: float) -> None:
    """A failure of version 0.1: one ring below one half, at 0.078 px⁻¹, at a Pearson of 0.959."""
    rings = np.arange(1.0, SIDE // 2 + 1)
    clean = 1 / (1 + np.exp((rings - 80) / 6))
    spoiled = clean.copy()
    spoiled[ring - 1] = value
    ends = [
        RingCorrelation(1 / SIDE, values, 6 * rings).resolved(HALF) for values in (clean, spoiled)
    ]
    assert ends[0] == pytest.approx(80 / SIDE, abs=0.2 / SIDE)
    assert ends[1] == ends[0]


def test_between_rings_the_crossing_is_interpolated() -> None:
    falling = RingCorrelation(0.01, np.linspace(1.0, 0.0, 11), np.full(11, 100.0))
    assert falling.resolved(0.45) == pytest.approx(0.065)


def test_the_same_image_is_resolved_to_the_finest_and_an_empty_one_not_at_all() -> None:
    truth = white(np.random.default_rng(0), 1)[0]
    assert frc50(truth, truth, EVERYWHERE) == FINEST
    assert frc50(np.ones_like(truth), truth, EVERYWHERE) == 0.0
    empty = ring_correlation(np.ones_like(truth), truth, EVERYWHERE)
    metrics = Metrics()
    add_halves(metrics, (empty, empty), 1e-8)
    assert metrics == Metrics(
        {"frc_halves": (0.0, 0.0), "frc_halves_half_bit": (0.0, 0.0)},
        {"resolution": {"px": None, "nm": None}},
    )


def test_resolution_is_the_half_period_of_the_phase() -> None:
    truth = white(np.random.default_rng(0), 1)[0]
    whole = ring_correlation(truth, truth, EVERYWHERE)
    metrics = Metrics()
    add_halves(metrics, (whole, whole), 20e-9)
    assert metrics.scan["resolution"] == {"px": 1.0, "nm": pytest.approx(20)}


@pytest.mark.parametrize("apart", [16, 24, 40])
def test_halves_that_hardly_overlap_tell_nothing(apart: int) -> None:
    """Two frames, of which a sliver, a pixel's width or nothing is lit by both."""
    size = 32
    rows, cols = np.indices((size, size)) - size / 2
    probe = np.exp(-(rows**2 + cols**2) / 32).astype(np.complex64)
    places = np.array([[15.5, 15.5], [15.5, 15.5 + apart]], np.float32)
    frames = Patterns(np.ones((2, size, size), np.float32), places, probe)
    shape = size, size + apart
    dataset = Dataset(frames, frames, np.array([0, 1], bool), Freeform(shape), None, None, "")
    assert correlate_halves(np.ones((2, size, size), np.complex64), dataset) is None
