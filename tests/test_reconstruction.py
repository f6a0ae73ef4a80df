"""Reconstructor, inference and stitching: from patterns to an object."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fno_runner.config import N, RunConfig
from fno_runner.data.dataset import Dataset, Patterns, Raster
from fno_runner.data.scan import load_scan
from fno_runner.physics import far_field
from fno_runner.reconstruct.inference import predict, predicted_amplitude
from fno_runner.reconstruct.stitching import Canvas, covered, stitch, tile
from fno_runner.reconstructor import Reconstructor, UnitProbe
from fno_runner.score.floors import floors, iterate
from fno_runner.score.metrics import r_factor

CPU = torch.device("cpu")
SMALL = RunConfig(width=4, modes=6, blocks=2)


@pytest.fixture
def model(tiny: Dataset) -> Reconstructor:
    torch.manual_seed(0)
    return Reconstructor(SMALL)


def true_patches(simulated: dict[str, np.ndarray]) -> np.ndarray:
    illuminated = simulated["Y_I"][..., 0] / np.abs(simulated["probe_simulated"])
    return (illuminated * np.exp(1j * simulated["Y_phi"][..., 0])).astype(np.complex64)


def test_true_patches_stitch_to_the_truth(simulated: dict[str, np.ndarray]) -> None:
    raster = Raster(step=10, rows=33, cols=33, scale=float(simulated["norm_Y_I"]))
    stitched = tile(true_patches(simulated), raster) * np.float32(raster.scale)
    np.testing.assert_allclose(stitched[0], simulated["YY_ground_truth"][..., 0], atol=1e-4)


def test_true_patches_of_a_scan_stitch_to_its_object(scan_npz: Path) -> None:
    scan = load_scan(scan_npz, 0)
    assert scan.reference is not None
    corner = np.rint(scan.test.positions - (N - 1) / 2).astype(int)
    patches = np.stack([scan.reference[0, r : r + N, c : c + N] for r, c in corner])
    objects, mask = stitch(patches, scan)
    assert mask.mean() > 0.2
    np.testing.assert_allclose(objects[mask], scan.reference[mask], rtol=1e-4, atol=1e-5)
    # … and they diffract to what was measured: positions, remainders and signs are right.
    assert r_factor(predicted_amplitude(patches, scan.test, 16), scan.test.amplitude) < 1e-4


@pytest.mark.parametrize("steps", [2, 6, 25])
@pytest.mark.parametrize("waist", [3.0, 8.0])
def test_what_is_seen_is_lit_however_few_frames_there_are(waist: float, steps: int) -> None:
    """A window is dark about its unit_probe: of few frames most pixels, with 1e-8 of the light."""
    rows, cols = np.indices((N, N)) - N // 2
    probe = np.exp(-(rows**2 + cols**2) / waist**2).astype(np.complex64)
    first = np.stack(np.meshgrid(*[5 * np.arange(steps)] * 2), axis=-1).reshape(-1, 2)
    canvas = Canvas((N + 5 * steps, N + 5 * steps))
    patches = np.ones((len(first), N, N), np.complex64)
    canvas.add(patches, (first + (N - 1) / 2).astype(np.float32), probe)
    share = canvas.weight[canvas.seen()] / canvas.weight.max()
    assert 0.01 < share.min() < 0.06
    assert share.sum() > 0.95 * (canvas.weight / canvas.weight.max()).sum()


def test_a_place_that_was_lit_for_long_hides_no_other() -> None:
    """A shutter that stays open: the rest of the scan is seen as before."""
    weight = np.full((80, 80), 1.0)
    weight[:3, :3] = 5_000.0
    assert covered(weight).all()


def test_forward_predict_is_the_object_that_forward_diffracts(
    model: Reconstructor, tiny: Dataset
) -> None:
    x = torch.from_numpy(tiny.test.amplitude[:3])[:, None]
    positions = torch.from_numpy(tiny.test.positions[:3])[:, None, :, None]
    probe = torch.from_numpy(tiny.test.probe)
    factor = torch.full((3, 1, 1, 1), 0.7)
    patch = model.forward_predict(x, positions, probe, factor)
    assert patch.shape == (3, 1, N, N) and patch.dtype == torch.complex64
    predicted = model(x, positions, probe, factor)
    torch.testing.assert_close(far_field(probe * patch).abs(), predicted, rtol=1e-4, atol=1e-5)


def test_units_do_not_matter(model: Reconstructor, tiny: Dataset) -> None:
    """A probe k times as bright and patterns k times as bright give the same object."""
    x = torch.from_numpy(tiny.test.amplitude[:2])[:, None]
    positions = torch.zeros(2, 1, 2, 1)
    probe = torch.from_numpy(tiny.test.probe)
    factor = torch.ones(2, 1, 1, 1)
    a = model.forward_predict(x, positions, probe, factor)
    b = model.forward_predict(50 * x, positions, 50 * probe, factor)
    c = model.forward_predict(50 * x, positions, probe, factor / 50)  # an object 50 times as bright
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(50 * a, c, rtol=1e-4, atol=1e-3)


def test_without_projection_probe_and_positions_are_unused(tiny: Dataset) -> None:
    torch.manual_seed(0)
    model = Reconstructor(SMALL.model_copy(update={"conditioning": "amplitude"}), subpixel=True)
    x = torch.from_numpy(tiny.test.amplitude[:2])[:, None]
    probe = torch.from_numpy(tiny.test.probe)
    factor = torch.ones(2, 1, 1, 1)
    a = model.forward_predict(x, torch.zeros(2, 1, 2, 1), probe, factor)
    b = model.forward_predict(x, torch.rand(2, 1, 2, 1), torch.roll(probe, 3, 0), factor)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("infer_batch_size", [7, 50, 324, 1000])
def test_inference_calls_forward_predict_in_slices(
    model: Reconstructor,
    tiny: Dataset,
    infer_batch_size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All four arguments, never more than `infer_batch_size` patterns, the same result."""
    count = len(tiny.test)
    sizes: list[int] = []
    original = model.forward_predict

    def spy(
        x: torch.Tensor,
        positions: torch.Tensor,
        probe: torch.Tensor,
        factor: torch.Tensor,
        unit_probe: UnitProbe | None = None,
    ) -> torch.Tensor:
        b = len(x)
        assert x.shape == (b, 1, N, N) and positions.shape == (b, 1, 2, 1)
        assert probe.shape == (N, N) and factor.shape == (b, 1, 1, 1)
        sizes.append(b)
        return original(x, positions, probe, factor, unit_probe)

    monkeypatch.setattr(model, "forward_predict", spy)
    patches = predict(model, tiny.test, 0.5, CPU, infer_batch_size)
    assert sum(sizes) == count and max(sizes) <= infer_batch_size
    assert patches.shape == (count, N, N) and patches.dtype == np.complex64
    monkeypatch.undo()
    np.testing.assert_allclose(patches, predict(model, tiny.test, 0.5, CPU, 128), atol=1e-4)


