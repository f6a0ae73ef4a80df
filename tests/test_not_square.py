"""Frames, and pixels, that are not square: the object's pixels are what λ·z / (n·pitch) says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from fno_runner.config import N
from fno_runner.data.formats import read_scan
from tests.layouts import cxi
from tests.scans import DISTANCE, ENERGY, PITCH, PIXEL, Simulated, simulate_scan

WINDOW = N * PIXEL
"""What a frame of any size sees, times its pixels: λ·z / pitch [m]."""


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulate_scan()


def training(path: Path, counts: np.ndarray, metres: np.ndarray, pixel: np.ndarray) -> Path:
    with h5py.File(path / "training.h5", "w") as file:
        file["patterns"] = counts
        for axis, number, size in (("y", 0, "height"), ("x", 1, "width")):
            file[f"probe_position_{axis}_px"] = metres[:, number] / pixel[number]
            file[f"object_pixel_{size}_m"] = pixel[number]
    return path / "training.h5"


def placed(file: h5py.File, metres: np.ndarray, pixel: np.ndarray) -> None:
    file["probe_position_y_m"], file["probe_position_x_m"] = metres.T
    file["object"] = np.ones((1, 300, 300), np.complex64)
    file["object"].attrs.update(pixel_height_m=pixel[0], pixel_width_m=pixel[1])


def product(path: Path, counts: np.ndarray, metres: np.ndarray, pixel: np.ndarray) -> Path:
    with h5py.File(path / "product.h5", "w") as file:
        file["patterns"] = counts
        placed(file, metres, pixel)
    return path / "product.h5"


def pair(path: Path, counts: np.ndarray, metres: np.ndarray, pixel: np.ndarray) -> Path:
    with h5py.File(path / "s_dp.hdf5", "w") as file:
        file["dp"] = counts
    with h5py.File(path / "s_para.hdf5", "w") as file:
        placed(file, metres, pixel)
    return path / "s_dp.hdf5"


@pytest.mark.parametrize("write", [training, product, pair])
@pytest.mark.parametrize("shape", [(96, 80), (80, 96), (64, 96), (64, 64)])
def test_rows_of_frames_that_are_not_square_are_not_stretched(
    write: Callable[[Path, np.ndarray, np.ndarray, np.ndarray], Path],
    shape: tuple[int, int],
    scan: Simulated,
    tmp_path: Path,
) -> None:
    """Programs have the object's pixels as high and wide as these frames sample it."""
    counts = np.zeros((60, *shape), np.float32)
    rows, cols = (side // 2 - N // 2 for side in shape)
    counts[:, rows : rows + N, cols : cols + N] = scan.counts
    path = write(tmp_path, counts, scan.positions * PIXEL, WINDOW / np.array(shape))
    found = read_scan(path, size=N)
    apart = found.positions - scan.positions
    np.testing.assert_allclose(apart - apart[0], 0, atol=1e-6)
    assert found.pixel_size == pytest.approx(PIXEL, rel=1e-6)
    np.testing.assert_allclose(np.square(found.amplitude), scan.counts, rtol=1e-5)


def test_small_pixels_are_told_from_square_ones(scan: Simulated, tmp_path: Path) -> None:
    """4 nm by 2 nm differ by less than 10 nm, and by a factor of 2."""
    distance = DISTANCE * 4e-9 / PIXEL
    name = "instrument_1__detector_1__"
    said = {f"{name}x_pixel_size": 2 * PITCH, f"{name}distance": distance}
    items = cxi.cxi(scan, **said)
    items["sample_1/geometry_1/translation"] *= 4e-9 / PIXEL
    cxi.put(tmp_path / "s.cxi", items)
    found = read_scan(tmp_path / "s.cxi", size=N)
    assert found.pixel_size is None and found.energy == pytest.approx(ENERGY)
    assert any("4 nm high and 2 nm wide" in remark for remark in found.remarks)
