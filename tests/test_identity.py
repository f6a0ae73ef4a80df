"""The name of a run: what it depends on, and that an upgrade renames nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import Field

from fno_runner.config import RunConfig
from fno_runner.identity import run_id

RECORDS = sorted((Path(__file__).parent / "records").rglob("runs/*/result.json"))


class LaterConfig(RunConfig):
    """The configuration of a later version, with one knob more."""

    momentum: float = Field(0.9, description="a knob that version 0.1 did not have")


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_a_run_that_was_made_earlier_keeps_its_name(path: Path) -> None:
    record = json.loads(path.read_text())
    assert run_id(RunConfig(**record["config"])) == record["run_id"] == path.parent.name


def test_a_new_knob_renames_no_run_while_it_stands_at_its_default() -> None:
    before = run_id(RunConfig(width=8))
    assert run_id(LaterConfig(width=8)) == run_id(LaterConfig(width=8, momentum=0.9)) == before
    assert run_id(LaterConfig(width=8, momentum=0.8)) != before


def test_every_knob_but_paths_and_device_counts() -> None:
    changed = [
        RunConfig(),
        RunConfig(modes=16),
        RunConfig(seed=1),
        RunConfig(loss="poisson"),
        RunConfig(train_patterns=100),
        RunConfig(nphotons=1e6),
    ]
    assert len({run_id(config) for config in changed}) == len(changed)
    elsewhere = RunConfig(data_dir="other", output_dir="other", device="cpu")
    assert run_id(elsewhere) == run_id(RunConfig())
