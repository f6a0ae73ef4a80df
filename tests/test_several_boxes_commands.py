"""The whole way of docs/several-boxes.md: its commands, as written, against a loopback server."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.test_readme import ROOT, commands
from tests.test_wandb_agents import tiny_sweep
from tests.wandb_backend import WandbBackend


def section(title: str) -> str:
    match = re.search(
        rf"^## {title}\n(.*?)^## ", (ROOT / "docs" / "several-boxes.md").read_text(), re.M | re.S
    )
    assert match
    return match[1]


@pytest.mark.slow
def test_the_commands_of_the_document_run_as_written(
    tiny_npz: tuple[Path, Path], data_dir: Path, tmp_path: Path
) -> None:
    login, sweep, agent, launch, retry, export, dashboard, sync = commands(section("The whole way"))
    boxes = [tmp_path / "box1", tmp_path / "box2"]
    for box in boxes:
        box.mkdir()
        content = tiny_sweep(tiny_npz, data_dir, width=[3, 4], epochs=[16])
        (box / "sweep.yaml").write_text(yaml.safe_dump(content))
    with WandbBackend() as backend:
        env = {**backend.environment(tmp_path), "OMP_NUM_THREADS": "1"}
        del env["WANDB_DIR"]

        def start(command: str, box: Path) -> subprocess.Popen[str]:
            line = command.split(" #")[0].replace("ENTITY/PROJECT/SWEEP_ID", place)
            return subprocess.Popen(
                ["bash", "-c", line],
                env=env, cwd=box, text=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip

        def result(process: subprocess.Popen[str]) -> str:
            said, _ = process.communicate(timeout=250)
            assert process.returncode == 0, said
            return said

        place = ""
        result(start(login, boxes[0]))  # finds WANDB_API_KEY, as on a box without a terminal
        result(start(sweep, boxes[0]))
        place = backend.sweep().path
        both = [start(agent, boxes[0]), start(launch, boxes[1])]
        for process in both:
            result(process)
        assert "2 of the grid's 2 points are finished" in result(start(retry, boxes[0]))
        said = result(start(export, boxes[0]))
        assert "2 of the grid's 2 points are finished" in said and "recommended" in said
        assert "workspace  http" in result(start(dashboard, boxes[0]))
        result(start(sync, boxes[0]))
        runs = backend.sweep_runs(backend.sweep())
    assert [run.completions for run in runs] == [1, 1]
    (table,) = boxes[0].glob("outputs/*/*/study_results.csv")
    assert sorted(pd.read_csv(table)["width"]) == [3, 4]
    assert (table.parent / "pareto_plot.png").exists()
