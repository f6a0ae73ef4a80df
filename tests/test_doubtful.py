"""A probe, a monitor or units that can hardly be meant as they are: mended or told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fno_runner.config import N
from fno_runner.data.formats import read_scan
from fno_runner.data.source import Hints
from fno_runner.errors import UserError
from fno_runner.scan.iterative import reconstruct, residual
from tests.layouts import cxi, npz
from tests.scans import Simulated, simulate_scan
from tests.test_detectors import DETECTOR, read, told


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulate_scan()


@pytest.mark.parametrize("modes", [1, 2])
def test_a_probe_about_the_corner_is_brought_to_the_middle(modes: int, tmp_path: Path) -> None:
    """As a Fourier transform leaves it; frames are then explained as with the probe as it was."""
    scan = simulate_scan(modes)
    corner = np.fft.ifftshift(scan.probe, axes=(1, 2))
    plain = read(tmp_path / "a.cxi", scan)
    found = read(tmp_path / "b.cxi", scan, instrument_1__source_1__probe=corner)
    assert plain.probe is not None and found.probe is not None
    np.testing.assert_array_equal(found.probe, plain.probe)
    assert told(found, "brought to the middle") and not told(plain, "brought to the middle")
    fit = reconstruct(found, modes=modes, iterations=10, fit_probe=False)
    assert residual(fit, found) < 0.1


def test_two_planes_of_real_numbers_are_no_probe(scan: Simulated, tmp_path: Path) -> None:
    """Real and imaginary part, or two modes: read as modes they explain nothing."""
    parts = np.concatenate([scan.probe.real, scan.probe.imag])
    for number, probe in enumerate((parts, np.moveaxis(parts, 0, -1))):
        path = tmp_path / f"{number}.npz"
        np.savez(path, **npz.raw(scan, probeGuess=probe))
        found = read_scan(path)
        assert found.probe is None and told(found, "real and imaginary parts?")
        with pytest.raises(UserError, match="real and imaginary parts"):
            read_scan(path, Hints(probe="probeGuess"))


def test_a_probe_without_a_phase_is_told(scan: Simulated, tmp_path: Path) -> None:
    found = read(tmp_path / "s.cxi", scan, instrument_1__source_1__probe=np.abs(scan.probe))
    assert found.probe is not None and told(found, "its phase is 0 everywhere")


@pytest.mark.parametrize("scale", [1.0, 0.01, 3e4], ids=["counts", "small", "ADU"])
def test_a_monitor_that_is_the_frames_own_sum_takes_no_absorption_away(
    scale: float, scan: Simulated, tmp_path: Path
) -> None:
    """Half of the sample lets half of the light through."""
    counts = scan.counts * np.where(np.arange(60) < 30, 0.5, 1.0)[:, None, None] * scale
    summed = counts.sum(axis=(1, 2), dtype=np.float64)
    given = {f"{DETECTOR}data": counts, "instrument_1__monitor_1__data": summed}
    found = read(tmp_path / "s.cxi", scan, **given)
    assert told(found, "own sum")
    np.testing.assert_allclose(np.square(found.amplitude), counts, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sign", [0.0, -1.0])
def test_a_monitor_that_is_never_positive_is_told(
    sign: float, scan: Simulated, tmp_path: Path
) -> None:
    given = {"instrument_1__monitor_1__data": sign * np.linspace(1, 2, 60)}
    assert told(read(tmp_path / "s.cxi", scan, **given), "the monitor is not used")


@pytest.mark.parametrize(
    ("dtype", "value", "pixel"),
    [("u4", 2**32 - 1, (20, 20)), ("u4", 2**32 - 1, None), ("u2", 2**16 - 1, None),
     ("i4", -1, None), ("f4", 1e38, (20, 20))],
)  # fmt: skip
def test_what_a_dark_frame_lacks_is_not_subtracted(
    dtype: str, value: float, pixel: tuple[int, int] | None, scan: Simulated, tmp_path: Path
) -> None:
    """A single value of ten dark frames, or one of the frames."""
    dark = np.full((10, N, N), 5, dtype)
    dark[:, ::2] = 6
    counts = scan.counts + dark[0]
    dark[4] = value if pixel is None else dark[4]
    if pixel is not None:
        dark[4][pixel] = value
    found = read(tmp_path / "s.cxi", scan, **{f"{DETECTOR}data": counts, f"{DETECTOR}dark": dark})
    np.testing.assert_allclose(np.square(found.amplitude), scan.counts, atol=0.1)


@pytest.mark.parametrize("times", [1, 100])
def test_a_dark_of_another_exposure_is_told(times: int, scan: Simulated, tmp_path: Path) -> None:
    dark = np.random.default_rng(0).poisson(50, (N, N)).astype(np.float64)
    counts = scan.counts + np.random.default_rng(1).poisson(dark, scan.counts.shape)
    given = {f"{DETECTOR}data": counts, f"{DETECTOR}dark": times * dark}
    found = read(tmp_path / "s.cxi", scan, **given)
    assert told(found, "another exposure?") == (times > 1)


@pytest.mark.parametrize("probe", [True, False])
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_frames_that_nothing_overlaps_are_told(
    scale: float, probe: bool, scan: Simulated, tmp_path: Path
) -> None:
    """As where positions are in another unit than the format has."""
    changed = {} if probe else {"instrument_1__source_1__probe": None}
    items = cxi.cxi(scan, **changed)
    items["sample_1/geometry_1/translation"] *= scale
    cxi.put(tmp_path / "s.cxi", items)
    assert told(read_scan(tmp_path / "s.cxi", size=N), "nothing overlaps") == (scale > 1)
