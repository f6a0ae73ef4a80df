"""A trained network put to use on a scan: found, checked, run, and what is written, read back."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from agent.export import export
from fno_runner.apply.command import main
from fno_runner.apply.compatible import likeness
from fno_runner.apply.model import find_model
from fno_runner.config import N, RunConfig
from fno_runner.data.formats import read_scan
from fno_runner.data.npz import read_array
from fno_runner.data.units import ELECTRONVOLT
from fno_runner.errors import UserError
from fno_runner.identity import run_id
from fno_runner.reconstruct.weights import write_weights
from fno_runner.reconstructor import Reconstructor
from fno_runner.result import RunResult, SeedResult, run_folder, write_result
from fno_runner.runner import run
from fno_runner.scan.iterative import Fit, residual
from fno_runner.scan.iterative import reconstruct as fit
from tests.scans import DISTANCE, PIXEL, Simulated, simulate_scan, write_cxi, write_raw
from tests.studies import result

PHOTON = 8800.0
"""[eV]"""
TINY: dict[str, Any] = {"width": 4, "modes": 6, "blocks": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulate_scan()


@pytest.fixture(scope="module")
def scan_file(scan: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan"), scan)


def write_scan(folder: Path, scan: Simulated) -> Path:
    """The scan as a raw NPZ file that tells its geometry, without an object."""
    told = {"pixel_size_m": PIXEL, "photon_energy_ev": PHOTON, "detector_distance_m": DISTANCE}
    arrays = {name: np.array(value) for name, value in told.items()}
    return write_raw(folder / "s.npz", scan, **arrays, objectGuess=None)


@pytest.fixture(scope="module")
def trained(scan_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was trained on the scan for a moment."""
    study = tmp_path_factory.mktemp("study")
    config = RunConfig(**TINY, epochs=3, scan=str(scan_file), output_dir=str(study))
    outcome = run(config)
    assert outcome.result.status == "finished", outcome.result.error
    return outcome.folder


