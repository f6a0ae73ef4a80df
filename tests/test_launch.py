"""`agent.launch` with the real `wandb agent` against the stand-in server, and what runs tell it.

Where a training adds nothing, a point is a stub: it logs, and does what its box says.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.test_wandb_agents import tiny_sweep
from tests.wandb_backend import Sweep, WandbBackend

LAUNCH = [sys.executable, "-m", "agent.launch"]

# A point: takes as long as its box's `seconds` says, and finds a box without that file unfit.
STUB = """
import os, signal, sys, time
from pathlib import Path
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
import wandb
run = wandb.init(resume="allow", settings=wandb.Settings(silent=True, console="off"))
def end(line, preempted, status):
    if preempted:
        run.mark_preempting()
    run.finish(exit_code=status)
    if line:
        with open(os.environ["FNO_SLOT_REPORT"], "a") as stream:
            stream.write(line + "\\n")
    sys.exit(status)
try:
    seconds = float(Path("seconds").read_text())
except OSError:
    end("unfit the data are not here", True, 3)
print("threads", os.environ["OMP_NUM_THREADS"], "gpus", repr(os.environ["CUDA_VISIBLE_DEVICES"]))
sys.stdout.write("[bold]10%\\r[bold]100%\\r\\n")
sys.stdout.flush()
until = time.monotonic() + seconds
while time.monotonic() < until:
    time.sleep(0.05)
    if told:
        end(None, True, 1)
end("recorded", False, 0)
"""


@pytest.fixture
def backend() -> Iterator[WandbBackend]:
    with WandbBackend() as running:
        yield running


@pytest.fixture
def env(backend: WandbBackend, tmp_path: Path) -> dict[str, str]:
    """A box's environment: no GPU, and nobody has said how many threads."""
    made = backend.environment(tmp_path)
    return {k: v for k, v in made.items() if k not in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}


def stub_sweep(backend: WandbBackend, folder: Path, program: str = STUB, **values: Any) -> Sweep:
    """A grid over keys of the runner, whose points are stubs."""
    path = folder / "stub" / "agent" / "run.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(program)
    config = {
        "program": "agent/run.py",
        "command": ["${env}", "${interpreter}", str(path), "${args}"],
        "method": "grid",
        "parameters": {key: {"values": list(items)} for key, items in values.items()},
    }
    return backend.add_sweep(config, "study")


@contextmanager
def launched(
    env: Mapping[str, str], box: Path, *arguments: str, command: list[str] = LAUNCH
) -> Iterator[subprocess.Popen[str]]:
    """`agent.launch` on a box, its output in launch.txt there; it does not outlive the test."""
    box.mkdir(exist_ok=True)
    with (box / "launch.txt").open("a") as log:
        process = subprocess.Popen(
            [*command, *arguments], env=env, cwd=box, stdout=log, stderr=log, text=True
        )
    started = psutil.Process(process.pid)
    try:
        yield process
    finally:
        if process.poll() is None:
            family = [started, *started.children(recursive=True)]
            for member in family:
                member.kill()
            process.wait()