def test_iterating_needs_no_network_and_lowers_the_misfit(tiny: Dataset) -> None:
    some = tiny.test.take(np.arange(20))
    misfits = [
        r_factor(predicted_amplitude(iterate(some, n, subpixel=False), some, 16), some.amplitude)
        for n in (0, 1, 20)
    ]
    assert misfits[0] > misfits[1] > misfits[2]


def test_floors_are_kept_with_the_data(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = floors(tiny, tmp_path)
    assert list(first) == ["flat_phase", "projection_1", "projection_50"]
    flat, many = first["flat_phase"], first["projection_50"]
    assert flat["pearson"][1] == 0
    assert many["pearson"][1] is not None and many["pearson"][1] > 0.3
    monkeypatch.setattr(
        "fno_runner.score.floors.iterate", lambda *_, **__: pytest.fail("made again")
    )
    assert floors(tiny, tmp_path) == first
    (path,) = (tmp_path / "floors").iterdir()
    words = json.dumps({name: {"ssim": ["high", "low"]} for name in first})
    for content in (words, "[" * 100_000):
        path.write_text(content)
        with pytest.raises(pytest.fail.Exception, match="made again"):
            floors(tiny, tmp_path)


def test_a_prediction_that_is_not_finite_is_said(model: Reconstructor, tiny: Dataset) -> None:
    from fno_runner.errors import DivergedError

    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    few = Patterns(tiny.test.amplitude[:4], tiny.test.positions[:4], tiny.test.probe)
    with pytest.raises(DivergedError, match="not finite"):
        predict(model, few, 1.0, CPU, 4)
