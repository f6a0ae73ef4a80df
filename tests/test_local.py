"""`agent.local` with real processes; what it runs is a stand-in (`tests.bench`)."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.local import main
from agent.scheduling import child
from agent.scheduling.slots import MAX_BREAKS, MAX_UNFIT, shared_slots
from agent.study.sweepfile import Point
from tests.bench import SWEEP, Bench, is_alive, stand_in_for


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path, monkeypatch)
    yield bench
    for _, pid in bench.starts():
        assert not is_alive(pid), "a run outlived its driver"


ALL_DONE = dict.fromkeys((8, 16, 24, 32), "finished")


def test_every_point_runs_once_and_only_what_is_missing_runs_again(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run("--workers=2") == 0
    assert bench.statuses() == ALL_DONE
    assert len(bench.starts()) == 4
    out = capsys.readouterr().out
    assert "w32  ssim_phase 0.32" in out
    assert "4 finished of 4, 0 failed" in out
    assert bench.run() == 0
    assert len(bench.starts()) == 4
    lost = bench.study / "runs" / bench.records()[16].run_id
    (lost / "result.json").unlink()
    assert bench.run() == 0
    assert [run_id for run_id, _ in bench.starts()[4:]] == [lost.name]


def test_a_failing_point_is_recorded_and_the_sweep_goes_on(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run(w16="fail") == 1
    assert bench.statuses() == {**ALL_DONE, 16: "failed"}
    out = capsys.readouterr().out
    assert "it broke" in out
    assert "3 finished of 4, 1 failed" in out
    assert bench.run() == 1, "a failed point is not run again by itself"
    assert len(bench.starts()) == 4
    assert bench.run("--retry-failed", w16="fail") == 1
    assert len(bench.starts()) == 5, "once a call, even if it fails again"
    assert bench.run("--retry-failed") == 0
    assert bench.statuses() == ALL_DONE


def test_a_point_that_was_stopped_on_purpose_is_done(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run(w8="stopped", w16="fail") == 1
    assert "2 finished of 4, 1 stopped, 1 failed" in capsys.readouterr().out
    assert bench.run("--retry-failed") == 0
    assert bench.statuses() == {**ALL_DONE, 8: "stopped"}
    assert len(bench.starts()) == 5, "it is not run again"
    assert bench.run("--dry-run") == 0
    assert "3 done, 1 stopped, 0 failed, 0 missing" in capsys.readouterr().out


def test_a_killed_run_gets_the_record_it_owes(bench: Bench) -> None:
    assert bench.run(w8="killed", w24="1") == 1
    assert bench.statuses() == {**ALL_DONE, 8: "failed", 24: "failed"}
    killed, ended = bench.records()[8].error, bench.records()[24].error
    assert killed is not None and ended is not None
    assert killed.type == ended.type == "ProcessDied"
    assert "SIGKILL" in killed.message
    assert "last line: about to killed" in killed.message
    assert "exit status 1" in ended.message
    assert "error: no such device" in ended.message
    # The record of an earlier attempt is not taken for that of this one.
    assert bench.run("--retry-failed", w8="fail", w24="killed") == 1
    messages = [record.error.message for record in bench.records().values() if record.error]
    assert len(messages) == 2
    assert any("SIGKILL" in message for message in messages)


def test_a_broken_machine_costs_no_point(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("--workers=2", w8="3", w16="3", w24="3", w32="3") == 3
    captured = capsys.readouterr()
    assert captured.err == "error: no such device\n"
    assert "4 missing" in captured.out
    assert len(bench.starts()) == 2 * MAX_UNFIT
    assert bench.records() == {}
    assert bench.run() == 0


def test_a_machine_that_was_busy_for_a_moment_costs_nothing(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run(w8="busy once", w16="busy once", w24="fail") == 1
    assert bench.statuses() == {**ALL_DONE, 24: "failed"}
    assert "worker0: no such device; the point goes back" in capsys.readouterr().out
    # Nor is a point forgotten that was to be run again.
    assert bench.run("--retry-failed", w24="fail") == 1
    assert bench.run("--retry-failed", w24="busy once") == 0
    assert bench.statuses() == ALL_DONE


def test_a_limit_ends_the_call_early(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("--limit=3") == 0
    assert len(bench.records()) == 3
    assert "1 missing" in capsys.readouterr().out
    assert bench.run("--limit=3") == 0
    assert bench.statuses() == ALL_DONE


def test_a_dry_run_lists_the_points_and_writes_nothing(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run("--dry-run") == 0
    assert "0 done, 0 failed, 4 missing" in capsys.readouterr().out
    assert sorted(path.name for path in bench.folder.iterdir()) == ["sweep.yaml"]
    bench.run("--limit=2", w16="fail")
    before = sorted((p, p.stat().st_mtime_ns) for p in bench.folder.rglob("*"))
    capsys.readouterr()
    assert bench.run("--dry-run") == 0
    out = capsys.readouterr().out
    assert "1 done, 1 failed, 2 missing" in out
    assert bench.records()[8].run_id in out
    assert sorted((p, p.stat().st_mtime_ns) for p in bench.folder.rglob("*")) == before


def test_two_drivers_at_once_share_the_points(bench: Bench) -> None:
    bench.write(SWEEP.replace("[8, 16, 24, 32]", str(list(range(1, 13)))))
    drivers = [bench.start("--workers=2") for _ in range(2)]
    outputs = [driver.communicate(timeout=60)[0] for driver in drivers]
    assert set(bench.statuses().values()) == {"finished"}, outputs
    run_ids = [run_id for run_id, _ in bench.starts()]
    assert len(run_ids) == len(set(run_ids)) == 12, outputs
    assert 0 in [driver.returncode for driver in drivers], outputs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_driver_leaves_no_run_and_loses_no_point(
    bench: Bench, number: signal.Signals
) -> None:
    driver = bench.start("--workers=2", w8="sleep", w16="sleep")
    bench.wait_for_starts(2)
    driver.send_signal(number)
    output = driver.communicate(timeout=30)[0]
    assert driver.returncode == 128 + number, output
    assert "4 missing" in output
    assert not any(is_alive(pid) for _, pid in bench.starts())
    assert bench.records() == {}
    assert bench.run() == 0


def test_a_second_signal_does_not_wait_for_a_stubborn_run(bench: Bench) -> None:
    driver = bench.start(w8="stubborn")
    ((run_id, pid),) = bench.wait_for_starts(1)
    while "deaf" not in (bench.study / "logs" / f"{run_id}.log").read_text():
        time.sleep(0.02)
    driver.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert is_alive(pid)
    driver.send_signal(signal.SIGTERM)
    driver.communicate(timeout=10)
    assert driver.returncode == 143
    assert not is_alive(pid)


def test_what_a_killed_driver_held_is_run_by_the_next(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = bench.start(w8="sleep")
    ((run_id, pid),) = bench.wait_for_starts(1)
    time.sleep(0.3)  # until the queue knows the run's pid
    driver.kill()
    driver.communicate(timeout=10)
    assert is_alive(pid), "a killed driver cannot stop its run"
    assert bench.run() == 0
    assert not is_alive(pid), "but the next one does"
    assert f"{run_id}: its driver died" in capsys.readouterr().out
    assert bench.statuses() == ALL_DONE
    assert len(bench.starts()) == 5


def test_a_driver_beside_a_busy_one_says_what_it_left(bench: Bench) -> None:
    busy = bench.start(w8="sleep")
    bench.wait_for_starts(1)
    other = bench.start()
    output = other.communicate(timeout=30)[0]
    assert other.returncode == 1
    assert "3 finished of 4, 0 failed, 1 running in other drivers" in output
    busy.terminate()
    busy.communicate(timeout=30)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--wrokers=2"], "unrecognized arguments: --wrokers=2"),
        (["--workers=2", "--per-gpu=2"], "not allowed with argument --workers"),
        (["--per-gpu=65"], "'65': allowed is an integer ≥ 1 and ≤ 64"),
        (["--workers=0"], "'0': allowed is an integer ≥ 1 and ≤ 256"),
        (["--limit=x"], "'x': allowed is an integer ≥ 1"),
        (["--storage=sqlite:///x.db"], "SQLite hands points out twice"),
    ],
)
def test_wrong_options_get_one_line(
    bench: Bench, capsys: pytest.CaptureFixture[str], options: list[str], line: str
) -> None:
    assert bench.run(*options) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not bench.study.exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (SWEEP + "run_cap: 3\n", "'run_cap' needs a Weights & Biases server; use --limit N"),
        (SWEEP + "early_terminate: {type: hyperband}\n", "'early_terminate' needs a"),
        (SWEEP.replace("epochs: {value: 1}", "device: {values: [cpu, auto]}"), "decides no result"),
        (SWEEP.replace("{value: 1}", "{value: 0}"), "epochs=0: allowed is"),
        (SWEEP + "  train_npz: {value: a.npz}\n  test_npz: {value: b.npz}\n", "a.npz"),
    ],
)
def test_wrong_sweeps_get_one_line_and_nothing_is_written(
    bench: Bench, capsys: pytest.CaptureFixture[str], text: str, line: str
) -> None:
    bench.write(text)
    for options in ([], ["--dry-run"]):
        assert bench.run(*options) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.startswith("error: ") and error.count("\n") == 1
    assert sorted(path.name for path in bench.folder.iterdir()) == ["sweep.yaml"]


def test_folders_that_cannot_be_the_study_get_one_line(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run("--limit=1") == 0
    bench.write(SWEEP.replace("{value: 1}", "{value: 2}"))
    assert bench.run() == 2
    assert "of another sweep" in capsys.readouterr().err
    for name, line in (("sweep.yaml", "ot a "), ("sweep.yaml/below", "ot a ")):
        bench.study = bench.folder / name
        assert bench.run() in (2, 3)
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1


def test_cores_are_shared_out_and_weights_and_biases_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.scheduling.slots.cores", lambda: 8)
    assert child.environment(tmp_path, {"HOME": "/h"}) == {
        "HOME": "/h",
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
    }
    given = {"WANDB_MODE": "online", "WANDB_DIR": "/w"}
    assert child.environment(tmp_path, given) == given
    slots = shared_slots(3, {})
    assert [slot.name for slot in slots] == ["worker0", "worker1", "worker2"]
    share = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "FNO_POINTS_BESIDE": "2"}
    assert all(slot.variables == share for slot in slots)
    assert [slot.variables for slot in shared_slots(1, {"OMP_NUM_THREADS": "5"})] == [{}]
    (slot,) = shared_slots(1, {"MKL_NUM_THREADS": "5"})
    assert slot.variables == {"OMP_NUM_THREADS": "8", "MKL_NUM_THREADS": "5"}


@pytest.mark.parametrize(
    ("gpus", "expected"), [(["4", "GPU-b"], ["4", "GPU-b", "4", "GPU-b"]), ([], 4 * [""])]
)
def test_every_gpu_gets_its_share_of_points(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, gpus: list[str], expected: list[str]
) -> None:
    """Two at a time on every GPU, or two in all: four points begin at once, or two and two."""
    monkeypatch.setattr("agent.scheduling.slots.usable_gpus", lambda given: gpus)
    asked: list[str] = []
    finish = stand_in_for({})

    def start_point(point: Point, study: Path, log: Path, variables: Mapping[str, str]) -> Any:
        asked.append(variables["CUDA_VISIBLE_DEVICES"])
        return finish(point, study, log, variables)

    monkeypatch.setattr(child, "start_point", start_point)
    assert main([*bench.arguments, "--per-gpu=2"]) == 0
    assert asked == expected
    assert bench.statuses() == dict.fromkeys((8, 16, 24, 32), "finished")


def test_a_gpu_that_is_unfit_again_and_again_gets_no_other_point(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.scheduling.slots.usable_gpus", lambda given: ["0", "1"])
    asked: list[str] = []
    fit, unfit = stand_in_for({}), stand_in_for(dict.fromkeys(("8", "16", "24", "32"), "3"))

    def start_point(point: Point, study: Path, log: Path, variables: Mapping[str, str]) -> Any:
        asked.append(variables["CUDA_VISIBLE_DEVICES"])
        return (unfit if asked[-1] == "1" else fit)(point, study, log, variables)

    monkeypatch.setattr(child, "start_point", start_point)
    assert main([*bench.arguments, "--per-gpu=1"]) == 3
    assert asked.count("0") == 4 and asked.count("1") == MAX_UNFIT
    assert set(bench.statuses().values()) == {"finished"} and len(bench.statuses()) == 4


@pytest.mark.parametrize(
    ("points", "workers"), [(["8"], "1"), (["32"], "3"), (["8", "32"], "1"), (["16", "32"], "1")]
)
def test_a_point_that_breaks_the_card_fails_where_others_finish(
    bench: Bench, points: list[str], workers: str
) -> None:
    behaviour = {f"w{width}": "breaks the card" for width in points}
    assert bench.run(f"--workers={workers}", **behaviour) == 1
    assert bench.statuses() == {**ALL_DONE, **{int(width): "failed" for width in points}}
    for width in points:
        record = bench.records()[int(width)]
        assert record.error is not None and "unspecified launch failure" in record.error.message
        attempts = [run_id for run_id, _ in bench.starts() if run_id == record.run_id]
        assert MAX_BREAKS <= len(attempts) <= MAX_BREAKS + int(workers)
    assert bench.run() == 1, "it is not run again by itself"
    assert bench.run("--retry-failed") == 0
    assert bench.statuses() == ALL_DONE


def test_a_card_that_breaks_under_every_point_is_what_is_broken(bench: Bench) -> None:
    assert bench.run("--limit=1") == 0
    breaks = dict.fromkeys(("w8", "w16", "w24", "w32"), "breaks the card")
    assert bench.run("--workers=2", **breaks) == 3
    assert len(bench.records()) == 1


def test_a_card_that_breaks_after_a_point_has_finished_costs_no_other(bench: Bench) -> None:
    breaks = dict.fromkeys(("w16", "w24", "w32"), "breaks the card")
    assert bench.run("--workers=1", **breaks) == 3
    assert bench.statuses() == {8: "finished"}


def test_what_breaks_the_card_and_then_finds_it_gone_is_not_tried_for_ever(bench: Bench) -> None:
    assert bench.run(w8="breaks the card, then is busy") == 3
    assert bench.statuses() == {16: "finished", 24: "finished", 32: "finished"}
    assert len(bench.starts()) == 3 + 2 + MAX_UNFIT


def test_a_point_becomes_options(tmp_path: Path) -> None:
    point: Point = {"architecture": "fno", "learning_rate": 1e-05, "train_patterns": None}
    assert child.arguments(point, tmp_path) == [
        "--architecture=fno",
        "--learning_rate=1e-05",
        f"--output_dir={tmp_path}",
    ]


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for word in ("--dry-run", "--retry-failed", "exit status", "WANDB_MODE", "postgresql://"):
        assert word in out
