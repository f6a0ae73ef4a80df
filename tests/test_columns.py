"""docs/metrics.md names every column of an export."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.analysis.configurations import STATISTICS
from agent.analysis.series import configuration_table, series
from agent.study.records import read_records, table
from agent.study.retimes import prefer_retimed
from fno_runner.config import RunConfig
from fno_runner.score.quantities import FLOORS, QUANTITIES, VALIDATION, floor_of, object_of
from tests.studies import result, save

ROOT = Path(__file__).resolve().parents[1]
STUDIES = [folder.parent for folder in sorted(ROOT.glob("docs/study/runs"))]
STUDIES += [folder.parent for folder in sorted(ROOT.glob("tests/records/*/runs"))]
NAMED = set(re.findall(r"`([^`]+)`", (ROOT / "docs" / "metrics.md").read_text()))
OF_A_SCAN = ("r_", "deviance_", "frc_halves_", "resolution_")


def is_told(column: str) -> bool:
    """Whether the page has a column's name, or the pattern that it is of."""
    quantity = QUANTITIES.get(column) or floor_of(column) or object_of(column)
    if column in NAMED or column in RunConfig.model_fields:
        return True
    if quantity is None:
        return False
    if quantity.of == "scan":
        return any(column.startswith(start) and f"{start}…" in NAMED for start in OF_A_SCAN)
    metric = re.sub(rf"_(object\d+|{'|'.join(FLOORS)})$", "", column.removeprefix(VALIDATION))
    return re.sub("_(amp|phase)$", "", metric) in NAMED


def of_a_scan(folder: Path) -> Path:
    metrics = {
        "r_factor": {"train": 0.07, "held_out": 0.08, "held_out_from_object": 0.08},
        "deviance": {"train": 0.5},
        "resolution": {"px": 1.5, "nm": 20.0},
        "frc_halves": (0.3, 0.3),
    }
    runs = [result(seed=seed, metrics=metrics, metrics_against="reference") for seed in (0, 1)]
    return save(folder, runs, pictures=False)


@pytest.mark.parametrize("study", [*STUDIES, None], ids=lambda study: study and study.name)
def test_every_column_is_told(study: Path | None, tmp_path: Path) -> None:
    folder = of_a_scan(tmp_path) if study is None else study
    runs, _ = prefer_retimed(table(read_records(folder).results), [folder])
    assert len(runs)
    assert [column for column in map(str, runs) if not is_told(column)] == []
    ends = [f"_{end}" for end in (*STATISTICS, "n_objects")]
    ends += [f"_{part}_sd" for part in ("seed", "object", "rest")]
    ends += ["_objects_low", "_objects_high", "_new_object_low", "_new_object_high"]
    untold = [
        column
        for column in map(str, configuration_table(series(runs)))
        if not is_told(column)
        and not re.fullmatch(r"on_\w+-\w+", column)
        and not any(is_told(column.removesuffix(end)) for end in ends if column.endswith(end))
    ]
    assert untold == []
