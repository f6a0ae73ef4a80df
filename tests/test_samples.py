"""Samples simulated under a scan's own probe, and passes over the overlap of patches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fno_runner.config import KINDS, N, RunConfig, load_config
from fno_runner.data import load_dataset
from fno_runner.data.beam import Beam, beam_of
from fno_runner.data.dataset import Dataset, Freeform
from fno_runner.data.gridlines import OBJECT, simulate, step_of
from fno_runner.data.npz import write_npz
from fno_runner.data.samples import thin_sample
from fno_runner.data.scan import load_scan, patterns_of, scan_of
from fno_runner.errors import UserError
from fno_runner.identity import run_id
from fno_runner.overlap import Overlap
from fno_runner.reconstruct.inference import predicted_amplitude
from fno_runner.reconstruct.stitching import cut, stitch
from fno_runner.runner import run
from fno_runner.score.floors import ITERATIONS
from fno_runner.score.metrics import score
from tests.commands import python_m


@pytest.mark.parametrize("kind", KINDS)
def test_a_thin_sample_absorbs_and_turns_the_phase_but_never_amplifies(kind: str) -> None:
    for seed in range(4):
        sample = thin_sample(kind, 128, np.random.default_rng(seed))
        modulus, phase = np.abs(sample), np.angle(sample)
        assert sample.shape == (128, 128) and sample.dtype == np.complex64
        assert modulus.min() > 0.7 and modulus.max() <= 1 + 1e-6
        assert 0.2 < np.ptp(phase) <= 2.5 + 1e-6
        # One homogeneous material: −ln|O| and φ are both proportional to its thickness.
        np.testing.assert_allclose(
            -np.log(modulus) * phase.ravel()[np.abs(phase).argmax()],
            phase * -np.log(modulus.min()),
            atol=1e-4,
        )


@pytest.fixture(scope="module")
def brilliant(scan_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scan with two modes of the probe, a blind detector pixel and nearly no photon noise."""
    arrays = dict(np.load(scan_npz))
    probe = arrays["probeGuess"]
    arrays["probeGuess"] = np.stack([probe, 0.4 * np.roll(probe, 5, axis=0)])
    arrays["diff3d"] = arrays["diff3d"] * np.float32(1e4)
    arrays["diff3d"][:, 3, 4] = np.nan
    path = tmp_path_factory.mktemp("brilliant") / "scan.npz"
    write_npz(path, arrays)
    return path


def test_a_simulated_pattern_is_the_forward_model_under_the_scans_probe(brilliant: Path) -> None:
    config = RunConfig(probe_file=str(brilliant), objects="stars", nphotons=1e14)
    beam = beam_of(config)
    scan = load_scan(brilliant, 0).test
    np.testing.assert_array_equal(beam.probe, scan.probe)
    arrays = dict(simulate(config, "test", beam=beam))
    positions = arrays["coords_offsets"][:, 0, :, 0]
    first = positions - (N - 1) / 2
    remainders = first - np.rint(first)
    assert beam.remainders is not None
    assert np.ptp(remainders) == pytest.approx(np.ptp(beam.remainders), abs=1e-3)
    obj, some = arrays["YY_ground_truth"][..., 0], [0, 500, len(positions) - 1]
    for n in some:
        row, col = np.rint(first[n]).astype(int)
        k = np.fft.fftfreq(N)
        ramp = np.exp(-2j * np.pi * (k[:, None] * remainders[n, 0] + k * remainders[n, 1]))
        moved = np.fft.ifft2(np.fft.fft2(beam.probe.astype(complex)) * ramp)
        far = np.fft.fft2(moved * obj[row : row + N, col : col + N], norm="ortho")
        expected = np.fft.fftshift(np.sqrt((np.abs(far) ** 2).sum(0)))
        expected[3, 4] = 0
        measured = arrays["diffraction"][n, ..., 0]
        np.testing.assert_allclose(measured, expected, atol=2e-4 * expected.max())


