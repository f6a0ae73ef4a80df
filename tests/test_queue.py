"""The queue: every point once, whatever drivers do at the same moment or die of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.scheduling.journal import JOURNAL
from agent.scheduling.queue import Queue, Ticket, open_queue
from agent.scheduling.storage import check_storage
from agent.study.sweepfile import Point, Sweep, parse_sweep
from fno_runner.errors import MachineError, UserError

GRID: dict[str, Point] = {f"{number:012x}": {"seed": number} for number in range(6)}


def a_sweep(method: str = "grid", **parameters: dict[str, Any]) -> Sweep:
    metric = {"name": "ssim_phase", "goal": "maximize"}
    parameters = parameters or {"seed": {"values": [0, 1, 2, 3, 4, 5]}}
    return parse_sweep({"method": method, "metric": metric, "parameters": parameters}, "test")


def a_queue(folder: Path, sweep: Sweep | None = None) -> Queue:
    return open_queue(None, folder, sweep or a_sweep())


def drain(*queues: Queue) -> list[Ticket]:
    """Let the queues take turns until none has a point."""
    taken: list[Ticket] = []
    while round_ := [ticket for queue in queues if (ticket := queue.take(GRID)) is not None]:
        taken += round_
    return taken


def test_points_are_taken_once_each_in_order(tmp_path: Path) -> None:
    queue = a_queue(tmp_path)
    assert queue.take(GRID) is None
    assert queue.offer(lambda: GRID) == 6
    assert queue.offer(lambda: GRID) == 0
    assert [ticket.run_id for ticket in drain(queue, a_queue(tmp_path))] == list(GRID)


def test_two_that_offer_at_the_same_moment_take_each_point_once(tmp_path: Path) -> None:
    first, second = a_queue(tmp_path), a_queue(tmp_path)

    def wanted_by_one() -> dict[str, Point]:
        # The other one looks and offers between this one's look and its offer.
        assert second.offer(lambda: GRID) == 6
        return GRID

    assert first.offer(wanted_by_one) == 6
    assert sorted(ticket.run_id for ticket in drain(first, second)) == list(GRID)


def test_a_doubly_offered_point_that_is_done_is_not_taken_again(tmp_path: Path) -> None:
    first, second = a_queue(tmp_path), a_queue(tmp_path)
    point = dict(list(GRID.items())[:1])
    first.offer(lambda: point if second.offer(lambda: point) else {})
    ticket = first.take(GRID)
    assert ticket is not None
    first.finish(ticket, "failed", None)
    assert second.take(GRID) is None
    # Asked for again afterwards, it is a new attempt.
    second.offer(lambda: point)
    assert second.take(GRID) is not None


def test_a_point_given_back_can_be_offered_again(tmp_path: Path) -> None:
    queue = a_queue(tmp_path)
    queue.offer(lambda: GRID)
    for ticket in drain(queue):
        queue.give_back(ticket)
    assert queue.outcomes() == {}
    assert queue.offer(lambda: GRID) == 6


def test_a_point_of_other_data_is_dropped(tmp_path: Path) -> None:
    queue = a_queue(tmp_path)
    queue.offer(lambda: {"f" * 12: {"seed": 9}, **GRID})
    assert [ticket.run_id for ticket in drain(queue)] == list(GRID)


def test_outcomes_name_the_latest_attempt(tmp_path: Path) -> None:
    queue = a_queue(tmp_path)
    for status in ("failed", "finished"):
        queue.offer(lambda: dict(list(GRID.items())[:1]))
        ticket = queue.take(GRID)
        assert ticket is not None
        queue.finish(ticket, status, 0.5)
    assert queue.outcomes() == {"0" * 12: "finished"}


DIES_WITH_A_POINT = """
import subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_queue import GRID, a_queue
queue = a_queue(Path(sys.argv[1]))
queue.offer(lambda: GRID)
ticket = queue.take(GRID)
run = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                       start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
queue.started(ticket, run.pid)
print(run.pid)
import os
os._exit(9)
"""


def test_the_point_of_a_dead_driver_is_free_again_and_its_run_is_stopped(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", DIES_WITH_A_POINT, str(tmp_path), here]
    driver = subprocess.run(command, capture_output=True, text=True, check=False)
    assert driver.returncode == 9, driver.stderr
    run = int(driver.stdout)
    assert psutil.pid_exists(run)
    queue = a_queue(tmp_path)
    assert queue.running_elsewhere() == {}, "nobody runs it, though nobody has taken it up yet"
    assert queue.reclaim() == ["0" * 12]
    assert not psutil.pid_exists(run) or psutil.Process(run).status() == psutil.STATUS_ZOMBIE
    assert queue.reclaim() == []
    assert queue.offer(lambda: GRID) == 1
    assert sorted(ticket.run_id for ticket in drain(queue)) == list(GRID)


def test_the_point_of_a_living_driver_stays_its_own(tmp_path: Path) -> None:
    queue = a_queue(tmp_path)
    queue.offer(lambda: GRID)
    assert queue.take(GRID) is not None
    assert a_queue(tmp_path).reclaim() == []


def name(point: Point) -> str:
    """No two points share one, as no two share a run_id."""
    return f"{point['modes']:06x}{point['width']:06x}"


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_sampler_draws_new_points_until_the_space_is_empty(tmp_path: Path, method: str) -> None:
    sweep = a_sweep(method, modes={"min": 1, "max": 3}, width={"value": 8})
    queue = a_queue(tmp_path, sweep)
    seen = []
    while ticket := queue.draw(sweep.parameters, name, [name({"modes": 2, "width": 8})]):
        seen.append(ticket.point)
        queue.finish(ticket, "finished", 0.1)
    assert sorted(point["modes"] for point in seen) == [1, 3]  # type: ignore[type-var]
    assert all(point["width"] == 8 for point in seen)


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_drawn_point_that_was_given_back_is_drawn_first_and_by_one(
    tmp_path: Path, method: str
) -> None:
    sweep = a_sweep(method, modes={"min": 1, "max": 64}, width={"values": [8, 16]})
    first, second = a_queue(tmp_path, sweep), a_queue(tmp_path, sweep)
    tickets = [first.draw(sweep.parameters, name, []) for _ in range(3)]
    stopped, done, ended = (ticket for ticket in tickets if ticket is not None)
    first.finish(done, "finished", 0.1)
    first.finish(ended, "failed", None)
    first.give_back(stopped)
    again = second.draw(sweep.parameters, name, [])
    assert again is not None and again.point == stopped.point
    other = first.draw(sweep.parameters, name, [])
    assert other is not None and other.point not in [stopped.point, done.point, ended.point]
    second.give_back(again)
    last = first.draw(sweep.parameters, name, [again.run_id])
    assert last is not None and last.run_id != again.run_id, "it has its record from elsewhere"


def test_drawn_values_stay_in_their_ranges(tmp_path: Path) -> None:
    sweep = a_sweep(
        "random",
        learning_rate={"min": 1e-4, "max": 1e-2, "distribution": "log_uniform_values"},
        probe_coma={"min": -1.0, "max": 1.0},
        modes={"values": [4, 8]},
    )
    queue = a_queue(tmp_path, sweep)
    for number in range(5):
        ticket = queue.draw(sweep.parameters, lambda _, n=number: f"{n:012x}", [])  # type: ignore[misc]
        assert ticket is not None
        rate, coma = ticket.point["learning_rate"], ticket.point["probe_coma"]
        assert isinstance(rate, float) and 1e-4 <= rate <= 1e-2
        assert isinstance(coma, float) and -1 <= coma <= 1
        assert ticket.point["modes"] in (4, 8)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("sqlite:///q.db", "SQLite hands points out twice"),
        ("mysql://u:secret@h/d", "'mysql' is not known; allowed is postgresql://"),
        ("secret", "not a URL"),
        ("postgresql://u:secret@h:port/d", "not a URL"),
    ],
)
def test_other_storages_are_refused(url: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        check_storage(url)
    assert line in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_database_that_does_not_answer_gets_one_line_without_the_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(MachineError) as caught:
        open_queue("postgresql://me:secret@127.0.0.1:1/d", tmp_path, a_sweep())
    message = str(caught.value)
    assert "no answer" in message
    assert "secret" not in message
    assert "\n" not in message


def test_a_missing_psycopg_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"\[postgresql\]"):
        open_queue("postgresql://me@127.0.0.1:1/d", tmp_path, a_sweep())


def test_a_damaged_journal_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('{"op_code"\n{}\n{}\n')
    with pytest.raises(MachineError, match="damaged; remove it"):
        a_queue(tmp_path)


def test_many_points_are_synced_to_the_disk_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of points, each synced by itself, would be minutes before the first one starts."""
    first, second = a_queue(tmp_path), a_queue(tmp_path)
    synced: list[int] = []
    sync = os.fsync

    def counted(file: int) -> None:
        synced.append(file)
        sync(file)

    monkeypatch.setattr(os, "fsync", counted)
    assert first.offer(lambda: GRID) == len(GRID)
    assert len(synced) == 1
    assert second.offer(lambda: GRID) == 0
    assert [ticket.run_id for ticket in drain(first, second)] == list(GRID)
