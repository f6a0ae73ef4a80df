"""How well `agent.retime` repeats: ten small models, timed twice on this machine.

    python -m benchmarks.retiming [ROUNDS]

The networks are not trained: no time depends on what they have learned. About twenty minutes; leave
the machine alone meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.retime import ROUNDS
from agent.study.retimes import Model, read_retiming
from fno_runner.cli import Parser, command, count_of
from fno_runner.config import RunConfig, load_config
from fno_runner.data import load_dataset
from fno_runner.device import pick_device
from fno_runner.identity import run_id
from fno_runner.reconstruct.weights import write_weights
from fno_runner.result import WEIGHTS, RunResult, run_folder, write_result
from fno_runner.train.network import build_model

NETWORKS = [
    (architecture, width, modes)
    for architecture in ("fno", "hybrid")
    for width, modes in ((2, 4), (2, 12), (4, 4), (4, 12), (8, 12))
]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print both times of each model; 1 if more than one of ten differ by over a tenth."""
    parser = Parser("python -m benchmarks.retiming", __doc__)
    parser.add_argument("rounds", nargs="?", type=count_of(100), default=ROUNDS, metavar="ROUNDS")
    rounds = parser.parse_args(argv).rounds
    device, console = pick_device("auto"), Console(width=100, highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        names = _study(Path(folder), device)
        first, second = (_retimed(Path(folder), rounds) for _ in range(2))
    table = Table(title=f"{rounds} rounds on {next(iter(first.values())).times.device_name}")
    for column in ("network", "pass [s]", "again [s]", "differs", "alone [ms]", "again", "differs"):
        table.add_column(Text(column), justify="right")  # Text: [s] is a unit, no markup
    near = [0, 0]
    for name, label in names.items():
        cells = [label]
        for k, key in enumerate(("inference_time_s", "latency_s")):
            a, b = (getattr(models[name].times, key) for models in (first, second))
            near[k] += abs(b / a - 1) <= 0.1
            unit = 1 if k == 0 else 1e3
            cells += [f"{a * unit:.4g}", f"{b * unit:.4g}", f"{100 * (b / a - 1):+.1f} %"]
        table.add_row(*cells)
    console.print(table)
    console.print(f"within 10 %: {near[0]} passes and {near[1]} latencies of {len(names)}")
    return 0 if min(near) >= 0.9 * len(names) else 1


def _retimed(study: Path, rounds: int) -> dict[str, Model]:
    """What a process of `agent.retime` finds."""
    subprocess.run(
        [sys.executable, "-m", "agent.retime", str(study), f"--rounds={rounds}"], check=True
    )
    retiming = read_retiming(study)
    assert retiming is not None
    return retiming.models


def _study(folder: Path, device: torch.device) -> dict[str, str]:
    """A study of networks as they begin; run_id -> what it is."""
    names = {}
    for architecture, width, modes in NETWORKS:
        config = load_config(
            {"architecture": architecture, "width": width, "modes": modes,
             "output_dir": str(folder)}
        )  # fmt: skip
        name = run_id(config)
        names[name] = f"{architecture} {width}/{modes}"
        _leave(config, name, device)
    return names


def _leave(config: RunConfig, name: str, device: torch.device) -> None:
    folder = run_folder(Path(config.output_dir), name)
    result = RunResult(run_id=name, status="finished", config=config.model_dump())
    write_result(result, folder)
    model = build_model(config, load_dataset(config), device)
    write_weights(folder / WEIGHTS, model, 1.0)


if __name__ == "__main__":
    sys.exit(main())
