"""The simulated dataset, its files and its cache; experimental scans; refused files."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fno_runner.config import N, RunConfig
from fno_runner.data import load_dataset
from fno_runner.data.dataset import Freeform, Raster
from fno_runner.data.gridlines import OBJECT, STEP, grid_lines_object, raster_starts, simulate
from fno_runner.data.npz import fingerprint, read_array, write_npz
from fno_runner.data.npz_pair import load_npz_pair
from fno_runner.data.probe import zone_plate_probe
from fno_runner.data.scan import load_scan
from fno_runner.errors import UserError
from tests.conftest import SHARED

PEER_KEYS = {
    "diffraction", "Y_I", "Y_phi", "coords_nominal", "coords_true", "coords_offsets",
    "YY_full", "YY_ground_truth", "probeGuess", "probe_simulated", "norm_Y_I",
}  # fmt: skip


def test_object_follows_its_formula() -> None:
    obj = grid_lines_object(np.random.default_rng(0)).astype(np.complex128)
    a = np.abs(obj)
    assert obj.shape == (OBJECT, OBJECT)
    phase = np.pi * np.tanh((a - a.max() / 2) / (3 * a.mean()))
    np.testing.assert_allclose(np.angle(obj), phase, atol=1e-5)
    assert phase.std() > 0.1  # the phase is on


def test_probe_is_complex_and_asymmetric() -> None:
    """Were P(r) like conj(P(−r)) or real, the phase could not be found at gridsize 1."""
    probe = zone_plate_probe(RunConfig())
    assert np.abs(probe).mean() == pytest.approx(0.25, rel=1e-5)
    for twin in (probe.conj(), np.roll(probe[::-1, ::-1], (1, 1), (0, 1)).conj()):
        overlap = abs(np.vdot(probe, twin)) / np.vdot(probe, probe).real
        assert overlap < 0.8


def test_arrays_have_the_peers_keys_and_layouts(simulated: dict[str, np.ndarray]) -> None:
    side = 33
    assert set(simulated) == PEER_KEYS
    assert simulated["diffraction"].shape == (side**2, N, N, 1)
    assert simulated["coords_offsets"].shape == (side**2, 1, 2, 1)
    assert simulated["YY_full"].shape == (1, OBJECT, OBJECT, 1)
    assert simulated["YY_ground_truth"].shape == (330, 330, 1)
    complexes = {"YY_full", "YY_ground_truth", "probeGuess", "probe_simulated"}
    for key, array in simulated.items():
        expected = np.complex64 if key in complexes else np.float32
        assert array.dtype == (np.float64 if key == "norm_Y_I" else expected), key


@pytest.mark.parametrize(("split", "count"), [("train", 83**2), ("test", 33**2)])
def test_raster_has_the_studys_number_of_patches(split: str, count: int) -> None:
    assert len(raster_starts(STEP["train" if split == "train" else "test"], N)) == count


def test_diffraction_is_the_forward_model_with_poisson_noise(
    simulated: dict[str, np.ndarray],
) -> None:
    """A pattern's counts differ from |FFT(P·O)|² by their own square root, no more, no less."""
    row, col = (simulated["coords_offsets"][40, 0, :, 0] - (N - 1) / 2).astype(int)
    patch = simulated["YY_full"][0, row : row + N, col : col + N, 0] / simulated["norm_Y_I"]
    wave = patch * simulated["probe_simulated"]
    np.testing.assert_allclose(simulated["Y_I"][40, ..., 0], np.abs(wave), atol=1e-6)
    np.testing.assert_allclose(simulated["Y_phi"][40, ..., 0], np.angle(patch), atol=1e-5)
    clean = np.abs(np.fft.fftshift(np.fft.fft2(wave))) / N
    measured = simulated["diffraction"].astype(np.float64) ** 2
    photons = RunConfig().nphotons * len(measured) / measured.sum()
    counts, expected = measured[40, ..., 0] * photons, clean**2 * photons
    assert counts == pytest.approx(np.rint(counts), rel=1e-4, abs=0.1)
    bright = expected > 100
    normalised = (counts - expected)[bright] / np.sqrt(expected[bright])
    assert normalised.std() == pytest.approx(1, abs=0.1)
    assert np.sqrt(measured).mean() > 0


def test_mean_count_is_nphotons(simulated: dict[str, np.ndarray]) -> None:
    """The smallest step between amplitudes squared is one photon."""
    intensity = np.unique(simulated["diffraction"].astype(np.float64) ** 2)[:4]
    one_photon = intensity[1] - intensity[0]
    mean = (simulated["diffraction"].astype(np.float64) ** 2).sum(axis=(1, 2)).mean()
    assert mean / one_photon == pytest.approx(1e9, rel=0.02)


def test_simulation_depends_on_its_seed_only(simulated: dict[str, np.ndarray]) -> None:
    again = dict(simulate(RunConfig(seed=5), "test", workers=1))
    assert all(np.array_equal(simulated[key], again[key]) for key in simulated)
    other = dict(simulate(RunConfig(data_seed=1), "test"))
    assert not np.array_equal(simulated["diffraction"], other["diffraction"])


