"""Reconstruction without a network, which way round a scan is, and scores that need no truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fno_runner.config import N
from fno_runner.data.dataset import Dataset
from fno_runner.data.formats import read_scan
from fno_runner.data.frames import Scan, beam_diameter, step
from fno_runner.data.npz import read_array
from fno_runner.data.scan import load_scan
from fno_runner.result import Metrics
from fno_runner.scan.command import main
from fno_runner.scan.inspection import poisson_floor
from fno_runner.scan.iterative import orthogonal_modes, reconstruct, residual
from fno_runner.scan.orientation import check, orient
from fno_runner.score.metrics import score
from fno_runner.score.quantities import QUANTITIES
from fno_runner.score.without_truth import add_halves, correlate_halves, score_without_truth
from tests.conftest import SHARED
from tests.scans import Simulated, simulate_scan, write_cxi, write_raw

FRAMES = 40


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return simulate_scan(frames=FRAMES)


@pytest.fixture(scope="module")
def raw(simulated: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp("raw") / "scan.npz", simulated)


@pytest.fixture(scope="module")
def scan(raw: Path) -> Scan:
    return read_scan(raw)


def test_the_noise_floor_is_what_the_truth_leaves(simulated: Simulated, scan: Scan) -> None:
    """The true object under the true probe misses the counts by their own noise, no more."""
    assert scan.reference is not None and scan.probe is not None
    truth = reconstruct(scan, iterations=1, fit_probe=False)
    truth = replace(truth, obj=simulated.obj, probe=simulated.probe)
    assert residual(truth, scan) == pytest.approx(poisson_floor(scan), rel=0.1)


def test_a_blind_fit_reaches_the_noise_and_finds_the_object(
    simulated: Simulated, scan: Scan
) -> None:
    """From a probe that is too wide; the part of the object that is well lit is compared."""
    assert scan.probe is not None
    y, x = np.indices((N, N)) - N // 2
    poor = scan.probe * np.exp(-(x**2 + y**2) / 30**2 + 0.003j * x * y)
    start = replace(scan, probe=poor.astype(np.complex64))
    fit = reconstruct(start, iterations=20)
    assert fit.r[0] > 0.1
    assert residual(fit, start) < 1.6 * poisson_floor(scan)
    middle = np.zeros(simulated.obj.shape, bool)
    middle[44:84, 44:84] = True
    pearson = score(fit.obj[None], simulated.obj[None], middle[None])["pearson"]
    assert pearson[1] > 0.95


def test_a_second_mode_explains_what_one_cannot(tmp_path: Path) -> None:
    scan = read_scan(write_raw(tmp_path / "s.npz", simulate_scan(modes=2, frames=FRAMES)))
    one, two = (reconstruct(scan, modes=modes, iterations=8) for modes in (1, 2))
    assert residual(two, scan) < 0.75 * residual(one, scan)
    assert two.probe.shape == (2, N, N)


def test_modes_are_made_orthogonal_and_keep_their_intensity() -> None:
    """What can be seen is Σ|modes|² under every linear map, so the density matrix: it is kept."""
    rng = np.random.default_rng(0)
    modes = (rng.normal(size=(3, 8, 8)) + 1j * rng.normal(size=(3, 8, 8))).astype(np.complex64)
    found = orthogonal_modes(modes)
    flat, made = modes.reshape(3, -1), found.reshape(3, -1)
    np.testing.assert_allclose(made.T @ made.conj(), flat.T @ flat.conj(), atol=1e-4)
    overlap = made.conj() @ made.T
    np.testing.assert_allclose(overlap, np.diag(np.diag(overlap)), atol=1e-3)
    assert (np.diff(np.diag(overlap).real) < 0).all()


def test_a_held_probe_keeps_its_brightness(scan: Scan) -> None:
    """A film before the whole sample makes the object darker, and not the beam."""
    assert scan.probe is not None
    filmed = replace(scan, amplitude=scan.amplitude * np.float32(0.6))
    without, behind = (reconstruct(s, iterations=2, fit_probe=False) for s in (scan, filmed))
    for fit in (without, behind):
        np.testing.assert_allclose(fit.probe, scan.probe, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(behind.obj, 0.6 * without.obj, rtol=1e-3)
    fitted = reconstruct(filmed, iterations=2)
    assert np.linalg.norm(fitted.probe) < 0.7 * np.linalg.norm(behind.probe)


def test_a_fitted_probe_has_the_frames_mean_counts(scan: Scan) -> None:
    """P·O leaves open which of both is how bright: a descent drifts to an object that amplifies."""
    assert scan.probe is not None
    start = replace(scan, probe=scan.probe * np.exp(0.5j * np.angle(scan.probe)))
    for positions in (False, True):
        fit = reconstruct(start, iterations=20, fit_positions=positions)
        counts = np.square(scan.amplitude, dtype=float).sum() / len(scan)
        assert np.linalg.norm(fit.probe) ** 2 == pytest.approx(counts, rel=1e-3)
        assert residual(fit, start) == pytest.approx(fit.r[-1], rel=0.1)


def test_positions_are_corrected_when_asked(scan: Scan) -> None:
    rng = np.random.default_rng(3)
    off = replace(scan, positions=scan.positions + rng.normal(0, 0.35, scan.positions.shape))
    kept = reconstruct(off, iterations=12, fit_probe=False)
    moved = reconstruct(off, iterations=12, fit_probe=False, fit_positions=True)
    assert residual(moved, off) < 0.9 * residual(kept, off)

    def error(positions: np.ndarray) -> float:
        apart = positions - scan.positions
        return float((apart - apart.mean(axis=0)).std())

    assert error(moved.positions) < 0.6 * error(off.positions)
    np.testing.assert_array_equal(kept.positions, off.positions)


def test_frames_left_out_do_not_matter(scan: Scan) -> None:
    frames = np.arange(len(scan)) % 4 > 0
    spoiled = scan.amplitude.copy()
    spoiled[~frames] = 1
    fits = [
        reconstruct(replace(scan, amplitude=a), iterations=2, fit_probe=False, frames=frames)
        for a in (scan.amplitude, spoiled)
    ]
    np.testing.assert_array_equal(fits[0].obj, fits[1].obj)


# --- which way round ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "answer"), [("-columns", "-columns"), ("transpose", "transpose")]
)
def test_the_way_round_is_found(stored: str, answer: str, scan: Scan) -> None:
    """Each of these is its own inverse: done once more, the positions are right."""
    found = check(orient(scan, stored, "-"))
    assert len(found) == 16
    best, second = found[:2]
    assert (best.orientation, best.sign) == (stored, "-")
    assert second.r / best.r > 1.3


def test_the_other_sign_is_the_pattern_turned(scan: Scan) -> None:
    """|F⁻¹ψ|(k) = |Fψ|(−k), and turning twice is turning not at all."""
    wave = torch.randn(N, N, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    forward, backward = (
        np.fft.fftshift(np.abs(f(wave.numpy()))) for f in (np.fft.fft2, np.fft.ifft2)
    )
    one = replace(scan, amplitude=np.repeat(forward[None], len(scan), 0).astype(np.float32))
    turned = orient(one, "as-stored", "-")
    ratio = turned.amplitude[0] / backward
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-3)
    np.testing.assert_array_equal(orient(turned, "as-stored", "-").amplitude, one.amplitude)


# --- scores without truth -------------------------------------------------------------------------


def scores(patches: np.ndarray, dataset: Dataset) -> Metrics:
    patches = patches.astype(np.complex64)
    metrics = score_without_truth(patches, dataset, 32)
    add_halves(metrics, correlate_halves(patches, dataset), dataset.pixel_size)
    return metrics


def true_patches(simulated: Simulated) -> np.ndarray:
    corner = np.rint(simulated.positions).astype(int) - N // 2
    return np.stack([simulated.obj[r : r + N, c : c + N] for r, c in corner])


def test_the_truth_scores_as_well_as_noise_allows(raw: Path, simulated: Simulated) -> None:
    dataset = load_scan(raw, 0)
    metrics = scores(true_patches(simulated), dataset)
    r = metrics.scan["r_factor"]
    floor = poisson_floor(read_scan(raw))
    for name in ("train", "held_out", "region"):
        assert r[name] == pytest.approx(floor, rel=0.25)
    # Stitched and cut out again it predicts the same.
    assert r["held_out_from_object"] == pytest.approx(floor, rel=0.3)
    assert metrics.pairs["frc_halves"] == (0.5, 0.5)
    assert metrics.scan["resolution"] == {"px": 1.0, "nm": None}


def test_patches_that_disagree_are_found_out(raw: Path, simulated: Simulated) -> None:
    """Noise of each patch's own leaves the halves nothing in common at fine detail."""
    dataset = load_scan(raw, 0)
    rng = np.random.default_rng(0)
    good = true_patches(simulated)
    noise = rng.normal(size=good.shape) + 1j * rng.normal(size=good.shape)
    clean, noisy = scores(good, dataset), scores(good + 0.5 * noise, dataset)
    for name in ("r_factor", "deviance"):
        before, after = clean.scan[name], noisy.scan[name]
        assert all(
            (after[key] or 0) > (value or 0) for key, value in before.items() if value is not None
        )
    for name in ("frc_halves", "frc_halves_half_bit"):
        ends = noisy.pairs[name][1]
        assert ends is not None and ends < 0.3


