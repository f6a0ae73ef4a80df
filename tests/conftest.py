"""Small real data that many tests share, made once a session."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Where several processes of pytest share the cores (-n), so do the programs that they start: said
# before torch is imported, which asks once.
if (sharing := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // sharing)))

import numpy as np
import pytest
import torch
from hypothesis import settings

from fno_runner.config import N, RunConfig
from fno_runner.data.dataset import Dataset
from fno_runner.data.gridlines import STEP, diffract, grid_lines_object, simulate
from fno_runner.data.npz import write_npz
from fno_runner.data.npz_pair import load_npz_pair
from fno_runner.data.probe import zone_plate_probe
from fno_runner.physics import shift_probe
from fno_runner.score.timing import timed_predict
from tests import faults

# A busy machine is no failure, and the same inputs are drawn in every run.
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("suite")

# A shell's background job begins with Ctrl-C ignored, and so would every process of a test.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Input that nobody here wrote; not everywhere present."""

SIDE = 18
"""Patches along a side of the tiny test raster: 180 px, enough for five scales of SSIM."""


BEGIN_FIRST = ("test_wandb_agents.py", "test_end_to_end.py", "test_outages.py", "test_samples.py")
"""Files of few tests that take long: one begun last would keep a core waiting at the end."""


def pytest_xdist_auto_num_workers() -> int:
    """Three for two cores: tests wait a seventh of their time, for processes and servers."""
    return max(2, 3 * (os.cpu_count() or 1) // 2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in BEGIN_FIRST)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if faults.injected or faults.fuzzed:
        terminalreporter.section("faults")
        for line in faults.summary():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def timed_twice() -> Iterator[None]:
    """Runs here time their inference twice, not for a second: test_timing has the rule."""
    with pytest.MonkeyPatch.context() as patch:
        quick = functools.partial(timed_predict, enough=((2, 0.0),))
        patch.setattr("fno_runner.score.evaluation.timed_predict", quick)
        yield


@pytest.fixture
def tables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export in this process draws nothing: pictures and the page have tests of their own."""
    monkeypatch.setattr("agent.export.write_report", lambda result: [])


@pytest.fixture(scope="session")
def simulated() -> dict[str, np.ndarray]:
    """The arrays of the default test split: 1,089 patterns."""
    return dict(simulate(RunConfig(), "test"))


@pytest.fixture(scope="session")
def tiny_npz(
    simulated: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """(train, test): 96 patterns to train on, a corner of 18 × 18 patterns to test on."""
    folder = tmp_path_factory.mktemp("tiny")
    side = int(len(simulated["diffraction"]) ** 0.5)
    rows = np.arange(side * side).reshape(side, side)[:SIDE, :SIDE].ravel()
    per_pattern = [k for k, v in simulated.items() if len(v.shape) == 4 and len(v) == side * side]
    small = {k: v[rows] if k in per_pattern else v for k, v in simulated.items()}
    extent = SIDE * STEP["test"]
    small["YY_ground_truth"] = simulated["YY_ground_truth"][:extent, :extent]
    picked = np.random.default_rng(0).choice(side * side, 96, replace=False)
    train = {k: v[picked] if k in per_pattern else v for k, v in simulated.items()}
    write_npz(folder / "train.npz", train)
    write_npz(folder / "test.npz", small)
    return folder / "train.npz", folder / "test.npz"


@pytest.fixture(scope="session")
def tiny(tiny_npz: tuple[Path, Path]) -> Dataset:
    return load_npz_pair(*tiny_npz)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all: the floors of the tiny data are computed once."""
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture
def tiny_config(tiny_npz: tuple[Path, Path], data_dir: Path, tmp_path: Path) -> RunConfig:
    """A configuration that trains in about a second."""
    train, test = tiny_npz
    return RunConfig(
        width=4,
        modes=6,
        blocks=2,
        epochs=2,
        train_npz=str(train),
        test_npz=str(test),
        data_dir=str(data_dir),
        output_dir=str(tmp_path / "study"),
        device="cpu",
    )


@pytest.fixture(scope="session")
def scan_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated experimental scan in the raw layout, with fractional positions."""
    rng = np.random.default_rng(1)
    obj = (grid_lines_object(rng)[:128, :128] / 4).astype(np.complex64)
    centres = rng.uniform(N // 2 + 1, 128 - N // 2 - 1, size=(60, 2)).astype(np.float32)
    corner = np.rint(centres).astype(int) - N // 2
    probe = zone_plate_probe(RunConfig()) * np.float32(100)
    shifted = shift_probe(
        torch.from_numpy(probe), torch.from_numpy(centres - N // 2 - corner)
    ).numpy()
    patches = np.stack([obj[r : r + N, c : c + N] for r, c in corner])
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    write_npz(
        path,
        {
            "diff3d": diffract((shifted * patches).astype(np.complex64)),
            "probeGuess": probe,
            "objectGuess": obj,
            "xcoords": centres[:, 1],
            "ycoords": centres[:, 0],
        },
    )
    return path
