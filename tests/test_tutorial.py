"""docs/real-data.md, command by command, on the scan that it was written with, where that is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import SHARED
from tests.test_readme import ROOT, commands

SCAN = SHARED / "aps_siemens_n64.npz"
SHORT = {
    "scan.yaml": {
        "width": {"value": 4}, "input_transform": {"value": "sqrt"}, "epochs": {"value": 6},
    },
    "transfer.yaml": {
        "width": {"value": 4}, "architecture": {"value": "fno"}, "modes": {"values": [4, 6, 8]},
    },
}  # fmt: skip
"""What the sweeps are cut down to: the document's take half an hour."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not SCAN.exists(), reason="the scan is not on this machine")
def test_the_tutorial_runs_as_written(tmp_path: Path) -> None:
    shutil.copy(SCAN, tmp_path / "scan.npz")
    (tmp_path / "sweeps").mkdir()
    for name, fewer in SHORT.items():
        sweep = yaml.safe_load((ROOT / "sweeps" / name).read_text())
        sweep["parameters"] |= fewer
        (tmp_path / "sweeps" / name).write_text(yaml.safe_dump(sweep))
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "WANDB_MODE": "disabled",
    }
    said = {}
    for command in commands((ROOT / "docs" / "real-data.md").read_text()):
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
        said[command.split()[2]] = done.stdout
    assert (tmp_path / "scan.png").exists() and (tmp_path / "scan.probe2.npz").exists()
    assert "dataset scan.probe2.npz" in said["agent.export"]
    (page,) = tmp_path.glob("outputs/fno_hyperparam_study/scan-*/report.html")
    assert "against its reference object" in page.read_text()
    assert "against the truth" not in page.read_text()
    assert "Kendall" in said["agent.transfer"]
