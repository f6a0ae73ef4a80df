"""What `agent.local` lists of a sweep, and what it refuses, before any point runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import SWEEP, Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--price=0.1"], "--price: only with --settle"),
        (["--most-seeds=10", "--allow-collapse"], "--most-seeds, --allow-collapse: only with"),
        (["--cost=latency_s"], "--cost: only with"),
        (["--settle=0.9", "--price=5"], "'5': allowed is a number ≥ 0 and < 1"),
    ],
)
def test_options_of_a_choice_are_refused_before_anything_is_trained(
    bench: Bench, capsys: pytest.CaptureFixture[str], options: list[str], line: str
) -> None:
    assert bench.run(*options) == 2
    error = capsys.readouterr().err
    assert line in error and error.startswith("error: ") and error.count("\n") == 1
    assert not bench.study.exists()


def test_a_dry_run_says_that_it_does_not_ask_the_database(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run("--dry-run", "--storage=postgresql://nobody@127.0.0.1:1/none") == 0
    assert "--storage, which is not read" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["grid", "random"])
def test_brackets_of_a_sweep_file_are_no_markup(
    bench: Bench, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    text = SWEEP.replace("name: test", 'name: "a [/x] b"') + "  data_dir: {value: '[/y]'}\n"
    bench.write(text, method)
    assert bench.run("--dry-run") == 0
    out = capsys.readouterr().out
    assert "a [/x] b: " in out
    assert method == "grid" or "[/y]" in out
    assert bench.run("--limit=4") == 0
    assert "a [/x] b: study" in capsys.readouterr().out


def test_a_key_that_a_scan_knows_nothing_of_is_not_swept(
    bench: Bench, scan_npz: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All its points would be the same training; simulated data have it."""
    photons = SWEEP + "  nphotons: {values: [1.0e+8, 1.0e+9]}\n"
    bench.write(photons, "grid")
    assert bench.run("--dry-run") == 0
    bench.write(f"{photons}  scan: {{value: {scan_npz}}}\n", "grid")
    assert bench.run("--dry-run") == 2
    assert "nphotons: swept, but no effect" in capsys.readouterr().err
