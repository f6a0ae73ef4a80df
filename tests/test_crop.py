"""A scan of any detector as frames of N px: cut, padded or binned; N is chosen, and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from agent import local
from agent.study.folder import open_study
from agent.study.sweepfile import read_sweep
from fno_runner.config import RunConfig, load_config
from fno_runner.data.crop import bin_ramp
from fno_runner.data.formats import read_scan
from fno_runner.data.frames import Scan
from fno_runner.data.gridlines import diffract, grid_lines_object
from fno_runner.data.npz import read_array, write_npz
from fno_runner.data.probe import zone_plate_probe
from fno_runner.data.scan import load_scan, patterns_of
from fno_runner.errors import UserError
from fno_runner.identity import run_id
from fno_runner.physics import shift_probe
from fno_runner.reconstruct.inference import predicted_amplitude
from fno_runner.reconstruct.stitching import stitch
from fno_runner.runner import run
from fno_runner.scan.command import main
from fno_runner.scan.iterative import reconstruct, residual
from fno_runner.scan.orientation import orient
from fno_runner.score.metrics import r_factor
from tests.studies import result, save
from tests.test_patch_size import sized

# --- a scan --------------------------------------------------------------------------------------


def write_scan(path: Path, size: int, **changed: Any) -> Path:
    """A noiseless scan of `size` px of an object of 2.25 · size, at fractional positions."""
    rng = np.random.default_rng(2)
    side = size * 9 // 4
    obj = (grid_lines_object(rng)[:side, :side] / 4).astype(np.complex64)
    half = size // 2
    centres = rng.uniform(half + 1, side - half - 1, size=(24, 2))
    corner = np.rint(centres).astype(int) - half
    probe = changed.pop("probe", zone_plate_probe(sized(size)) * np.float32(100))
    shift = torch.from_numpy((centres - half - corner).astype(np.float32))
    light = shift_probe(torch.from_numpy(probe), shift).numpy()
    patches = np.stack([obj[r : r + size, c : c + size] for r, c in corner])
    arrays = {"diff3d": diffract((light * patches).astype(np.complex64)), "probeGuess": probe,
              "objectGuess": obj, "xcoords": centres[:, 1], "ycoords": centres[:, 0],
              "pixel_size_m": np.array(1e-8)}  # fmt: skip
    arrays |= changed
    write_npz(path, {key: value for key, value in arrays.items() if value is not None})
    return path


@pytest.fixture(scope="module")
def wide_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("wide") / "scan.npz", 128)


def narrow_probe(size: int, beam: float) -> np.ndarray:
    """A curved beam of Gaussian profile, `beam` px wide (σ)."""
    y, x = np.indices((size, size)) - size // 2
    r2 = x**2 + y**2 + 0.3 * beam * x
    return (100 * np.exp(-r2 / (2 * beam**2) - 0.02j * r2)).astype(np.complex64)


def true_patches(obj: np.ndarray, scan: Scan) -> np.ndarray:
    size = scan.size
    corner = np.rint(scan.positions).astype(int) - size // 2
    return np.stack([obj[r : r + size, c : c + size] for r, c in corner])


def misfit(scan: Scan, obj: np.ndarray) -> float:
    """R of the true object's patches, predicted under the scan's probe."""
    patterns = patterns_of(scan)
    return r_factor(predicted_amplitude(true_patches(obj, scan), patterns, 16), patterns.amplitude)


def test_a_scan_of_128_px_is_what_its_object_diffracts_to(wide_npz: Path) -> None:
    """Positions, remainders and signs are right, and true patches stitch to the object."""
    scan = load_scan(wide_npz, 0, 128)
    assert scan.test.size == 128 and scan.reference is not None and scan.counts_held == 1
    read = read_scan(wide_npz, size=128)
    obj = read_array(wide_npz, "objectGuess")
    assert misfit(read, obj) < 1e-4
    objects, mask = stitch(true_patches(obj, read), scan)
    np.testing.assert_allclose(objects[mask], scan.reference[mask], rtol=1e-3, atol=1e-4)


def test_the_fit_without_a_network_works_at_128_px(wide_npz: Path) -> None:
    scan = read_scan(wide_npz, size=128)
    fit = reconstruct(scan, iterations=12, fit_probe=False)
    assert fit.probe.shape == (1, 128, 128)
    assert residual(fit, scan) < 0.6 * residual(reconstruct(scan, iterations=1), scan)


def test_cutting_makes_pixels_of_the_object_larger(wide_npz: Path) -> None:
    whole, cut = (read_scan(wide_npz, size=size) for size in (128, 64))
    np.testing.assert_array_equal(cut.amplitude, whole.amplitude[:, 32:96, 32:96])
    apart = np.diff(cut.positions, axis=0) - np.diff(whole.positions, axis=0) / 2
    np.testing.assert_allclose(apart, 0, atol=1e-9)
    assert cut.pixel_size == pytest.approx(2 * (whole.pixel_size or 0))
    assert cut.probe is not None and cut.probe.shape == (1, 64, 64)
    inner = diffract(whole.probe)[:, 32:96, 32:96] if whole.probe is not None else None
    assert inner is not None
    np.testing.assert_allclose(diffract(cut.probe), inner, atol=1e-3 * inner.max())


def test_binning_is_exact_for_counts(tmp_path: Path) -> None:
    y, x = np.indices((128, 128)) - 64
    rate = 6e4 * np.exp(-(x**2 + y**2) / (2 * 15**2))
    counts = np.random.default_rng(0).poisson(rate, (24, 128, 128)).astype(np.float64)
    mask = np.ones((128, 128), bool)
    mask[40, 41] = False
    changed = {"diff3d": np.sqrt(counts), "mask": mask, "objectGuess": None}
    scan = read_scan(write_scan(tmp_path / "counts.npz", 128, **changed), size=64, binning=2)
    expected = counts.reshape(24, 64, 2, 64, 2).sum(axis=(2, 4))
    assert scan.mask is not None and np.argwhere(~scan.mask).tolist() == [[20, 20]]
    expected[:, 20, 20] = 0
    summed = np.square(scan.amplitude, dtype=np.float64)
    np.testing.assert_array_equal(np.rint(summed), expected)
    assert scan.crop.counts == pytest.approx(expected.sum() / counts[:, mask].sum(), rel=1e-6)


@pytest.mark.parametrize("sign", ["+", "-"])
def test_a_narrow_beam_loses_nothing_by_binning(sign: str, tmp_path: Path) -> None:
    """The true object explains binned frames under the probe that was brought to them.

    The centre of 2 × 2 pixels is half a pixel off the zero frequency: a ramp over the probe, and
    the opposite one where the transform has the other sign.
    """
    path = write_scan(tmp_path / "narrow.npz", 128, probe=narrow_probe(128, 8.0))
    if sign == "-":
        frames = read_array(path, "diff3d")
        turned = np.roll(frames[:, ::-1, ::-1], (1, 1), (1, 2))
        write_scan(path, 128, probe=narrow_probe(128, 8.0), diff3d=turned)
    scan = orient(read_scan(path, size=64, binning=2), "as-stored", sign)
    assert scan.crop.counts == pytest.approx(1) and (scan.crop.light or 0) > 0.999
    assert scan.pixel_size == pytest.approx(1e-8)  # the object's pixel stays, its window is half
    obj = read_array(path, "objectGuess")
    if sign == "-":  # which forgets the reference and where zero is
        scan = Scan(**{**vars(scan), "positions": read_scan(path, size=64, binning=2).positions})
    assert scan.probe is not None
    r = misfit(scan, obj)
    for power in (1, 2):
        wrong = (scan.probe * bin_ramp(64, 2).conj() ** power).astype(np.complex64)
        other = misfit(Scan(**{**vars(scan), "probe": wrong}), obj) if sign == "+" else 2 * r
        assert r < 0.1 and other > 1.2 * r


# --- the choice of a size, and what is told of it ------------------------------------------------


def framed(path: Path, side: int, spread: float, **changed: Any) -> Path:
    """A scan of `side` px a frame whose counts are a Gaussian of that standard deviation [px]."""
    y, x = np.indices((side, side)) - side // 2
    rng = np.random.default_rng(0)
    frames = np.exp(-(x**2 + y**2) / (4 * spread**2)) * rng.uniform(50, 100, (20, 1, 1))
    arrays = {"diff3d": frames, "probeGuess": frames[0].astype(np.complex64),
              "xcoords": rng.uniform(0, 60, 20), "ycoords": rng.uniform(0, 60, 20)}  # fmt: skip
    write_npz(path, arrays | changed)
    return path


@pytest.mark.parametrize(
    ("side", "spread", "size", "said"),
    [
        (64, 30.0, 64, ""),  # there is no more
        (128, 8.0, 64, "cropped to 64×64: 100 % of the counts"),
        (128, 20.0, 128, "patch_size 128 was chosen: 64 would hold"),
        (96, 20.0, 128, "padded to 128×128; padded pixels are masked"),
        (300, 8.0, 64, "cropped to 64×64"),
        (300, 30.0, 256, "patch_size 256 was chosen: 128 would hold"),
        (300, 70.0, 256, "no patch_size holds 99 % of the counts"),
    ],
)
def test_a_scan_gets_the_smallest_size_that_holds_its_counts(
    side: int, spread: float, size: int, said: str, tmp_path: Path
) -> None:
    path = framed(tmp_path / "s.npz", side, spread)
    scan = read_scan(path)
    assert scan.size == size and said in " ".join(scan.remarks)
    counts = np.square(read_array(path, "diff3d")).sum()
    assert scan.crop.counts == pytest.approx(np.square(scan.amplitude).sum() / counts, rel=1e-4)
    assert (scan.mask is None) == (side >= size)
    if scan.mask is not None:
        assert scan.mask.sum() == side**2


@pytest.mark.parametrize(
    ("side", "size", "binning", "allowed"),
    [
        (64, 256, 1, "64 | 128"),
        (100, 256, 1, "64 | 128"),
        (64, 128, 2, "64"),
        (100, 128, 4, "none"),
    ],
)
def test_a_size_that_the_file_fills_less_than_half_is_refused(
    side: int, size: int, binning: int, allowed: str, tmp_path: Path
) -> None:
    path = framed(tmp_path / "s.npz", side, 8.0)
    with pytest.raises(UserError) as error:
        read_scan(path, size=size, binning=binning)
    assert f"patch_size={size}" in str(error.value) and f"allowed is {allowed}," in str(error.value)
    assert "\n" not in str(error.value)


def test_what_a_file_was_cut_from_counts(tmp_path: Path) -> None:
    """A file that was cut to 128 px is not cut further, though 64 hold 99 % of what is left."""
    path = framed(tmp_path / "s.npz", 128, 11.0, counts_held=np.array(0.992))
    scan = read_scan(path)
    assert scan.size == 128 and scan.crop.counts == pytest.approx(0.992)
    assert read_scan(framed(path, 128, 11.0)).size == 64


def test_a_scan_is_named_by_the_size_that_it_gets(tmp_path: Path) -> None:
    """Given or found: one name. Where 64 px are enough, it is the name that version 0.1 gave."""
    small, large = (framed(tmp_path / f"{n}.npz", 128, n) for n in (8.0, 20.0))
    names = {path: run_id(RunConfig(scan=str(path))) for path in (small, large)}
    assert names[small] == run_id(sized(64, scan=str(small)))
    assert names[large] == run_id(sized(128, scan=str(large)))
    assert names[large] != run_id(sized(64, scan=str(large)))
    assert run_id(load_config({"scan": str(large), "bin": 2})) not in names.values()
    with pytest.raises(UserError, match="modes=100: allowed is an integer ≥ 1 and ≤ 64"):
        run_id(load_config({"scan": str(small), "modes": 100}))


def test_a_run_at_128_px_says_so(tmp_path: Path) -> None:
    """It trains and is scored; its record names the size, and the counts that its frames hold."""
    path = write_scan(tmp_path / "scan.npz", 128, objectGuess=None)
    small = {"width": 2, "modes": 8, "blocks": 1, "cnn_blocks": 0, "epochs": 1}
    folders = {"data_dir": str(tmp_path), "output_dir": str(tmp_path / "study")}
    outcome = run(sized(128, scan=str(path), infer_batch_size=8, **small, **folders))
    record = json.loads((outcome.folder / "result.json").read_text())
    assert record["config"]["patch_size"] == 128
    assert record["provenance"]["counts_held"] == 1
    assert record["provenance"]["dataset"].endswith("-N128")
    assert record["run_id"] == run_id(outcome.result.run_config)
    assert min(read_array(outcome.folder / "recon.npz", "object").shape[1:]) > 200


def test_inspect_says_what_crop_and_bin_lose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_scan(tmp_path / "narrow.npz", 128, probe=narrow_probe(128, 12.0))
    picture = str(tmp_path / "a.png")
    assert main(["inspect", str(path), "--picture", picture, "--patch-size", "128"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "516 of" not in shown and "24 of 128×128 px" in shown
    assert "--patch-size 64: " in shown and "--patch-size 64 --bin 2: 100 % of the counts" in shown
    assert main(["inspect", str(path), "--picture", picture, "--bin", "2"]) == 0
    out = capsys.readouterr()
    assert "24 of 64×64 px" in " ".join(out.out.split())
    assert "2×2 pixels summed to one" in out.err
    assert main(["inspect", str(path), "--patch-size", "96"]) == 2


def test_a_study_of_version_0_1_is_told_that_its_scan_gets_more_pixels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its runs have the names of 64 px, and are done where the sweep file says so."""
    scan = str(framed(tmp_path / "s.npz", 128, 20.0))
    study, sweep = tmp_path / "study", tmp_path / "sweep.yaml"
    parameters = {"scan": {"value": scan}, "width": {"values": [4, 8]}}
    for said, told, done in (({}, True, 0), ({"patch_size": {"value": 64}}, False, 2)):
        asked = {"name": "scan", "method": "grid", "parameters": parameters | said}
        sweep.write_text(yaml.safe_dump(asked))
        if not study.exists():
            open_study(study, read_sweep(sweep))
            for width in (4, 8):
                config = RunConfig(scan=scan, width=width, patch_size=64)
                save(study, [result(**config.model_dump(), run_id=run_id(config))], pictures=False)
        assert local.main([str(sweep), "--study", str(study), "--dry-run"]) == 0
        words = " ".join(capsys.readouterr().out.split())
        assert ("2 of the points were run with frames of 64 px" in words) == told
        assert f"{done} done" in words
