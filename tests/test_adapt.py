"""`reconstruct --adapt`: a network trained on, on the frames of another scan."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fno_runner.apply import adapt
from fno_runner.apply.command import main
from fno_runner.apply.model import find_model
from fno_runner.train import rates
from fno_runner.train.adam import PlainAdam
from tests.scans import simulate_scan
from tests.test_apply import untrained, write_scan


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan"), simulate_scan())


@pytest.mark.parametrize(("layers", "binning"), [("all", 1), ("last", 2)])
def test_adapting_keeps_what_is_better(
    layers: str, binning: int, scan_file: Path, tmp_path: Path
) -> None:
    """A wrong level of vacuum is soon right for held-out frames, too; and it is a model again."""
    model = untrained(tmp_path, vacuum=1.5, learning_rate=0.05, batch_size=8)
    arguments = [str(scan_file), "-o", str(tmp_path / "out"), "--device=cpu"]
    arguments += [f"--bin={binning}", "--adapt=4", f"--adapt-layers={layers}"]
    assert main([str(model), *arguments]) == 0
    record = json.loads((tmp_path / "out" / "reconstruction.json").read_text())
    r = record["adapted"]["r_held_out"]
    assert len(r) == 5 and min(r) < r[0]
    adapted = find_model(tmp_path / "out" / "network")
    assert adapted.record.provenance["adapted_from"] == model.name
    new, old = (load_file(path / "model.safetensors")
                for path in (tmp_path / "out" / "network", model))  # fmt: skip
    changed = {name.split(".")[1] for name in new if (new[name] != old[name]).any()}
    assert ("blocks" in changed) == (layers == "all") and "head" in changed
    again = [str(tmp_path / "out" / "network"), str(scan_file), "-o", str(tmp_path / "again")]
    assert main([*again, "--device=cpu"]) == 0
    other = json.loads((tmp_path / "again" / "reconstruction.json").read_text())
    assert other["r_own"] == pytest.approx(record["r_own"], rel=1e-4)


def test_a_network_that_was_trained_before_its_scan_is_a_model_again(
    scan_file: Path, tmp_path: Path
) -> None:
    """Its record is of the scan alone: simulated objects, and the first training, are not in it."""
    before = {"train_patterns_used": 5, "validation_object": "0", "started": "2000-01-01"}
    model = untrained(
        tmp_path, probe_file=str(scan_file), objects="discs,lines", provenance=before, epochs=7
    )
    out = tmp_path / "out"
    assert main([str(model), str(scan_file), "-o", str(out), "--device=cpu", "--adapt=1"]) == 0
    adapted = find_model(out / "network")
    assert (adapted.config.scan, adapted.config.epochs) == (str(scan_file), 1)
    assert adapted.config.probe_file is None and adapted.config.is_grid_lines
    made = adapted.record.provenance
    assert {"dataset", "device_name", "code"} <= made.keys()
    assert not {"train_patterns_used", "validation_object"} & made.keys()
    assert str(made["started"]) > "2026"
    again = [str(out / "network"), str(scan_file), "-o", str(tmp_path / "again"), "--device=cpu"]
    assert main(again) == 0


@pytest.mark.parametrize(("layers", "of_half"), [("all", True), ("last", False)])
def test_adapting_a_hybrid_keeps_the_rates_of_its_levels(
    layers: str, of_half: bool, scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second level has twice the channels; the last layers are of the first one."""
    monkeypatch.setattr(rates, "FULL_RATE_CHANNELS", 4)
    made: list[PlainAdam] = []

    class Seen(PlainAdam):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(adapt, "PlainAdam", Seen)
    model = untrained(tmp_path, architecture="hybrid", width=4, blocks=2, rate_scaling="fan_in")
    arguments = [str(scan_file), "-o", str(tmp_path / "out"), "--device=cpu", "--adapt=1"]
    assert main([str(model), *arguments, f"--adapt-layers={layers}"]) == 0
    full, half = made[0].param_groups
    assert half["lr"] == full["lr"] / 2 > 0
    assert full["params"] and bool(half["params"]) == of_half


def test_adapting_that_makes_it_worse_is_not_kept(scan_file: Path, tmp_path: Path) -> None:
    model = untrained(tmp_path, learning_rate=1.0)
    out = tmp_path / "out"
    assert main([str(model), str(scan_file), "-o", str(out), "--device=cpu", "--adapt=1"]) == 0
    told = json.loads((out / "reconstruction.json").read_text())["adapted"]
    assert told["best_epoch"] == int(np.argmin(told["r_held_out"]))
    new, old = (load_file(path / "model.safetensors") for path in (out / "network", model))
    same = all((new[name] == old[name]).all() for name in old)
    assert same == (told["best_epoch"] == 0)


def test_adapting_may_take_five_steps(scan_file: Path, tmp_path: Path) -> None:
    """Five epochs of one: the rate then rises for a fifth of the steps, which is one step."""
    model, out = untrained(tmp_path, batch_size=64), tmp_path / "out"
    assert main([str(model), str(scan_file), "-o", str(out), "--device=cpu", "--adapt=5"]) == 0
    r = json.loads((out / "reconstruction.json").read_text())["adapted"]["r_held_out"]
    assert len(r) == 6 and len(set(r)) == 6


def test_neither_refining_nor_adapting_imports_the_compiler(
    scan_file: Path, tmp_path: Path
) -> None:
    """Its second would be told as the time of what is fitted first, and `--compare` compares."""
    script = """
import sys
from fno_runner.apply import adapt
from fno_runner.apply.command import main
for option in ("--refine=2", "--adapt=1"):
    assert main([*sys.argv[1:], "--device=cpu", option]) == 0
assert "torch._dynamo" not in sys.modules
"""
    model = untrained(tmp_path, batch_size=8)
    words = [str(model), str(scan_file), "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