def wait_until(there: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def states(backend: WandbBackend, sweep: Sweep) -> list[str]:
    return [run.state for run in backend.sweep_runs(sweep)]


def said(box: Path) -> str:
    return (box / "launch.txt").read_text()


def write(folder: Path, seconds: float) -> Path:
    """A box whose points take so long."""
    folder.mkdir(exist_ok=True)
    (folder / "seconds").write_text(str(seconds))
    return folder


# --- a box ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_boxes_that_work_are_stopped_and_are_broken(
    backend: WandbBackend, env: dict[str, str], tmp_path: Path
) -> None:
    shared = stub_sweep(backend, tmp_path, width=[3, 4], modes=[5, 6])
    long = stub_sweep(backend, tmp_path, width=[3])
    hopeless = stub_sweep(backend, tmp_path / "hopeless", "raise SystemExit(1)", width=range(1, 9))
    stopped, good = write(tmp_path / "stopped", 60), write(tmp_path / "good", 0.1)
    broken, wrong = tmp_path / "broken", tmp_path / "wrong"
    with (
        launched(env, stopped, long.path) as to_stop,
        launched(env, broken, shared.path) as without_data,
        launched(env, wrong, hopeless.path) as hopeless_one,
    ):
        wait_until(lambda: "threads" in said(stopped))
        family = psutil.Process(to_stop.pid).children(recursive=True)
        assert len(family) >= 4  # an agent, a run, and the client's own processes
        to_stop.send_signal(signal.SIGINT)
        wait_until(lambda: shared.requeued)
        with launched(env, good, shared.path, "--per-gpu", "2") as with_data:
            assert to_stop.wait(timeout=60) == 130
            assert psutil.wait_procs(family, timeout=10)[1] == []
            others = (without_data, hopeless_one, with_data)
            assert [process.wait(timeout=120) for process in others] == [3, 3, 0]

    assert (states(backend, long), len(long.requeued)) == (["preempted"], 1)
    assert said(stopped).endswith("cpu0: 0 runs; stopped\n")
    assert said(broken).splitlines()[-1] == (
        "error: cpu0: 0 runs; 3 runs in a row could not begin here: the data are not here"
    )
    assert "error: cpu0: 0 runs; its agent gave up" in said(wrong)
    assert len(backend.sweep_runs(hopeless)) == 3  # and not all eight
    points = {(run.config["width"], run.config["modes"]) for run in backend.sweep_runs(shared)}
    assert points == {(3, 5), (3, 6), (4, 5), (4, 6)}
    assert states(backend, shared) == ["finished"] * 4
    check_output(said(good))


