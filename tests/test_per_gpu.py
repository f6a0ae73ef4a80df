"""How many points a GPU has room for, and how much memory one needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import launch, local
from agent.scheduling import per_gpu
from agent.scheduling.mps import CONTROL
from agent.scheduling.per_gpu import MOST, points_per_gpu
from agent.scheduling.slots import Slot, add_slot_options, plan_slots, shared_slots
from agent.study.records import table
from agent.study.retimes import (
    Model,
    Protocol,
    Retiming,
    Times,
    prefer_retimed,
    write_retiming,
)
from agent.study.sweepfile import Sweep, parse_sweep
from fno_runner.cli import Parser
from fno_runner.config import RunConfig
from fno_runner.errors import UserError
from fno_runner.footprint import COPIES, data_bytes_of, largest, memory_need
from fno_runner.models import count_parameters
from fno_runner.reconstructor import Reconstructor
from fno_runner.result import BESIDE, BESIDE_COLUMN
from fno_runner.runner import run
from tests.commands import PROGRAM

GIB = 2**30


def sweep(**parameters: list[object]) -> Sweep:
    content = {
        "name": "s", "method": "grid", "program": "agent/run.py",
        "parameters": {key: {"values": values} for key, values in parameters.items()},
    }  # fmt: skip
    return parse_sweep(content, "test")


def box(folder: Path, free_mib: str | None, with_mps: bool = True) -> dict[str, str]:
    """The environment of a box with these programs; nvidia-smi says what each card has free."""
    folder.mkdir()
    programs = {CONTROL: ""} if with_mps else {}
    if free_mib is not None:
        programs["nvidia-smi"] = f"print({free_mib!r})"
    for name, code in programs.items():
        (folder / name).write_text(f"{PROGRAM}{code}\n")
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


SMALL = sweep(architecture=["fno"], width=[4, 8], modes=[4, 6])


@pytest.mark.parametrize(
    ("free_mib", "gpus", "cores", "expected"),
    [
        ("81000", ["0"], 16, MOST),
        ("81000", ["0"], 3, 3),
        ("81000\n5000", ["0", "1"], 16, 4),  # the fuller one decides, and two share the cores
        ("1000", ["0"], 16, 1),
    ],
)
def test_as_many_as_memory_and_cores_allow(
    free_mib: str,
    gpus: list[str],
    cores: int,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(per_gpu, "cores", lambda: cores)
    monkeypatch.setattr("fno_runner.footprint.memory_need", lambda config, _: int(1.2 * GIB))
    said: list[str] = []
    assert points_per_gpu(SMALL, gpus, box(tmp_path / "bin", free_mib), said.append) == expected
    (line,) = said
    assert line.startswith(f"{expected} point") and "1.2 GiB" in line


@pytest.mark.parametrize(
    ("free_mib", "with_mps", "asked", "why"),
    [
        ("81000", False, SMALL, f"no {CONTROL} here"),
        (None, True, SMALL, "nvidia-smi tells no free memory"),
        ("[N/A]", True, SMALL, "nvidia-smi tells no free memory"),
    ],
)
def test_one_where_more_would_gain_nothing_or_nobody_knows(
    free_mib: str | None, with_mps: bool, asked: Sweep, why: str, tmp_path: Path
) -> None:
    said: list[str] = []
    assert points_per_gpu(asked, ["0"], box(tmp_path / "bin", free_mib, with_mps), said.append) == 1
    (line,) = said
    assert why in line


@pytest.mark.parametrize("text", ["0", "-1", "many", "65", "1.5", ""])
def test_a_number_that_is_none_is_refused_in_a_line(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = Parser("test", "")
    add_slot_options(parser)
    with pytest.raises(UserError, match=r"--per-gpu.*allowed is an integer ≥ 1 and ≤ 64, or auto"):
        parser.parse_args([f"--per-gpu={text}"])
    for main, place in ((local.main, "sweep.yaml"), (launch.main, "e/p/s")):
        assert main([place, f"--per-gpu={text}"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1


def test_the_need_grows_with_all_that_takes_memory() -> None:
    small = RunConfig(width=4, modes=4, blocks=1)

    def need(**changes: object) -> int:
        return memory_need(small.model_copy(update=changes), 0)

    assert need(width=16) > need() and need(modes=16) > need() and need(blocks=3) > need()
    assert need(batch_size=32) - need(batch_size=16) == 16 * (
        need(batch_size=2) - need(batch_size=1)
    )
    assert need(replicates=3) - need(replicates=2) == need(replicates=2) - need()
    assert need(precision="bf16") == need()
    weights = 4 * count_parameters(Reconstructor(small))
    assert need() > GIB + COPIES * weights
    assert memory_need(small, 10**9) == need() + 10**9


def test_the_largest_needs_as_much_as_every_point() -> None:
    configs = [
        RunConfig(architecture=a, width=w, modes=m, blocks=2)
        for a in ("fno", "hybrid")
        for w, m in ((4, 8), (8, 4))
    ]
    bounds = {config.architecture: memory_need(config, 0) for config in largest(configs)}
    assert set(bounds) == {"fno", "hybrid"}
    for config in configs:
        assert memory_need(config, 0) <= bounds[config.architecture]


def test_data_count_by_their_patterns_or_their_file(tmp_path: Path) -> None:
    assert data_bytes_of(RunConfig()) == 13_778 * 64 * 64 * 4
    (tmp_path / "scan.npz").write_bytes(b"x" * 1000)
    assert data_bytes_of(RunConfig(scan=str(tmp_path / "scan.npz"))) == 1000
    assert data_bytes_of(RunConfig(scan=str(tmp_path / "absent.npz"))) == 0


# --- times that are taken beside other points -----------------------------------------------------


def test_a_run_knows_how_many_others_may_share_its_device() -> None:
    def beside(slots: list[Slot]) -> set[str | None]:
        return {slot.variables.get(BESIDE) for slot in slots}

    assert beside(plan_slots("all", 4, ["0", "1"], {})) == {"3"}
    assert beside(plan_slots("all", 1, ["0", "1"], {})) == {None}
    assert beside(plan_slots("none", 2, [], {})) == beside(shared_slots(2, {})) == {"1"}
    assert beside(shared_slots(1, {})) == {None}


def test_its_times_are_marked_until_they_are_taken_alone(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BESIDE, "3")
    result = run(tiny_config.model_copy(update={"epochs": 1})).result
    assert result.timing[BESIDE_COLUMN] == 3
    runs, remarks = prefer_retimed(table([result]), [Path(tiny_config.output_dir)])
    assert runs[BESIDE_COLUMN].tolist() == [3]
    assert any("1 of 1 rows were taken beside other points" in remark for remark in remarks)
    started = str(result.provenance["started"])
    alone = Times.model_validate(
        {
            **{name: 1.0 for name, field in Times.model_fields.items() if field.is_required()},
            **dict.fromkeys(("inference_repeats", "infer_batch_size", "latency_repeats"), 1),
            "flops_per_pattern": 1,
            "device_name": "a device", "threads": 1, "tf32": False,
        }
    )  # fmt: skip
    model = Model(
        run_started=started, measured=started, host="h", torch="2", times=alone, rounds_s=[(1, 1)]
    )
    protocol = Protocol(rounds=1, warm_up=1, enough=[(1, 1.0)], load=0.0)
    retiming = Retiming(protocol=protocol, models={result.run_id: model})
    write_retiming(Path(tiny_config.output_dir), retiming)
    runs, remarks = prefer_retimed(table([result]), [Path(tiny_config.output_dir)])
    assert runs[BESIDE_COLUMN].tolist() == [None] and runs["timed_by"].tolist() == ["retime"]
    assert not any("beside" in remark for remark in remarks)