@pytest.fixture(scope="module")
def written(
    trained: Path, scan_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("out") / "made"
    assert main([str(trained), str(scan_file), "-o", str(folder), "--device=cpu"]) == 0
    yield folder


def untrained(folder: Path, vacuum: float = 1.0, **changes: object) -> Path:
    """A run's folder with a network as it begins, but for the level of its answer."""
    made = result(**{**TINY, "cnn_blocks": 1, **changes})
    path = run_folder(folder, made.run_id)
    path.mkdir(parents=True)
    write_result(made, path)
    model = Reconstructor(made.run_config)
    model.state_dict()["network.head.bias"].mul_(vacuum)
    write_weights(path / "model.safetensors", model, 1.0)
    return path


def test_it_is_the_object_and_the_r_of_the_run(trained: Path, written: Path) -> None:
    """The run scored all frames, too; only the level of vacuum is taken from other frames."""
    record = json.loads((written / "reconstruction.json").read_text())
    metrics = json.loads((trained / "result.json").read_text())["metrics"]["r_factor"]
    bounds = [metrics[name] for name in ("train", "held_out", "region")]
    assert min(bounds) - 1e-3 < record["r_own"] < max(bounds) + 1e-3
    ours, theirs = (
        read_array(written / "object.npz", "objectGuess"),
        read_array(trained / "recon.npz", "object")[0],
    )
    seen = read_array(written / "object.npz", "object_seen")
    assert (seen == read_array(trained / "recon.npz", "mask")[0]).all()
    np.testing.assert_allclose(ours[seen], theirs[seen], rtol=0.02)
    assert record["probes_alike"] == pytest.approx(1)


def test_every_file_says_the_same(written: Path, scan_file: Path, scan: Simulated) -> None:
    """Read by this program, by h5py where the specification names the place, and as images."""
    obj = read_array(written / "object.npz", "objectGuess")
    read = read_scan(scan_file)
    # The raw layout: with the frames beside it, it is a scan with our object as its reference.
    arrays = {k: read_array(written / "object.npz", k) for k in ("xcoords", "ycoords")}
    again = read_scan(write_raw(written.parent / "again.npz", scan, objectGuess=obj, **arrays))
    assert again.reference is not None
    np.testing.assert_array_equal(again.reference, obj)
    np.testing.assert_allclose(again.positions, read.positions)
    # The product, beside a file of ptychodus with the patterns.
    with h5py.File(written / "diffraction.h5", "w") as file:
        file["patterns"] = scan.counts
        file["indexes"] = np.arange(len(scan.counts))
    product = read_scan(written / "product.h5")
    (written / "diffraction.h5").unlink()
    assert product.reference is not None and product.probe is not None
    np.testing.assert_array_equal(product.reference, obj)
    np.testing.assert_allclose(product.positions, read.positions, atol=1e-6)
    np.testing.assert_allclose(product.probe, scan.probe, rtol=1e-6)
    assert product.pixel_size == pytest.approx(PIXEL)
    assert product.energy == read.energy == pytest.approx(PHOTON * ELECTRONVOLT)
    assert product.distance == read.distance == DISTANCE
    with h5py.File(written / "object.cxi") as file:
        image = file["entry_1/image_1"]
        assert file["entry_1/instrument_1/source_1/energy"][()] == product.energy
        assert file["entry_1/instrument_1/detector_1/distance"][()] == DISTANCE
        np.testing.assert_array_equal(image["data"], obj)
        seen = read_array(written / "object.npz", "object_seen")
        np.testing.assert_array_equal(image["mask"][()] == 0, seen)
        np.testing.assert_allclose(image["image_size"][:2], np.array(obj.shape[::-1]) * PIXEL)
        moved = file["entry_1/sample_1/geometry_1/translation"][()]
        steps = np.diff(moved[:, 1::-1], axis=0) / PIXEL
        np.testing.assert_allclose(steps, np.diff(read.positions, axis=0), atol=1e-6)
    for name, expected in (("amplitude.tif", np.abs(obj)), ("phase.tif", None)):
        with tifffile.TiffFile(written / name) as tiff:
            page = tiff.pages.first
            values = page.asarray()
            assert values.dtype == np.float32 and values.shape == obj.shape
            pixels, centimetres = page.tags["XResolution"].value
            assert 1e-2 * centimetres / pixels == pytest.approx(PIXEL, rel=1e-5)
            assert page.tags["ResolutionUnit"].value == 3  # centimetres
        assert (np.isnan(values) == ~seen).all()
        if expected is not None:
            np.testing.assert_allclose(values[seen], expected[seen], rtol=1e-6)
    with Image.open(written / "object.png") as picture:
        assert min(picture.size) > 400


def test_what_is_there_is_never_overwritten(
    trained: Path, scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    arguments = [str(trained), str(scan_file), "-o", str(tmp_path / "out"), "--device=cpu"]
    assert main(arguments) == 0 and main(arguments) == 0
    assert str(tmp_path / "out-3") in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-2", "out-3"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_disk_that_fills_leaves_nothing(trained: Path, scan_file: Path, tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "from fno_runner.apply.command import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, trained, scan_file, "-o", tmp_path / "out"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3 and "cannot write" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_study_is_its_recommended_run(tmp_path: Path) -> None:
    """The cheapest that is near enough; of its seeds the one that is best on validation."""
    values = {1: 0.60, 2: 0.70, 3: 0.65}
    for width, offset in ((4, 0.0), (8, -0.4)):
        for seed, ssim in values.items():
            metrics = {"ssim": (0.9, ssim + offset), "psnr": (20.0, 20.0), "mae": (0.1, 0.1)}
            untrained(tmp_path, width=width, seed=seed, validation=metrics)
    with pytest.raises(UserError, match=r"agent\.export"):
        find_model(tmp_path)
    found = export(tmp_path)
    command = f"python -m fno_runner.reconstruct {tmp_path} SCAN"
    assert [found.use(one) for one in found.series] == [command]
    assert command in (tmp_path / "report.html").read_text()
    model = find_model(tmp_path)
    assert (model.config.width, model.config.seed) == (4, 2)
    assert model.load(torch.device("cpu")) is not None


def test_of_a_runs_seeds_the_best_on_validation_is_taken(tmp_path: Path) -> None:
    """The first that finished has the run's own file, the others one each."""
    config = RunConfig(**TINY, replicates=3)
    seeds = [
        SeedResult(seed=0, status="collapsed", validation={"ssim": (0.9, 0.9)}),
        SeedResult(seed=1, status="finished", validation={"ssim": (0.9, 0.3)}),
        SeedResult(seed=2, status="finished", validation={"ssim": (0.9, 0.5)}),
    ]
    made = RunResult(
        run_id=run_id(config), status="finished", config=config.model_dump(), seeds=seeds
    )
    write_result(made, tmp_path)
    for place, name in enumerate(("model-seed0", "model", "model-seed2")):
        model = Reconstructor(config)
        write_weights(tmp_path / f"{name}.safetensors", model, 1.0 + place)
    assert find_model(tmp_path).weights.name == "model-seed2.safetensors"
    assert find_model(tmp_path).config.replicates == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no recommendation of this program"),
        pytest.param("[" * 100_000, "no recommendation of this program", id="deep"),
        ('{"schema_version": 1, "series": [{"name": "", "recommended": null}]}', "no finished run"),
        (
            '{"schema_version": 1, "series": [{"name": "", "recommended": '
            '{"run_ids": ["../../etc"]}}]}',
            "no names of runs",
        ),
        (
            '{"schema_version": 1, "series": [{"name": "a", "recommended": '
            '{"run_ids": ["0123456789ab"]}}, {"name": "b", "recommended": '
            '{"run_ids": ["0123456789ac"]}}]}',
            "give the folder of a run",
        ),
    ],
)
def test_a_study_that_recommends_nothing_says_so(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "recommendation.json").write_text(content)
    with pytest.raises(UserError, match=said):
        find_model(tmp_path)


