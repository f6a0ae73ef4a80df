"""The MPS daemon of a command, with a stand-in for NVIDIA's program that behaves like it."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from agent.scheduling import mps
from agent.scheduling.mps import CONTROL, LOGS, MAX_RESTARTS, OWNER, PID_FILE, PIPES, shared_by_mps
from agent.scheduling.slots import Slot, plan_slots
from tests.bench import Bench, is_alive
from tests.commands import PROGRAM

# Starts a daemon that leaves its caller, with a pid file and a socket in the folder of pipes, and
# ends it at the line "quit"; says no where another one is there.
STAND_IN = f"""{PROGRAM}import os, pathlib, signal, socket, sys, time
pipes, logs = (pathlib.Path(os.environ[name]) for name in ("{PIPES}", "{LOGS}"))
pid_file = pipes / "{PID_FILE}"
def daemon():
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, 0)
        return pid
    except (OSError, ValueError):
        return None
if "-d" in sys.argv:
    if "FAIL_MPS" in os.environ:
        sys.exit("Cannot start: no permission")
    if daemon():
        sys.exit("An instance of this daemon is already running")
    (logs / "control.log").open("a").write(os.environ.get("CUDA_VISIBLE_DEVICES", "all") + "\\n")
    if os.fork():
        for _ in range(500):
            if daemon():
                sys.exit(0)
            time.sleep(0.01)
    os.setsid()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(pipes / "control"))
    pid_file.write_text(str(os.getpid()))
    signal.pause()
else:
    for line in sys.stdin:
        pid = daemon()
        if pid is None:
            sys.exit("Cannot find MPS control daemon process")
        if line.strip() == "quit":
            os.kill(pid, signal.SIGTERM)
"""
TWO_ON_ONE = plan_slots("all", 2, ["0"], {"OMP_NUM_THREADS": "1"})


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short path: that of a socket has 108 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="m") as folder:
        yield Path(folder)


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a box that has the program; its temporary files are the test's."""
    program = tmp_path / "bin" / CONTROL
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr(mps, "WATCH_S", 0.0)
    path = f"{program.parent}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.delenv(PIPES, raising=False)
    return dict(os.environ)


def daemons(folder: Path) -> list[int]:
    """The pids of the daemons whose pipes are below a folder, and that are alive."""
    pids = [int(path.read_text()) for path in folder.rglob(PID_FILE)]
    return [pid for pid in pids if is_alive(pid)]


def is_gone(pid: int) -> bool:
    return not is_alive(pid)


