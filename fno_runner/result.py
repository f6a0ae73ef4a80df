"""What a run leaves: `RunResult`, and its one record, result.json."""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fno_runner.config import N, RunConfig, load_config
from fno_runner.files import write_text_atomically

SCHEMA_VERSION: Literal[2] = 2
"""Raised where a program that reads strictly cannot read what a later one writes. 2: validation."""
KNOWN_SCHEMAS = (1, 2)
RECORD = "result.json"

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
