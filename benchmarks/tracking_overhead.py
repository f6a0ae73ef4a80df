"""What a run costs more when it is tracked: `python -m benchmarks.tracking_overhead`.

The same tiny run in turns as `python -m fno_runner` and as `python -m agent.run`, with the
unmodified Weights & Biases client against the loopback server of the tests. Wall times of whole
processes.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.table import Table

from fno_runner.device import pick_device
from fno_runner.provenance import device_name
from tests.wandb_backend import WandbBackend

TURNS = 5
RUN = ("--width=4", "--modes=6", "--blocks=2", "--epochs=2", "--train_patterns=96", "--device=cpu")


def wall_s(program: str, folder: Path, env: dict[str, str]) -> float:
    """One whole process [s]."""
    start = perf_counter()
    subprocess.run(
        [sys.executable, "-m", program, *RUN, f"--output_dir={folder / program}"],
        env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return perf_counter() - start


def main() -> None:
    """Print medians and their difference."""
    programs = {"python -m fno_runner": "fno_runner", "python -m agent.run, online": "agent.run"}
    times: dict[str, list[float]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as scratch, WandbBackend() as backend:
        folder = Path(scratch)
        env = {**backend.environment(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
        for turn in range(TURNS + 1):
            for name, program in programs.items():
                seconds = wall_s(program, folder, env)
                if turn:  # the first one reads from a cold disk and makes the data
                    times[name].append(seconds)
        finished = [run for run in backend.runs if run.completions == 1]
        assert len(finished) == TURNS + 1, "a run did not reach the server"
    table = Table(title=f"{TURNS} turns, {device_name(pick_device('cpu'))}, {os.cpu_count()} cores")
    for heading in ("", "median [s]", "min [s]", "max [s]"):
        table.add_column(heading, justify="left" if not heading else "right")
    medians = []
    for name, each in times.items():
        medians.append(statistics.median(each))
        table.add_row(name, *(f"{number:.2f}" for number in (medians[-1], min(each), max(each))))
    console = Console()
    console.print(table)
    console.print(f"overhead of tracking: {medians[1] - medians[0]:.2f} s")


if __name__ == "__main__":
    main()
