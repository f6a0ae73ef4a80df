"""The fit without a network: its gradient, what it chooses by frames left out, and its command."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fno_runner.apply.iterative import main
from fno_runner.capture import Captured
from fno_runner.config import N
from fno_runner.data.formats import read_scan
from fno_runner.data.frames import Scan
from fno_runner.data.npz import read_array
from fno_runner.errors import UserError
from fno_runner.physics import amplitude_of, local_probe
from fno_runner.scan.choice import choose
from fno_runner.scan.descent import EDGE, Descent, Sought
from fno_runner.scan.iterative import reconstruct, residual
from fno_runner.score.metrics import score
from tests.cuda_graphs import StandIn
from tests.scans import PIXEL, Simulated, simulate_scan, write_raw

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return simulate_scan(modes=2, frames=40)


@pytest.fixture(scope="module")
def scan(simulated: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Scan:
    return read_scan(write_raw(tmp_path_factory.mktemp("raw") / "scan.npz", simulated))


def begun(scan: Scan, sought: Sought) -> tuple[Descent, torch.Tensor, torch.Tensor]:
    """A descent from an object and a probe that are wrong everywhere, and these two."""
    rng = torch.Generator().manual_seed(0)
    assert scan.probe is not None
    probe = torch.from_numpy(scan.probe) / float(np.sqrt(np.mean(np.abs(scan.probe[0]) ** 2)))
    obj = 1 + 0.3 * torch.randn(scan.shape, dtype=torch.complex64, generator=rng)
    probe = probe + 0.1 * torch.randn(probe.shape, dtype=torch.complex64, generator=rng)
    return Descent(scan, obj, probe, 3.0, sought, CPU), obj, probe


@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_is_that_of_the_forward_model(scan: Scan, masked: bool) -> None:
    """Against automatic differentiation of `physics`: object, two modes, positions, variation."""
    mask = np.random.default_rng(0).random((N, N)) > 0.1 if masked else None
    scan = replace(scan, mask=mask, amplitude=scan.amplitude * (1 if mask is None else mask))
    descent, obj, probe = begun(scan, Sought(probe=True, positions=True, smooth=0.2))
    rows = torch.tensor([3, 0, 17])
    descent.step(rows, 0.0, 0.0)
    first = torch.from_numpy(scan.positions - N // 2)
    corner = first.round().long()
    leaves = obj.requires_grad_(), probe.requires_grad_(), (first - corner).float().requires_grad_()
    patches = torch.stack([obj[r : r + N, c : c + N] for r, c in corner[rows].tolist()])
    light = local_probe(probe, leaves[2][rows][:, None])
    off = amplitude_of(patches[:, None], light)[:, 0] - torch.from_numpy(scan.amplitude)[rows] / 3
    off = off if mask is None else off * torch.from_numpy(mask)
    down, right = obj[1:, :-1] - obj[:-1, :-1], obj[:-1, 1:] - obj[:-1, :-1]
    steep = (down.abs().square() + right.abs().square() + EDGE**2).sqrt()
    (off.square().mean() + 0.2 * steep.sum() / obj.numel()).backward()
    for name, leaf in zip(("object", "probe", "positions"), leaves, strict=True):
        assert leaf.grad is not None
        wanted = torch.view_as_real(leaf.grad) if leaf.grad.is_complex() else leaf.grad
        made = descent.gradient[name]
        torch.testing.assert_close(made, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_recorded_steps_are_the_plain_ones(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a stand-in for CUDA graphs: no number of the host is baked into a step."""
    StandIn(monkeypatch)
    sought = Sought(probe=True, positions=True, smooth=0.01)
    made = []
    for recorded in (False, True):
        descent, _, _ = begun(scan, sought)
        if recorded:
            descent._step = Captured(descent._improve)
        for step in range(6):
            descent.step(torch.arange(4) + 4 * step, 0.05 / (1 + step), 0.01)
        made.append((descent.obj, descent.probe, descent.take_r()))
    torch.testing.assert_close(*made)


