"""docs/several-boxes.md: its SLURM script, run as written beside stand-ins for SLURM's commands."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "several-boxes.md"


def test_the_slurm_script_hands_over(tmp_path: Path) -> None:
    text = DOCUMENT.read_text()
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", text, re.DOTALL)
    path = tmp_path / "study.sbatch"
    path.write_text(script)
    subprocess.run(["bash", "-n", str(path)], check=True)

    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    (tools / "activate").write_text(f'PATH="{tools}:$PATH"\n')
    fakes = {
        "srun": 'trap "echo told >>log; exit 143" TERM; echo "srun $*" >>log\n'
        "while :; do sleep 0.1; done",
        "scontrol": 'echo "scontrol $*" >>log',
    }
    for name, body in fakes.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    log = tmp_path / "log"
    job = subprocess.Popen(
        ["bash", str(path)],
        cwd=tmp_path,
        env={**os.environ, "SWEEP": "a/b/c", "SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "16"},
    )
    deadline = time.monotonic() + 20
    while not log.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    job.wait(timeout=20)
    started, *rest = log.read_text().splitlines()
    assert started.startswith("srun --cpus-per-task=16") and "-m agent.launch a/b/c" in started
    assert rest == ["told", "scontrol requeue 17"]