def test_photons_and_noise_are_the_scans(scan_npz: Path) -> None:
    """The chi-square of counts about what the true object predicts is one a pixel."""
    scan = load_scan(scan_npz, 0).test
    counts = float(np.square(scan.amplitude.astype(float)).sum() / len(scan))
    config = RunConfig(probe_file=str(scan_npz), objects="textures")
    beam = beam_of(config)
    assert beam.photons == pytest.approx(counts)
    arrays = dict(simulate(config, "test", beam=beam))
    amplitude = arrays["diffraction"][..., 0]
    to_counts = counts / np.square(amplitude, dtype=np.float64).sum((1, 2)).mean()
    positions = arrays["coords_offsets"][:, 0, :, 0]
    patterns = replace(scan, amplitude=amplitude, positions=positions)
    truth = arrays["YY_ground_truth"][..., 0]
    expected = predicted_amplitude(cut(truth, positions, N), patterns, 128).astype(float) ** 2
    expected, measured = expected * to_counts, amplitude.astype(float) ** 2 * to_counts
    bright = expected > 5
    chi2 = ((measured - expected)[bright] ** 2 / expected[bright]).mean()
    assert chi2 == pytest.approx(1, abs=0.05)
    assert beam_of(RunConfig(probe_file=str(scan_npz), nphotons=1e5)).photons == 1e5


def test_kinds_take_turns_and_each_is_another_data_set() -> None:
    config = RunConfig(objects="discs, stars", nimgs_train=3)
    beam = Beam(np.ones((N, N), np.complex64), 1e6)
    arrays = dict(simulate(config, "train", beam=beam))
    assert arrays["YY_full"].shape == (3, OBJECT, OBJECT, 1)
    assert float(arrays["norm_Y_I"]) == 1
    side = len(range(0, OBJECT - N + 1, step_of(config, "train")))
    assert arrays["diffraction"].shape == (3 * side**2, N, N, 1)
    flat = np.abs(np.diff(np.abs(arrays["YY_full"][..., 0]), axis=2)) < 1e-6
    assert (flat.mean((1, 2)) > 0.2).all()  # lines slope everywhere


def test_new_knobs_rename_no_run_and_count_when_used(scan_npz: Path, tmp_path: Path) -> None:
    assert run_id(RunConfig(objects="lines", overlap_passes=0)) == run_id(RunConfig())
    copy = tmp_path / "other.npz"
    copy.write_bytes(scan_npz.read_bytes())
    names = [
        run_id(config)
        for config in (
            RunConfig(),
            RunConfig(objects="discs"),
            RunConfig(overlap_passes=1),
            RunConfig(probe_file=str(scan_npz)),
        )
    ]
    assert len(set(names)) == len(names)
    assert run_id(RunConfig(probe_file=str(copy))) == names[-1]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"objects": "lines,cats"}, "stars"),
        ({"objects": "lines,lines"}, "objects"),
        ({"objects": ""}, "objects"),
        ({"objects": 3}, "stars"),
        ({"objects": "lines,discs,stars"}, "nimgs_train"),
        ({"objects": "discs", "scan": "s.npz"}, "objects"),
        ({"probe_file": "p.npz", "scan": "s.npz"}, "probe_file"),
        ({"probe_file": "p.npz", "nimgs_test": 2}, "nimgs_test"),
        ({"probe_file": "p.npz", "nimgs_val": 2}, "nimgs_val"),
        ({"overlap_passes": -1}, "overlap_passes"),
    ],
)
def test_what_cannot_be_simulated_is_refused(values: dict[str, object], named: str) -> None:
    with pytest.raises(UserError, match=named):
        load_config(values)


