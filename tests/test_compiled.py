"""Compiled blocks: when they pay, which batches take them, and what happens without a compiler."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset
from fno_runner.models.blocks import FourierBlock
from fno_runner.train import compiled
from fno_runner.train.compiled import compiled_blocks, worth_compiling
from fno_runner.train.training import train
from tests.test_capture import assert_equal, changed

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]
KEPT_IN = "TORCHINDUCTOR_CACHE_DIR"
STUDY_STEPS = 819
"""Of an epoch of sweep.yaml."""


@pytest.mark.parametrize(("architecture", "enough"), [("fno", 27), ("hybrid", 34)])
def test_compiling_pays_in_a_long_training_only(architecture: str, enough: int) -> None:
    """Not in the 20 epochs of sweep.yaml; and whatever trains at the same time."""
    for replicates in (1, 8):
        config = RunConfig.model_validate({"architecture": architecture, "replicates": replicates})
        assert not worth_compiling(config, 20 * STUDY_STEPS)
        assert not worth_compiling(config, (enough - 1) * STUDY_STEPS)
        assert worth_compiling(config, enough * STUDY_STEPS)


def test_only_whole_batches_in_training_are_compiled(
    tiny: Dataset, tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a compiler that changes nothing, but says what it was given."""
    given: list[tuple[int, bool]] = []

    def spy(function: Any) -> Any:
        def forward(block: FourierBlock, x: torch.Tensor) -> torch.Tensor:
            given.append((len(x), torch.is_grad_enabled()))
            out: torch.Tensor = function(block, x)
            return out

        return forward

    config = changed(tiny_config, epochs=1, train_patterns=44)  # 42 to fit: 16, 16, 10
    (plain,) = train(config, tiny, CPU)
    monkeypatch.setattr(compiled, "compile_function", spy)
    (same,) = train(config, tiny, CPU, compiled=True)
    assert given == 2 * config.blocks * [(16, True)]
    assert plain.compiled is None and same.compiled is True
    assert_equal(same, plain)
    for module in same.model.modules():
        assert "forward" not in vars(module)


def test_where_nothing_can_be_compiled_the_blocks_go_on(
    tiny: Dataset,
    tiny_config: RunConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(function: Any) -> Any:
        def forward(*_: Any) -> Any:
            raise RuntimeError("InvalidCxxCompiler: no C++ compiler was found\nsearched: …")

        return forward

    config = changed(tiny_config, epochs=1, train_patterns=44)
    (plain,) = train(config, tiny, CPU)
    monkeypatch.setattr(compiled, "compile_function", broken)
    with caplog.at_level(logging.WARNING):
        (same,) = train(config, tiny, CPU, compiled=True)
    assert caplog.text.count("cannot be compiled (InvalidCxxCompiler: no C++ compiler") == 1
    assert same.compiled is False
    assert_equal(same, plain)


def test_what_is_compiled_is_kept_where_nobody_else_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = KEPT_IN
    monkeypatch.delenv(name, raising=False)
    mine, open_to_all = tmp_path / "study" / "compiled", tmp_path / "open"
    with compiled_blocks([], 16, mine):
        assert os.environ[name] == str(mine) and mine.stat().st_mode & 0o777 == 0o700
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with compiled_blocks([], 16, open_to_all):
        assert name not in os.environ
    assert "can be written by others" in caplog.text
    (tmp_path / "file").touch()
    with compiled_blocks([], 16, tmp_path / "file"):
        assert name not in os.environ
    monkeypatch.setenv(name, "/elsewhere")
    with compiled_blocks([], 16, mine):
        assert os.environ[name] == "/elsewhere"


COMPILE = """
import sys
from pathlib import Path
import torch
from benchmarks.plan import Network, noise
from fno_runner.train.compiled import compiled_blocks
from tests.test_step import make_network

config, data = Network(sys.argv[1], 2, 4).config("float32", blocks=2), noise(70, 1)
plain, fast = (make_network(config, data, flat=True) for _ in range(2))
with compiled_blocks([fast.model], 16, Path(sys.argv[2])):
    for rows in torch.arange(64).split(16):
        torch.testing.assert_close(fast.step(rows), plain.step(rows), rtol=1e-5, atol=0)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler needs one for C++")
@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
def test_compiled_blocks_train_as_plain_ones(architecture: str, tmp_path: Path) -> None:
    """In a process of its own, whose functions nobody has wrapped to check their shapes."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, architecture, str(tmp_path / "compiled")],
        # PyTorch names its folder there once it has compiled in this process.
        env={name: value for name, value in os.environ.items() if name != KEPT_IN},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be compiled" not in done.stderr
    assert any((tmp_path / "compiled").iterdir())
