"""What measures a GPU, as far as a CPU can try it: the script, its table, several at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from benchmarks import beside, gpu_table, kernels, training, ways
from benchmarks.machine import Rates
from benchmarks.measurement import Measurement
from benchmarks.plan import Network, Plan
from benchmarks.report import write_report
from fno_runner.models.blocks import FirstConv, FourierBlock
from fno_runner.reconstructor import Reconstructor
from fno_runner.train import compiled
from fno_runner.train.training import REPORT_STEPS, train
from tests.cuda_graphs import StandIn

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


def test_the_kernels_of_a_step_are_listed_the_longest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernels, "SKIPPED", REPORT_STEPS)
    monkeypatch.setattr(kernels, "STEPS", REPORT_STEPS)
    network = Network("fno", 2, 4, batch=2)
    model = Reconstructor(network.config("bf16"))
    asked = Mock(wraps=train)
    monkeypatch.setattr(kernels, "train", asked)
    found = kernels.kernels(network, CPU)
    assert asked.call_args.kwargs["compiled"] is False, "the step as a study has it"
    seconds = [kernel.seconds for kernel in found]
    assert seconds == sorted(seconds, reverse=True) and min(seconds) >= 0
    runs = {kernel.name: kernel.runs for kernel in found}
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in model.modules())
    assert runs["aten::convolution_backward"] == convolutions
    title, *_, last = kernels.table(network, found)
    assert "fno 2/4, bf16" in title and last.endswith("% |")


def test_the_other_ways_of_a_step_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two streams in a block with a stand-in for streams, which a CPU's tensors know nothing of."""
    monkeypatch.setattr(ways, "STEPS", 2)
    monkeypatch.setattr(ways, "EPOCHS", 1)
    monkeypatch.setattr(FourierBlock, "forward", FourierBlock.fused)
    monkeypatch.setattr(FirstConv, "forward", lambda self, x: self.as_product(x))
    network = Network("hybrid", 2, 4, batch=2)
    of_plain = ways.measure(ways.AS_IT_IS, network, CPU)
    gpu = StandIn(monkeypatch)
    read_by: list[object] = []
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: read_by.append(stream))
    of_two = ways.measure("two streams in a block", network, CPU)
    assert gpu.streams_joined and len(set(read_by)) == 2
    assert of_two["loss"] == pytest.approx(of_plain["loss"], rel=1e-6) and of_two["step_s"] > 0
    of_sixteen = ways.measure("sixteen taps", network, CPU)
    assert of_sixteen["loss"] == pytest.approx(of_plain["loss"], rel=1e-6)
    before = torch.backends.cudnn.benchmark
    with ways.both():
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark == before


