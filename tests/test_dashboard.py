"""The unmodified wandb-workspaces saves a sweep's workspace, in real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.wandb_backend import API_KEY, Sweep, WandbBackend

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "study"


@pytest.fixture
def backend() -> Iterator[WandbBackend]:
    """A running server, of which every test has its own."""
    with WandbBackend() as running:
        yield running


def python(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )


def dashboard(env: Mapping[str, str], place: str) -> str:
    """The URL that `python -m agent.dashboard` prints, and nothing else."""
    done = python(env, "-m", "agent.dashboard", place)
    assert (done.returncode, done.stderr) == (0, "")
    word, url = done.stdout.split()
    assert word == "workspace"
    return url


def spec_of(view: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a saved view that says what is shown."""
    section: dict[str, Any] = json.loads(view["spec"])["section"]
    return section


def panels(view: Mapping[str, Any], section: str) -> list[dict[str, Any]]:
    """The panels of a section: their configuration, and their kind as `viewType`."""
    sections = spec_of(view)["panelBankConfig"]["sections"]
    (made,) = (s for s in sections if s["name"] == section)
    return [{"viewType": panel["viewType"], **panel["config"]} for panel in made["panels"]]


def axes(view: Mapping[str, Any]) -> dict[str, bool | None]:
    """The axes of the parallel coordinates, and whether they are logarithmic."""
    (plot,) = panels(view, "Parallel coordinates")
    assert plot["viewType"] == "Parallel Coordinates Plot"
    return {column["accessor"]: column.get("log") for column in plot["columns"]}


def check_shipped(view: Mapping[str, Any], sweep: Sweep) -> None:
    """Everything that the workspace of sweep.yaml shows."""
    assert list(axes(view)) == [
        "config:architecture.value", "config:input_transform.value", "config:modes.value",
        "config:width.value", "summary:model_params", "summary:inference_time_s",
        "summary:ssim_phase",
    ]  # fmt: skip
    fronts = panels(view, "Pareto")
    assert [plot["xAxis"] for plot in fronts] == [
        "summary:model_params",
        "summary:inference_time_s",
    ]
    for plot in fronts:
        assert (plot["viewType"], plot["yAxis"]) == ("Scatter Plot", "summary:ssim_phase")
        assert plot["xAxisLogScale"] and plot["showMaxYAxisLine"]
        assert not plot["showMinYAxisLine"] and not plot.get("yAxisLogScale")
    losses = panels(view, "Loss curves")
    for plot in losses:
        assert (plot["viewType"], plot["xAxis"]) == ("Run History Line Plot", "epoch")
        assert plot["metrics"] == ["train_loss", "val_loss"]
    assert [plot.get("groupBy") for plot in losses] == [
        None, "architecture.value", "input_transform.value", "modes.value", "width.value",
    ]  # fmt: skip
    assert all((p["groupAgg"], p["groupArea"]) == ("mean", "minmax") for p in losses[1:])
    (pictures,) = panels(view, "Reconstructions")
    assert (pictures["viewType"], pictures["mediaKeys"]) == ("Media Browser", ["reconstruction"])

    (table,) = spec_of(view)["runSets"]
    (only,) = table["filters"]["filters"]
    assert (only["key"], only["op"], only["value"], only["disabled"]) == (
        {"section": "run", "name": "sweep"}, "=", sweep.id, False,
    )  # fmt: skip
    best_first = {"key": {"section": "summary", "name": "ssim_phase"}, "ascending": False}
    assert (table["sort"]["keys"], table["grouping"]) == ([best_first], [])
    columns = table["runFeed"]["columnOrder"]
    assert columns[:2] == ["run:displayName", "run:state"]
    assert set(columns) > {*axes(view), "summary:psnr_phase", "summary:status", "summary:error"}


def test_a_sweep_has_one_workspace_however_often_it_is_made(
    backend: WandbBackend, tmp_path: Path
) -> None:
    sweep = backend.add_sweep(yaml.safe_load((ROOT / "sweep.yaml").read_text()), PROJECT)
    backend.add_run(PROJECT, sweep=sweep, config={"modes": 12}, summary={"ssim_phase": 0.5})
    env = backend.environment(tmp_path)

    url = dashboard(env, sweep.path)
    (view,) = backend.store.views.values()
    assert (view["entityName"], view["projectName"], view["type"]) == (
        "team", PROJECT, "project-view",
    )  # fmt: skip
    assert view["displayName"] == f"fno-hyperparam (sweep {sweep.id})"
    assert f"nw-{url.removeprefix(backend.address('/team/study?nw='))}-v" == view["name"]
    check_shipped(view, sweep)
    # The workspace decides what is shown: no panel of the app's own.
    assert spec_of(view)["settings"]["shouldAutoGeneratePanels"] is False

    # Somebody renames it, throws a section away, adds one, and switches the filter off.
    spec = json.loads(view["spec"])
    sections = spec["section"]["panelBankConfig"]["sections"]
    sections[1]["name"] = "mine"
    spec["section"]["runSets"][0]["filters"]["filters"][0]["disabled"] = True
    view |= {"spec": json.dumps(spec), "displayName": "ours"}

    assert dashboard(env, sweep.path) == url
    assert list(backend.store.views.values()) == [view]
    assert view["displayName"] == "ours"
    check_shipped(view, sweep)
    assert [plot["viewType"] for plot in panels(view, "mine")] == ["Scatter Plot"] * 2
    assert len(spec_of(view)["panelBankConfig"]["sections"]) == 5
    assert API_KEY not in str(view)