def check_output(text: str) -> None:
    """Every line of an agent or a run has its slot before it; nothing in it is markup."""
    for line in text.splitlines():
        assert re.match(r"cpu[01] │ |cpu[01]: |sweep: team/study/", line), line
    ended = re.findall(r"^cpu[01]: (\d) runs?; the server has no more points", text, re.MULTILINE)
    assert len(ended) == 2 and sum(map(int, ended)) == 4
    share = max(1, len(os.sched_getaffinity(0)) // 2) if hasattr(os, "sched_getaffinity") else None
    assert share is None or f"│ threads {share} gpus ''" in text
    assert "│ [bold]100%\n" in text and "10%\r" not in text and "[bold]10%" not in text


@pytest.mark.slow
def test_an_agent_that_idles_or_is_killed_is_replaced(
    backend: WandbBackend, env: dict[str, str], tmp_path: Path
) -> None:
    sweep = stub_sweep(backend, tmp_path, width=[3, 4, 5])
    sweep.state = "PAUSED"
    box = write(tmp_path / "box", 60)
    command = quick(AGAIN_S=1.0, SILENT_S=12.0)
    with launched(env, box, sweep.path, "--count", "2", command=command) as process:
        wait_until(lambda: "cpu0 │ the agent was idle; another one starts in 1 s" in said(box))
        sweep.state = "RUNNING"
        wait_until(lambda: "threads" in said(box))
        time.sleep(14)  # silent as well, and at work
        (agent,) = (
            c for c in psutil.Process(process.pid).children() if "--forward-signals" in c.cmdline()
        )
        write(box, 0.1)
        agent.kill()
        assert process.wait(timeout=90) == 0
    text = said(box)
    assert "cpu0 │ the agent was killed by signal 9; another one starts in 1 s" in text
    assert "cpu0: 2 runs; as many as asked" in text
    assert text.index("threads") > text.rindex("was idle")
    assert states(backend, sweep) == ["finished", "finished"]


@pytest.mark.slow
def test_agents_that_keep_dying_are_given_up(
    backend: WandbBackend, env: dict[str, str], tmp_path: Path
) -> None:
    backend.faults.add("CreateAgent", status=403, times=None)
    sweep = stub_sweep(backend, tmp_path, width=[3])
    box = write(tmp_path / "box", 0)
    with launched(env, box, sweep.path, command=quick(AGAIN_S=0.1, MAX_DEATHS=3)) as process:
        assert process.wait(timeout=120) == 1
    assert "error: cpu0: 0 runs; its agent died 3 times in a row; the last ended with" in said(box)


def quick(**constants: float) -> list[str]:
    """`agent.launch` with other waiting times."""
    change = f"vars(agent.server.supervisor).update({constants})"
    imports = "import agent.server.supervisor, agent.launch"
    code = f"{imports}; {change}; raise SystemExit(agent.launch.main())"
    return [sys.executable, "-c", code]


@pytest.mark.slow
def test_a_second_ctrl_c_kills(backend: WandbBackend, env: dict[str, str], tmp_path: Path) -> None:
    deaf = STUB.replace("told.append(1)", "None")
    sweep = stub_sweep(backend, tmp_path, deaf, width=[3])
    box = write(tmp_path / "box", 60)
    with launched(env, box, sweep.path) as process:
        wait_until(lambda: "threads" in said(box))
        family = psutil.Process(process.pid).children(recursive=True)
        for number in (signal.SIGTERM, signal.SIGHUP):  # as from a scheduler or a terminal
            process.send_signal(number)
            time.sleep(1)
        assert process.poll() is None and states(backend, sweep) == ["running"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 143
    assert psutil.wait_procs(family, timeout=10)[1] == []


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
def test_a_launcher_that_is_killed_takes_its_agents_along(
    backend: WandbBackend, env: dict[str, str], tmp_path: Path
) -> None:
    sweep = stub_sweep(backend, tmp_path, width=[3])
    box = write(tmp_path / "box", 60)
    with launched(env, box, sweep.path) as process:
        wait_until(lambda: "threads" in said(box))
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        assert psutil.wait_procs(family, timeout=20)[1] == []
    assert states(backend, sweep) == ["preempted"]


@pytest.mark.slow
def test_real_trainings_find_the_box_that_has_their_data(
    backend: WandbBackend,
    env: dict[str, str],
    tiny_npz: tuple[Path, Path],
    data_dir: Path,
    tmp_path: Path,
) -> None:
    content = tiny_sweep(tiny_npz, data_dir, architecture=["fno", "hybrid"])
    content["parameters"] |= {
        "train_npz": {"value": "train.npz"},
        "test_npz": {"value": "test.npz"},
    }
    sweep = backend.add_sweep(content, "study")
    poor, rich = tmp_path / "poor", tmp_path / "rich"
    with launched(env, poor, sweep.path) as process:
        assert process.wait(timeout=200) == 3
    assert "3 runs in a row could not begin here: train.npz: no such file" in said(poor)
    (run,) = backend.sweep_runs(sweep)
    assert (run.state, run.group, sweep.requeued) == ("preempted", sweep.id, [run.id])
    assert [p for p in poor.rglob("*") if p.is_file() and "sweep-" not in str(p)] == [
        poor / "launch.txt"
    ]

    rich.mkdir()
    for path in tiny_npz:
        (rich / path.name).write_bytes(path.read_bytes())
    with launched(env, rich, sweep.path, "--per-gpu", "2") as process:
        assert process.wait(timeout=250) == 0
    runs = backend.sweep_runs(sweep)
    assert runs[0] is run and len(runs) == 2
    # So short a training may collapse, which is a result.
    assert all(r.summary["status"] in ("finished", "collapsed") for r in runs)
    assert {r.config["architecture"] for r in runs} == {"fno", "hybrid"}
    assert all(r.config["run_id"] and r.tags and r.display_name for r in runs)


@pytest.mark.slow
def test_a_signal_to_every_process_gives_the_point_back(
    backend: WandbBackend,
    env: dict[str, str],
    tiny_npz: tuple[Path, Path],
    data_dir: Path,
    tmp_path: Path,
) -> None:
    sweep = backend.add_sweep(tiny_sweep(tiny_npz, data_dir, epochs=[50_000]), "study")
    box = tmp_path / "box"
    with launched(env, box, sweep.path) as process:
        wait_until(lambda: "epoch 1:" in said(box))
        family = psutil.Process(process.pid).children(recursive=True)
        for member in [*family, psutil.Process(process.pid)]:
            member.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert (states(backend, sweep), len(sweep.requeued)) == (["preempted"], 1)
    assert not list(box.rglob("result.json"))


# --- bad input ------------------------------------------------------------------------------------

# Many command lines in one process, as its start takes seconds.
CASES = """
import contextlib, io, json, os, sys
from agent.launch import main
answers = []
for variables, arguments in json.load(sys.stdin):
    os.environ.update(variables)
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        status = main(arguments)
    answers.append([status, error.getvalue()])
    for name in variables:
        del os.environ[name]
print(json.dumps(answers))
"""


def test_bad_input_starts_nothing(
    backend: WandbBackend, env: dict[str, str], tmp_path: Path
) -> None:
    good = stub_sweep(backend, tmp_path, width=[3]).path
    parts = {"program": "agent/run.py", "method": "grid", "parameters": {"width": {"value": 3}}}
    other = backend.add_sweep({**parts, "program": "train.py"}, "study").path
    alien = backend.add_sweep({**parts, "parameters": {"wdith": {"value": 3}}}, "study").path
    empty = backend.add_sweep({**parts, "parameters": {}}, "study").path
    no_gpu: dict[str, str] = {"CUDA_VISIBLE_DEVICES": ""}
    cases: list[tuple[dict[str, str], list[str], int, str]] = [
        ({}, ["x7k2p9qa"], 2, "'x7k2p9qa' lacks the entity and the project"),
        ({}, ["team/study/nope"], 2, "team/study/nope: the server knows no such sweep"),
        ({"WANDB_MODE": "offline"}, ["team/study/nope"], 2, "the server knows no such sweep"),
        ({}, [other], 2, "a sweep of another program (train.py)"),
        ({}, [alien], 2, "unknown parameter 'wdith'; did you mean 'width'?"),
        ({}, [empty], 2, "no parameter is given"),
        ({}, [good, "--gpus", "first"], 2, "--gpus first: allowed is all, none, or numbers"),
        ({}, [good, "--per-gpu", "0"], 2, "argument --per-gpu: '0': allowed is an integer ≥ 1"),
        ({}, [good, "--count", "-1"], 2, "argument --count"),
        ({}, [], 2, "required: ENTITY/PROJECT/SWEEP_ID"),
        (no_gpu, [good, "--gpus", "0,2"], 3, "--gpus 0,2: there is no GPU 0"),
    ]
    if not torch.cuda.is_available():
        gone = {"CUDA_VISIBLE_DEVICES": "7"}
        cases.append((gone, [good], 3, "CUDA_VISIBLE_DEVICES=7 asks for a GPU"))
    asked = json.dumps([case[:2] for case in cases])
    done = subprocess.run(
        [sys.executable, "-c", CASES],
        env=env, cwd=tmp_path, input=asked, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for (_, arguments, status, line), (got, error) in zip(
        cases, json.loads(done.stdout), strict=True
    ):
        assert (got, error.count("\n")) == (status, 1), (arguments, error)
        assert error.startswith("error: ") and line in error, (arguments, error)

    backend.faults.add("*", html=True, times=None)
    keyless = {k: v for k, v in env.items() if k != "WANDB_API_KEY"}
    for variables, line in ((env, "a web page"), (keyless, "no API key")):
        done = subprocess.run(
            [*LAUNCH, good],
            env=variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert line in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert backend.count("CreateAgent") == 0
    assert not list(tmp_path.rglob("*.partial"))