class FromTheHost(TorchDispatchMode):
    """Counts tensors made of the host's numbers: a GPU would wait for their copy."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        self.count += func is torch.ops.aten.lift_fresh.default
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_the_one_before(scan: Scan) -> None:
    descent, _, _ = begun(scan, Sought(probe=True, positions=True, smooth=0.01))
    with FromTheHost() as made:  # type: ignore[no-untyped-call]
        torch.tensor([1.0])
        assert made.count == 1, "the check itself"
        descent.step(torch.arange(4), 0.05, 0.01)
    assert made.count == 1


@pytest.mark.parametrize("frames", [4, 10, 16, 20, 32])
def test_few_frames_and_any_number_of_passes(scan: Scan, frames: int) -> None:
    """A schedule of ten steps ended in a division by zero."""
    few = np.arange(len(scan)) < frames
    for passes in (1, 10):
        fit = reconstruct(scan, iterations=passes, frames=few)
        assert len(fit.r) == passes and np.isfinite(fit.obj).all()


@pytest.fixture(scope="module")
def dim(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scan, Simulated]:
    """Twenty frames of 20,000 photons each."""
    made = simulate_scan(frames=20, photons=2e4)
    return read_scan(write_raw(tmp_path_factory.mktemp("dim") / "scan.npz", made)), made


def test_frames_left_out_choose_a_smooth_object_that_is_nearer_to_the_truth(
    dim: tuple[Scan, Simulated],
) -> None:
    scan, made = dim
    fit = partial(reconstruct, fit_probe=False)
    choice = choose(fit, scan, None, 4)
    assert choice.smooth > 0 and choice.passes == 4
    lit = np.zeros(made.obj.shape, bool)
    lit[44:84, 44:84] = True
    fits = [fit(scan, smooth=weight, iterations=4) for weight in (0.0, choice.smooth)]
    plain, smooth = (score(f.obj[None], made.obj[None], lit[None])["pearson"] for f in fits)
    assert all(s > p + 0.05 for s, p in zip(smooth, plain, strict=True))


def test_passes_end_where_more_do_not_predict_better(dim: tuple[Scan, Simulated]) -> None:
    scan, _ = dim
    fit = partial(reconstruct, fit_probe=False)
    chosen = choose(fit, scan, 0.0, None)
    assert chosen.passes < 160


def test_the_command_writes_the_products(
    simulated: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_raw(tmp_path / "s.npz", simulated, pixel_size_m=np.array(PIXEL), objectGuess=None)
    options = ["--iterative", str(path), "--passes", "2", "--positions", "--device=cpu"]
    assert main(options) == 0
    folder = tmp_path / "s.reconstruction"
    names = {"object.npz", "object.cxi", "product.h5", "phase.tif", "amplitude.tif", "object.png"}
    assert {p.name for p in folder.iterdir()} == names | {"reconstruction.json"}
    record = json.loads((folder / "reconstruction.json").read_text())
    told = record["iterative"]
    assert (told["passes"], told["light"], told["positions"]) == (2, "fitted", True)
    # The modes are the file's, and the files are a scan again that leaves the R that was told.
    assert read_array(folder / "object.npz", "probeGuess").shape == (2, N, N)
    arrays = {k: read_array(folder / "object.npz", k) for k in ("xcoords", "ycoords", "probeGuess")}
    obj = read_array(folder / "object.npz", "objectGuess")
    again = read_scan(write_raw(tmp_path / "again.npz", simulated, objectGuess=obj, **arrays))
    assert again.reference is not None and again.probe is not None
    fit = reconstruct(again, modes=2, iterations=1)
    fit = replace(fit, obj=again.reference, probe=again.probe, positions=again.positions)
    assert residual(fit, again) == pytest.approx(record["r"], rel=1e-3)
    assert main(options) == 0
    assert (tmp_path / "s.reconstruction-2").is_dir()
    assert "R " in capsys.readouterr().out


def test_what_the_command_cannot_know_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    few = simulate_scan(frames=17)
    path = write_raw(tmp_path / "few.npz", few, probeGuess=None, objectGuess=None)
    assert main([str(path), "--light=held", "--passes=2", "--device=cpu"]) == 0
    assert "has no probe" in caplog.text
    path = write_raw(tmp_path / "fewer.npz", simulate_scan(frames=9))
    assert main([str(path), "--device=cpu"]) == 2
    assert "at least 16" in capsys.readouterr().err


def test_a_fit_that_diverged_is_no_answer(scan: Scan) -> None:
    fit = reconstruct(scan, iterations=1)
    with pytest.raises(UserError, match="diverged"):
        residual(replace(fit, obj=np.full_like(fit.obj, np.nan)), scan)
