"""Positions that a fit moves out of the object: what is written still belongs together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fno_runner.apply.command import main as by_network
from fno_runner.apply.iterative import main as iterative
from fno_runner.config import N
from fno_runner.data.formats import read_scan
from fno_runner.data.frames import Scan
from fno_runner.data.npz import read_array
from fno_runner.scan.command import main as probe
from fno_runner.scan.iterative import Fit, reconstruct, residual
from tests.scans import Simulated, simulate_scan, write_raw
from tests.test_apply import untrained


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return simulate_scan(frames=40)


@pytest.fixture(scope="module")
def inward(simulated: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that has the frames of the rim 2.6 px further inwards than they were taken."""
    positions = simulated.positions.copy()
    for axis in positions.T:
        axis[np.argsort(axis)[:5]] += 2.6
        axis[np.argsort(axis)[-5:]] -= 2.6
    path = tmp_path_factory.mktemp("inward") / "s.npz"
    rows, cols = positions.T
    return write_raw(path, simulated, ycoords=rows, xcoords=cols, objectGuess=None)


def written_fit(file: Path, simulated: Simulated, folder: Path) -> tuple[Fit, Scan]:
    """What a program finds that reads object, probe and positions of a file, beside the frames."""
    names = ("objectGuess", "probeGuess", "xcoords", "ycoords")
    arrays = {name: read_array(file, name) for name in names}
    scan = read_scan(write_raw(folder / "again.npz", simulated, **arrays))
    assert scan.reference is not None and scan.probe is not None  # all patches lie in the object
    return Fit(scan.reference, scan.probe, scan.positions, 0.0, ()), scan


def test_the_object_grows_as_far_as_positions_move(inward: Path, simulated: Simulated) -> None:
    scan = read_scan(inward)
    fit = reconstruct(scan, iterations=12, fit_probe=False, fit_positions=True)
    assert fit.obj.size > np.prod(scan.shape)
    first = np.rint(fit.positions) - N // 2
    assert (first >= 0).all() and (first + N <= fit.obj.shape).all()
    kept = reconstruct(scan, iterations=12, fit_probe=False)
    assert kept.obj.shape == scan.shape
    assert residual(fit, scan) < residual(kept, scan)


def test_a_written_probe_fit_is_of_its_positions(
    inward: Path, simulated: Simulated, tmp_path: Path
) -> None:
    output = tmp_path / "fit.npz"
    options = [str(inward), "--positions", "--iterations=12", "--leave-out"]
    assert probe(["probe", *options, f"--output={output}"]) == 0
    fit, scan = written_fit(output, simulated, tmp_path)
    assert fit.obj.size > np.prod(read_scan(inward).shape)
    assert residual(fit, scan) < 0.1


@pytest.mark.parametrize("how", ["iterative", "refine"])
def test_written_products_are_of_their_positions(
    how: str, inward: Path, simulated: Simulated, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = [str(inward), "-o", str(out), "--device=cpu"]
    if how == "iterative":
        assert iterative([*options, "--iterative", "--positions", "--passes=12"]) == 0
    else:
        network = str(untrained(tmp_path))
        assert by_network([network, *options, "--refine=12", "--refine-positions"]) == 0
    fit, scan = written_fit(out / "object.npz", simulated, tmp_path)
    told = json.loads((out / "reconstruction.json").read_text())["r"]
    assert residual(fit, scan) == pytest.approx(told, rel=1e-3)
    for name in ("object_seen", "object_light"):
        assert read_array(out / "object.npz", name).shape == fit.obj.shape
    assert fit.obj.size > np.prod(read_scan(inward).shape)
