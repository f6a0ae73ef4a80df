"""`wandb sweep` and `wandb agent`, unmodified, against a server on loopback: real trainings."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from fno_runner.result import RunResult
from tests.wandb_backend import WandbBackend

ROOT = Path(__file__).resolve().parents[1]
SUMMARY = {
    "ssim_phase", "psnr_phase", "mae_phase", "pearson_phase", "frc50_phase", "ssim_amp",
    "model_params", "inference_time_s", "inference_time_p90_s", "train_time_s", "patterns_per_s",
    "peak_memory_bytes", "status", "error",
}  # fmt: skip


def tiny_sweep(tiny_npz: tuple[Path, Path], data_dir: Path) -> dict[str, object]:
    """sweep.yaml as it is shipped, but for a 2 × 2 grid of trainings that take a second."""
    sweep: dict[str, object] = yaml.safe_load((ROOT / "sweep.yaml").read_text())
    fixed = {
        "modes": 6, "blocks": 2, "epochs": 2, "conditioning": "projection",
        "train_npz": str(tiny_npz[0]), "test_npz": str(tiny_npz[1]), "data_dir": str(data_dir),
    }  # fmt: skip
    sweep["parameters"] = {
        "architecture": {"values": ["fno", "hybrid"]},
        "width": {"values": [3, 4]},
        **{key: {"value": value} for key, value in fixed.items()},
    }
    return sweep


def test_two_agents_run_each_point_of_a_sweep_once(
    tiny_npz: tuple[Path, Path], data_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(tiny_sweep(tiny_npz, data_dir)))
    with WandbBackend() as backend:
        env = {**backend.environment(tmp_path), "OMP_NUM_THREADS": "1"}
        made = subprocess.run(
            ["wandb", "sweep", "--project", "study", "sweep.yaml"],
            env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
        sweep = backend.sweep()
        agents = []
        for number in (1, 2):
            box = tmp_path / f"box{number}"
            box.mkdir()
            log = (box / "agent.log").open("wb")
            with log:
                agents.append(
                    subprocess.Popen(
                        ["wandb", "agent", "--forward-signals", sweep.path],
                        env={**env, "WANDB_DIR": str(box)}, cwd=box,
                        stdout=log, stderr=subprocess.STDOUT,
                    )
                )  # fmt: skip
        assert [agent.wait(timeout=200) for agent in agents] == [0, 0]
        runs = backend.sweep_runs(sweep)

        points = {(run.config["architecture"], run.config["width"]) for run in runs}
        assert points == {("fno", 3), ("fno", 4), ("hybrid", 3), ("hybrid", 4)}
        assert len(runs) == 4
        for run in runs:
            assert isinstance(run.config["width"], int)
            assert run.state in ("finished", "failed")  # failed: so short a training may collapse
            assert set(run.summary) >= SUMMARY
            assert [row["epoch"] for row in run.history if "train_loss" in row] == [1, 2]
            result = RunResult.model_validate_json(run.files["result.json"])
            assert (run.state == "finished") == (result.status == "finished")
            local = list(tmp_path.glob(f"box*/outputs/*/{sweep.path.split('/')[-1]}/runs/*"))
            assert result.run_id in {folder.name for folder in local}
            assert run.files[run.summary["reconstruction"]["path"]].startswith(b"\x89PNG")
    key = env["WANDB_API_KEY"].encode()
    written = [path for path in tmp_path.glob("box*/**/*") if path.is_file()]
    assert written and not [path for path in written if key in path.read_bytes()]