def test_two_test_objects_are_two_objects(tmp_path: Path, tiny_npz: tuple[Path, Path]) -> None:
    arrays = dict(simulate(RunConfig(nimgs_test=2), "test"))
    assert arrays["YY_ground_truth"].shape == (330, 330, 2)
    write_npz(tmp_path / "test.npz", arrays)
    dataset = load_npz_pair(tiny_npz[0], tmp_path / "test.npz")
    assert dataset.reference is not None and dataset.reference.shape == (2, 330, 330)
    assert len(dataset.test) == 2 * 33 * 33


def test_validation_objects_are_not_those_of_the_test(
    simulated: dict[str, np.ndarray],
) -> None:
    validation = dict(simulate(RunConfig(nimgs_val=2, nimgs_test=3), "validation"))
    assert validation["YY_ground_truth"].shape == (330, 330, 2)
    one = dict(simulate(RunConfig(), "validation"))["YY_ground_truth"][..., 0]
    first, second = np.moveaxis(validation["YY_ground_truth"], -1, 0)
    assert np.array_equal(first, one)  # however many there are
    of_test = simulated["YY_ground_truth"][..., 0]
    assert not np.array_equal(first, second) and not np.array_equal(first, of_test)


def small_cache(folder: Path) -> RunConfig:
    return RunConfig(data_dir=str(folder), nimgs_train=1)


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A raster of a tenth of the training patterns: as many as the other two splits have."""
    monkeypatch.setitem(STEP, "train", 12)


@pytest.mark.usefixtures("coarse")
def test_cache_is_reused_checked_and_made_again(tmp_path: Path) -> None:
    config = small_cache(tmp_path)
    first = load_dataset(config)
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npz")}
    assert {p.relative_to(tmp_path).as_posix() for p in files} == {
        "N64/gs1/train.npz",
        "N64/gs1/test.npz",
        "N64/gs1/validation.npz",
    }
    assert load_dataset(config).fingerprint == first.fingerprint
    assert files == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npz")}  # reused

    manifest = json.loads((tmp_path / "N64/gs1/manifest.json").read_text())
    assert manifest["parameters"]["data_seed"] == 0
    # Files that version 0.1 made, which knew no number of validation objects, stay as they are.
    assert "nimgs_val" not in manifest["parameters"]
    several = load_dataset(config.model_copy(update={"nimgs_val": 3})).validation
    assert several is not None and several.reference is not None and len(several.reference) == 3
    assert manifest["content"]["test"] == fingerprint(tmp_path / "N64/gs1/test.npz")

    other = load_dataset(config.model_copy(update={"data_seed": 3}))
    assert other.fingerprint != first.fingerprint  # made again: other parameters

    test = tmp_path / "N64/gs1/test.npz"
    test.write_bytes(test.read_bytes()[:1000])
    repaired = load_dataset(config.model_copy(update={"data_seed": 3}))
    assert repaired.fingerprint == other.fingerprint  # made again: damaged
    assert (tmp_path / "N64/gs1/test.npz.torn-1").stat().st_size == 1000  # and kept aside
    known = (".npz", ".json", ".lock", ".torn-1", "")
    assert not [p for p in tmp_path.rglob("*") if p.suffix not in known]


def test_processes_that_ask_at_once_make_it_once(tmp_path: Path) -> None:
    program = (
        "import logging; logging.basicConfig(level=logging.INFO)\n"
        "from fno_runner.config import RunConfig\n"
        "from fno_runner.data import gridlines, load_dataset\n"
        "gridlines.STEP['train'] = 12\n"
        f"load_dataset(RunConfig(data_dir={str(tmp_path)!r}, nimgs_train=1))\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    output = "".join(p.communicate()[1] for p in processes)
    assert [p.returncode for p in processes] == [0, 0, 0]
    assert output.count("simulated grid lines in") == 1


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    array = np.arange(5)
    write_npz(tmp_path / "a.npz", {"x": array})
    write_npz(tmp_path / "b.npz", {"x": array})
    write_npz(tmp_path / "c.npz", {"x": array + 1})
    a, b, c = (fingerprint(tmp_path / f"{name}.npz") for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("order", ["C", "F"])
def test_read_array_is_what_was_written(tmp_path: Path, order: str) -> None:
    array = np.random.default_rng(0).normal(size=(3, 4, 5)) + 1j
    array = np.asfortranarray(array) if order == "F" else array
    np.savez_compressed(tmp_path / "z.npz", x=array, scalar=np.array(2.5))
    np.testing.assert_array_equal(read_array(tmp_path / "z.npz", "x"), array)
    assert read_array(tmp_path / "z.npz", "scalar") == 2.5


# --- an experimental scan ------------------------------------------------------------------------


def test_scan_holds_a_tenth_out_by_seed(scan_npz: Path) -> None:
    scan = load_scan(scan_npz, 0)
    assert len(scan.test) == 60 and scan.held_out.sum() == 6 and len(scan.train) == 51
    np.testing.assert_array_equal(load_scan(scan_npz, 0).held_out, scan.held_out)
    assert (load_scan(scan_npz, 1).held_out != scan.held_out).any()
    trained = {row.tobytes() for row in scan.train.amplitude}
    assert not trained & {row.tobytes() for row in scan.test.amplitude[scan.held_out]}
    assert scan.reference_kind == "reference" and scan.geometry == Freeform((128, 128))


def test_scan_without_an_object_finds_its_size(scan_npz: Path, tmp_path: Path) -> None:
    arrays = {k: read_array(scan_npz, k) for k in ("diff3d", "probeGuess", "xcoords", "ycoords")}
    arrays["xcoords"] = arrays["xcoords"] - 1000.0  # any origin will do
    write_npz(tmp_path / "scan.npz", arrays)
    scan = load_scan(tmp_path / "scan.npz", 0)
    assert scan.reference is None and scan.reference_kind is None
    assert isinstance(scan.geometry, Freeform)
    first = np.rint(scan.test.positions - (N - 1) / 2)
    assert first.min() >= 0 and (first + N <= np.array(scan.geometry.shape)).all()


@pytest.mark.skipif(not SHARED.exists(), reason="the shared input data are not here")
def test_the_peers_files_and_the_real_scan_load() -> None:
    peer = load_npz_pair(
        SHARED / "peer_gridlines_train1600.npz", SHARED / "peer_gridlines_test.npz"
    )
    assert len(peer.train) == 1600
    assert isinstance(peer.geometry, Raster)
    assert (peer.geometry.step, peer.geometry.rows, peer.geometry.cols) == (10, 33, 33)
    scan = load_scan(SHARED / "aps_siemens_n64.npz", 0)
    assert len(scan.test) == 516 and scan.held_out.sum() == 52


# --- files that are refused ----------------------------------------------------------------------

Spoil = Callable[[dict[str, np.ndarray]], object]


def set_nan(arrays: dict[str, np.ndarray]) -> None:
    arrays["diffraction"][3, 5, 5, 0] = np.nan


def set_negative(arrays: dict[str, np.ndarray]) -> None:
    arrays["diffraction"][3, 5, 5, 0] = -1


SPOILED: dict[str, tuple[Spoil, str]] = {
    "lacks a key": (lambda a: a.pop("diffraction"), "has no array 'diffraction'"),
    "no probe": (lambda a: (a.pop("probeGuess"), a.pop("probe_simulated")), "probeGuess"),
    "another N": (lambda a: a.update(diffraction=np.ones((9, 32, 32, 1), "f4")), "not (patterns"),
    "NaN": (set_nan, "NaN or infinite"),
    "negative": (set_negative, "negative"),
    "zero": (lambda a: a.update(diffraction=np.zeros((9, 64, 64), "f4")), "zero everywhere"),
    "objects": (lambda a: a.update(diffraction=np.array([{}])), "Python objects"),
    "text": (lambda a: a.update(diffraction=np.array(["x"])), "not numbers"),
    "empty": (lambda a: a.update(diffraction=np.zeros((0, 64, 64), "f4")), "empty"),
    "other truth": (lambda a: a.update(YY_ground_truth=np.ones((99, 99, 1), "c8")), "raster"),
    "shuffled": (lambda a: a.update(coords_offsets=a["coords_offsets"][::-1]), "raster"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_npz_is_refused_in_one_line(
    name: str, tiny_npz: tuple[Path, Path], tmp_path: Path
) -> None:
    train, test = tiny_npz
    spoil, said = SPOILED[name]
    with np.load(test) as stored:
        arrays = {key: stored[key] for key in stored.files}
    spoil(arrays)
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError) as error:
        load_npz_pair(train, tmp_path / "bad.npz")
    assert said in str(error.value) and "bad.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_npz_is_refused(tiny_npz: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = tiny_npz
    whole = test.read_bytes()
    flipped = bytearray(whole)
    flipped[-100_000] ^= 0xFF
    cases = {
        "missing.npz": (None, "no such file"),
        "text.npz": (b"hello", "not an NPZ"),
        "cut.npz": (whole[: len(whole) // 2], "not an NPZ"),
        "flipped.npz": (bytes(flipped), "damaged"),
        "empty.npz": (b"", "not an NPZ"),
    }
    for file, (content, said) in cases.items():
        if content is not None:
            (tmp_path / file).write_bytes(content)
        with pytest.raises(UserError, match=said):
            load_npz_pair(train, tmp_path / file)
    with pytest.raises(UserError, match="cannot be read"):
        load_npz_pair(train, tmp_path)


def test_a_header_that_claims_too_much_is_refused_before_memory_is_spent(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)}
    )
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("diffraction.npy", header.getvalue() + bytes(64))
    with pytest.raises(UserError, match="claims 4,000,000,000,000 bytes"):
        read_array(tmp_path / "bomb.npz", "diffraction")