ONE_PROCESS = """
import contextlib, io, json, sys
from agent.dashboard import main

told = []
for place in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            status = main([place])
    told.append([status, out.getvalue(), errors.getvalue()])
print(json.dumps(told))
"""


def test_other_sweeps_have_other_axes_and_bad_ones_one_line(
    backend: WandbBackend, tmp_path: Path
) -> None:
    def add(program: str = "agent/run.py", project: str = PROJECT, **config: Any) -> Sweep:
        fixed: dict[str, Any] = {"method": "grid", "parameters": {"width": {"value": 8}}}
        return backend.add_sweep({**fixed, "program": program, **config}, project)

    drawn = add(
        name="2×2 drawn + fixed",
        method="random",
        metric={"name": "r_held_out", "goal": "minimize"},
        parameters={
            "learning_rate": {"min": 1e-4, "max": 1e-2, "distribution": "log_uniform_values"},
            "seed": {"values": [0, 1]},
        },
    )
    cheapest = add(project="é & (2)", metric={"name": "model_params", "goal": "minimize"})
    foreign = add(program="train.py")
    unknown = add(parameters={"depth": {"values": [1, 2]}})
    portal, locked, newer = add(), add(name="locked"), add(name="newer")
    backend.faults.add("GetSweep*", html=True, times=None, run=portal.id)
    backend.faults.add("UpsertView2", status=403, run=f"locked (sweep {locked.id})")
    env = backend.environment(tmp_path)
    dashboard(env, newer.path)
    (future,) = backend.store.views.values()
    future["spec"] = json.dumps({**json.loads(future["spec"]), "version": 99})

    refused = {
        locked.path: "injected",
        newer.path: "upgrade",
        foreign.path: "a sweep of another program",
        unknown.path: "unknown parameter 'depth'",
        portal.path: "web page",
        "team/study/nosuch": "no such sweep",
        "team/elsewhere/sweep000": "no such sweep",
        "sweep000": "ENTITY/PROJECT/SWEEP_ID",
    }
    done = python(env, "-c", ONE_PROCESS, drawn.path, cheapest.path, *refused)
    assert (done.returncode, done.stderr) == (0, "")
    made, bad = json.loads(done.stdout)[:2], json.loads(done.stdout)[2:]
    assert [(status, errors) for status, _, errors in made] == [(0, "")] * 2
    assert "/team/%C3%A9%20&%20%282%29?nw=" in made[1][1]
    for (status, out, errors), reason in zip(bad, refused.values(), strict=True):
        assert (status, out, errors.count("\n")) == (2, "", 1), errors
        assert errors.startswith("error: ") and reason in errors

    _, of_drawn, of_cheapest = backend.store.views.values()  # nothing else was made
    assert of_drawn["displayName"] == f"2 2 drawn fixed (sweep {drawn.id})"
    assert axes(of_drawn) == {
        "config:learning_rate.value": True,
        "config:seed.value": False,
        "summary:model_params": True,
        "summary:inference_time_s": True,
        "summary:r_held_out": None,
    }
    for plot in panels(of_drawn, "Pareto"):
        assert plot["yAxis"] == "summary:r_held_out"
        assert plot["showMinYAxisLine"] and not plot["showMaxYAxisLine"]
    groups = [plot.get("groupBy") for plot in panels(of_drawn, "Loss curves")]
    assert groups == [None, "seed.value"]
    (order,) = spec_of(of_drawn)["runSets"][0]["sort"]["keys"]
    assert (order["key"]["name"], order["ascending"]) == ("r_held_out", True)
    # A cost is no quality, and a sweep that sweeps nothing has the axes of the study.
    assert axes(of_cheapest).keys() > {"config:architecture.value", "summary:ssim_phase"}


def test_without_a_key_or_the_package_one_line_says_the_way_out(
    backend: WandbBackend, tmp_path: Path
) -> None:
    sweep = backend.add_sweep({"method": "grid", "parameters": {}}, PROJECT)
    env = backend.environment(tmp_path)
    hidden = "import sys; sys.modules['wandb_workspaces'] = None; import runpy; runpy.run_module"
    done = python(env, "-c", f"{hidden}('agent.dashboard', run_name='__main__')", sweep.path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "error: wandb-workspaces is not installed: pip install '.[dashboard]'\n"
    assert backend.requests == []

    del env["WANDB_API_KEY"]
    done = python(env, "-m", "agent.dashboard", sweep.path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("error: Weights & Biases: ") and "wandb login" in done.stderr
    assert backend.store.views == {}
