"""Every point once, whoever dies when; and the numbers of faults that were injected to see it."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent import export as export_module
from agent.scheduling import claims, listener
from agent.scheduling.claims import Claims
from agent.scheduling.queue import open_queue
from fno_runner.errors import MachineError
from fno_runner.process import ProcessIdentity
from tests import faults
from tests.bench import Bench, is_alive
from tests.postgres import postgresql
from tests.test_queue import GRID, a_sweep

MANY = """
name: many
method: grid
metric: {name: ssim_phase, goal: maximize}
parameters:
  width: {values: WIDTHS}
  epochs: {value: 1}
"""


def of_points(count: int) -> str:
    return MANY.replace("WIDTHS", str(list(range(1, count + 1))))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path, monkeypatch)
    yield bench
    for _, pid in bench.starts():
        if is_alive(pid):
            psutil.Process(pid).kill()
            pytest.fail("a run outlived its drivers")


@pytest.fixture(params=["journal", pytest.param("postgresql", marks=pytest.mark.faults)])
def storage(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The options that choose the queue's storage."""
    if request.param == "journal":
        yield []
    else:
        with postgresql() as url:
            yield [f"--storage={url}"]


def wait(*drivers: subprocess.Popen[str], seconds: float = 240) -> list[str]:
    return [driver.communicate(timeout=seconds)[0] for driver in drivers]


# --- many at once ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drivers", "workers", "points"),
    [(2, 4, 54), pytest.param(8, 1, 54, marks=pytest.mark.faults)],
)
def test_each_point_runs_once_whoever_is_at_work(
    bench: Bench, storage: list[str], drivers: int, workers: int, points: int
) -> None:
    """All drivers begin within a millisecond, at a study that none of them has made yet."""
    bench.write(of_points(points))
    go = bench.folder / "go"
    told = {"go": str(go)}
    started = [
        bench.start(f"--workers={workers}", *storage, told={**told, "runs": {"*": "random"}})
        for _ in range(drivers)
    ]
    time.sleep(4)  # until all of them wait
    go.touch()
    outputs = wait(*started)
    run_ids = [run_id for run_id, _ in bench.starts()]
    faults.observe("drivers started at once", drivers, repeated=len(run_ids) - len(set(run_ids)))
    assert Counter(bench.statuses().values()) == {"finished": points}, outputs
    assert sorted(run_ids) == sorted(set(run_ids)), outputs
    assert len(run_ids) == points
    assert 0 in [driver.returncode for driver in started], outputs
    assert not list((bench.study / "claims").glob("[0-9a-f]*")), "every claim was given up"


def test_a_point_that_the_storage_hands_out_twice_is_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (open_queue(None, tmp_path, a_sweep()) for _ in range(2))
    first.offer(lambda: GRID)
    handed: list[Any] = []
    ask_one = first._study.ask

    def ask(*_: object) -> Any:
        handed.append(ask_one())
        return handed[-1]

    monkeypatch.setattr(first._study, "ask", ask)
    monkeypatch.setattr(second._claims, "_me", ProcessIdentity("far", "far", 1, 1.0))
    for run_id in GRID:
        mine = first.take(GRID)
        assert mine is not None and mine.run_id == run_id
        # The other one is given the very trial that this one was given, and no more.
        again = iter([handed[-1]])
        monkeypatch.setattr(second._study, "ask", lambda again=again: next(again))
        with suppress(StopIteration):
            assert second.take(GRID) is None
        faults.count("points handed out twice")
    # What it was refused, it did not end for the other one.
    assert [trial.state.name for trial in first._trials()].count("RUNNING") == len(GRID)


