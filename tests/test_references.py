"""A scan's reference is another method's answer, or a first guess: no network is judged by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fno_runner.config import RunConfig
from fno_runner.data import load_dataset
from fno_runner.data.npz import array_names, read_array, write_npz
from fno_runner.result import RunResult
from fno_runner.runner import run

ROUNDING = np.float32(1e-7)


def with_object(scan: Path, path: Path, obj: np.ndarray | None) -> Path:
    """The same scan beside another object, or beside none."""
    arrays = {name: read_array(scan, name) for name in array_names(scan) if name != "objectGuess"}
    if obj is not None:
        arrays["objectGuess"] = obj.astype(np.complex64)
    write_npz(path, arrays)
    return path


@pytest.fixture
def config(tiny_config: RunConfig, tmp_path: Path) -> RunConfig:
    changes = {"scan": "scan.npz", "train_npz": None, "test_npz": None, "learning_rate": 0.01}
    return tiny_config.model_copy(update={**changes, "output_dir": str(tmp_path / "study")})


def ran(config: RunConfig, path: Path) -> RunResult:
    """The record that it leaves."""
    folder = run(config.model_copy(update={"scan": str(path)})).folder
    return RunResult.model_validate_json((folder / "result.json").read_text())


def test_a_reference_of_noise_condemns_no_network(
    config: RunConfig, scan_npz: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    shape = read_array(scan_npz, "objectGuess").shape
    noise = np.exp(1j * rng.uniform(-np.pi, np.pi, shape))
    judged = ran(config, with_object(scan_npz, tmp_path / "noise.npz", noise))
    alone = ran(config, with_object(scan_npz, tmp_path / "none.npz", None))
    assert (judged.status, judged.error) == ("finished", None)
    assert judged.metrics.scan["r_factor"] == alone.metrics.scan["r_factor"]
    correlation = judged.metrics.pairs["pearson"][1]
    assert correlation is not None and abs(correlation) < 0.1


def test_an_object_that_is_the_same_everywhere_is_no_reference(
    config: RunConfig, scan_npz: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shape = read_array(scan_npz, "objectGuess").shape
    guess = np.full(shape, 0.6 - 0.8j) * (1 + ROUNDING * np.indices(shape).sum(axis=0) / sum(shape))
    path = with_object(scan_npz, tmp_path / "guess.npz", guess)
    dataset = load_dataset(config.model_copy(update={"scan": str(path)}))
    assert dataset.reference is None and "first guess" in caplog.text


@pytest.mark.parametrize("part", ["modulus", "phase"])
def test_a_reference_without_a_modulus_or_without_a_phase_ends_no_run(
    part: str, config: RunConfig, scan_npz: Path, tmp_path: Path
) -> None:
    obj = read_array(scan_npz, "objectGuess")
    obj = np.exp(1j * np.angle(obj)) if part == "modulus" else np.abs(obj)
    result = ran(config, with_object(scan_npz, tmp_path / "half.npz", obj))
    assert result.status == "finished"
    amplitude, phase = result.metrics.pairs["ssim"]
    assert ((amplitude is None), (phase is None)) == (part == "modulus", part == "phase")