def wait_until(there: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not there():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_points_that_share_a_card_get_a_daemon_that_ends_with_them(
    given: dict[str, str], tmp_path: Path
) -> None:
    said: list[str] = []
    with shared_by_mps(TWO_ON_ONE, given, said.append) as (slots, watch):
        (pid,) = daemons(tmp_path)
        assert [slot.name for slot in slots] == ["gpu0.0", "gpu0.1"]
        (pipes,) = {slot.variables[PIPES] for slot in slots}
        assert {slot.variables["CUDA_VISIBLE_DEVICES"] for slot in slots} == {"0"}
        assert Path(pipes).stat().st_mode & 0o077 == 0, "nobody else's"
        watch()
        assert daemons(tmp_path) == [pid]
    assert not psutil.pid_exists(pid) or not is_alive(pid)
    assert said == [] and not list((tmp_path / "t").iterdir())


@pytest.mark.parametrize(
    "slots",
    [plan_slots("all", 1, ["0", "1"], {}), plan_slots("all", 4, [], {}), [Slot("worker0", {})]],
    ids=["one each", "no card", "worker"],
)
def test_points_that_share_no_card_need_none(
    slots: list[Slot], given: dict[str, str], tmp_path: Path
) -> None:
    with shared_by_mps(slots, given, pytest.fail) as (same, watch):
        watch()
        assert same == slots and not daemons(tmp_path)


def test_a_daemon_of_the_box_is_used_and_left_alone(given: dict[str, str], tmp_path: Path) -> None:
    box = {**given, PIPES: "/var/run/mps"}
    with shared_by_mps(TWO_ON_ONE, box, pytest.fail) as (same, _):
        assert same == TWO_ON_ONE and not daemons(tmp_path)


def test_a_daemon_that_dies_is_started_again_in_its_place_and_then_given_up(
    given: dict[str, str], tmp_path: Path
) -> None:
    said: list[str] = []
    with shared_by_mps(TWO_ON_ONE, given, said.append) as (slots, watch):
        for restart in range(1, MAX_RESTARTS + 1):
            (pid,) = daemons(tmp_path)
            os.kill(pid, signal.SIGKILL)
            wait_until(partial(is_gone, pid))
            watch()
            (again,) = daemons(tmp_path)
            assert again != pid and said == ["the MPS daemon died and was started again"] * restart
        assert (Path(slots[0].variables[PIPES]) / "control").exists()  # agents need no new one
        os.kill(again, signal.SIGKILL)
        wait_until(lambda: not is_alive(again))
        watch()
        watch()
        assert said[MAX_RESTARTS:] == [f"the MPS daemon died again: {mps.WITHOUT}"]
        assert not daemons(tmp_path)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("absent", f"no {CONTROL} here"),
        ("refuses", "Cannot start: no permission"),
        ("unwritable", "No such file or directory"),
        ("too long", "too long a path for a socket"),
        ("partitioned", "a part of a partitioned GPU"),
    ],
)
def test_where_there_is_no_mps_a_line_says_what_that_means(
    what: str, reason: str, given: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = TWO_ON_ONE
    if what == "absent":
        given["PATH"] = str(tmp_path)
    elif what == "refuses":
        given["FAIL_MPS"] = "1"
    elif what == "unwritable":
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    elif what == "too long":
        long = tmp_path / ("x" * 100)
        long.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(long))
    else:
        slots = plan_slots("all", 2, ["MIG-1"], given)
    said: list[str] = []
    with shared_by_mps(slots, given, said.append) as (same, watch):
        watch()
        assert same == slots
    (line,) = said
    assert line.startswith("no MPS (") and reason in line and line.endswith(mps.WITHOUT)
    assert "\n" not in line and not daemons(tmp_path)
    assert not list(tmp_path.rglob(f"{mps.PREFIX}*"))


def test_cards_that_have_names_are_all_that_the_daemon_sees(
    given: dict[str, str], tmp_path: Path
) -> None:
    for names, seen in ((["GPU-a", "GPU-b"], "GPU-a,GPU-b"), (["4", "5"], "all")):
        box = {**given, "CUDA_VISIBLE_DEVICES": ",".join(names)}
        with shared_by_mps(plan_slots("all", 2, names, box), box, pytest.fail):
            (log,) = tmp_path.rglob("control.log")
            assert log.read_text() == f"{seen}\n"


def test_the_daemon_of_a_killed_command_is_ended_by_the_next(
    given: dict[str, str], tmp_path: Path
) -> None:
    manager = shared_by_mps(TWO_ON_ONE, given, pytest.fail)
    manager.__enter__()
    (pid,) = daemons(tmp_path)
    (owner,) = tmp_path.rglob(OWNER)
    with shared_by_mps(TWO_ON_ONE, given, pytest.fail):
        assert is_alive(pid) and len(daemons(tmp_path)) == 2, "a living command's is left alone"
    owner.write_text(json.dumps(json.loads(owner.read_text()) | {"pid": 2**22 + 1}))
    with shared_by_mps(TWO_ON_ONE, given, pytest.fail):
        wait_until(lambda: not is_alive(pid))
        assert not owner.exists()


def test_points_of_a_sweep_run_with_it(
    given: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.scheduling.slots.count_gpus", lambda: 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    bench = Bench(tmp_path, monkeypatch)
    assert bench.run("--per-gpu=2") == 0
    assert set(bench.statuses().values()) == {"finished"}
    assert not daemons(tmp_path) and not list((tmp_path / "t").iterdir())
