"""Slots and GPUs, output as lines, what runs report: what `agent.launch` is made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from agent import local, retry, transfer
from agent.scheduling.slots import (
    add_slot_options,
    asked_slots,
    plan_slots,
    slot_words,
    usable_gpus,
)
from agent.server.output import MAX_LINE, LineReader
from agent.server.slot_report import read_report
from fno_runner import runner
from fno_runner.cli import Parser
from fno_runner.config import RunConfig
from fno_runner.device import pick_device
from fno_runner.errors import MachineError, UserError
from fno_runner.gpus import given_gpus
from fno_runner.runner import preflight


def test_slots_are_places_among_the_gpus_that_are_left() -> None:
    def plan(wanted: str, per_gpu: int, gpus: list[str], **given: str) -> dict[str, str]:
        slots = plan_slots(wanted, per_gpu, gpus, {"OMP_NUM_THREADS": "4", **given})
        return {slot.name: slot.variables["CUDA_VISIBLE_DEVICES"] for slot in slots}

    assert plan("all", 1, ["0", "1"]) == {"gpu0": "0", "gpu1": "1"}
    assert plan("1", 2, ["GPU-a", "MIG-b"]) == {"gpu1.0": "MIG-b", "gpu1.1": "MIG-b"}
    assert plan("2,0", 1, ["4", "5", "6"]) == {"gpu2": "6", "gpu0": "4"}
    assert plan("all", 2, []) == plan("none", 2, ["0"]) == {"cpu0": "", "cpu1": ""}
    (slot,) = plan_slots("all", 1, ["0"], {})
    assert slot.variables["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert int(slot.variables["OMP_NUM_THREADS"]) >= 1
    (slot,) = plan_slots("all", 1, ["3"], {"CUDA_VISIBLE_DEVICES": "3", "OMP_NUM_THREADS": "4"})
    assert slot.variables == {"CUDA_VISIBLE_DEVICES": "3"}
    for wanted in ("", "0,", "-1", "0,0", "GPU-a"):
        with pytest.raises(UserError, match="--gpus"):
            plan_slots(wanted, 1, ["0"], {})
    with pytest.raises(MachineError, match=r"no GPU 2; those that may be used here are 0, 1$"):
        plan_slots("0,2", 1, ["0", "1"], {})
    with pytest.raises(MachineError, match=r"no GPU 0; PyTorch finds no GPU here$"):
        plan_slots("0", 1, [], {})


@pytest.mark.parametrize(
    ("words", "gpus", "expected"),
    [
        ([], 0, ["worker0"]),
        ([], 1, ["gpu0.0", "gpu0.1", "gpu0.2"]),
        (["--per-gpu=auto"], 1, ["gpu0.0", "gpu0.1", "gpu0.2"]),
        (["--per-gpu=auto"], 0, ["worker0"]),
        (["--workers=3"], 2, ["worker0", "worker1", "worker2"]),
        (["--per-gpu=2"], 2, ["gpu0.0", "gpu1.0", "gpu0.1", "gpu1.1"]),
        (["--per-gpu=2"], 0, ["cpu0", "cpu1"]),
    ],
)
def test_every_command_that_runs_points_takes_the_same_options(
    words: list[str], gpus: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.scheduling.slots.count_gpus", lambda: gpus)
    parser = Parser("test", "")
    add_slot_options(parser)
    args = parser.parse_args(words)
    assert [slot.name for slot in asked_slots(args, {}, lambda gpus: 3 * len(gpus))] == expected
    assert parser.parse_args(slot_words(args)) == args
    for module in (local, retry, transfer):
        told = module._parser().format_help()
        assert "  --workers N  " in told and "  --per-gpu K|auto" in told


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, None), ("", []), ("-1", []), ("NoDevFiles", []), ("0", ["0"]), ("2,3", ["2", "3"]),
        ("GPU-a, GPU-b", ["GPU-a", "GPU-b"]), ("1,-1,0", ["1"]), ("MIG-a/1/0", ["MIG-a/1/0"]),
    ],
)  # fmt: skip
def test_gpus_that_a_scheduler_gave(visible: str | None, names: list[str] | None) -> None:
    gpus = given_gpus({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert (None if gpus is None else list(gpus)) == names


def test_usable_gpus_are_those_that_are_given_and_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def usable(visible: str | None, count: int) -> list[str]:
        monkeypatch.setattr("agent.scheduling.slots.count_gpus", lambda: count)
        return usable_gpus({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})

    assert usable(None, 2) == ["0", "1"] and usable(None, 0) == []
    assert usable("4,5", 2) == ["4", "5"]
    with pytest.raises(MachineError, match=r"=4,5,9: PyTorch finds no GPU 9, only 4,5$"):
        usable("4,5,9", 2)
    assert usable("MIG-a,MIG-b", 1) == ["MIG-a", "MIG-b"]
    assert usable("", 8) == []
    with pytest.raises(MachineError, match="CUDA_VISIBLE_DEVICES=7 asks for a GPU"):
        usable("7", 0)


def test_output_becomes_whole_lines() -> None:
    reader = LineReader()
    assert reader.feed(b"ha") == []
    assert reader.feed("lf µ".encode()[:-1]) == []
    assert reader.feed("µ".encode()[1:] + b"\n\nnext\r\n") == ["half µ", "next"]
    assert reader.feed(b"1%\r2%\r") == []
    assert reader.feed(b"100%\nto") == ["100%"]
    assert reader.feed(b"\x1b[1mbold\x1b[0m\x07 [red]\xff\n") == ["tobold [red]\ufffd"]
    assert reader.feed(b"x" * (MAX_LINE + 1)) == ["x" * MAX_LINE, "x"]
    assert reader.feed(b"12345\r" * MAX_LINE + b"12") == []
    assert reader.feed(b"3", last=True) == ["123"]


def test_reports_count_what_came_in_a_row(tmp_path: Path) -> None:
    path = tmp_path / "report"
    assert read_report(path).unfit == ()
    path.write_text("unfit a\nrecorded\nunfit b\nunfit c d\n")
    assert (read_report(path).recorded, read_report(path).unfit) == (1, ("b", "c d"))


def test_a_device_that_was_given_and_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    for text in ("7", "GPU-1f2e", "MIG-77"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
        with pytest.raises(MachineError, match=f"CUDA_VISIBLE_DEVICES={text} asks for a GPU"):
            pick_device("auto")
        assert pick_device("cpu").type == "cpu"
    for text in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
        assert pick_device("auto").type == "cpu"


def test_a_full_disk_is_found_out_before_the_run(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MIN_FREE_BYTES", 2**62)  # more than any disk has
    with pytest.raises(MachineError, match=r"study: \d+ MiB free; a run needs \d+ MiB"):
        preflight(tiny_config)


def test_commands_that_start_others_wait_for_nothing_that_they_do_not_need() -> None:
    program = "import agent.export, agent.launch, agent.local, agent.retry, agent.transfer, sys\n"
    program += "sys.exit(bool({'torch', 'wandb.sdk.launch'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", program], check=True)
