"""A random or bayes sweep with real processes; what it runs is a stand-in (`tests.bench`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import SWEEP, Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_search_runs_as_many_points_as_its_limit(bench: Bench, method: str) -> None:
    bench.write(SWEEP.replace("values: [8, 16, 24, 32]", "min: 8, max: 64"), method)
    assert bench.run() == 2
    assert not bench.study.exists()
    assert bench.run("--limit=3", "--workers=2") == 0
    assert len(bench.records()) == 3
    assert bench.run("--limit=1") == 0
    assert len(bench.records()) == 4
    assert bench.run("--dry-run") == 0


def test_a_search_that_has_run_all_that_there_is_is_done(bench: Bench) -> None:
    bench.write(method="random")
    assert bench.run("--limit=9") == 0 and set(bench.statuses().values()) == {"finished"}
    assert bench.run("--limit=1") == 0 and len(bench.starts()) == 4


def test_a_search_goes_on_with_the_point_that_it_was_stopped_in(bench: Bench) -> None:
    bench.write(SWEEP.replace("values: [8, 16, 24, 32]", "min: 8, max: 64"), "random")
    driver = bench.start("--limit=3", told={"runs": {"*": "sleep"}})
    ((run_id, _),) = bench.wait_for_starts(1)
    driver.terminate()
    driver.communicate(timeout=30)
    assert bench.run("--limit=1") == 0
    assert [record.run_id for record in bench.records().values()] == [run_id]
