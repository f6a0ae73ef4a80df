"""Where zero frequency is: where the format has it, unless the counts clearly say otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fno_runner.config import N
from fno_runner.data.formats import read_scan
from tests.layouts import LAYOUTS
from tests.scans import Simulated, simulate_scan

IN_THE_CORNER = ["tike: tike.npz", "NSLS-II diffamp: scan_7.h5"]
"""Layouts of formats that have zero frequency at pixel [0, 0]."""


def scan_within(half: int, hole: int = 0) -> Simulated:
    """A scan whose pattern is a square of so many pixels to all sides, but for a dark middle."""
    scan = simulate_scan(frames=20)
    y, x = np.indices((N, N)) - N // 2
    reach = np.maximum(abs(y), abs(x))
    expected = np.where((reach <= half) & (reach >= hole), 30, 0.01)
    counts = np.random.default_rng(0).poisson(expected, (20, N, N))
    return replace(scan, counts=counts.astype(np.float32))


@pytest.mark.parametrize("name", IN_THE_CORNER)
@pytest.mark.parametrize(("half", "hole"), [(10, 0), (22, 0), (24, 11), (31, 0)])
def test_a_pattern_however_wide_is_turned_where_the_format_has_it_in_the_corner(
    name: str, half: int, hole: int, tmp_path: Path
) -> None:
    scan = scan_within(half, hole)
    read = read_scan(LAYOUTS[name].write(tmp_path, scan), size=N)
    np.testing.assert_allclose(np.square(read.amplitude), scan.counts, atol=1e-3)
    assert any("corner" in remark for remark in read.remarks)


@pytest.mark.parametrize("name", IN_THE_CORNER)
def test_a_pattern_that_clearly_lies_in_the_middle_is_left_there(name: str, tmp_path: Path) -> None:
    scan = scan_within(10)
    turned = replace(scan, counts=np.fft.fftshift(scan.counts, axes=(1, 2)))
    read = read_scan(LAYOUTS[name].write(tmp_path, turned), size=N)
    np.testing.assert_allclose(np.square(read.amplitude), scan.counts, atol=1e-3)
    assert any("middle" in remark for remark in read.remarks)


@pytest.mark.parametrize(("half", "turned"), [(10, True), (22, False), (31, False)])
def test_where_the_format_has_it_in_the_middle_only_what_is_clear_is_turned(
    half: int, turned: bool, tmp_path: Path
) -> None:
    scan = scan_within(half)
    stored = np.fft.fftshift(scan.counts, axes=(1, 2)) if turned else scan.counts
    read = read_scan(
        LAYOUTS["raw NPZ: slac.npz"].write(tmp_path, replace(scan, counts=stored)), size=N
    )
    np.testing.assert_allclose(np.square(read.amplitude), scan.counts, atol=1e-3)
    assert any("corner" in remark for remark in read.remarks) == turned
