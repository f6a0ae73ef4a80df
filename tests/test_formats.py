"""What beamlines write: every layout gives the same scan; what cannot be a scan is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fno_runner.config import N
from fno_runner.data.crop import resample_probe
from fno_runner.data.formats import fingerprint_scan, read_scan
from fno_runner.data.scan import hold_out, load_scan
from fno_runner.data.source import Hints
from fno_runner.errors import UserError
from tests.scans import (
    PIXEL,
    SIDE,
    Simulated,
    simulate_scan,
    write_cxi,
    write_product_h5,
    write_product_npz,
    write_raw,
)

DETECTOR = "instrument_1__detector_1__"


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulate_scan()


WRITERS: dict[str, Callable[[Path, Simulated], Path]] = {
    "raw.npz": write_raw,
    "scan.cxi": write_cxi,
    "product.h5": write_product_h5,
    "product.npz": write_product_npz,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_is_the_same_scan(name: str, scan: Simulated, tmp_path: Path) -> None:
    """Counts, probe, and positions to a thousandth of a pixel, whatever the format's units."""
    path = WRITERS[name](tmp_path / "a_file_of_any_name", scan)
    read = read_scan(path)
    np.testing.assert_allclose(np.square(read.amplitude), scan.counts, atol=0.1)
    assert read.probe is not None
    np.testing.assert_allclose(read.probe, scan.probe, rtol=1e-6)
    apart = read.positions - scan.positions
    np.testing.assert_allclose(apart - apart[0], 0, atol=1e-3)
    if name != "scan.cxi":  # which has no object that would say where zero is
        np.testing.assert_allclose(apart[0], 0, atol=1e-3)
        assert read.reference is not None and read.reference.shape == (SIDE, SIDE)
    if name != "raw.npz":
        assert read.pixel_size == pytest.approx(PIXEL, rel=1e-6)
    assert load_scan(path, 0).train.probe.shape == (N, N)


def test_several_modes_stay_several(tmp_path: Path) -> None:
    scan = simulate_scan(modes=2)
    dataset = load_scan(write_raw(tmp_path / "two.npz", scan), 0)
    assert dataset.train.probe.shape == (2, N, N)
    first, second = np.square(np.abs(dataset.train.probe)).sum(axis=(1, 2))
    assert first > second > 0