def test_beams_are_alike_whatever_their_phase_brightness_and_modes() -> None:
    rng = np.random.default_rng(0)
    probe = rng.normal(size=(2, 8, 8)) + 1j * rng.normal(size=(2, 8, 8))
    mixing, _ = np.linalg.qr(rng.normal(size=(2, 2)) + 1j * rng.normal(size=(2, 2)))
    mixed = 7j * np.einsum("kl,lyx->kyx", mixing, probe)
    assert likeness(probe, mixed) == pytest.approx(1)
    one, other = np.zeros((2, 1, 8, 8), complex)
    one[0, 0, 0] = other[0, 1, 1] = 1
    assert likeness(one, other) == 0
    assert likeness(one, np.concatenate([one, other])) == pytest.approx(np.sqrt(0.5))


def test_a_network_of_amplitudes_refuses_another_probe(
    tmp_path: Path, scan_file: Path, scan: Simulated, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was trained with the simulated probe, which the scan has, too, only brighter."""
    model = untrained(tmp_path, conditioning="amplitude")
    assert main([str(model), str(scan_file), "-o", str(tmp_path / "same"), "--device=cpu"]) == 0
    other = write_raw(tmp_path / "o.npz", scan, probeGuess=np.roll(scan.probe[0], 9, axis=0))
    arguments = [str(model), str(other), "-o", str(tmp_path / "other"), "--device=cpu"]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "alike to 0." in said and "--any-probe" in said
    assert not (tmp_path / "other").exists()
    assert main([*arguments, "--any-probe"]) == 0
    # One that is told the probe takes any.
    told = untrained(tmp_path / "told")
    assert main([str(told), str(other), "-o", str(tmp_path / "told_out"), "--device=cpu"]) == 0


def test_a_scan_without_a_probe_takes_another_ones(
    trained: Path, scan: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = write_cxi(tmp_path / "bare.cxi", scan, instrument_1__source_1__probe=None)
    arguments = [str(trained), str(bare), "-o", str(tmp_path / "out"), "--device=cpu"]
    assert main(arguments) == 2
    assert "--probe" in capsys.readouterr().err
    assert main([*arguments, "--probe", str(trained)]) == 0
    np.testing.assert_allclose(
        read_array(tmp_path / "out" / "object.npz", "probeGuess"), scan.probe[0], rtol=1e-6
    )


def test_a_record_has_the_command_that_made_it(
    trained: Path, scan_file: Path, tmp_path: Path
) -> None:
    """With whose probe, say; also in the files for other programs."""
    words = [str(trained), str(scan_file), f"--probe={trained}", "-o", str(tmp_path / "the object")]
    assert main(words) == 0
    out = tmp_path / "the object"
    with h5py.File(out / "product.h5") as product, h5py.File(out / "object.cxi") as cxi:
        said = [
            json.loads((out / "reconstruction.json").read_text())["command"],
            product.attrs["comments"],
            cxi["entry_1/image_1/process_1/command"][()].decode(),
        ]
    assert [shlex.split(command)[3:] for command in said] == [words] * 3


def test_models_that_are_none_say_what_is_wrong(
    trained: Path, scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = untrained(tmp_path / "failed", status="failed", metrics={})
    torn = untrained(tmp_path / "torn")
    weights = (torn / "model.safetensors").read_bytes()
    (torn / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    foreign = untrained(tmp_path / "foreign")
    write_weights(
        foreign / "model.safetensors", Reconstructor(RunConfig(**TINY, cnn_blocks=2)), 1.0
    )
    edited = untrained(tmp_path / "edited", input_transform="sqrt")
    record = (edited / "result.json").read_text().replace('"sqrt"', '"log1p"')
    (edited / "result.json").write_text(record)
    for model, said in (
        (edited, "input_transform=sqrt"),
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path, "neither a run's folder"),
        (trained / "model.safetensors", "give the folder"),
        (failed, "has failed"),
        (torn, "not a whole safetensors file"),
        (foreign, "not of the network of its configuration"),
    ):
        assert main([str(model), str(scan_file), "-o", str(tmp_path / "out")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_size_is_brought_to_the_networks(
    trained: Path, scan: Simulated, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wide = np.pad(np.sqrt(scan.counts), ((0, 0), (32, 32), (32, 32)))
    far = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(scan.probe[0]), norm="ortho"))
    far = np.pad(far, 32)
    probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(far), norm="ortho"))
    large = write_raw(
        tmp_path / "large.npz", scan, diff3d=wide, probeGuess=probe.astype(np.complex64),
        objectGuess=None, xcoords=2 * scan.positions[:, 1], ycoords=2 * scan.positions[:, 0],
    )  # fmt: skip
    assert main([str(trained), str(large), "-o", str(tmp_path / "out"), "--device=cpu"]) == 0
    assert "frames of 128×128 px are cropped to 64×64" in caplog.text
    assert read_array(tmp_path / "out" / "object.npz", "probeGuess").shape == (N, N)


def test_refining_begins_with_the_networks_object(
    trained: Path, scan_file: Path, tmp_path: Path
) -> None:
    """From the true object a pass stays at the truth, in whatever units; from vacuum it is far."""
    scan = read_scan(scan_file)
    assert scan.probe is not None
    truth = np.ones(scan.shape, np.complex64)
    simulated = simulate_scan()
    shift = np.rint(simulated.positions[0] - scan.positions[0]).astype(int)
    height, width = (np.array(scan.shape) + shift).tolist()
    inside = simulated.obj[shift[0] : height, shift[1] : width]
    truth[: inside.shape[0], : inside.shape[1]] = inside
    for factor in (1, 5):
        brighter = replace(scan, probe=scan.probe / np.float32(factor))
        r = [
            fit(brighter, iterations=1, fit_probe=False, first_object=first).r[0]
            for first in (factor * truth, None)
        ]
        assert r[0] < 0.7 * r[1]
    out = tmp_path / "out"
    arguments = [str(trained), str(scan_file), "-o", str(out), "--device=cpu"]
    assert main([*arguments, "--refine=3", "--refine-probe", "--compare"]) == 0
    record = json.loads((out / "reconstruction.json").read_text())
    told = record["refined"]
    assert record["r"] == told["from_network"]["r"] < record["r_of_network"]
    assert len(told["from_vacuum"]["r_of_passes"]) == 3
    # R is that of what was written: object, probe and positions belong together.
    obj, probe = (read_array(out / "object.npz", name) for name in ("objectGuess", "probeGuess"))
    written_fit = replace(scan, reference=obj, probe=probe[None])
    assert residual(Fit(obj, probe[None], scan.positions, 0.0, ()), written_fit) == pytest.approx(
        record["r"], rel=1e-5
    )
