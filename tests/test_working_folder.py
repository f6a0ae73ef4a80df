"""A run's folder while it works: whose it is, and what killed runs leave."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from errno import EIO
from pathlib import Path

import psutil
import pytest

from fno_runner.errors import MachineError
from fno_runner.process import ProcessIdentity
from fno_runner.working_folder import OWNER, working_folder

RUN = "00000000000a"
ME = ProcessIdentity.of(psutil.Process())


def remains(study: Path, name: str, owner: ProcessIdentity | None, run: str = RUN) -> Path:
    """A working folder that was there before."""
    folder = study / "runs" / f"{run}.{name}.partial"
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("epoch 1")
    if owner is not None:
        (folder / OWNER).write_text(json.dumps(owner.as_mapping()))
    return folder


def test_it_becomes_the_runs_folder_and_keeps_what_was_there(tmp_path: Path) -> None:
    for content in ("first", "second"):
        with working_folder(tmp_path, RUN) as (folder, publish):
            assert ProcessIdentity.read(json.loads((folder / OWNER).read_text())) == ME
            (folder / "result.json").write_text(content)
            final = publish()
    assert sorted(path.name for path in final.iterdir()) == ["log.txt", "result.json"]
    assert (final / "result.json").read_text() == "second"
    assert (tmp_path / "superseded" / f"{RUN}-1" / "result.json").read_text() == "first"


def publish_one(study: Path, content: str) -> Path:
    with working_folder(study, RUN) as (folder, publish):
        (folder / "result.json").write_text(content)
        return publish()


def test_what_was_there_gets_the_first_free_number(tmp_path: Path) -> None:
    """Also where somebody has removed some of what was kept."""
    for content in "abc":
        publish_one(tmp_path, content)
    shutil.rmtree(tmp_path / "superseded" / f"{RUN}-1")
    assert (publish_one(tmp_path, "d") / "result.json").read_text() == "d"
    publish_one(tmp_path, "e")
    kept = {path.name[-1]: (path / "result.json").read_text()
            for path in (tmp_path / "superseded").iterdir()}  # fmt: skip
    assert kept == {"1": "c", "2": "b", "3": "d"}


def test_processes_that_publish_a_run_at_once_lose_no_result(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from fno_runner.working_folder import working_folder\n"
        "for number in range(100):\n"
        "    with working_folder(Path(sys.argv[1]), sys.argv[2]) as (folder, publish):\n"
        "        (folder / 'result.json').write_text(f'{sys.argv[3]} {number}')\n"
        "        publish()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), RUN]
    processes = [subprocess.Popen([*command, str(who)]) for who in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    results = [path.read_text() for path in tmp_path.rglob("result.json")]
    assert set(results) == {f"{who} {number}" for who in range(3) for number in range(100)}
    assert len(results) == 300 and not list(tmp_path.rglob("*.partial"))


def test_a_result_that_cannot_be_published_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> Path:
        raise OSError(EIO, "Input/output error")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(MachineError, match="holds the result; cannot rename it: Input/output"):
        publish_one(tmp_path, "a")
    (left,) = (tmp_path / "runs").iterdir()
    assert (left / "result.json").read_text() == "a"
    monkeypatch.undo()
    gone = f"{RUN}.{socket.gethostname()}-{2**22 + 1}-1.partial"  # no such process
    of_before = left.rename(left.with_name(gone))
    publish_one(tmp_path, "b")
    assert (of_before / "result.json").read_text() == "a"


def test_remains_are_judged_by_the_process_and_not_by_its_pid(tmp_path: Path) -> None:
    host = socket.gethostname()
    gone = 2**22 + 1  # no such process
    later = replace(ME, started=ME.started - 1000)  # it had this process's pid, and is over
    elsewhere = replace(ME, place=f"{host} another boot")
    dead = [
        remains(tmp_path, f"{host}-{ME.pid}-1", later),
        remains(tmp_path, f"{host}-{gone}-2", replace(ME, pid=gone)),
        remains(tmp_path, f"{host}-{gone}", None),  # of version 0.1
    ]
    kept = [
        remains(tmp_path, f"{host}-{ME.pid}-{ME.started - 1:.0f}", ME),
        remains(tmp_path, f"{host}-{gone}-3", elsewhere),
        remains(tmp_path, f"other-{gone}", None),
        remains(tmp_path, f"{host}-{os.getppid()}", None),
        remains(tmp_path, f"{host}-{gone}-4", replace(ME, pid=gone), run="00000000000b"),
    ]
    with working_folder(tmp_path, RUN) as (folder, _):
        assert not [path for path in dead if path.exists()]
        assert [path for path in kept if path.exists()] == kept
    assert not folder.exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": "x"}', "[" * 5000])
def test_an_owner_that_cannot_be_read_is_told_by_the_name(tmp_path: Path, content: str) -> None:
    mine = remains(tmp_path, f"{socket.gethostname()}-{os.getpid()}", None)
    dead = remains(tmp_path, f"{socket.gethostname()}-{2**22 + 1}", None)
    for folder in (mine, dead):
        (folder / OWNER).write_text(content)
    with working_folder(tmp_path, RUN):
        assert mine.exists() and not dead.exists()


def test_a_program_whose_parent_is_gone_already_does_not_begin() -> None:
    command = [sys.executable, "-m", "agent.scheduling.stop_with_parent"]
    program = ["-c", "print('begun')"]
    parent = str(os.getpid())
    done = subprocess.run([*command, parent, *program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "begun\n")
    gone = str(2**22 + 1)
    done = subprocess.run([*command, gone, *program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
