"""retime.json: times of a study's models, taken again on one machine; the table prefers them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from agent.study.quality import cells
from agent.study.records import one_line, read_records, table
from fno_runner.files import write_text_atomically
from fno_runner.result import BESIDE_COLUMN

if TYPE_CHECKING:  # takes a second to import, and who starts others needs none
    import pandas as pd

RETIMED = "retime.json"
MAX_BYTES = 64 * 2**20
"""A larger file is refused unread [bytes]."""

CONFIRMED, NEAR = 5, 0.05
"""So many visits within this share of the fastest one, itself counted, make its time believed."""
UNSETTLED = f"fewer than {CONFIRMED} visits lie within {NEAR:.0%} of the fastest"

Seconds = Annotated[float, Field(ge=0, lt=1e9)]
Count = Annotated[int, Field(ge=1, lt=2**63)]
RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]


class _Strict(BaseModel, extra="forbid", strict=True, allow_inf_nan=False):
    """Nothing but what it names, of the type that it says."""


class Times(_Strict):
    """The times of one model: the cells that its row gets, named as in result.json's `timing`.

    Those of a pass are of its fastest visit, and so are those of one pattern alone: of a pass that
    takes over a second one repeat, and no range.
    """

    inference_time_s: Seconds = Field(gt=0)
    inference_time_iqr_s: Seconds
    inference_time_p90_s: Seconds
    inference_repeats: Count
    inference_patterns_per_s: float = Field(gt=0)
    inference_device_s: Seconds | None = None
    infer_batch_size: Count
    infer_batch_size_asked: Count | None = None
    latency_s: Seconds = Field(gt=0)
    latency_iqr_s: Seconds
    latency_p90_s: Seconds
    latency_repeats: Count
    threads: Count
    tf32: bool
    flops_per_pattern: Count
    device_name: str


class Model(_Strict):
    """What is known of one model's times.

    run_started: of the run that left the model, so that a later run of the same name is told apart.
    rounds_s: each visit's own inference_time_s and latency_s [s].
    """

    run_started: str | None
    measured: str
    host: str
    torch: str
    times: Times
    rounds_s: list[tuple[Seconds, Seconds]] = Field(min_length=1)

    @property
    def settled(self) -> bool:
        """Whether other visits confirm the fastest pass, and others the fastest pattern alone."""
        return all(is_settled(visits) for visits in zip(*self.rounds_s, strict=True))


class Protocol(_Strict):
    """How the times were taken: at most so many visits to each, and how (`score.timing`).

    warm_up [slices], enough [(repeats, s)], load of the machine before the first round [processes].
    """

    rounds: Count
    warm_up: Count
    enough: list[tuple[int, float]]
    load: float


class Retiming(_Strict):
    """The whole file."""

    schema_version: Literal[1] = 1
    protocol: Protocol
    models: dict[RunId, Model]


def is_settled(visits_s: Sequence[float]) -> bool:
    """Whether the fastest of these times is one that the machine has when left alone.

    What other programs, and other guests of the same host, do to a machine makes it slower, by this
    much or that much, and never faster: from above, visits agree with each other only at the
    bottom. (The least of many timings: Chen and Revels, arXiv:1608.04295.)
    """
    fastest = sorted(visits_s)[:CONFIRMED]
    return len(fastest) == CONFIRMED and fastest[-1] <= fastest[0] * (1 + NEAR)


def write_retiming(study: Path, retiming: Retiming) -> Path:
    """Write a study's retime.json, whole or not at all, and say where it is.

    Raises:
        MachineError: the disk refuses it.
    """
    path = study / RETIMED
    write_text_atomically(path, retiming.model_dump_json(indent=1) + "\n")
    return path


def read_retiming(study: Path) -> Retiming | None:
    """A study's retime.json, or None if it has none.

    Raises:
        ValueError: it is not believed; says why in one line.
    """
    path = study / RETIMED
    try:
        if not path.exists():
            return None
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise ValueError("not a file of this program")
        return Retiming.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise ValueError(one_line(f"{place}: {first['msg']}" if place else first["msg"])) from None


def prefer_retimed(runs: pd.DataFrame, studies: Iterable[Path]) -> tuple[pd.DataFrame, list[str]]:
    """A table of runs with the times of their studies' retime.json in place of the runs' own.

    Two columns more: `timed_by` (run, retime, or None where there is no time), and `trained_on`,
    the device name of the run. `device_name` becomes that of the device that the times are of.

    Returns:
        the table, and what there is to say of it, a line each.
    """
    import pandas as pd

    models, remarks = _read(studies)
    known = {run_id for run_id, _ in models}
    count = len(runs)
    columns: dict[str, list[Any]] = {str(name): runs[name].tolist() for name in runs}
    trained_on = cells(runs, "device_name")
    timed_by = [None if time is None else "run" for time in cells(runs, "inference_time_s")]
    names = zip(*(cells(runs, key) for key in ("run_id", "started", "superseded")), strict=True)
    model_of: dict[int, Model] = {}
    outdated = 0
    for row, (run_id, started, superseded) in enumerate(names):
        model = models.get((str(run_id), started))
        if timed_by[row] and model is not None:
            model_of[row], timed_by[row] = model, "retime"
        elif timed_by[row] and run_id in known and not superseded:
            outdated += 1
    for name in Times.model_fields if model_of else ():
        times = columns.setdefault(name, [None] * count)
        for row, model in model_of.items():
            times[row] = getattr(model.times, name)
    if BESIDE_COLUMN in columns:
        beside = columns[BESIDE_COLUMN]
        columns[BESIDE_COLUMN] = [None if n in model_of else beside[n] for n in range(count)]
        if shared := sum(bool(others) for others in columns[BESIDE_COLUMN]):
            remarks.append(
                f"times of {shared} of {count} rows were taken beside other points of their "
                "machine: python -m agent.retime takes them alone"
            )
    columns |= {"timed_by": timed_by, "trained_on": trained_on}
    devices = Counter(model.times.device_name for model in model_of.values())
    for device, rows in sorted(devices.items()):
        remarks.append(f"times of {rows} of {count} rows are retimed, on {device}")
    if unsettled := sum(not model.settled for model in model_of.values()):
        remarks.append(
            f"times of {unsettled} of {len(model_of)} retimed rows are not settled: {UNSETTLED}"
        )
    if outdated:
        remarks.append(f"{outdated} of {count} rows are of another run than their retimed model")
    return pd.DataFrame(columns, dtype=object), remarks


def runs_of(study: Path) -> pd.DataFrame:
    """The table of the runs in a study's folder, with the times that were taken again."""
    runs, _ = prefer_retimed(table(read_records(study).results), [study])
    return runs


def _read(studies: Iterable[Path]) -> tuple[dict[tuple[str, str | None], Model], list[str]]:
    """(run_id, start of the run) -> model, and which file is not believed, and why."""
    models, remarks = {}, []
    for study in studies:
        try:
            retiming = read_retiming(study)
        except ValueError as error:
            remarks.append(f"{study / RETIMED} is not believed ({error}): times are the runs' own")
            continue
        for run_id, model in retiming.models.items() if retiming else ():
            models[run_id, model.run_started] = model
    return models, remarks
