"""Every knob of a run: its type, unit, default and bounds, once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from fno_runner.errors import UserError

N = 64
"""Side of a diffraction pattern and of an object patch [px]."""
CENTRE = (N - 1) / 2
"""Distance from a patch's first pixel to its centre [px]."""


class RunConfig(BaseModel):
    """One point of a study. Unknown keys, wrong types and values out of bounds are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    # --- the network -------------------------------------------------------------------------
    architecture: Literal["fno", "hybrid"] = Field("fno", description="the family of networks")
    input_transform: Literal["none", "log1p", "sqrt"] = Field(
        "sqrt", description="what is done to the diffraction amplitude before the network sees it"
    )
    conditioning: Literal["projection", "amplitude"] = Field(
        "projection",
        description="what the network sees beside the amplitude: one projection, or nothing",
    )
    modes: int = Field(
        12, ge=1, le=N, description="Fourier modes that a layer keeps in each dimension"
    )
    width: int = Field(32, ge=1, le=512, description="channels of the first Fourier layer")
    blocks: int = Field(
        4,
        ge=1,
        le=8,
        description="Fourier blocks; of a hybrid the levels of its encoder, at most 5",
    )
    cnn_blocks: int = Field(
        2, ge=0, le=8, description="3×3 convolutions between the Fourier blocks and the output"
    )

    # --- training ----------------------------------------------------------------------------
    epochs: int = Field(20, ge=1, le=100_000, description="passes over the training patterns")
    batch_size: int = Field(16, ge=1, le=65_536, description="patterns in a training step")
    learning_rate: float = Field(
        3e-3, gt=0, le=1, description="highest learning rate of the one-cycle schedule"
    )
    grad_clip: float = Field(1.0, gt=0, description="a longer gradient is scaled down to this norm")
    loss: Literal["mae", "poisson"] = Field(
        "mae",
        description="mean absolute error of the amplitude, or Poisson negative log-likelihood",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**31,
        description="seed of the initial weights, the order of patterns and the validation split",
    )
    replicates: int = Field(
        1, ge=1, le=64, description="train this many networks, with seed, seed + 1, and so on"
    )
    train_patterns: int | None = Field(
        None,
        ge=16,
        description="train on this many patterns, drawn with the seed (default: on all)",
    )

    # --- inference and machine ---------------------------------------------------------------
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32",
        description="number format of the network's products; without a GPU tf32 is float32",
    )
    infer_batch_size: int = Field(
        128, ge=1, le=1_048_576, description="patterns that inference works on at a time"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to compute")

    # --- data: simulated grid lines ----------------------------------------------------------
    nimgs_train: int = Field(2, ge=1, le=64, description="simulated training objects")
    nimgs_test: int = Field(1, ge=1, le=16, description="simulated test objects")
    nphotons: float = Field(1e9, ge=1, le=1e15, description="mean number of photons in a pattern")
    data_seed: int = Field(
        0, ge=0, lt=2**31, description="seed of the simulated objects and of the photon noise"
    )
    probe_radius: float = Field(11.0, gt=1, le=N / 2, description="radius of the pupil [FFT bins]")
    probe_stop: float = Field(
        0.3, ge=0, lt=1, description="radius of the central stop [pupil radii]"
    )
    probe_defocus: float = Field(
        6.0, ge=-50, le=50, description="defocus of the probe at the edge of the pupil [rad]"
    )
    probe_astigmatism: float = Field(
        1.5, ge=-50, le=50, description="astigmatism of the probe at the edge of the pupil [rad]"
    )
    probe_coma: float = Field(
        1.0, ge=-50, le=50, description="coma of the probe at the edge of the pupil [rad]"
    )

    probe_curvature: float = Field(
        0.0142, ge=-0.1, le=0.1, description="curvature of the probe's parabolic phase [rad/px²]"
    )

    # --- paths -------------------------------------------------------------------------------
    train_npz: str | None = Field(None, min_length=1, description="training patterns (NPZ)")
    test_npz: str | None = Field(None, min_length=1, description="test patterns (NPZ)")
    val_npz: str | None = Field(
        None,
        min_length=1,
        description="patterns of a third object, by which configurations are chosen (NPZ)",
    )
    scan: str | None = Field(
        None, min_length=1, description="an experimental scan (docs/real-data.md names the formats)"
    )
    data_dir: str = Field(
        "outputs/datasets", min_length=1, description="folder that keeps simulated data"
    )
    output_dir: str = Field(
        "outputs/fno_hyperparam_study/single",
        min_length=1,
        description="folder of the study; the run leaves runs/<run_id> in it",
    )

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if (self.train_npz is None) != (self.test_npz is None):
            raise ValueError("train_npz and test_npz are given together or not at all")
        if self.val_npz is not None and self.train_npz is None:
            raise ValueError("val_npz goes with train_npz and test_npz")
        if self.scan is not None and self.train_npz is not None:
            raise ValueError("scan and train_npz exclude each other")
        if self.architecture == "hybrid" and self.blocks > 5:
            raise ValueError(f"blocks={self.blocks}: hybrid allows at most 5 (a 4×4 grid is left)")
        return self

    def replicas(self) -> list[RunConfig]:
        """This configuration once for each of its seeds, as one would run it with that alone."""
        seeds = [(self.seed + k) % 2**31 for k in range(self.replicates)]
        return [self.model_copy(update={"seed": seed, "replicates": 1}) for seed in seeds]


PATHS = ("train_npz", "test_npz", "val_npz", "scan", "data_dir", "output_dir")
"""Keys that say where things lie; with `device`, they decide no result."""

IN_NO_RUN_ID = (*PATHS, "device")


def load_config(values: Mapping[str, Any]) -> RunConfig:
    """Check `values` (typed, as from YAML or JSON) and make a `RunConfig` of them.

    Raises:
        UserError: one line that names the key, the value and what is allowed.
    """
    for key in values:
        if key not in RunConfig.model_fields:
            raise UserError(f"unknown key '{key}'{suggestion(str(key), RunConfig.model_fields)}")
    try:
        return RunConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise UserError(str(first["ctx"]["error"])) from None
        key = str(first["loc"][0])
        field = RunConfig.model_fields[key]
        hint = (
            " (YAML reads 1e-3 as text: write 1.0e-3)"
            if isinstance(first["input"], str) and float in value_types(field)
            else ""
        )
        raise UserError(f"{key}={first['input']!r}: allowed is {allowed(field)}{hint}") from None


def suggestion(word: str, known: Mapping[str, Any] | list[str]) -> str:
    """'; did you mean …?' where `known` has a word much like `word`, else the whole list."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(known)}"


def value_types(field: FieldInfo) -> tuple[Any, ...]:
    """The plain types a field takes: `int | None` gives (int, NoneType), a Literal gives (str,)."""
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return (str,)
    return get_args(annotation) or (annotation,)


def choices(field: FieldInfo) -> tuple[str, ...] | None:
    """The words a field chooses from, or None where it is not a choice."""
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else None


def allowed(field: FieldInfo) -> str:
    """What a field takes, in words: its choices, or its type and bounds."""
    words = choices(field)
    if words:
        return " | ".join(words)
    types = value_types(field)
    # `int | None` keeps its bounds in the annotation's metadata, a plain int in the field's.
    constraints = list(field.metadata)
    for argument in types:
        if get_origin(argument) is Annotated:
            constraints += get_args(argument)[1:]
    bounds = []
    for constraint in constraints:
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if (bound := getattr(constraint, attribute, None)) is not None:
                bounds.append(f"{sign} {bound:g}" if abs(bound) < 1e6 else f"{sign} {bound}")
    name = "an integer" if int in types else "a number" if float in types else "a text"
    return " ".join([name, " and ".join(bounds)]).strip()
