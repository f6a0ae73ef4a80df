"""What a run leaves: `RunResult`, and its one record, result.json."""

from __future__ import annotations

import json
import math
import stat
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fno_runner.config import N, RunConfig, load_config
from fno_runner.errors import UnbelievableError, UserError
from fno_runner.files import write_text_atomically

SCHEMA_VERSION: Literal[2] = 2
"""Raised where a program that reads strictly cannot read what a later one writes. 2: validation."""
KNOWN_SCHEMAS = (1, 2)
RECORD = "result.json"
MAX_BYTES = 64 * 2**20
"""A larger record is refused unread [bytes]; a real one takes some kilobytes."""
RECON = "recon.npz"
"""The object of the test patterns, its mask, the training's probe, and what the object is compared
with, if anything."""

Status = Literal["finished", "failed", "diverged", "collapsed"]
FROM_BEST_TO_WORST: tuple[Status, ...] = ("finished", "collapsed", "diverged", "failed")
Pair = tuple[float | None, float | None]
"""One number for the amplitude and one for the phase of the object, in this order."""
Metrics = dict[str, Pair | dict[str, float | None]]

SCAN_COLUMNS = (
    *(
        f"{name}_{of}"
        for name in ("r", "deviance")
        for of in ("train", "held_out", "region", "held_out_from_object", "region_from_object")
    ),
    *("frc_halves_amp", "frc_halves_phase", "resolution_px", "resolution_nm"),
)
"""What a scan's scores that need no truth are called in tables and as a sweep's metric."""


class ErrorInfo(BaseModel):
    """Why a run has no result."""

    model_config = ConfigDict(extra="forbid")

    type: str
    message: str
    traceback: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        return cls(
            type=type(error).__name__,
            message=str(error) or type(error).__name__,
            traceback="".join(traceback.format_exception(error)),
        )


class SeedResult(BaseModel):
    """What one seed of several came to; the fields are those of `RunResult`."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(ge=0, lt=2**31)
    status: Status
    error: ErrorInfo | None = None
    metrics: Metrics = {}
    validation: Metrics = {}
    history: list[dict[str, float | int | None]] = []


class RunResult(BaseModel):
    """The record of one run. In JSON a number that is missing or not finite is null.

    metrics: name -> [amplitude, phase], against `metrics_against`: the truth of simulated data,
        or the reference object of an experimental scan; for a scan also what needs neither
        (`without_truth`): "r_factor" -> {"train": …, "held_out": …, …}, "deviance" likewise,
        "frc_halves" and "resolution".
    validation: the same metrics of an object that is neither trained on nor reported, to choose
        configurations by; empty where there is none.
    floors: the same metrics for reconstructions that took no network: "flat_phase",
        "projection_1", "projection_50".
    model_params: trainable parameters, counted as real numbers.
    inference_time_s: median wall time [s] of one pass over the test set.
    timing: further times [s], rates and the protocol they were taken with.
    history: one entry an epoch.
    seeds: what each of several replicates came to; empty for a single one. The run has finished if
        a seed has, else its status is the worst; metrics and validation are the mean over the seeds
        that ended as the run did, error is the first one's of them, history the first seed's.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    run_id: str = Field(pattern=r"^[0-9a-f]{12}$")
    status: Status
    error: ErrorInfo | None = None
    config: dict[str, Any]
    metrics: Metrics = {}
    validation: Metrics = {}
    metrics_against: Literal["truth", "reference"] | None = None
    floors: dict[str, dict[str, Pair]] = {}
    model_params: int | None = None
    inference_time_s: float | None = None
    timing: dict[str, float | int | str | bool | None] = {}
    history: list[dict[str, float | int | None]] = []
    provenance: dict[str, str | float | int | bool | None] = {}
    seeds: list[SeedResult] = []

    @property
    def run_config(self) -> RunConfig:
        """The configuration that was run.

        A record without `patch_size` is of version 0.1, which cut every pattern to 64 px.

        Raises:
            UserError: it is none that this program knows.
        """
        return load_config({"patch_size": N, **self.config})

    def to_json(self) -> str:
        """Strict JSON (RFC 8259): null where a number is not finite."""
        return json.dumps(_finite(self.model_dump()), indent=1, allow_nan=False) + "\n"

    def conclude(self, seeds: list[SeedResult]) -> None:
        """Take status, error, metrics and history from what the seeds came to."""
        self.status = max((one.status for one in seeds), key=FROM_BEST_TO_WORST.index)
        if any(one.status == "finished" for one in seeds):
            self.status = "finished"
        alike = [one for one in seeds if one.status == self.status]
        self.error = alike[0].error
        self.metrics = _mean([one.metrics for one in alike])
        self.validation = _mean([one.validation for one in alike])
        self.history = seeds[0].history
        self.seeds = seeds if len(seeds) > 1 else []

    def by_seed(self) -> list[RunResult]:
        """A record of each seed alone; where there is one only, this record."""
        return [
            self.model_copy(
                update={
                    "config": {**self.config, "seed": one.seed},
                    "status": one.status,
                    "error": one.error,
                    "metrics": one.metrics,
                    "validation": one.validation,
                    "history": one.history,
                    "seeds": [],
                }
            )
            for one in self.seeds
        ] or [self]


