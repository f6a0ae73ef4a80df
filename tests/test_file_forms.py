"""Forms that files come in: links by absolute paths, MATLAB's axes, old bytes, no scan at all."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from fno_runner.config import N
from fno_runner.data.formats import open_scan, read_scan
from fno_runner.data.recording import clean
from fno_runner.errors import UserError
from tests.layouts import LAYOUTS, cxi, npz
from tests.scans import PIXEL, Simulated, simulate_scan

DATA = "entry_1/instrument_1/detector_1/data"


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulate_scan()


def test_an_absolute_link_below_the_folder_is_followed(scan: Simulated, tmp_path: Path) -> None:
    (tmp_path / "raw" / "run").mkdir(parents=True)
    target = tmp_path / "raw" / "run" / "frames.h5"
    with h5py.File(target, "w") as file:
        file["data"] = scan.counts
    cxi.put(tmp_path / "s.cxi", cxi.cxi(scan))
    with h5py.File(tmp_path / "s.cxi", "a") as file:
        del file[DATA]
        file[DATA] = h5py.ExternalLink(str(target), "/data")
    assert len(read_scan(tmp_path / "s.cxi")) == 60


def test_an_unknown_file_with_python_objects_is_answered_with_what_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", patterns=np.zeros((4, 3, 3)), meta=np.array({}, dtype=object))
    with pytest.raises(UserError) as error:
        read_scan(tmp_path / "s.npz")
    assert "patterns (4, 3, 3)" in str(error.value) and "meta" in str(error.value)


@pytest.mark.parametrize("head", [b"\x93NUMPY\x01\x00", b"II*\x00", b"MATLAB 5.0 MAT-file", b""])
def test_a_file_that_is_neither_is_called_so(head: bytes, tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(head + bytes(200) if head else b"")
    with pytest.raises(UserError, match="neither HDF5 nor NPZ"):
        read_scan(tmp_path / "s")


def test_a_mask_of_matlab_need_not_be_square(scan: Simulated, tmp_path: Path) -> None:
    """Frames of 64 × 96 px, a mask, a background, all with their axes backwards in the file."""
    counts = np.pad(scan.counts, ((0, 0), (0, 0), (0, 32)))
    mask = np.ones((N, N + 32), bool)
    mask[5, 80:] = False
    arrays = {
        "diff3d": np.sqrt(counts + 9).transpose(1, 2, 0), "mask": mask.astype(np.uint8),
        "background": np.full((N, N + 32), 9.0), "xcoords": scan.positions[:, 1][None],
        "ycoords": scan.positions[:, 0][None],
    }  # fmt: skip
    with h5py.File(tmp_path / "s.mat", "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = array.T
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    with open_scan(tmp_path / "s.mat") as opened:
        recording = clean(opened.measured)
        np.testing.assert_array_equal(recording.mask, mask)
        for rows, intensity in recording.intensities():
            np.testing.assert_allclose(intensity, counts[rows], atol=0.1)


@pytest.mark.parametrize("unit", [b"\xb5m", "µm", b"um", "µm".encode()])
def test_a_unit_may_be_in_latin_1(unit: bytes | str, scan: Simulated, tmp_path: Path) -> None:
    name = "sample_1/geometry_1/translation"
    items = cxi.cxi(scan)
    cxi.put(tmp_path / "s.cxi", items | {name: items[name] * 1e6})
    with h5py.File(tmp_path / "s.cxi", "a") as file:
        file[f"entry_1/{name}"].attrs["units"] = (
            np.bytes_(unit) if isinstance(unit, bytes) else unit
        )
    apart = read_scan(tmp_path / "s.cxi").positions - scan.positions
    np.testing.assert_allclose(apart - apart[0], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("layout", "name", "value", "said"),
    [
        ("ptyd: scan.ptyd", "meta/energy", 8700.0, "8700 keV; allowed is 0.01 … 1000"),
        ("ptyd: scan.ptyd", "meta/distance", 5000.0, "5000 m; allowed is 0.0001 … 1000"),
        ("NSLS-II diffamp: scan_7.h5", "lambda_nm", 1e-10, "1e-10 nm; allowed is"),
        ("NSLS-II diffamp: scan_7.h5", "ccd_pixel_um", 7.5e-5, "7.5e-05 µm; allowed is 0.1 … "),
        ("NSLS-II diffamp: scan_7.h5", "lambda_nm", 0.0, "0 nm; allowed is"),
    ],
)
def test_bounds_are_told_in_the_unit_of_the_file(
    layout: str, name: str, value: float, said: str, scan: Simulated, tmp_path: Path
) -> None:
    path = LAYOUTS[layout].write(tmp_path, scan)
    with h5py.File(path, "a") as file:
        file[name][...] = value
    with pytest.raises(UserError) as error:
        read_scan(path)
    assert name in str(error.value) and said in str(error.value)


def test_as_many_frames_as_columns_are_told(tmp_path: Path) -> None:
    """Nothing in the file says which axis counts them."""
    scan = simulate_scan(frames=N)
    np.savez(tmp_path / "s.npz", **npz.raw(scan, pixel_size_m=PIXEL))
    assert any(
        "(frames, rows, columns)" in remark for remark in read_scan(tmp_path / "s.npz").remarks
    )
