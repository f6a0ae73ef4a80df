"""pty-chi's forward model and ours are one; skipped where it is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import pty_chi
from fno_runner.data.formats import read_scan
from fno_runner.physics import amplitude_of, local_probe
from tests.scans import simulate_scan, write_raw


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(pty_chi.missing() is not None, reason=str(pty_chi.missing()))
def test_its_amplitudes_are_ours(tmp_path: Path) -> None:
    """For equal object, probe and sub-pixel positions."""
    scan = read_scan(write_raw(tmp_path / "s.npz", simulate_scan(frames=20)))
    assert scan.reference is not None and scan.probe is not None
    try:
        task = pty_chi.task_of(scan, "LSQML", 1, 100, 1.0, torch.device("cpu"))
        theirs = task.reconstructor.forward_model(torch.arange(len(scan))).detach().sqrt()
    finally:
        torch.set_default_device(None)
    first = torch.from_numpy(scan.positions - scan.size // 2)
    corner = first.round()
    windows = [
        (slice(r, r + scan.size), slice(c, c + scan.size)) for r, c in corner.long().tolist()
    ]
    patches = torch.from_numpy(np.stack([scan.reference[window] for window in windows]))
    light = local_probe(torch.from_numpy(scan.probe[0]), (first - corner).float()[:, None])
    ours = amplitude_of(patches[:, None], light)[:, 0]
    theirs = torch.fft.fftshift(theirs, dim=(-2, -1))
    assert float((theirs - ours).abs().max() / ours.max()) < 1e-4
    torchvision = sys.modules.get("torchvision")  # torchmetrics would use it, too
    assert torchvision is None or torchvision.__file__


def test_it_is_told_when_it_cannot_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pty_chi, "version", lambda name: "9.0")
    assert "9.0" in str(pty_chi.missing())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(pty_chi.missing() is not None, reason=str(pty_chi.missing()))
def test_momentum_and_batches_of_neighbours_are_asked_for_together(tmp_path: Path) -> None:
    scan = read_scan(write_raw(tmp_path / "s.npz", simulate_scan(frames=20)))
    try:
        task = pty_chi.task_of(scan, "LSQML", 1, 10, 1.0, torch.device("cpu"), momentum=0.5)
        options = task.reconstructor.options
        assert options.batching_mode.name == "COMPACT"
        assert options.momentum_acceleration_gain == 0.5
    finally:
        torch.set_default_device(None)
