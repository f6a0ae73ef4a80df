"""Frames that were lost, and masks in one of several places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fno_runner.config import N
from fno_runner.data import measured
from fno_runner.data.measured import InMemory, Measured
from fno_runner.data.pixels import survey
from tests.scans import Simulated, simulate_scan
from tests.test_detectors import DETECTOR, bad_pixels, read, told


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulate_scan()


@pytest.mark.parametrize(
    ("dtype", "value"), [("u2", 2**16 - 1), ("u4", 2**32 - 2), ("u1", 1), ("f4", 7.0), ("i4", -1)]
)
def test_frames_that_hold_one_value_everywhere_were_lost(
    dtype: str, value: float, scan: Simulated, tmp_path: Path
) -> None:
    """A virtual dataset fills with it what its sources lack; a pixel's statistics do not see it."""
    counts = np.rint(scan.counts * (200 / scan.counts.max())).astype(dtype)
    counts[5:17] = value
    found = read(tmp_path / "s.cxi", scan, **{f"{DETECTOR}data": counts})
    assert found.indexes.tolist() == [n for n in range(60) if not 5 <= n < 17]
    assert np.square(found.amplitude).sum() == pytest.approx(
        np.delete(counts, slice(5, 17), axis=0).sum(dtype=float), rel=1e-5
    )
    assert told(found, "12 frames (5, 6, 7, 8, 9, …) left out")


@pytest.mark.parametrize("dtype", ["u2", "u4", "f4"])
def test_lost_frames_say_nothing_of_others_in_their_block(
    dtype: str, scan: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "BLOCK_BYTES", 10 * 4 * N**2)
    counts = np.rint(scan.counts).astype(dtype)
    counts[12] = 65535
    statistics = survey(
        Measured(Path("s"), "test", InMemory(counts), "frames", "intensity", scan.positions)
    )
    assert np.flatnonzero(statistics.blank).tolist() == [12]
    assert statistics.values.tolist() == [0 if frame == 12 else N**2 for frame in range(60)]
    assert (statistics.valid == 59).all()


@pytest.mark.parametrize("name", ["data_1/mask", f"{DETECTOR}mask".replace("__", "/")])
def test_a_mask_may_lie_beside_the_frames(name: str, scan: Simulated, tmp_path: Path) -> None:
    counts, bad = scan.counts.copy(), np.zeros((N, N), np.uint32)
    bad[40:44], counts[:, 40:44] = 1, 777
    given = {"data_1__data": counts, f"{DETECTOR}data": None, name.replace("/", "__"): bad}
    found = read(tmp_path / "s.cxi", scan, **given)
    np.testing.assert_array_equal(bad_pixels(found), bad > 0)


def test_a_second_mask_is_told(scan: Simulated, tmp_path: Path) -> None:
    none, one = np.zeros((N, N), np.uint32), np.eye(N, dtype=np.uint32)
    found = read(
        tmp_path / "s.cxi", scan, **{f"{DETECTOR}mask": none, f"{DETECTOR}pixel_mask": one}
    )
    assert told(found, "pixel_mask' is there too, and is not used")