def test_without_a_gpu_its_script_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    done = subprocess.run(
        [ROOT / "benchmarks" / "gpu_study.sh", "/nonexistent"],
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr == "error: this machine has no CUDA device that PyTorch can use\n"


def test_the_gpu_script_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """With a stand-in for Python: what is done is not done again, a failure is named."""
    python, calls, broken = (tmp_path / name for name in ("python", "calls", "broken"))
    python.write_text(
        rf"""#!/bin/sh
        echo "$*" >>{calls}
        case "$*" in
          *--only\ inference*) test ! -e {broken} ;;
          *agent.local*) exit 1 ;;  # some point failed: the table tells which
        esac
        """
    )
    python.chmod(0o755)
    broken.touch()

    def call(minutes: str = "10", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROOT / "benchmarks" / "gpu_study.sh", tmp_path / "out"],
            env={"PYTHON": str(python), "PATH": "/usr/bin:/bin", "MINUTES": minutes, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    too_short = call("1")
    assert (too_short.returncode, too_short.stdout) == (4, "smoke is next: call again\n")
    first = call()
    assert first.returncode == 1 and "error: inference: exit status 1" in first.stderr
    assert "growth" in calls.read_text()  # a machine is dear: the others are done
    broken.unlink()
    second = call()
    assert second.returncode == 0, second.stderr
    lines = calls.read_text().splitlines()
    counted = [
        sum(word in line for line in lines)
        for word in ("--only step --networks", "--only inference")
    ]
    assert counted == [1, 2]
    study, export = (
        next(k for k, line in enumerate(lines) if word in line)
        for word in ("agent.local sweep.yaml", "agent.export")
    )
    assert study < export and "gpu_table" in lines[-1]
    assert (tmp_path / "out" / "inference.seconds").read_text().count("\n") == 2
    assert call().returncode == 0 and "--only" not in "".join(calls.read_text().splitlines()[-3:])
    only = call("10", PARTS="smoke")
    assert only.returncode == 0


def test_the_gpu_script_names_what_is_missing(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *importlib*) echo wandb optuna; exit 1 ;; esac\n')
    python.chmod(0o755)
    done = subprocess.run(
        [ROOT / "benchmarks" / "gpu_study.sh", tmp_path / "out"],
        env={"PYTHON": str(python), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr == f"error: {python} lacks wandb optuna (versions: requirements.lock)\n"


def test_what_a_gpu_was_asked_for_is_read_from_the_newest_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(quantity: str, network: str, side: str, *seconds: float) -> Measurement:
        return Measurement(quantity, network, side, "s", seconds, 12.5)

    step = measured(gpu_table.STEP, "fno 32/12", "bf16", 1.0e-3, 1.1e-3, 1.2e-3)
    many = measured(gpu_table.MANY, "fno 32/12", "bf16", 1e-5)
    facts = {"host": "h", "device": "NVIDIA H200", "date": "today", "torch": "2.11", "commit": "c"}
    for part, measurement in (("step", step), ("inference", many)):
        write_report([measurement], facts, tmp_path / part)
    (tmp_path / "smoke.seconds").write_text("100\n41\n")
    (tmp_path / "smoke.done").touch()
    (tmp_path / "study.seconds").write_text("450\n")  # it is not through
    gpu_table.main([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "- NVIDIA H200"
    for line in (
        "| make test-gpu | – | 141 s | green, ≤ 3 min |  |",
        "| a step alone, fno 32/12 | 1.89 ms | 1.1 ms | ≤ 1.2 ms | 0.8 ms |",
        "| against the plain eager model, a step alone, fno 32/12 | 6.5× | 12.5× | ≥ 10× | 15× |",
        "| inference, fno 32/12, end to end | 18,000/s | 100,000/s | ≥ 60,000/s | 150,000/s |",
        "| the study of sweep.yaml on one card | about 55 min | unmeasured (study) | ≤ 18 min "
        "| 10 min |",
    ):
        assert line in lines


def test_of_processes_beside_each_other_epochs_count_in_which_all_worked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spans = [[(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)], [(0.5, 1.5), (1.5, 2.5)]]
    assert beside.in_common(spans) == [(1.0, 2.0), (0.5, 1.5), (1.5, 2.5)]
    monkeypatch.setattr(beside, "COUNTS", (2,))
    monkeypatch.setenv("PATH", "")  # there is no MPS
    network = Network("fno", 2, 4, batch=2)
    plan = Plan((network,), ("bf16",), turns=1, steps=2, patterns=4, slices=(4,))
    rates = Rates({"float32": 1e9, "bf16": 1e9}, 1e9)
    (in_turns,) = beside.measure_beside(network, CPU, rates, plan)
    assert in_turns.side == "bf16, in turns" and 2 <= len(in_turns.values) <= 20
    assert all(0 < seconds < 1 for seconds in in_turns.values)


def test_compiled_blocks_are_timed_beside_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "compile_function", lambda function: function)
    network = Network("fno", 2, 4, batch=2)
    plan = Plan((network,), ("bf16",), turns=2, steps=2, patterns=4, slices=(4,))
    rates = Rates({"float32": 1e9, "bf16": 1e9}, 1e9)
    measured = training.measure_compiled(network, CPU, rates, plan)
    assert [(m.quantity, m.side) for m in measured] == [
        ("training step", "bf16"),
        ("training step", "bf16, compiled"),
        ("compiling", "at first"),
        ("compiling", "from the folder"),
    ]
    assert all(len(m.values) == 2 and min(m.values) > 0 for m in measured[:2])
