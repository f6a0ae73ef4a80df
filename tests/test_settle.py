"""Seeds go where they would change the choice: with real processes, once each, and to an end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.analysis.choice_options import ChoiceOptions
from agent.analysis.settle import Settling
from agent.export import export
from agent.scheduling.driver import IDLE_S
from agent.study.records import table
from agent.study.sweepfile import Point, parse_sweep, points
from fno_runner.config import RunConfig
from fno_runner.result import RunResult
from tests.bench import SWEEP, Bench, is_alive
from tests.studies import result

NEAR = SWEEP.replace("[8, 16, 24, 32]", "[4, 8, 31, 32]")
"""Two of four are hard to tell apart: seeds scatter by 0.05, their qualities differ by 0.01."""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path, monkeypatch)
    bench.write(NEAR)
    yield bench
    for _, pid in bench.starts():
        assert not is_alive(pid), "a run outlived its driver"


def seeds(bench: Bench) -> Counter[int]:
    """width -> how many seeds it has."""
    paths = bench.study.glob("runs/*/result.json")
    results = [RunResult.model_validate_json(path.read_bytes()) for path in paths]
    return Counter(result.config["width"] for result in results)


def test_only_what_may_be_the_choice_gets_more_seeds(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run("--settle=0.9", "--most-seeds=40") == 0
    out = capsys.readouterr().out
    assert "is the choice, 9" in out and "seeds added" in out
    done = seeds(bench)
    assert done[4] <= 2 and done[8] <= 2, "a second seed tells how seeds scatter"
    assert done[31] + done[32] > 4
    run_ids = [run_id for run_id, _ in bench.starts()]
    assert len(run_ids) == len(set(run_ids)) == done.total()
    (compared,) = export(bench.study).series
    assert compared.recommendation is not None
    assert compared.recommendation.probability[compared.recommendation.config] >= 0.9
    # Begun again, there is nothing to do.
    assert bench.run("--settle=0.9", "--most-seeds=40") == 0
    assert len(bench.starts()) == len(run_ids)


def test_the_budget_is_kept_and_a_later_call_goes_on(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run("--settle=0.999", "--limit=6") == 1
    assert len(bench.starts()) == 6 and "2 seeds added" in capsys.readouterr().out
    assert bench.run("--settle=0.999", "--limit=6", "--workers=3") == 1
    run_ids = [run_id for run_id, _ in bench.starts()]
    assert len(set(run_ids)) == len(run_ids) == 12
    assert bench.run("--settle=0.999999", "--most-seeds=4") == 1
    assert max(seeds(bench).values()) <= max(4, 12 - 4 - 2)


def test_two_drivers_settle_one_study_and_no_seed_runs_twice(bench: Bench) -> None:
    drivers = [bench.start("--settle=0.99", "--most-seeds=6", "--workers=2") for _ in range(2)]
    outputs = [driver.communicate(timeout=120)[0] for driver in drivers]
    run_ids = [run_id for run_id, _ in bench.starts()]
    assert len(run_ids) == len(set(run_ids)) > 4, outputs
    assert max(seeds(bench).values()) <= 6, outputs


def test_seeds_wait_for_the_points_that_another_driver_runs(bench: Bench) -> None:
    busy = bench.start("--limit=1", w4="sleep")
    bench.wait_for_starts(1)
    settles = bench.start("--settle=0.9", "--most-seeds=40")
    bench.wait_for_starts(4)
    time.sleep(2 * IDLE_S)
    assert len(bench.starts()) == 4 and settles.poll() is None
    busy.terminate()
    busy.communicate(timeout=30)
    output = settles.communicate(timeout=120)[0]
    assert settles.returncode == 0 and seeds(bench)[4] >= 1, output


def test_a_sure_choice_of_an_incomplete_grid_is_not_settled(bench: Bench) -> None:
    assert bench.run("--settle=0.9", "--most-seeds=40") == 0
    for width in (4, 8):
        for path in bench.study.glob("runs/*/result.json"):
            if RunResult.model_validate_json(path.read_bytes()).config["width"] == width:
                path.unlink()
    assert bench.run("--settle=0.9", "--most-seeds=40", "--limit=1") == 1
    assert bench.run("--settle=0.9", "--most-seeds=40") == 0


def test_a_seed_that_fails_is_not_tried_for_ever(bench: Bench) -> None:
    assert bench.run() == 0
    assert bench.run("--settle=0.9", "--most-seeds=5", w31="fail", w32="fail") == 1
    assert seeds(bench)[32] == seeds(bench)[31] == 5


@pytest.mark.parametrize(
    ("text", "options", "line"),
    [
        (NEAR.replace("[4, 8, 31, 32]", "[8]"), ["--settle=0.9"], "there is nothing to choose"),
        (NEAR.replace("[4, 8, 31, 32]", "[8]") + "  seed: {values: [0, 1]}\n", ["--settle=0.9"],
         "has one configuration"),
        (NEAR, ["--settle=1.5"], "'1.5': allowed is a probability above 0 and below 1"),
        (NEAR, ["--settle=1"], "allowed is a probability above 0 and below 1"),
        (NEAR, ["--settle=0.9", "--storage=postgresql://u@h/d"], "needs a folder that all share"),
    ],
)  # fmt: skip
def test_what_cannot_be_settled_gets_one_line(
    bench: Bench, capsys: pytest.CaptureFixture[str], text: str, options: list[str], line: str
) -> None:
    bench.write(text)
    assert bench.run(*options) == 2
    error = capsys.readouterr().err
    assert line in error and error.startswith("error: ") and error.count("\n") == 1
    assert not bench.study.exists()


def test_a_search_has_nothing_to_replicate(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.write(NEAR.replace("values: [4, 8, 31, 32]", "min: 8, max: 64"), "random")
    assert bench.run("--settle=0.9", "--limit=3") == 2
    assert "method random draws new configurations" in capsys.readouterr().err


@pytest.mark.parametrize("change", [0.0, 0.03])
def test_seeds_are_not_asked_for_what_only_objects_leave_open(change: float) -> None:
    """Two of three networks differ by 0.002, and seeds scatter by 0.004: some tens tell which is
    better. Where networks change places from object to object, they tell no more than that."""
    widths = {16: 0.5, 30: 0.900, 31: 0.902}
    at = {w: change * np.random.default_rng(w).standard_normal(4) for w in widths}
    results: list[RunResult] = []

    def study(point: Point) -> None:
        config = RunConfig.model_validate(point)
        rng = np.random.default_rng([config.width, config.seed])
        off = at[config.width] - at[config.width].mean()
        objects = widths[config.width] + 0.004 * rng.standard_normal() + off
        objects += 1e-4 * rng.standard_normal(4)
        record = result(**config.model_dump(), model_params=1000)
        record.metrics.pairs["ssim"] = (0.5, float(objects.mean()))
        record.objects = [{"ssim": (0.5, float(quality))} for quality in objects]
        results.append(record)

    sweep = parse_sweep(
        {
            "method": "grid",
            "metric": {"name": "ssim_phase", "goal": "maximize"},
            "parameters": {"width": {"values": list(widths)}, "seed": {"values": [0, 1]}},
        },
        "a test",
    )
    for point in points(sweep):
        study(point)
    settling = Settling(sweep, ChoiceOptions(), 0.9, 60, lambda: table(results))
    while wanted := settling.more(()):
        for point in wanted.values():
            study(point)
    (standing,) = settling.standings
    assert len(results) < 60 and standing.by_seeds >= 0.9
    assert settling.is_settled is (change == 0.0)
    assert (standing.probability >= 0.9) is (change == 0.0)
