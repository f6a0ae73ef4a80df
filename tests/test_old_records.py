"""Records of an earlier schema, as a real quickstart at commit 624ba5e wrote them, still export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from agent.export import export, main
from agent.report.terminal import CSV, RECOMMENDATION
from fno_runner.result import run_folder, write_result
from tests.test_export import make, rows

SCHEMA_1 = Path(__file__).parent / "records" / "schema1"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    shutil.copytree(SCHEMA_1, tmp_path / "study")
    return tmp_path / "study"


def test_a_study_of_schema_1_exports_and_says_that_it_has_no_validation(study: Path) -> None:
    (one,) = export(study).series
    assert len(one.configs) == 4 and (one.configs["n_seeds"] == 1).all()
    assert {row["schema_version"] for row in rows(study / CSV)} == {"1"}
    assert float(rows(study / CSV)[0]["ssim_phase_flat"]) < 0.05
    advised = json.loads((study / RECOMMENDATION).read_text())["series"][0]
    assert "4 of 4 finished runs have no validation metrics" in advised["caveat"]
    assert "one seed" in advised["provisional"]
    assert advised["recommended"]["time_device"] == "AMD EPYC"


def test_records_of_both_schemas_are_not_mixed_unasked(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = make(1)
    write_result(new, run_folder(study, new.run_id))
    assert main([str(study)]) == 2
    assert "schema (4 runs of 1, 1 run of 2)" in capsys.readouterr().err
    assert main([str(study), "--allow-mixed"]) == 0
    groups = {row["group"] for row in rows(study / CSV)}
    assert groups == {"epochs 1, schema 1", "epochs 20, schema 2"}