def run_folder(output_dir: Path, identifier: str) -> Path:
    """Where the run of that name leaves its files."""
    return output_dir / "runs" / identifier


def write_result(result: RunResult, folder: Path) -> Path:
    """Write result.json in `folder`, whole or not at all, and say where it is."""
    path = folder / RECORD
    write_text_atomically(path, result.to_json())
    return path


def read_record(path: Path, run_id: str | None = None) -> RunResult:
    """One record, believed only when all of it fits.

    Args:
        run_id: what its folder says; None where its folder says nothing.

    Raises:
        OSError: it cannot be read.
        UnbelievableError: it is not believed; says why in one line.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):  # a pipe would never end
        raise UnbelievableError("foreign", "not a regular file")
    if facts.st_size > MAX_BYTES:
        raise UnbelievableError(
            "foreign", f"{facts.st_size} bytes; a record has at most {MAX_BYTES}"
        )
    content = path.read_bytes()
    if not content.strip():
        raise UnbelievableError("empty", "empty")
    try:
        result = RunResult.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise _reason(error) from None
    if "schema_version" not in result.model_fields_set:
        raise UnbelievableError("foreign", "has no schema_version")
    if run_id is not None and result.run_id != run_id:
        raise UnbelievableError("foreign", f"run_id is {result.run_id}, its folder says {run_id}")
    if not _is_finite(result.model_dump()):
        raise UnbelievableError("foreign", "has a number that is not finite; strict JSON has null")
    try:
        check_cost(result.model_params, result.inference_time_s)
        _ = result.run_config
    except ValueError as error:
        raise UnbelievableError("foreign", str(error)) from None
    except UserError as error:
        raise UnbelievableError("foreign", f"config: {error}") from None
    return result


def check_cost(model_params: object, inference_time_s: object) -> None:
    """Doubt what a run is said to cost; None is no doubt.

    Raises:
        ValueError: parameters that are no count, or a time that is not positive.
    """
    if model_params is not None and not (
        isinstance(model_params, int) and 0 < model_params < 2**63
    ):
        raise ValueError("model_params is not a count")
    if inference_time_s is not None and not (
        isinstance(inference_time_s, int | float) and inference_time_s > 0
    ):
        raise ValueError("inference_time_s is not positive")


def _reason(error: ValidationError) -> UnbelievableError:
    errors = error.errors(include_url=False)
    for item in errors:
        if item["loc"] == ("schema_version",):
            version = item["input"]
            later = isinstance(version, int) and version > SCHEMA_VERSION
            known = " and ".join(map(str, KNOWN_SCHEMAS))
            reason = f"schema_version is {version!r}; known are {known}"
            return UnbelievableError("future" if later else "foreign", reason)
    place = ".".join(str(step) for step in errors[0]["loc"])
    torn = errors[0]["type"] == "json_invalid"
    reason = f"{place}: {errors[0]['msg']}" if place else errors[0]["msg"]
    return UnbelievableError("torn" if torn else "foreign", reason)


def _is_finite(value: object) -> bool:
    """Whether all numbers in nested dicts and lists are finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(_is_finite, value))


def _mean(values: Sequence[Any]) -> Any:
    """The mean of numbers, element by element of pairs and dicts; None where one is missing."""
    first = values[0]
    if isinstance(first, dict):
        return {key: _mean([value[key] for value in values]) for key in first}
    if isinstance(first, tuple):
        return tuple(_mean(elements) for elements in zip(*values, strict=True))
    return None if None in values else sum(values) / len(values)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
