"""What a run leaves: `RunResult`, and its one record, result.json."""

from __future__ import annotations

import json
import math
import stat
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic_core.core_schema import (
    CoreSchema,
    is_instance_schema,
    json_or_python_schema,
    no_info_after_validator_function,
    plain_serializer_function_ser_schema,
    union_schema,
)

from fno_runner.config import N, RunConfig, load_config
from fno_runner.errors import UnbelievableError, UserError
from fno_runner.files import write_text_atomically

SCHEMA_VERSION: Literal[3] = 3
"""Raised where a program that reads strictly cannot read what a later one writes. 2: validation.
3: objects, curves, the status "stopped"; frc50, frc_halves and resolution are of definition 2
(fno_runner.score.frc)."""
KNOWN_SCHEMAS = (1, 2, 3)
OF_SCHEMA_3 = ("objects", "curves")
RECORD = "result.json"
BESIDE = "FNO_POINTS_BESIDE"
"""Environment variable: how many other points may run on the same device at the same time."""
BESIDE_COLUMN = "timed_beside"
"""In a record's timing: so many other points may have shared the device. Its inference times are no
measure of the network alone."""
MAX_BYTES = 64 * 2**20
"""A larger record is refused unread [bytes]; a real one takes some kilobytes."""
WEIGHTS = "model.safetensors"
"""The network of a run's only seed, or of the first one that ended best."""
RECON = "recon.npz"
"""The object of the test patterns, its mask, the training's probe, and what the object is compared
with, if anything."""

Status = Literal["finished", "failed", "diverged", "collapsed", "stopped"]
"""stopped: ended early on purpose (by somebody at the server, or by its Hyperband), with the scores
of what it had reached."""
FROM_BEST_TO_WORST: tuple[Status, ...] = ("finished", "collapsed", "diverged", "failed", "stopped")
SETTLED: tuple[Status, ...] = ("finished", "stopped")
"""A run that ended so is not run again: it did what was wanted of it."""
Pair = tuple[float | None, float | None]
"""One number for the amplitude and one for the phase of the object, in this order."""
ByName = dict[str, float | None]
"""Of a scan: one number for each kind of frames, or in each unit."""


@dataclass
class Metrics:
    """How good a reconstruction is. In JSON both are one object, as no name is in both.

    pairs: name -> (amplitude, phase), as of `fno_runner.score.metrics`, and "frc_halves" and
        "frc_halves_half_bit" of a scan.
    scan: "r_factor", "deviance" and "resolution" of `fno_runner.score.without_truth`.
    """

    pairs: dict[str, Pair] = field(default_factory=dict)
    scan: dict[str, ByName] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Pair | ByName]) -> Metrics:
        """What one object in JSON says."""
        return cls(
            pairs={name: value for name, value in values.items() if not isinstance(value, dict)},
            scan={name: value for name, value in values.items() if isinstance(value, dict)},
        )

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Metrics], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        object_in_json = no_info_after_validator_function(
            cls.of, handler.generate_schema(dict[str, Pair | ByName])
        )
        return json_or_python_schema(
            object_in_json,
            union_schema([is_instance_schema(cls), object_in_json]),
            serialization=plain_serializer_function_ser_schema(
                lambda metrics: {**metrics.pairs, **metrics.scan}
            ),
        )


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


class RingCurves(BaseModel):
    """Fourier ring correlations, as a record keeps them; a curve's element k is at (k + 1) · step.

    definition: of the numbers that are taken from the curves (fno_runner.score.frc).
    step: of the rings [1/px].
    amp, phase: correlation of each ring, not smoothed.
    half_bit: the half-bit threshold of each ring.
    """

    model_config = ConfigDict(extra="forbid")

    definition: int
    step: float
    amp: list[float]
    phase: list[float]
    half_bit: list[float]

    @classmethod
    def mean(cls, curves: Sequence[RingCurves]) -> RingCurves:
        """The mean of curves of one definition over the same rings."""
        own = {
            key: _mean([getattr(curve, key) for curve in curves])
            for key in ("amp", "phase", "half_bit")
        }
        return curves[0].model_copy(update=own)