def test_a_point_is_claimed_by_one_of_many_threads(tmp_path: Path) -> None:
    """Twenty at one point, as far drivers at the same moment: one has it."""
    everybody = [Claims(tmp_path) for _ in range(20)]
    for number, driver in enumerate(everybody):
        driver._me = ProcessIdentity("far", f"far {number}", 1, 1.0)
    for point in range(5):
        won: list[Claims] = []
        gate = threading.Barrier(len(everybody))

        def run(driver: Claims, gate: threading.Barrier, name: str, won: list[Claims]) -> None:
            gate.wait()
            if driver.take(name, 0):
                won.append(driver)

        name = f"{point:012x}"
        threads = [
            threading.Thread(target=run, args=(driver, gate, name, won)) for driver in everybody
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1


# --- dead or alive --------------------------------------------------------------------------------


@pytest.mark.faults
@pytest.mark.parametrize("died", [True, False])
def test_a_driver_on_another_host_is_dead_when_silent_and_only_then(
    bench: Bench, storage: list[str], died: bool
) -> None:
    bench.write(of_points(4))
    soon = {"beat_s": 0.5, "silent_s": 4.0}
    far = bench.start(*storage, told={**soon, "host": "far"}, w1="sleep")
    ((run_id, pid),) = bench.wait_for_starts(1)
    if died:
        far.kill()
        far.communicate(timeout=30)
        os.kill(pid, signal.SIGKILL)  # the whole host is gone
    near = bench.start(*storage, told={**soon, "host": "near"})
    (output,) = wait(near)
    faults.count("drivers killed on another host", int(died))
    if died:
        assert f"{run_id}: its driver died" in output
        assert near.returncode == 0, output
        assert set(bench.statuses().values()) == {"finished"} and len(bench.statuses()) == 4
    else:
        assert near.returncode == 1, output
        assert "3 finished of 4, 0 failed, 1 running in other drivers (on" in output
        assert is_alive(pid)
        far.terminate()
        wait(far)
    assert bench.repeats() == []


@pytest.mark.faults
def test_a_driver_that_slept_leaves_the_point_to_who_took_it(bench: Bench) -> None:
    """A laptop that was closed: its driver wakes up and finds its point taken by another host."""
    bench.write(of_points(1))
    soon = {"beat_s": 0.3, "silent_s": 2.0}
    asleep = bench.start(told={**soon, "host": "asleep"}, w1="sleep")
    ((_, pid),) = bench.wait_for_starts(1)
    os.kill(asleep.pid, signal.SIGSTOP)
    awake = bench.start(told={**soon, "host": "awake"}, w1="sleep")
    bench.wait_for_starts(2)
    os.kill(asleep.pid, signal.SIGCONT)
    (output,) = wait(asleep)
    assert "another driver has taken it" in output
    assert not is_alive(pid)
    assert bench.records() == {}
    awake.terminate()
    wait(awake)
    faults.count("drivers suspended", 1)


def test_a_claim_is_dead_when_its_process_is_gone_or_nothing_was_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(listener, "monotonic", lambda: clock[0])
    mine, here, far = Claims(tmp_path), Claims(tmp_path), Claims(tmp_path)
    place = mine._me.place
    here._me = ProcessIdentity("h", place, 2**22 + 1, 1.0)  # no such process
    far._me = ProcessIdentity("far", "far", 1, 1.0)
    assert here.take("a" * 12, 0) and far.take("b" * 12, 0)
    assert mine.is_dead("a" * 12) and mine.take("a" * 12, 1)
    assert not mine.is_dead("b" * 12)
    for _ in range(20):  # it beats
        clock[0] += claims.BEAT_S
        time.sleep(0.002)
        assert far.beat() == []
        assert not mine.is_dead("b" * 12) and not mine.take("b" * 12, 1)
    clock[0] += claims.SILENT_S
    assert not mine.is_dead("b" * 12)
    clock[0] += 1
    assert mine.take("b" * 12, 1)
    assert far.beat() == ["b" * 12]
    far.release("b" * 12)
    assert not far.take("b" * 12, 2), "what it gave up was no longer its own"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', "\x00" * 10_000])
def test_a_damaged_claim_counts_as_one_of_a_far_driver(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(listener, "monotonic", lambda: clock[0])
    mine = Claims(tmp_path)
    (tmp_path / ("a" * 12)).write_text(content)
    assert not mine.take("a" * 12, 0)
    clock[0] += claims.SILENT_S + 1
    assert mine.take("a" * 12, 0)


def test_a_line_in_which_a_writer_died_is_cut_off_the_journal(tmp_path: Path) -> None:
    queue = open_queue(None, tmp_path, a_sweep())
    queue.offer(lambda: GRID)
    journal = tmp_path / "queue.journal"
    whole = journal.read_bytes()
    for length in (1, 20):
        with journal.open("ab") as stream:
            stream.write(whole.splitlines()[-1][:length])
        later = open_queue(None, tmp_path, a_sweep())
        assert len(later._trials()) == len(GRID)
        ticket = later.take(GRID)
        assert ticket is not None
        later.give_back(ticket)
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())
    faults.count("journals torn", 2)


def test_claims_that_cannot_be_written_are_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "claims").write_text("in the way")
    with pytest.raises(MachineError, match="cannot write"):
        Claims(tmp_path / "claims")


# --- kill -9 --------------------------------------------------------------------------------------


def table_of(study: Path) -> list[dict[str, str]]:
    """The study's CSV without times and provenance."""
    export_module.export(study)
    with (study / "study_results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return [
        {k: v for k, v in row.items() if "time" not in k and k not in ("host", "log", "output_dir")}
        for row in rows
    ]


@pytest.mark.parametrize(
    ("kills", "points", "seed"), [(3, 24, 0), pytest.param(30, 150, 1, marks=pytest.mark.faults)]
)
def test_kill_9_at_any_moment_loses_nothing_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int, points: int, seed: int
) -> None:
    """Of a worker, of the driver, of both; each time another driver is started."""
    whole = Bench(make(tmp_path / "whole"), monkeypatch)
    whole.write(of_points(points))
    assert whole.run("--workers=4") == 0
    killed = Bench(make(tmp_path / "killed"), monkeypatch)
    killed.write(of_points(points))
    chance = random.Random(seed)
    done: set[int] = set()
    # A killed worker's point is recorded as failed, as the kernel's doing would be: tried again.
    for number in range(kills):
        before = len(killed.starts())
        driver = killed.start("--workers=4", "--retry-failed", told={"runs": {"*": "slow"}})
        killed.wait_for_starts(before + 1)
        time.sleep(chance.random() * 0.5)
        what = ("worker", "driver", "both")[number % 3]
        if what != "driver":
            alive = [pid for _, pid in killed.starts() if is_alive(pid)]
            for pid in alive[:1]:
                os.kill(pid, signal.SIGKILL)
            faults.count("workers killed", len(alive[:1]))
        if what != "worker":
            driver.kill()
            faults.count("drivers killed", 1)
        else:
            time.sleep(chance.random() * 0.3)
            driver.kill()
        driver.communicate(timeout=60)
        finished = {w for w, status in killed.statuses().items() if status == "finished"}
        assert done <= finished, "progress went back"
        done = finished
    last = killed.start("--workers=4", "--retry-failed")
    (output,) = wait(last)
    assert last.returncode == 0, output
    assert killed.repeats() == []
    attempts = Counter(run_id for run_id, _ in killed.starts())
    again = sum(number - 1 for number in attempts.values())
    assert again >= kills / 3, "too few were killed in the middle of a point"
    faults.observe("points of killed drivers taken up again", again)
    assert table_of(killed.study) == table_of(whole.study)
    assert not list((killed.study / "claims").glob("[0-9a-f]*"))


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder
