"""`agent.export` of a server's runs: real processes and the unmodified client, on loopback."""

from __future__ import annotations

import csv
import json
import math
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.report.terminal import CSV
from agent.report.write import PLOT
from agent.study.records import COLUMNS
from agent.study.sweepfile import parse_sweep, points
from fno_runner.config import PATHS, RunConfig, load_config
from fno_runner.identity import run_id
from fno_runner.result import RunResult, run_folder, write_result
from tests.commands import python_m
from tests.test_mirrored import LEFTOVERS, failed, mirrored_summary, result_of
from tests.test_wandb_backend import QUICK_RETRIES
from tests.wandb_backend import API_KEY, Run, Sweep, WandbBackend

PROJECT = "study"
STUDIES = Path("outputs", "fno_hyperparam_study")


@pytest.fixture
def backend() -> Iterator[WandbBackend]:
    """A running server, of which every test has its own."""
    with WandbBackend() as running:
        yield running


def sweep_file(**parameters: object) -> dict[str, Any]:
    """A grid for this program, as `wandb sweep` sends it."""
    return {
        "name": "test",
        "method": "grid",
        "metric": {"name": "ssim_phase", "goal": "maximize"},
        "program": "agent/run.py",
        "command": ["${env}", "${interpreter}", "-m", "agent.run", "${args}"],
        "parameters": {key: {"values": values} for key, values in parameters.items()},
    }


def put(backend: WandbBackend, sweep: Sweep | None, result: RunResult, **changes: Any) -> Run:
    """A run on the server as `agent.run` leaves it; `changes` of its fields."""
    config = {k: v for k, v in result.config.items() if k not in PATHS}
    values = {
        "config": {"run_id": result.run_id, **config},
        "summary": mirrored_summary(result),
        "state": "finished" if result.status == "finished" else "failed",
        "group": sweep.id if sweep else None,
    }
    return backend.add_run(PROJECT, sweep=sweep, **(values | changes))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def export(
    env: Mapping[str, str], folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return python_m("agent.export", *arguments, env=env, cwd=folder)


def files_with_key(folder: Path) -> list[Path]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in paths if API_KEY.encode() in path.read_bytes()]


def processor_time() -> float:
    """Of all processes that were started here and have ended [s]."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_1200_runs_in_all_states_come_in_20_requests_and_20_seconds(
    backend: WandbBackend, tmp_path: Path
) -> None:
    file = sweep_file(width=list(range(1, 301)), modes=[6, 8, 12, 16])
    sweep = backend.add_sweep(file, PROJECT)
    asked = points(parse_sweep(file, "test"))
    for number, point in enumerate(asked[:-2]):
        config = load_config(point)
        result = result_of(config)
        changes: dict[str, Any] = {}
        if number % 100 == 7:
            changes = {"state": "crashed", "summary": LEFTOVERS}
        elif number % 100 == 8:
            result = failed(config, "<script>boom</script>, [red]twice\n")
        elif number % 100 == 9:
            changes = {"summary": {**mirrored_summary(result), "psnr_phase": math.nan}}
        put(backend, sweep, result, **changes)
    # One begun again by hand, one handed out and not heard of. The last point was never begun.
    put(backend, sweep, result_of(load_config(asked[7])))
    backend.add_run(PROJECT, sweep=sweep, config=asked[-2], state="pending")
    put(backend, None, result_of(RunConfig(seed=3)))  # not of the sweep
    backend.repeat_across_pages(3)

    env = backend.environment(tmp_path)
    before = processor_time()
    done = export(env, tmp_path, sweep.path, "--require-complete")
    took = processor_time() - before  # what runs beside it makes it wait, and costs it nothing
    print(f"{took:.1f} s, {len(backend.requests)} requests")
    assert took <= 20
    assert len(backend.requests) <= 20
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {sweep.path}: 25 of the grid's 1200 points have no finished run\n"
    )

    folder = tmp_path / STUDIES / sweep.id
    table = rows(folder / CSV)
    assert len(table) == 1200 and len({row["wandb_id"] for row in table}) == 1200
    assert tuple(table[0])[: len(COLUMNS)] == COLUMNS
    origin, timed = ("superseded", "wandb_id", "wandb_state"), ("timed_by", "trained_on")
    assert tuple(table[0])[-5:] == (*origin, *timed)
    assert [row["run_id"] for row in table] == sorted(row["run_id"] for row in table)
    statuses = [row["status"] for row in table]
    assert {word: statuses.count(word) for word in set(statuses)} == {
        "finished": 1175, "failed": 12, "crashed": 12, "pending": 1,
    }  # fmt: skip
    assert "ssim_phase" in table[0] and not set(table[0]) & {"train_loss", "_runtime", "epoch"}
    by_id = {row["wandb_id"]: row for row in table}
    odd = by_id["run00009"]
    config = load_config(asked[9])
    assert (odd["run_id"], odd["width"], odd["modes"]) == (
        run_id(config),
        str(config.width),
        "6",
    )
    assert (odd["psnr_phase"], odd["ssim_phase"]) == ("NaN", str(0.4 + config.width / 1000))
    assert (odd["learning_rate"], odd["wandb_state"], odd["error"]) == (
        "0.003",
        "finished",
        "",
    )
    assert by_id["run00008"]["error"] == "<script>boom</script>, [red]twice"
    crashed = by_id["run00007"]
    assert (crashed["ssim_phase"], crashed["superseded"]) == ("NaN", "True")
    assert crashed["error"] == "the server has not heard from it any more"
    assert by_id["run01198"]["superseded"] == "False"
    assert by_id["run01199"]["run_id"] == run_id(load_config(asked[-2]))

    assert (folder / PLOT).read_bytes().startswith(b"\x89PNG")
    for line in (
        f"sweep {sweep.path}: 1200 runs: 1175 finished, 12 failed, 12 crashed, 1 pending",
        "1175 of the grid's 1200 points are finished",
        "missing: m6 w9",
        "… and 15 more points",
        "1 superseded by another run of the same configuration",
        "recommended  fno sqrt",
        "[red]twice",
    ):
        assert line in done.stdout
    assert not (tmp_path / "team").exists()  # the client's folders for the runs it lists
    assert not files_with_key(tmp_path)


ONE_PROCESS = """
import contextlib, io, json, os, sys
from agent import export
from agent import retry

export.write_report = lambda result: []  # pictures and the page have tests of their own
told = []
for (command, *arguments), variables in json.loads(sys.argv[1]):
    before = dict(os.environ)
    os.environ.update(variables)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            status = {'export': export, 'retry': retry}[command].main(arguments)
    os.environ.clear()
    os.environ.update(before)
    told.append([status, out.getvalue(), errors.getvalue()])
print(json.dumps(told))
"""
"""Starting takes seconds; several commands share them."""


def together(
    env: Mapping[str, str], folder: Path, *calls: list[str], **variables: str
) -> list[tuple[int, str, str]]:
    """(exit status, stdout, stderr) of several calls in one process, the last with `variables`."""
    given = [(call, variables if call is calls[-1] else {}) for call in calls]
    done = subprocess.run(
        [sys.executable, "-c", ONE_PROCESS, json.dumps(given)],
        env=env, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [tuple(told) for told in json.loads(done.stdout)]


def test_the_servers_runs_and_the_records_here_are_one_table(
    backend: WandbBackend, tmp_path: Path
) -> None:
    sweep = backend.add_sweep(sweep_file(width=[8, 16, 24, 32]), PROJECT)
    results = {width: result_of(RunConfig(width=width)) for width in (8, 16, 24, 48, 64)}
    study = str(STUDIES / sweep.id)
    folder = tmp_path / study
    # 8 is on its way; 16 is another box's; 24 was never sent, nor was a run beside the grid.
    put(backend, sweep, results[8], state="running", summary=LEFTOVERS)
    put(backend, sweep, results[16])
    for width in (8, 24, 64):
        write_result(results[width], run_folder(folder, results[width].run_id))
    torn = run_folder(folder, "0123456789ab")
    torn.mkdir()
    (torn / "result.json").write_text("{")
    # Beside the sweep: a run of a local study, sent later; another program's; another sweep's.
    other = tmp_path / STUDIES / "quick-1234"
    put(backend, None, results[48], group=other.name, state="crashed", summary={})
    write_result(results[48], run_folder(other, results[48].run_id))
    backend.add_run(PROJECT, config={"lr": 1}, run_id="theirs", group="../../etc", summary={"a": 1})

    place = sweep.path.rsplit("/", 1)[0]
    calls = (
        ["export", study, "--output-dir", "before"],
        ["export", sweep.path],
        ["export", study, "--output-dir", "after", "--require-complete"],
        ["export", place],
    )
    before, of_sweep, after, of_project = together(backend.environment(tmp_path), tmp_path, *calls)
    assert before[0] == 0 and "of the grid" not in before[1]

    status, said, errors = of_sweep
    assert (status, errors) == (0, "")
    assert "4 runs: 4 finished; 1 record rejected" in said
    assert "3 of the grid's 4 points are finished" in said and "missing: w32" in said
    assert f"2 here and not on the server (python -m agent.sync {study} sends" in said
    table = {row["width"]: row for row in rows(folder / CSV)}
    assert {w: (row["wandb_id"], row["wandb_state"]) for w, row in table.items()} == {
        "8": ("run00000", "running"), "16": ("run00001", "finished"),
        "24": ("", ""), "64": ("", ""),
    }  # fmt: skip
    assert {row["status"] for row in table.values()} == {"finished"}

    # Seen once, the sweep's grid is known where the server is not asked.
    assert after[0] == 1
    assert after[2] == f"error: {study}: 2 of the grid's 4 points have no finished run\n"
    assert len(rows(tmp_path / "after" / CSV)) == 3

    status, said, errors = of_project
    assert (status, errors) == (0, "")
    assert f"project {place}: 5 runs: 5 finished" in said and "of the grid" not in said
    assert "1 of another program, left out: theirs" in said
    assert f"1 here and not on the server (python -m agent.sync {STUDIES / other.name}" in said
    assert len(rows(tmp_path / STUDIES / PROJECT / CSV)) == 5
    assert not files_with_key(tmp_path)


def test_what_cannot_be_read_gets_one_line_and_writes_nothing(
    backend: WandbBackend, tmp_path: Path
) -> None:
    grid = sweep_file(width=[8])
    empty = backend.add_sweep(grid, PROJECT)
    theirs = backend.add_sweep(grid | {"program": "train.py", "command": None}, PROJECT)
    odd = backend.add_sweep(grid | {"parameters": {"depth": {"values": [1]}}}, PROJECT)
    search = grid | {"method": "random", "parameters": {"width": {"min": 8, "max": 9}}}
    drawn = backend.add_sweep(search, PROJECT)
    put(backend, drawn, result_of(RunConfig(width=8)))
    proxied = backend.add_sweep(grid, "proxied")
    backend.faults.add("Runs", html=True, times=None, run="proxied")
    earlier = tmp_path / STUDIES / empty.id / CSV
    earlier.parent.mkdir(parents=True)
    earlier.write_text("of an earlier export")

    expected = {
        f"export {empty.path}": "no run of this program yet",
        f"export {theirs.path}": "a sweep of another program (train.py)",
        f"export {odd.path}": "unknown parameter 'depth'",
        "export team/study/nothing": "no such sweep, and there is no such folder here",
        "export team/nothing": "no such project, and there is no such folder here",
        "export nothing": "no such study folder, nor ENTITY/PROJECT",
        "export team/study/a/b": "no such study folder, nor ENTITY/PROJECT",
        "export ./team/study": "no such study folder",
        f"export {proxied.path}": "the server answers with a web page",
        "export team/study --require-complete": "not the study of a grid",
        f"export {drawn.path} --require-complete": "not the study of a grid",
        f"retry {drawn.path}": "method random has no list of points",
        "retry team/study/nothing": "the server knows no such sweep",
        f"retry {theirs.path} --run": "a sweep of another program",
    }
    calls = [[*call.split()] for call in expected]
    env = backend.environment(tmp_path)
    told = together(env, tmp_path, *calls, ["export", empty.path], WANDB_API_KEY="f" * 40)
    wrong_key = told.pop()
    for (place, line), (status, said, errors) in zip(expected.items(), told, strict=True):
        assert (status, said) == (2, ""), place
        assert errors.startswith("error: ") and errors.count("\n") == 1
        assert line in errors, errors
    assert wrong_key[0] == 2 and "log in (wandb login" in wrong_key[2]
    assert earlier.read_text() == "of an earlier export"
    written = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    assert written == [earlier]

    env.pop("WANDB_API_KEY")
    done = export(env, tmp_path, empty.path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no API key" in done.stderr and done.stderr.count("\n") == 1


def test_a_sweep_without_a_result_yet_has_a_table_and_a_page(
    backend: WandbBackend, tmp_path: Path
) -> None:
    sweep = backend.add_sweep(sweep_file(width=[8, 16, 24, 32]), PROJECT)
    results = [result_of(RunConfig(width=width)) for width in (8, 16, 24)]
    put(backend, sweep, results[0], state="running", summary=LEFTOVERS)
    put(backend, sweep, results[1], state="crashed", summary={})
    edited = put(backend, sweep, results[2])
    edited.raw_config["learning_rate"]["value"] = 0.5
    backend.add_run(PROJECT, sweep=sweep, state="pending")
    env = backend.environment(tmp_path)
    done = export(env, tmp_path, sweep.path)
    assert done.stderr == f"error: {sweep.path}: no finished run to recommend\n"
    assert done.returncode == 1
    assert "4 runs: 1 crashed, 1 pending, 1 rejected, 1 running" in done.stdout, done.stdout
    folder = tmp_path / STUDIES / sweep.id
    assert (folder / "report.html").exists()
    before = rows(folder / CSV)
    errors = {row["status"]: row["error"] for row in before}
    assert errors["rejected"].startswith("config: edited at the server")

    # Later one of them has told what it is, and another was deleted there.
    backend.store.delete_run(backend.runs[1])
    finished = put(backend, sweep, result_of(RunConfig(width=32)))
    backend.store.delete_run(backend.runs[2])
    ((status, said, errors_now),) = together(env, tmp_path, ["export", sweep.path])
    assert (status, errors_now) == (0, "")
    kept = STUDIES / sweep.id / f"{CSV}.before-1"
    assert f"no longer finished: 1 run of the earlier table, which is {kept} now" in said
    assert rows(tmp_path / kept) == before
    assert len(rows(folder / CSV)) == 3

    # What is gone was told; what somebody edits since is not lost without a word either.
    ((_, said, _),) = together(env, tmp_path, ["export", sweep.path])
    assert "earlier table" not in said and len(list(folder.glob("*.before-*"))) == 1
    finished.raw_config["learning_rate"]["value"] = 0.5
    ((_, said, _),) = together(env, tmp_path, ["export", sweep.path])
    assert "1 run of the earlier table" in said and (folder / f"{CSV}.before-2").exists()


def test_a_project_may_be_called_what_the_server_allows(
    backend: WandbBackend, tmp_path: Path
) -> None:
    project = "l'étude (2) + a@b, ~x"
    config = {"run_id": run_id(RunConfig()), **RunConfig().model_dump(exclude=set(PATHS))}
    sweep = backend.add_sweep(sweep_file(width=[32]), project)
    summary = mirrored_summary(result_of(RunConfig()))
    backend.add_run(project, sweep=sweep, config=config, summary=summary, group=sweep.id)
    env = backend.environment(tmp_path)
    calls = (["export", sweep.path], ["export", f"team/{project}"], ["retry", sweep.path])
    of_sweep, of_project, retried = together(env, tmp_path, *calls)
    assert (of_sweep[0], of_project[0], retried[0]) == (0, 0, 0), (of_sweep, of_project, retried)
    assert f"sweep team/{project}/{sweep.id}: 1 run" in of_sweep[1]
    assert f"project team/{project}: 1 run" in of_project[1]
    assert "1 of the grid's 1 points are finished" in retried[1]


def test_a_server_in_trouble_is_asked_again(backend: WandbBackend, tmp_path: Path) -> None:
    sweep = backend.add_sweep(sweep_file(width=list(range(1, 202))), PROJECT)
    for width in range(1, 202):
        put(backend, sweep, result_of(RunConfig(width=width)))
    faults = [
        backend.faults.add("Runs", status=500),
        backend.faults.add("Runs", after=1, status=429, retry_after=2),
        backend.faults.add("Runs", after=1, drop=True),
    ]
    env = {**backend.environment(tmp_path), **QUICK_RETRIES}
    ((status, said, errors),) = together(env, tmp_path, ["export", sweep.path])
    assert status == 0, errors
    assert [fault.hits for fault in faults] == [1, 1, 1]
    assert "201 of the grid's 201 points are finished" in said
    asked = [request for request in backend.requests if request.operation == "Runs"]
    refused = next(i for i, request in enumerate(asked) if request.fault is faults[1])
    assert asked[refused + 1].at - asked[refused].at >= 2


def test_fewer_runs_than_the_server_counts_are_told(
    backend: WandbBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = backend.operations.on_runs

    def cut(query: str, v: Mapping[str, Any]) -> dict[str, Any]:
        (answer := whole(query, v))["project"]["runs"]["edges"].pop()
        return answer

    monkeypatch.setattr(backend.operations, "on_runs", cut)
    for width in (8, 16, 24):
        put(backend, None, result_of(RunConfig(width=width)))
    told = together(backend.environment(tmp_path), tmp_path, ["export", f"team/{PROJECT}"])
    assert told[0][0] == 0 and "counts 3 runs and gave 2" in told[0][2]
