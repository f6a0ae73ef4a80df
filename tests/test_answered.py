"""A point that waits in the queue, and has meanwhile the record that it was queued for."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests.bench import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def interrupted(bench: Bench, *options: str) -> None:
    """A call that begins with the point of width 8, and is stopped in it."""
    before = len(bench.starts())
    driver = bench.start(*options, w8="sleep")
    bench.wait_for_starts(before + 1)
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=30)
    assert driver.returncode == 130


def test_a_record_that_came_from_another_box_is_not_made_again(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Bench(tmp_path_factory.mktemp("other"), monkeypatch)
    assert other.run() == 0
    interrupted(bench)
    name = other.records()[16].run_id
    shutil.copytree(other.study / "runs" / name, bench.study / "runs" / name)
    assert bench.run() == 0
    assert name not in [run_id for run_id, _ in bench.starts()]


def test_what_an_interrupted_call_would_have_tried_again_is_not_another_calls_wish(
    bench: Bench,
) -> None:
    fail = dict.fromkeys(("w8", "w16", "w24", "w32"), "fail")
    assert bench.run(**fail) == 1
    interrupted(bench, "--retry-failed")
    assert bench.run() == 1
    assert len(bench.starts()) == 5
    assert bench.run("--retry-failed") == 0
    assert len(bench.starts()) == 9


def test_a_driver_helps_one_beside_it_that_tries_again_what_failed(bench: Bench) -> None:
    fail = dict.fromkeys(("w8", "w16", "w24", "w32"), "fail")
    assert bench.run(**fail) == 1
    retries = bench.start("--retry-failed", w8="sleep")
    bench.wait_for_starts(5)
    assert bench.run() == 1
    assert bench.statuses() == {8: "failed", 16: "finished", 24: "finished", 32: "finished"}
    retries.terminate()
    retries.communicate(timeout=30)
