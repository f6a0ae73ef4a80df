"""The runs of a study: result.json files, read with suspicion, and the table made of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fno_runner.errors import Kind, UnbelievableError, UserError, printable
from fno_runner.result import RECORD, Metrics, Pair, RunResult, read_result
from fno_runner.score.quantities import (
    QUANTITIES,
    VALIDATION,
    Quantity,
    floor_of,
    object_column,
    object_of,
)

if TYPE_CHECKING:  # takes a second to import, and a run only makes a row
    import pandas as pd

NAMED = ("architecture", "input_transform", "modes", "width")
"""What a configuration is called by; others are added where they vary."""
COLUMNS = (
    "run_id", *NAMED, "seed", "epochs", "model_params", "inference_time_s", "ssim_phase",
    "psnr_phase", "mae_phase", "ssim_amp", "psnr_amp", "mae_amp", "status", "error",
)  # fmt: skip
"""The first columns of study_results.csv. Others read them by place: append, never reorder."""

MEASURED = ("finished", "collapsed")
"""Statuses of a training that came to its end, and whose inference was timed."""
SCORED = (*MEASURED, "stopped")
"""Statuses whose metrics are shown; a collapsed run keeps its own so that one sees the collapse."""

ACTIVE = {
    "pending": "handed to an agent that has not reported yet",
    "running": "still running",
    "preempting": "is being stopped",
}
"""A server's states of a run that may still bring its result, and what they mean."""

MOST_COLUMNS = 1024
"""So many columns' quantities are remembered; a foreign record may name any number of them."""

NOT_NEGATIVE = ("_s", "_bytes")
"""How the names of further times and sizes end, of which the table of quantities has no row."""

Cell = str | int | float | None
Parts = list[dict[str, Cell]]
"""A row's cells in groups of columns: contract, metrics, floors, timing, config, provenance."""


@dataclass(frozen=True)
class Rejected:
    """A record that is not believed, and why, in one line.

    kind: why, in a word; None where it could not be read, so that nobody knows.
    """

    path: Path
    reason: str
    kind: Kind | None = None


@dataclass(frozen=True)
class Records:
    """What a study's folder holds, both lists in the order of the runs' names."""

    results: list[RunResult]
    rejected: list[Rejected]


def read_records(study: Path) -> Records:
    """Read every `runs/<run_id>/result.json` of a study.

    A record that is torn, empty, foreign, of another schema or not the folder's own is left out
    and named. Runs in progress (a folder that starts with "." or ends in ".partial") are skipped.

    Raises:
        UserError: the study's `runs` cannot be listed.
    """
    records = Records([], [])
    for path in record_paths(study):
        try:
            records.results.append(read_record(path, path.parent.name))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            records.rejected.append(Rejected(path, error.strerror or str(error)))
        except UnbelievableError as error:
            records.rejected.append(Rejected(path, one_line(str(error)), error.kind))
    return records


def record_paths(study: Path) -> list[Path]:
    """Where the records of a study are to be, in the order of the runs' names.

    Raises:
        UserError: the study's `runs` cannot be listed.
    """
    try:
        folders = sorted((study / "runs").iterdir())
    except FileNotFoundError:  # a study that no run has entered yet
        return []
    except OSError as error:
        raise UserError(f"cannot list {study / 'runs'}: {error.strerror or error}") from error
    return [
        folder / RECORD
        for folder in folders
        if not folder.name.startswith(".") and not folder.name.endswith(".partial")
    ]


def row(result: RunResult) -> dict[str, Cell]:
    """One result as one row: `COLUMNS` first, then metrics, floors, timing, config, provenance.

    What is missing is None, except `error`, which is empty. A text is one printable line. Where a
    later part has a name again, it is left out if it says the same, else its part's name is put
    before it (`provenance_device`).

    Raises:
        UserError: the result's config is none that `fno_runner` knows.
    """
    return {key: cell for part in parts(result) for key, cell in part.items()}


def table(results: Iterable[RunResult]) -> pd.DataFrame:
    """A row a seed of each result, ordered by run_id; the columns depend on no order of results.

    Raises:
        UserError: a result's config is none that `fno_runner` knows.
    """
    in_order = sorted(results, key=lambda result: result.run_id)
    return assemble([parts(seed) for result in in_order for seed in result.by_seed()])