def test_every_score_has_a_column(raw: Path, simulated: Simulated) -> None:
    from agent.study.records import columns_of

    metrics = scores(true_patches(simulated), load_scan(raw, 0))
    of_scan = {column for column, quantity in QUANTITIES.items() if quantity.of == "scan"}
    assert set(columns_of(metrics)) == of_scan


# --- python -m fno_runner.data --------------------------------------------------------------------


def test_inspect_prints_and_draws(
    simulated: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_cxi(tmp_path / "scan.cxi", simulated)
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    for words in ("CXI", "40 of 64×64 px", "1 mode (100 %)", "nm", "overlap", "scan.png"):
        assert words in said
    assert (tmp_path / "scan.png").read_bytes().startswith(b"\x89PNG")


def test_probe_writes_what_training_reads_and_overwrites_nothing(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.npz"
    options = ["probe", str(raw), "--modes", "2", "--iterations", "2", "--leave-out"]
    assert main([*options, "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "on frames left out" in said and "patterns/s" in said
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    dataset = load_scan(output, 0)
    assert dataset.train.probe.shape == (2, N, N)
    assert dataset.reference is not None and dataset.reference_kind == "reference"
    np.testing.assert_array_equal(dataset.test.amplitude, read_array(raw, "diff3d"))
    before = output.read_bytes()
    assert main([*options, "--output", str(output)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert output.read_bytes() == before


def test_an_inspection_draws_over_its_own_pictures_only(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scan given as --output by mistake is a scan afterwards; what is found is told anyway."""
    path, photo = tmp_path / "s.npz", tmp_path / "s.png"
    path.write_bytes(before := raw.read_bytes())
    assert main(["inspect", str(path), "--output", str(path)]) == 2
    assert path.read_bytes() == before and str(path) in capsys.readouterr().err
    photo.write_text("mine")
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr()
    assert photo.read_text() == "mine" and str(photo) in said.err and "64×64 px" in said.out
    again = ["inspect", str(path), "--output", str(tmp_path / "i.png")]
    assert main(again) == 0 and main(again) == 0


@pytest.mark.parametrize("name", ["fit.png", "fit.v2", "fit.npz", "fit"])
def test_the_picture_of_a_fit_overwrites_nothing(name: str, raw: Path, tmp_path: Path) -> None:
    """Neither the fit, whatever it is called, nor a picture that is there."""
    before = {"fit.png", "fit.v2.png", "fit.png.png"} - {name}
    for foreign in before:
        (tmp_path / foreign).write_text("mine")
    options = ["probe", str(raw), "--iterations=1", "--output"]
    assert main([*options, str(tmp_path / name)]) == 2
    assert {path.name for path in tmp_path.iterdir()} == before
    assert {path.read_text() for path in tmp_path.iterdir()} == {"mine"}
    output = tmp_path / "free" / name
    assert main([*options, str(output)]) == 0
    assert read_array(output, "probeGuess").shape == (N, N)
    (picture,) = (path for path in output.parent.iterdir() if path != output)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_probe_is_found_for_a_scan_without_one(simulated: Simulated, tmp_path: Path) -> None:
    path = write_raw(tmp_path / "s.npz", simulated, probeGuess=None, objectGuess=None)
    assert main(["probe", str(path), "--iterations", "3"]) == 0
    assert load_scan(tmp_path / "s.probe1.npz", 0).train.probe.shape == (N, N)


def test_geometry_of_a_beam() -> None:
    """A disk's effective diameter is its own; a raster's step is its pitch."""
    y, x = np.indices((N, N)) - N // 2
    disk = (np.hypot(x, y) <= 12).astype(np.complex64)
    assert beam_diameter(disk[None]) == pytest.approx(24, rel=0.05)
    raster = np.stack(np.meshgrid(np.arange(5) * 7.0, np.arange(4) * 9.0), axis=-1).reshape(-1, 2)
    assert step(raster) == pytest.approx(7)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="the shared input data are not here")
def test_the_real_scan_is_the_right_way_round() -> None:
    found = check(read_scan(SHARED / "aps_siemens_n64.npz"))
    assert (found[0].orientation, found[0].sign) == ("as-stored", "+")
    assert found[1].r / found[0].r > 1.3
