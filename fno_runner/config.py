"""Every knob of a run: its type, unit, default and bounds, once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from fno_runner.errors import UserError

SIZES = (64, 128, 256)
"""Sides that a diffraction pattern, and with it an object patch, may have [px]."""
BINNINGS = (1, 2, 4)
"""So many pixels a side of a detector may be summed to one."""
N = 64
"""The side where nothing else is said [px]; version 0.1 knew no other."""
SMALLEST_GRID = 4
"""The side of the coarsest level that a hybrid may have [px]."""
KINDS = ("lines", "discs", "textures", "stars")
"""Kinds of simulated objects."""


def centre(size: int) -> float:
    """The distance from the first pixel of a patch of `size` px to its centre [px]."""
    return (size - 1) / 2


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
        12,
        ge=1,
        le=SIZES[-1],
        description="Fourier modes that a layer keeps in each dimension, at most patch_size",
    )
    width: int = Field(32, ge=1, le=512, description="channels of the first Fourier layer")
    blocks: int = Field(
        4,
        ge=1,
        le=8,
        description="Fourier blocks; of a hybrid the levels of its encoder",
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
    rate_scaling: Literal["none", "fan_in"] = Field(
        "none",
        description="fan_in: weights that sum over more channels than those of the first level (or "
        "than 32) learn at a share of the rate (muP), so that all levels of a hybrid learn alike",
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
        description="train on this many patterns, drawn with the seed (default: all)",
    )

    # --- inference and machine ---------------------------------------------------------------
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32",
        description="number format of the network's products; without a GPU tf32 is float32",
    )
    infer_batch_size: int = Field(
        128, ge=1, le=1_048_576, description="patterns that inference works on at a time"
    )
    overlap_passes: int = Field(
        0,
        ge=0,
        le=10_000,
        description="passes of the fit without a network over overlapping patches, begun from the "
        "stitched object, probe held",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to compute")

    # --- data --------------------------------------------------------------------------------
    patch_size: Literal[64, 128, 256] | None = Field(
        None,
        description="side of a pattern and of an object patch [px] (default: 64; of a scan, the "
        "smallest that holds 99 % of its counts)",
    )
    bin: Literal[1, 2, 4] = Field(
        1, description="detector pixels a side that are summed to one; for scans only"
    )

    scan_data: Literal["amplitude", "intensity"] | None = Field(
        None, description="what a scan's frames hold (default: what its format says)"
    )
    scan_entry: str | None = Field(
        None, min_length=1, description="which entry of a scan's file (default: the first)"
    )

    # --- data: simulated ---------------------------------------------------------------------
    objects: str = Field(
        "lines",
        examples=list(KINDS),
        description=f"kinds of simulated objects, taken in turn, with commas: {', '.join(KINDS)}",
    )
    nimgs_train: int = Field(2, ge=1, le=64, description="simulated training objects")
    nimgs_test: int = Field(1, ge=1, le=16, description="simulated test objects")
    nimgs_val: int = Field(
        1,
        ge=1,
        le=16,
        description="simulated validation objects, to choose by",
    )
    nphotons: float = Field(1e9, ge=1, le=1e15, description="mean number of photons in a pattern")
    data_seed: int = Field(
        0, ge=0, lt=2**31, description="seed of the simulated objects and of the photon noise"
    )
    probe_radius: float = Field(
        11.0,
        gt=1,
        le=SIZES[-1] / 2,
        description="radius of the pupil [FFT bins], at most patch_size / 2",
    )
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
        0.0142,
        ge=-0.1,
        le=0.1,
        description="curvature of the probe's parabolic phase [rad/px²] for patch_size 64; for N "
        "it is 64 / N of this",
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
        None,
        min_length=1,
        description="an experimental scan (docs/scan-formats.md names the formats)",
    )
    probe_file: str | None = Field(
        None,
        min_length=1,
        description="a scan whose probe, sub-pixel positions and counts the data are simulated with"
        " (its counts unless nphotons is other than its default)",
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
        if self.bin != 1 and self.scan_file is None:
            raise ValueError(f"bin={self.bin}: sums pixels of a scan, and there is no scan")
        for key in ("scan_data", "scan_entry"):
            if getattr(self, key) is not None and self.scan_file is None:
                raise ValueError(f"{key}={getattr(self, key)}: there is no scan")
        self._check_objects()
        self._check_size()
        return self

    def _check_objects(self) -> None:
        """
        Raises:
            ValueError: what is to be simulated is unknown, or is not simulated.
        """
        kinds = self.kinds
        if not set(kinds) <= set(KINDS) or len(set(kinds)) < len(kinds):
            raise ValueError(f"objects={self.objects!r}: allowed is {_some_of(KINDS)}")
        if len(kinds) > self.nimgs_train:
            raise ValueError(
                f"nimgs_train={self.nimgs_train}: objects names {len(kinds)} kinds, "
                f"and each needs an object to train on"
            )
        if not self.is_simulated:
            for key in ("objects", "probe_file"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key}={getattr(self, key)}: the data are not simulated")
        for key in ("nimgs_test", "nimgs_val"):
            if self.probe_file is not None and getattr(self, key) != 1:
                raise ValueError(f"{key}={getattr(self, key)}: with probe_file allowed is 1")

    def _check_size(self) -> None:
        """
        Raises:
            ValueError: a key is out of the bounds that the size of a pattern sets.
        """
        known = N if self.scan_file is None and self.is_simulated else SIZES[-1]
        largest = self.patch_size or known
        if self.modes > largest:
            raise ValueError(
                f"modes={self.modes}: allowed is an integer ≥ 1 and ≤ {largest} "
                f"(patch_size={largest})"
            )
        if self.is_simulated and self.probe_file is None and self.probe_radius > largest / 2:
            raise ValueError(
                f"probe_radius={self.probe_radius:g}: allowed is a number > 1 and "
                f"≤ {largest / 2:g} (patch_size={largest})"
            )
        levels = (largest // SMALLEST_GRID).bit_length()
        if self.architecture == "hybrid" and self.blocks > levels:
            raise ValueError(
                f"blocks={self.blocks}: hybrid allows at most {levels} "
                f"(a {SMALLEST_GRID}×{SMALLEST_GRID} grid is left)"
            )

    @property
    def without_effect(self) -> tuple[str, ...]:
        """Keys that change nothing about these data, whatever they are."""
        if not self.is_simulated:
            return ("nimgs_train", "nimgs_test", "nimgs_val", "nphotons", *PROBE)
        return PROBE if self.probe_file is not None else ()

    @property
    def is_simulated(self) -> bool:
        """Whether this program makes the data."""
        return self.scan is None and self.train_npz is None

    @property
    def scan_file(self) -> str | None:
        """The scan that is read: as the data, or for its probe."""
        return self.scan or self.probe_file

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of simulated objects, in the order in which they take turns."""
        return tuple(kind.strip() for kind in self.objects.split(","))

    @property
    def is_grid_lines(self) -> bool:
        """Whether objects are those of PtychoPINN's study, whose modulus exceeds 1."""
        return self.kinds == ("lines",) and self.probe_file is None

    @property
    def size(self) -> int:
        """N, the side of a pattern [px]: `patch_size`, or 64 where that is not given."""
        return self.patch_size or N

    def of_size(self, size: int) -> RunConfig:
        """This configuration with the `patch_size` that its data turned out to have.

        Raises:
            UserError: a key is out of the bounds that this size sets.
        """
        sized = self.model_copy(update={"patch_size": size})
        try:
            sized._check_size()
        except ValueError as error:
            raise UserError(str(error)) from None
        return sized

    def replicas(self) -> list[RunConfig]:
        """This configuration once for each of its seeds, as one would run it with that alone."""
        seeds = [(self.seed + k) % 2**31 for k in range(self.replicates)]
        return [self.model_copy(update={"seed": seed, "replicates": 1}) for seed in seeds]


