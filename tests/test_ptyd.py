"""ptypy's .ptyd: chunks in other files, and weights."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from fno_runner.config import N
from fno_runner.data.formats import read_scan
from fno_runner.errors import UserError
from tests.layouts import BAD, LAYOUTS
from tests.scans import Simulated, simulate_scan


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulate_scan()


@pytest.fixture
def path(scan: Simulated, tmp_path: Path) -> Path:
    """Chunks of 7 frames; the last one, of 4, is in another file."""
    return LAYOUTS["ptyd: scan.ptyd"].write(tmp_path, scan)


def test_a_chunk_that_cannot_be_opened_is_told(path: Path) -> None:
    whole = read_scan(path)
    path.with_name("scan.ptyd.part").unlink()
    rest = read_scan(path)
    assert len(whole) == 60 and len(rest) == 56
    np.testing.assert_array_equal(rest.amplitude, whole.amplitude[:56])
    (more,) = set(rest.remarks) - set(whole.remarks)
    assert "'chunks/8'" in more and "scan.ptyd.part" in more


def test_without_any_chunk_that_can_be_opened_it_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        for number in range(9):
            del file[f"chunks/{number}"]
            file[f"chunks/{number}"] = h5py.ExternalLink("nowhere.ptyd", "/")
    with pytest.raises(UserError, match=r"nowhere\.ptyd"):
        read_scan(path)


@pytest.mark.parametrize("shape", [(N, N), (1, N, N)])
def test_weights_of_one_frame_are_those_of_all(shape: tuple[int, ...], path: Path) -> None:
    bad = np.zeros((N, N), bool)
    bad[7:9, 5] = bad[BAD] = True
    with h5py.File(path, "a") as file:
        for number in range(8):
            del file[f"chunks/{number}/weights"]
            file[f"chunks/{number}/weights"] = (~bad).astype(float).reshape(shape)
    mask = read_scan(path, size=N).mask
    assert mask is not None
    np.testing.assert_array_equal(~mask, bad)


@pytest.mark.parametrize(("shape", "told"), [((3, 3), True), ((0,), False)])
def test_weights_of_another_shape_are_told_unless_there_are_none(
    shape: tuple[int, ...], told: bool, path: Path
) -> None:
    with h5py.File(path, "a") as file:
        del file["chunks/3/weights"]
        file["chunks/3/weights"] = np.ones(shape)
    assert any("'chunks/3/weights'" in remark for remark in read_scan(path).remarks) == told
