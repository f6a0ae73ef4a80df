"""`reconstruct --probe`: another file's probe, at the size and binning of the scan's frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fno_runner.apply.iterative import main
from fno_runner.apply.other_probe import other_probe
from fno_runner.config import N
from fno_runner.data.formats import read_scan
from fno_runner.data.npz import read_array, write_npz
from fno_runner.errors import UserError
from tests.scans import PIXEL, simulate_scan, write_raw
from tests.test_apply import untrained


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan of 128 px with its probe and the size of its object's pixel."""
    scan = simulate_scan(frames=20)
    wide = np.pad(np.sqrt(scan.counts), ((0, 0), (32, 32), (32, 32)))
    far = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(scan.probe[0]), norm="ortho"))
    probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(np.pad(far, 32)), norm="ortho"))
    return write_raw(
        tmp_path_factory.mktemp("large") / "large.npz", scan, diff3d=wide, objectGuess=None,
        probeGuess=probe.astype(np.complex64), pixel_size_m=np.array(PIXEL / 2),
        xcoords=2 * scan.positions[:, 1], ycoords=2 * scan.positions[:, 0],
    )  # fmt: skip


@pytest.mark.parametrize(("size", "binning"), [(128, 1), (64, 1), (64, 2)])
def test_a_scans_own_probe_is_its_probe(size: int, binning: int, large: Path) -> None:
    scan = read_scan(large, size=size, binning=binning)
    found = other_probe(large, replace(scan, probe=None))
    np.testing.assert_array_equal(found, scan.probe)


@pytest.mark.parametrize("name", ["object.npz", "product.h5"])
def test_a_reconstructions_probe_is_taken(name: str, large: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--patch-size=64", "--passes=1", "--device=cpu", f"--output={out}"]
    assert main([str(large), *options]) == 0
    scan = read_scan(large, size=N)
    fitted = read_array(out / "object.npz", "probeGuess")
    np.testing.assert_array_equal(other_probe(out / name, scan), fitted[None])
    with pytest.raises(UserError, match="64 px"):
        other_probe(out / name, read_scan(large, size=128))


def test_a_probe_of_other_pixels_is_refused(large: Path, tmp_path: Path) -> None:
    """A few per cent are another energy or distance of the same beam; half or twice is no beam."""
    scan = read_scan(large, size=N)
    for scale in (0.99, 1.01):
        assert other_probe(large, replace(scan, pixel_size=scale * PIXEL)) is not None
    for scale in (0.5, 1.1, 2.0):
        with pytest.raises(UserError, match="nm"):
            other_probe(large, replace(scan, pixel_size=scale * PIXEL))
    assert other_probe(large, replace(scan, pixel_size=None)) is not None


def test_what_is_no_probe_is_refused(large: Path, tmp_path: Path) -> None:
    scan = read_scan(large, size=N)
    zero = tmp_path / "zero.npz"
    write_npz(zero, {"probeGuess": np.zeros((N, N), np.complex64)})
    with pytest.raises(UserError, match="no probe"):
        other_probe(zero, scan)
    bare = write_raw(tmp_path / "bare.npz", simulate_scan(frames=20), probeGuess=None)
    with pytest.raises(UserError, match="no probe"):
        other_probe(bare, scan)
    model = untrained(tmp_path)
    assert other_probe(model, scan).shape == (1, N, N)
    with pytest.raises(UserError, match="bin"):
        other_probe(model, read_scan(large, size=N, binning=2))