PROBE = ("probe_radius", "probe_stop", "probe_defocus", "probe_astigmatism", "probe_coma",
         "probe_curvature")  # fmt: skip
"""Keys of the probe that is simulated."""
PATHS = ("train_npz", "test_npz", "val_npz", "scan", "probe_file", "data_dir", "output_dir")
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
    """The plain types a field takes: of `int | None` (int, NoneType), of a Literal its values'."""
    types: dict[Any, None] = {}
    for kind in _alternatives(field):
        of_values = map(type, get_args(kind)) if get_origin(kind) is Literal else (kind,)
        types |= dict.fromkeys(of_values)
    return tuple(types)


def choices(field: FieldInfo) -> tuple[Any, ...] | None:
    """The words or numbers a field chooses from, or None where it is not a choice."""
    literals = (kind for kind in _alternatives(field) if get_origin(kind) is Literal)
    return next((get_args(kind) for kind in literals), None)


def _alternatives(field: FieldInfo) -> tuple[Any, ...]:
    """`X | None` as (X, NoneType), anything else alone."""
    annotation = field.annotation
    # A union with a Literal in it is still of the older kind.
    is_union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if is_union else (annotation,)


def allowed(field: FieldInfo) -> str:
    """What a field takes, in words: its choices, or its type and bounds."""
    words = choices(field)
    if words:
        return " | ".join(map(str, words))
    if field.examples:
        return _some_of(field.examples)
    types = value_types(field)
    bounds = []
    for constraint in field.metadata:
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if (bound := getattr(constraint, attribute, None)) is not None:
                short = isinstance(bound, float) or abs(bound) < 1e6
                bounds.append(f"{sign} {bound:g}" if short else f"{sign} {bound}")
    name = "an integer" if int in types else "a number" if float in types else "a text"
    return " ".join([name, " and ".join(bounds)]).strip()


def _some_of(words: Iterable[str]) -> str:
    return f"one or several of {', '.join(words)}"
