"""What `agent.local` lists of a sweep, and what it refuses, before any point runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import SWEEP, Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


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