def test_large_frames_are_cropped_about_the_middle(scan: Simulated, tmp_path: Path) -> None:
    """A larger detector at the same distance sees finer: N of its pixels see as coarse as before.

    So the frames inside stay what they were, and so does the pixel of the object [m].
    """
    wide = np.pad(scan.counts, ((0, 0), (16, 16), (20, 20)))
    read = read_scan(write_cxi(tmp_path / "s", scan, **{f"{DETECTOR}data": wide,
                               "instrument_1__source_1__probe": None}))  # fmt: skip
    moved = np.rint(_mass(scan.counts) - N // 2).astype(int)
    expected = np.roll(scan.counts, tuple(-moved), axis=(1, 2))
    inner = slice(8, -8)
    np.testing.assert_allclose(
        np.square(read.amplitude)[:, inner, inner], expected[:, inner, inner], atol=0.1
    )
    assert read.probe is None and read.pixel_size == pytest.approx(PIXEL, rel=1e-6)
    apart = read.positions - scan.positions
    np.testing.assert_allclose(apart - apart[0], 0, atol=1e-3)


def _mass(counts: np.ndarray) -> np.ndarray:
    mean = counts.mean(axis=0)
    return np.array(
        [(mean.sum(axis=1 - axis) * np.arange(N)).sum() / mean.sum() for axis in (0, 1)]
    )


def test_small_frames_are_padded_and_the_padding_is_bad(scan: Simulated, tmp_path: Path) -> None:
    small = np.sqrt(scan.counts[:, 8:-8, 8:-8])
    changed = {"diff3d": small, "probeGuess": scan.probe[0, 8:-8, 8:-8], "objectGuess": None}
    read = read_scan(write_raw(tmp_path / "s.npz", scan, **changed))
    assert read.mask is not None and read.mask.sum() == 48 * 48
    np.testing.assert_array_equal(read.amplitude[:, 8:-8, 8:-8], small)
    # The same extent over more pixels: the steps grow with them.
    np.testing.assert_allclose(
        np.diff(read.positions, axis=0), np.diff(scan.positions, axis=0) * N / 48, atol=1e-9
    )


def test_a_probe_keeps_its_counts_when_its_sampling_changes() -> None:
    """Padding the far field adds none, so Parseval holds; cropping gives the first probe back."""
    rng = np.random.default_rng(0)
    small = (rng.normal(size=(2, 32, 32)) + 1j * rng.normal(size=(2, 32, 32))).astype(np.complex64)
    large = resample_probe(small, N)
    assert large.shape == (2, N, N)
    powers = [np.square(np.abs(probe)).sum(axis=(1, 2)) for probe in (small, large)]
    np.testing.assert_allclose(powers[0], powers[1], rtol=1e-5)


def test_masks_background_and_detector_flags(scan: Simulated, tmp_path: Path) -> None:
    mask = np.zeros((N, N), np.int32)
    mask[3, 4] = 1  # invalid
    mask[5, 6] = 0x10000  # has signal: not a fault
    counts = scan.counts.astype(np.uint32) + 7
    counts[:, 9, 9] = np.iinfo(np.uint32).max  # a dead pixel of an Eiger
    changed = {f"{DETECTOR}mask": mask, f"{DETECTOR}data": counts}
    dark = {f"{DETECTOR}data_dark": np.full((5, N, N), 7.0)}
    read = read_scan(write_cxi(tmp_path / "s", scan, **changed, **dark))
    assert read.mask is not None
    assert {tuple(place) for place in np.argwhere(~read.mask)} == {(3, 4), (9, 9)}
    expected = np.where(read.mask, scan.counts, 0)
    np.testing.assert_allclose(np.square(read.amplitude), expected, atol=0.1)
    said = " ".join(read.remarks)
    assert "a background of 7 was subtracted" in said and "1 pixels without a value" in said


@pytest.mark.parametrize(
    ("value", "said"), [(-3.0, "2 negative counts were set to 0"), (1e7, "saturated?")]
)
def test_doubtful_counts_are_told_with_their_number(
    value: float, said: str, scan: Simulated, tmp_path: Path
) -> None:
    counts = scan.counts.copy()
    counts[7, 20 : 22 if value < 0 else 32, 20] = value
    read = read_scan(write_cxi(tmp_path / "s", scan, **{f"{DETECTOR}data": counts}))
    assert any(said in remark for remark in read.remarks)
    assert read.amplitude.min() >= 0


def test_frames_may_be_declared_amplitudes(scan: Simulated, tmp_path: Path) -> None:
    path = write_cxi(tmp_path / "s", scan, **{f"{DETECTOR}data": np.sqrt(scan.counts)})
    np.testing.assert_allclose(
        read_scan(path, Hints(data="amplitude")).amplitude, np.sqrt(scan.counts), rtol=1e-6
    )


def test_a_fingerprint_is_of_the_content(scan: Simulated, tmp_path: Path) -> None:
    prints = []
    for number, change in enumerate((0, 0, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = write_product_h5(folder / f"p{number}.h5", scan)
        if change:
            with h5py.File(folder / "diffraction.h5", "r+") as file:
                file["patterns"][0, 0, 0] += 1
        prints.append(fingerprint_scan(path))
    assert prints[0] == prints[1] != prints[2]


def test_a_region_is_held_out_whole(scan: Simulated) -> None:
    """Every frame nearer to the region's middle than its last one is not trained on."""
    grid = np.stack(np.meshgrid(*[np.arange(20.0)] * 2), axis=-1).reshape(-1, 2)
    held_out, region = hold_out(grid, 0)
    assert held_out.sum() == 40 and region.sum() == 20 and not (held_out & region).any()
    middle = grid[region].mean(axis=0)
    distance = np.linalg.norm(grid - middle, axis=1)
    inside = distance < distance[region].max() - 1.5
    assert (held_out | region)[inside].all()
    assert (hold_out(grid, 1)[1] != region).any()


# --- what is refused -----------------------------------------------------------------------------


def raw(**changed: Any) -> Callable[[Path, Simulated], Path]:
    return lambda path, scan: write_raw(path, scan, **changed)


def cxi(**changed: Any) -> Callable[[Path, Simulated], Path]:
    return lambda path, scan: write_cxi(path, scan, **changed)


def few(path: Path, scan: Simulated) -> Path:
    few = Simulated(scan.obj, scan.probe, scan.positions[:9], scan.counts[:9])
    return write_raw(path, few)


def linked(path: Path, scan: Simulated) -> Path:
    write_cxi(path, scan, **{f"{DETECTOR}data": None})
    with h5py.File(path, "r+") as file:
        del file["entry_1/data_1/data"]
        file["entry_1/data_1/data"] = h5py.ExternalLink("/etc/passwd", "/data")
    return path


def stored_elsewhere(path: Path, scan: Simulated) -> Path:
    write_cxi(path, scan, **{f"{DETECTOR}data": None})
    with h5py.File(path, "r+") as file:
        shape = scan.counts.shape
        file.create_dataset(
            "entry_1/instrument_1/detector_1/data",
            shape=shape,
            dtype="u1",
            external=[("elsewhere.raw", 0, h5py.h5f.UNLIMITED)],
        )
    return path


def bomb(path: Path, scan: Simulated) -> Path:
    write_cxi(path, scan, **{f"{DETECTOR}data": None})
    with h5py.File(path, "r+") as file:
        file.create_dataset(
            "entry_1/instrument_1/detector_1/data",
            shape=(60, 100_000, 100_000),
            dtype="u2",
            chunks=(1, 1000, 1000),
            compression="gzip",
        )
    return path


def bare_product(path: Path, scan: Simulated) -> Path:
    write_product_h5(path, scan)
    path.with_name("diffraction.h5").unlink()
    return path


def other_hdf5(path: Path, scan: Simulated) -> Path:
    with h5py.File(path, "w") as file:
        file["something"] = scan.positions
    return path


def cut_short(path: Path, scan: Simulated) -> Path:
    write_cxi(path, scan)
    path.write_bytes(path.read_bytes()[:3000])
    return path


ALIKE = np.full((60, N, N), 1.5, np.float32)
ALIKE[:, 20] = 2.5
REFUSED: dict[str, tuple[Callable[[Path, Simulated], Path], str]] = {
    "nine frames": (few, "9 frames; at least 16"),
    "equal frames": (raw(diff3d=ALIKE), "all 60 frames are equal"),
    "negative amplitudes": (raw(diff3d=-ALIKE), "negative values; amplitudes are wanted"),
    "no distance": (cxi(**{f"{DETECTOR}distance": 0.0}), "distance' is 0 m; allowed is"),
    "a wide pixel": (cxi(**{f"{DETECTOR}x_pixel_size": 75.0}), "x_pixel_size' is 75 m; allowed"),
    "electronvolts": (cxi(instrument_1__source_1__energy=8800.0), "energy' is 8800 J; allowed"),
    "kilometres": (
        cxi(sample_1__geometry_1__translation=np.arange(180.0).reshape(60, 3) * 1e3),
        "m between its ends; allowed is 0 … 1",
    ),
    "one position": (raw(xcoords=np.full(60, 64.0), ycoords=np.full(60, 64.0)), "nothing overlaps"),
    "too far": (raw(xcoords=np.arange(60.0) * 1e4, objectGuess=None), "are the units right?"),
    "all masked": (raw(mask=np.zeros((N, N), bool)), "the mask hides every pixel"),
    "another mask": (raw(mask=np.ones((3, 3), bool)), "the mask is (3, 3), the frames"),
    "a coordinate more": (raw(xcoords=np.arange(61.0)), "60 rows and 61 columns for 60 frames"),
    "words": (raw(pixel_size_m=np.array("8 nm")), "'pixel_size_m' is <U4, not numbers"),
    "nothing": (raw(pixel_size_m=np.zeros(0)), "'pixel_size_m' is empty"),
    "no positions": (raw(xcoords=None), "has no 'xcoords'"),
    "NaN": (raw(diff3d=ALIKE * np.nan), "NaN or infinite"),
    "CXI without data": (cxi(**{f"{DETECTOR}data": None}), "'entry_1/data_1/data'"),
    "CXI without positions": (cxi(sample_1__geometry_1__translation=None), "1/translation"),
    "a link to another file": (linked, "links to another file, '/etc/passwd'"),
    "data in another file": (stored_elsewhere, "has its data in another file"),
    "a bomb": (bomb, "claims 1,200,000,000,000 bytes, the file holds 0"),
    "a product alone": (bare_product, "a ptychodus product has no patterns"),
    "some HDF5": (other_hdf5, "It has something (60, 2) float64. Looked for was raw NPZ"),
    "half a file": (cut_short, "not an HDF5 file (or cut short)"),
    "no file": (lambda path, _: path, "no such file"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_scan_is_refused_in_one_line(
    name: str, scan: Simulated, tmp_path: Path
) -> None:
    write, said = REFUSED[name]
    path = write(tmp_path / "bad", scan)
    with pytest.raises(UserError) as error:
        read_scan(path)
    assert said in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_scan_without_a_probe_names_the_command_that_finds_one(
    scan: Simulated, tmp_path: Path
) -> None:
    path = write_raw(tmp_path / "s.npz", scan, probeGuess=None)
    assert read_scan(path).probe is None
    with pytest.raises(UserError, match=r"python -m fno_runner\.data probe"):
        load_scan(path, 0)
