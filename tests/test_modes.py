"""Several incoherent probe modes, and bad pixels, in the forward model and all that rests on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fno_runner.batches import Inputs
from fno_runner.config import N, RunConfig, centre
from fno_runner.data.probe import zone_plate_probe
from fno_runner.data.scan import load_scan
from fno_runner.physics import amplitude_of, far_field, local_probe, object_update, shift_probe
from fno_runner.reconstruct.inference import predicted_amplitude
from fno_runner.reconstruct.stitching import LIT, Canvas, lights
from fno_runner.reconstructor import Reconstructor, input_scale_factor
from fno_runner.score.floors import iterate
from fno_runner.train.network import build_model
from fno_runner.train.training import train
from tests.scans import simulate_scan, write_raw

PROBE = torch.from_numpy(zone_plate_probe(RunConfig()))
SHIFT = torch.tensor([[[0.3, -0.2]], [[0.0, 0.5]]])  # (2, 1, 2)


def patches() -> torch.Tensor:
    noise = torch.randn(
        2, 1, N, N, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)
    )
    return 1 + 0.1 * noise


@pytest.mark.parametrize("shift", [None, SHIFT])
def test_intensities_of_modes_add_up(shift: torch.Tensor | None) -> None:
    """Two halves of a probe, as modes, light as the probe does; two probes light as √(a² + b²)."""
    patch = patches()
    one = amplitude_of(patch, local_probe(PROBE, shift))
    halves = torch.stack([PROBE, PROBE]) / 2**0.5
    both = amplitude_of(patch, local_probe(halves, shift))
    torch.testing.assert_close(both, one, rtol=1e-4, atol=1e-5)
    other = amplitude_of(patch, local_probe(PROBE.flip(0), shift))
    pair = amplitude_of(patch, local_probe(torch.stack([PROBE, PROBE.flip(0)]), shift))
    torch.testing.assert_close(pair.square(), one**2 + other**2, rtol=1e-3, atol=1e-5)


def test_one_mode_is_the_probe_and_an_empty_one_adds_nothing() -> None:
    patch = patches()
    amplitude = amplitude_of(1.1 * patch, local_probe(PROBE))
    single = object_update(amplitude, local_probe(PROBE), patch)
    for modes in (PROBE[None], torch.stack([PROBE, 0 * PROBE])):
        several = object_update(amplitude, local_probe(modes), patch)
        torch.testing.assert_close(several, single, rtol=1e-3, atol=1e-5)


def test_the_truth_needs_no_update_whatever_bad_pixels_say() -> None:
    patch = patches()
    mask = torch.ones(N, N, dtype=torch.bool)
    mask[10:14, 20:30] = False
    for probe in (PROBE, torch.stack([PROBE, PROBE.flip(0) / 2])):
        local = local_probe(probe, SHIFT)
        amplitude = amplitude_of(patch, local)
        spoiled = torch.where(mask, amplitude, 1e3)
        assert object_update(spoiled, local, patch, mask).abs().max() < 1e-5
        assert object_update(spoiled, local, patch).abs().max() > 1e-2


def test_the_vacuum_level_counts_good_pixels_only() -> None:
    mask = torch.ones(N, N, dtype=torch.bool)
    mask[N // 2 - 6 : N // 2 + 6] = False  # where much of the light is
    seen = (far_field(3.0 * PROBE).abs().square() * mask).sum()
    assert input_scale_factor(float(seen), PROBE, mask) == pytest.approx(1 / 3, rel=1e-5)


@pytest.fixture(scope="module")
def two_modes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mask = np.ones((N, N), bool)
    mask[5:9, 7:40] = False
    scan = simulate_scan(modes=2, frames=40)
    return write_raw(tmp_path_factory.mktemp("two") / "scan.npz", scan, mask=mask)


def test_a_scan_with_modes_and_bad_pixels_trains(two_modes: Path) -> None:
    """The loss falls, and what bad pixels hold reaches neither weights nor prediction."""
    dataset = load_scan(two_modes, 0)
    assert dataset.train.probe.shape == (2, N, N) and dataset.train.mask is not None
    config = RunConfig(width=4, modes=6, blocks=2, epochs=16, batch_size=4, learning_rate=1e-2)
    device = torch.device("cpu")
    trained = train(config, dataset, device)[0]
    losses = [float(epoch["train_loss"] or 0) for epoch in trained.history]
    assert trained.error is None and losses[-1] < 0.9 * losses[0]
    inputs = Inputs.of(dataset.test, trained.scale, device)
    predicted = trained.model(*inputs.batch(slice(0, 4)))
    bad = torch.from_numpy(~dataset.train.mask)
    assert predicted[:, 0, bad].abs().max() == 0 and predicted.abs().max() > 0


def test_weights_do_not_hold_the_mask(two_modes: Path) -> None:
    """So that a network may be used on another scan."""
    dataset = load_scan(two_modes, 0)
    config = RunConfig(width=4, modes=6, blocks=2)
    model = build_model(config, dataset, torch.device("cpu"))
    assert model.mask is not None
    assert set(model.state_dict()) == set(Reconstructor(config).state_dict())


def test_without_a_network_modes_help_too(two_modes: Path) -> None:
    """Projections under both modes explain the frames better than under the first alone."""
    test = load_scan(two_modes, 0).test
    both = predicted_amplitude(iterate(test, 20, subpixel=True), test, 16)
    alone = replace(test, probe=test.probe[0])
    first = predicted_amplitude(iterate(alone, 20, subpixel=True), alone, 16)
    misfits = [float(np.abs(p - test.amplitude).sum()) for p in (both, first)]
    assert misfits[0] < 0.8 * misfits[1]


def test_a_patch_weighs_by_the_light_of_all_modes() -> None:
    """A pixel that only the second mode lights is known."""
    first, second = np.zeros((2, N, N), np.complex64)
    first[:, : N // 2], second[:, N // 2 :] = 1, 2
    patch = np.full((1, N, N), 0.5, np.complex64)
    position = np.full((1, 2), (N - 1) / 2, np.float32)
    canvas = Canvas((N, N))
    canvas.add(patch, position, np.stack([first, second]))
    np.testing.assert_allclose(canvas.mean(), 0.5, atol=1e-5)
    np.testing.assert_allclose(canvas.weight[:, 0], 1, atol=1e-4)
    np.testing.assert_allclose(canvas.weight[:, -1], 4, atol=1e-4)


@pytest.mark.parametrize("modes", [0, 1, 4])
@pytest.mark.parametrize("count", [1, LIT, 5 * LIT + 3])
def test_light_in_slices_is_that_of_all_at_once(modes: int, count: int) -> None:
    """Bit for bit; no mode stands for a probe without that axis."""
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(2, modes or 1, N, N))
    probe = (parts[0] + 1j * parts[1]).astype(np.complex64)
    positions = rng.uniform(N, 2 * N, (count, 2)).astype(np.float32)
    corner = np.rint(positions - centre(N))
    moved = shift_probe(torch.from_numpy(probe), torch.from_numpy(positions - centre(N) - corner))
    expected = moved.abs().square().sum(1).numpy()
    made = list(lights(positions, probe if modes else probe[0]))
    np.testing.assert_array_equal([light for light, _ in made], expected)
    windows = [(row.start, col.start, row.stop, col.stop) for _, (row, col) in made]
    np.testing.assert_array_equal(windows, np.hstack([corner, corner + N]))
