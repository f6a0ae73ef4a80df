"""A scan is the same however its numbers are stored: byte order, type, axes of length 1, chunks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fno_runner.config import N
from fno_runner.data.formats import read_scan
from tests.layouts import LAYOUTS
from tests.scans import Simulated, simulate_scan

Change = Callable[[np.ndarray], np.ndarray]
BIG: Change = lambda array: array.astype(array.dtype.newbyteorder(">"))  # noqa: E731
DATA, PLACES = "entry_1/instrument_1/detector_1/data", "entry_1/sample_1/geometry_1/translation"


@pytest.fixture(scope="module")
def scan() -> Simulated:
    found = simulate_scan(photons=1e5)
    assert found.counts.max() < 2**15
    return found


@pytest.mark.parametrize(
    ("layout", "name", "change", "options"),
    [
        *(("CXI: scan.cxi", DATA, (lambda a, t=dtype: a.astype(t)), {}) for dtype in
          (">u2", "<i2", ">i4", "<u8", ">i8", ">f4", "<f8", ">f8")),
        ("CXI: scan.cxi", DATA, lambda a: a[:, None], {}),
        ("CXI: scan.cxi", DATA, lambda a: a[None], {}),
        ("CXI: scan.cxi", DATA, lambda a: a.reshape(6, 10, N, N), {"chunks": (4, 3, 7, 64)}),
        ("CXI: scan.cxi", DATA, lambda a: a, {"chunks": (7, 13, 11), "shuffle": True}),
        ("CXI: scan.cxi", DATA, lambda a: a, {"chunks": (60, 5, 5), "compression": "lzf"}),
        ("CXI: scan.cxi", PLACES, BIG, {}),
        ("CXI: scan.cxi", PLACES, lambda a: a.T, {}),
        ("CXI: scan.cxi", PLACES, lambda a: a.reshape(6, 10, 3), {}),
        ("CXI: scan.cxi", PLACES, lambda a: a[:, :2], {}),
        ("CXI: scan.cxi", "entry_1/instrument_1/source_1/probe", BIG, {}),
        ("NSLS-II diffamp: scan_7.h5", "diffamp", BIG, {}),
        ("NSLS-II diffamp: scan_7.h5", "points", lambda a: BIG(a).T, {}),
        ("pty-chi pair: other_para.hdf5", "probe_position_x_m", lambda a: BIG(a)[:, None], {}),
        ("ptyd: scan.ptyd", "chunks/3/positions", BIG, {}),
        ("ptyd: scan.ptyd", "chunks/3/data", lambda a: a.astype(">i8"), {}),
    ],
)  # fmt: skip
def test_equal_numbers_are_the_same_scan(
    layout: str,
    name: str,
    change: Change,
    options: dict[str, Any],
    scan: Simulated,
    tmp_path: Path,
) -> None:
    path = LAYOUTS[layout].write(tmp_path, scan)
    plain = read_scan(path, size=N)
    with h5py.File(path, "a") as file:
        array = file[name][()]
        del file[name]
        file.create_dataset(name, data=change(array), **options)
    found = read_scan(path, size=N)
    np.testing.assert_array_equal(found.amplitude, plain.amplitude)
    np.testing.assert_array_equal(found.positions, plain.positions)
    assert found.pixel_size == plain.pixel_size and found.remarks == plain.remarks
    assert (found.probe is None) == (plain.probe is None)
    if found.probe is not None and plain.probe is not None:
        np.testing.assert_array_equal(found.probe, plain.probe)
