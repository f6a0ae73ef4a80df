"""A study on a card: `agent.local` with two points at a time, and its times taken again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from fno_runner.config import RunConfig

ROOT = Path(__file__).resolve().parents[2]


def test_four_points_two_at_a_time_and_their_times_again(
    config: RunConfig, device: torch.device, tmp_path: Path
) -> None:
    """Long enough for no phase to collapse: that would be a failed point."""
    config = config.model_copy(update={"epochs": 16, "learning_rate": 5e-3, "grad_clip": 1.0})
    fixed = config.model_dump(exclude={"width", "modes", "output_dir"}, exclude_none=True)
    lines = [f"  {key}: {{value: {json.dumps(value)}}}" for key, value in fixed.items()]
    sweep, study = tmp_path / "sweep.yaml", tmp_path / "points"
    sweep.write_text(
        "name: four\nmethod: grid\nmetric: {name: ssim_phase, goal: maximize}\nparameters:\n"
        "  width: {values: [4, 8]}\n  modes: {values: [6, 8]}\n" + "\n".join(lines) + "\n"
    )
    share = ["--per-gpu=2"] if device.type == "cuda" else ["--workers=2"]
    _command("agent.local", str(sweep), f"--study={study}", *share, folder=tmp_path)
    records = [json.loads(path.read_text()) for path in study.glob("runs/*/result.json")]
    assert len(records) == 4
    assert {record["status"] for record in records} <= {"finished", "collapsed"}
    assert {record["provenance"]["device"] for record in records} == {device.type}
    _command("agent.retime", str(study), "--rounds=1", f"--device={device.type}", folder=tmp_path)
    retimed = json.loads((study / "retime.json").read_text())
    assert len(retimed["models"]) == 4


def _command(module: str, *arguments: str, folder: Path) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**kept, "WANDB_MODE": "offline", "WANDB_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