def counted(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table that count: of several runs that a server has of one run_id the best."""
    return runs[~runs["superseded"].astype(bool)] if "superseded" in runs else runs


def assemble(runs: Sequence[Parts]) -> pd.DataFrame:
    """A table of rows that all have the same groups of columns, in their order.

    Cells are Python objects, not NumPy's: a column of integers with a gap stays one of integers.
    """
    import pandas as pd

    columns: dict[str, None] = dict.fromkeys(COLUMNS)
    # Part by part, so that a failed first run does not push the metrics behind the config.
    for group in zip(*runs, strict=True):
        columns |= dict.fromkeys(sorted({key for part in group for key in part}))
    rows = [{key: cell for part in run for key, cell in part.items()} for run in runs]
    return pd.DataFrame({c: [cells.get(c) for cells in rows] for c in columns}, dtype=object)


def parts(result: RunResult) -> Parts:
    """The groups of columns of a result's row, no name twice.

    Raises:
        UserError: the result's config is none that `fno_runner` knows.
    """
    config = result.run_config.model_dump()
    metrics: dict[str, float | None] = {}
    if result.status in SCORED:
        metrics |= columns_of(result.metrics)
        metrics |= {VALIDATION + name: v for name, v in _pairs(result.validation).items()}
        metrics |= {
            object_column(f"{name}_phase", number): pair[1]
            for number, pairs in enumerate(result.objects, start=1)
            for name, pair in pairs.items()
        }
    contract: dict[str, Any] = {
        **config,
        **metrics,
        "run_id": result.run_id,
        "model_params": result.model_params,
        "inference_time_s": result.inference_time_s,
        "status": result.status,
        "error": result.error.message if result.error else "",
    }
    floors = {
        f"{name}_{floor.removesuffix('_phase')}": value
        for floor, of_floor in result.floors.items()
        for name, value in _pairs(of_floor).items()
    }
    groups: Parts = [{key: _cell(contract.get(key)) for key in COLUMNS}]
    said: dict[str, Cell] = dict(groups[0])
    for name, part in (
        ("metrics", {**metrics, "metrics_against": result.metrics_against}),
        ("floors", floors),
        ("timing", result.timing),
        ("config", config),
        ("provenance", {"schema_version": result.schema_version, **result.provenance}),
    ):
        cells = {key: _cell(value) for key, value in part.items()}
        named = {
            f"{name}_{key}" if key in said else key: cell
            for key, cell in cells.items()
            if key not in said or said[key] != cell
        }
        said |= named
        groups.append(named)
    return groups


def one_line(text: str) -> str:
    """`text` with runs of white space as one space and unprintable characters as escapes."""
    return printable(" ".join(text.split()))


def check_cells(cells: Mapping[str, Cell]) -> None:
    """Doubt the numbers of a row, wherever they are from, by the table of quantities.

    Raises:
        ValueError: a cell is no number where there should be one, or is out of its bounds.
    """
    for column, cell in cells.items():
        quantity = _quantity(column)
        if quantity is None:
            if isinstance(cell, bool | str | None) and not column.endswith(NOT_NEGATIVE):
                continue
            low = 0.0 if column.endswith(NOT_NEGATIVE) else -math.inf
            quantity = Quantity(column, column, "cost", None, low)
        quantity.check(cell)


@lru_cache(maxsize=MOST_COLUMNS)
def _quantity(column: str) -> Quantity | None:
    """What the table of quantities knows of a column: thousands of records have the same ones."""
    return QUANTITIES.get(column) or floor_of(column) or object_of(column)


def read_record(path: Path, run_id: str | None = None) -> RunResult:
    """One record, believed only when all of it fits.

    Args:
        run_id: what its folder says; None where its folder says nothing.

    Raises:
        OSError: it cannot be read.
        UnbelievableError: it is not believed; says why in one line.
    """
    result = read_result(path, run_id)
    try:
        for record in (result, *(result.by_seed() if result.seeds else ())):
            check_cells(row(record))
    except ValueError as error:
        raise UnbelievableError("foreign", str(error)) from None
    except UserError as error:
        raise UnbelievableError("foreign", f"config: {error}") from None
    return result


def columns_of(metrics: Metrics) -> dict[str, float | None]:
    """ssim_amp, ssim_phase, …, and of a scan r_train, …, by the table of quantities."""
    columns = _pairs(metrics.pairs)
    for name, numbers in metrics.scan.items():
        prefix = "r" if name == "r_factor" else name
        columns |= {f"{prefix}_{key}": number for key, number in numbers.items()}
    return columns


def _pairs(pairs: Mapping[str, Pair]) -> dict[str, float | None]:
    return {
        f"{name}_{part}": number
        for name, pair in pairs.items()
        for part, number in zip(("amp", "phase"), pair, strict=True)
    }


def _cell(value: Any) -> Cell:
    if isinstance(value, str):
        return one_line(value)
    return value if isinstance(value, int | float | None) else json.dumps(value, sort_keys=True)