def test_a_probe_file_that_cannot_be_used_is_named(scan_npz: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(scan_npz))
    faint, blind = tmp_path / "faint.npz", tmp_path / "blind.npz"
    write_npz(faint, arrays | {"diff3d": arrays["diff3d"] * np.float32(1e-4)})
    write_npz(blind, {k: v for k, v in arrays.items() if k != "probeGuess"})
    for path, words in ((faint, "say nphotons"), (blind, "has no probe")):
        with pytest.raises(UserError, match=words):
            load_dataset(RunConfig(probe_file=str(path), data_dir=str(tmp_path)))


@pytest.fixture(scope="module")
def before_the_scan(scan_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("before")
    return RunConfig(
        width=4,
        modes=6,
        blocks=2,
        epochs=1,
        train_patterns=200,
        probe_file=str(scan_npz),
        objects="discs",
        nimgs_train=1,
        device="cpu",
        data_dir=str(folder / "data"),
        output_dir=str(folder / "study"),
        overlap_passes=2,
    )


def test_a_network_trained_before_the_scan_reconstructs_it(
    before_the_scan: RunConfig, scan_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ITERATIONS, "projection_50", 1)  # fifty are no matter of this test
    outcome = run(before_the_scan)
    result = outcome.result
    assert result.status in ("finished", "collapsed"), result.error
    assert result.metrics_against == "truth" and "r_factor" not in result.metrics.scan
    overlap = result.metrics.scan["overlap"]
    after, before = overlap["r_after"], overlap["r_before"]
    assert after is not None and before is not None and 0 < after < before
    if result.status == "collapsed":
        pytest.fail(str(result.error))
    took = result.timing["overlap_time_s"]
    assert took is not None and result.inference_time_s is not None
    assert 0 < took < result.inference_time_s
    p90 = result.timing["inference_time_p90_s"]
    rate = result.timing["inference_patterns_per_s"]
    assert p90 is not None and rate is not None and p90 >= result.inference_time_s
    assert rate * result.inference_time_s == pytest.approx(len(load_dataset(before_the_scan).test))
    done = python_m(
        "fno_runner.reconstruct", str(outcome.folder), str(scan_npz), "-o", str(tmp_path / "out")
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "out" / "reconstruction.json").read_text())
    assert 0 < told["r"] < 1


def test_the_data_are_kept_and_belong_to_their_probe(before_the_scan: RunConfig) -> None:
    first = load_dataset(before_the_scan)
    assert isinstance(first.geometry, Freeform) and first.reference_kind == "truth"
    again = load_dataset(before_the_scan)
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.train.positions, first.train.positions)
    other = load_dataset(before_the_scan.model_copy(update={"objects": "stars"}))
    assert other.fingerprint != first.fingerprint


@pytest.mark.parametrize("kind", ["raster", "scan"])
def test_passes_over_the_overlap_bring_a_wrong_object_to_the_truth(
    kind: str, tiny: Dataset, scan_npz: Path
) -> None:
    """Patches of vacuum are the worst network's; neighbours agree on the truth within passes."""
    dataset = tiny if kind == "raster" else load_scan(scan_npz, 0)
    vacuum = np.full(dataset.test.amplitude.shape, 0.5, np.complex64)
    overlap = Overlap(20, torch.device("cpu"))
    plain, mask = stitch(vacuum, dataset)
    better, seen = stitch(vacuum, dataset, overlap)
    assert plain.shape == better.shape
    np.testing.assert_array_equal(mask, seen)
    assert overlap.r_after[0] < 0.4 * overlap.r_before[0]
    assert dataset.reference is not None
    before, after = (score(o, dataset.reference, mask)["mae"] for o in (plain, better))
    assert after[0] < before[0] and after[1] < 0.7 * before[1]


def test_patterns_and_scans_are_the_same_frames(scan_npz: Path) -> None:
    patterns = load_scan(scan_npz, 0).test
    again = patterns_of(scan_of(patterns, (128, 128)))
    np.testing.assert_allclose(again.positions, patterns.positions, atol=1e-4)
    np.testing.assert_array_equal(again.probe, patterns.probe)