class SeedResult(BaseModel):
    """What one seed of several came to; the fields are those of `RunResult`."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(ge=0, lt=2**31)
    status: Status
    error: ErrorInfo | None = None
    metrics: Metrics = Field(default_factory=Metrics)
    validation: dict[str, Pair] = {}
    objects: list[dict[str, Pair]] = []
    curves: dict[str, RingCurves] = {}
    history: list[dict[str, float | int | None]] = []


class RunResult(BaseModel):
    """The record of one run. In JSON a number that is missing or not finite is null.

    metrics: against `metrics_against`: the truth of simulated data, or the reference object of an
        experimental scan; for a scan also what needs neither. Of several test objects the mean.
    validation: name -> [amplitude, phase] of an object that is neither trained on nor reported, to
        choose configurations by; empty where there is none.
    objects: the same of each of several test objects; empty where there is one.
    curves: Fourier ring correlations with the "truth" or the "reference", the mean over objects,
        and of two "halves" of a scan.
    floors: the same for reconstructions that took no network: "flat_phase", "projection_1",
        "projection_50".
    model_params: trainable parameters, counted as real numbers.
    inference_time_s: median wall time [s] of one pass over the patterns of one test object.
    timing: further times [s], rates and the protocol they were taken with.
    history: one entry an epoch.
    seeds: what each of several replicates came to; empty for a single one. The run has finished if
        a seed has, else its status is the worst; metrics, validation, objects and curves are the
        mean over the seeds that ended as the run did, error is the first one's of them, history the
        first seed's. A seed that was stopped before it began has no scores, and enters no
        mean.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1, 2, 3] = SCHEMA_VERSION
    run_id: str = Field(pattern=r"^[0-9a-f]{12}$")
    status: Status
    error: ErrorInfo | None = None
    config: dict[str, Any]
    metrics: Metrics = Field(default_factory=Metrics)
    validation: dict[str, Pair] = {}
    objects: list[dict[str, Pair]] = []
    curves: dict[str, RingCurves] = {}
    metrics_against: Literal["truth", "reference"] | None = None
    floors: dict[str, dict[str, Pair]] = {}
    model_params: int | None = None
    inference_time_s: float | None = None
    timing: dict[str, float | int | bool | None] = {}
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
        record = self.model_dump()
        for part in (record, *record["seeds"]):
            for key in OF_SCHEMA_3:  # a record of an earlier schema is written as it was read
                if not part[key]:
                    del part[key]
        return json.dumps(finite(record), indent=1, allow_nan=False) + "\n"

    def conclude(self, seeds: list[SeedResult]) -> None:
        """Take status, error, metrics and history from what the seeds came to."""
        self.status = max((seed.status for seed in seeds), key=FROM_BEST_TO_WORST.index)
        if any(seed.status == "finished" for seed in seeds):
            self.status = "finished"
        alike = [seed for seed in seeds if seed.status == self.status]
        scored = [seed for seed in alike if seed.metrics != Metrics()] or alike[:1]
        self.error = alike[0].error
        self.metrics = Metrics(
            _mean([seed.metrics.pairs for seed in scored]),
            _mean([seed.metrics.scan for seed in scored]),
        )
        self.validation = _mean([seed.validation for seed in scored])
        self.objects = _mean([seed.objects for seed in scored])
        self.curves = {
            name: RingCurves.mean([seed.curves[name] for seed in scored])
            for name in scored[0].curves
        }
        self.history = seeds[0].history
        self.seeds = seeds if len(seeds) > 1 else []

    def by_seed(self) -> list[RunResult]:
        """A record of each seed alone; where there is one only, this record."""
        shared = SeedResult.model_fields.keys() - {"seed"}
        return [
            self.model_copy(
                update={
                    **{name: getattr(seed, name) for name in shared},
                    "config": {**self.config, "seed": seed.seed},
                    "seeds": [],
                }
            )
            for seed in self.seeds
        ] or [self]


def run_folder(output_dir: Path, identifier: str) -> Path:
    """Where the run of that name leaves its files."""
    return output_dir / "runs" / identifier


def write_result(result: RunResult, folder: Path) -> None:
    """Write result.json in `folder`, whole or not at all."""
    write_text_atomically(folder / RECORD, result.to_json())


def read_result(path: Path, run_id: str | None = None) -> RunResult:
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
    if finite(record := result.model_dump()) != record:
        raise UnbelievableError("foreign", "has a number that is not finite; strict JSON has null")
    try:
        _ = result.run_config
    except UserError as error:
        raise UnbelievableError("foreign", f"config: {error}") from None
    return result


def _reason(error: ValidationError) -> UnbelievableError:
    errors = error.errors(include_url=False)
    for item in errors:
        if item["loc"] == ("schema_version",):
            version = item["input"]
            later = isinstance(version, int) and version > SCHEMA_VERSION
            known = ", ".join(map(str, KNOWN_SCHEMAS))
            reason = f"schema_version is {version!r}; known are {known}"
            return UnbelievableError("future" if later else "foreign", reason)
    place = ".".join(str(step) for step in errors[0]["loc"])
    torn = errors[0]["type"] == "json_invalid"
    reason = f"{place}: {errors[0]['msg']}" if place else errors[0]["msg"]
    return UnbelievableError("torn" if torn else "foreign", reason)


def _mean(values: Sequence[Any]) -> Any:
    """The mean of numbers, element by element of pairs, lists, dicts; None where one is missing."""
    first = values[0]
    if isinstance(first, dict):
        return {key: _mean([value[key] for value in values]) for key in first}
    if isinstance(first, tuple):
        return tuple(_mean(elements) for elements in zip(*values, strict=True))
    if isinstance(first, list):
        return [_mean(elements) for elements in zip(*values, strict=True)]
    return None if None in values else sum(values) / len(values)


def finite(value: Any) -> Any:
    """Nested dicts, lists and tuples, with None in place of numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(finite, value))
    return value
