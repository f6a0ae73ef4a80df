"""Read and check a sweep file (Weights & Biases sweep syntax), list its points, name a point."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import yaml

from fno_runner.config import (
    N,
    RunConfig,
    allowed,
    choices,
    load_config,
    suggestion,
    value_types,
)
from fno_runner.errors import UserError
from fno_runner.score.quantities import QUANTITIES

MAX_BYTES = 256 * 2**10
"""A larger sweep file is refused unread [bytes]; a real one takes one or two kilobytes."""
MAX_POINTS = 10_000
"""A grid of more points is refused: it is a slip of the pen, or another method's work."""
MAX_LINE = 300
"""A longer error text is cut [characters]."""

METHODS = ("grid", "random", "bayes")

CARRIED = ("program", "command", "project", "entity", "description", "apiVersion", "kind")
"""Top-level keys for the `wandb` client; they decide nothing here."""
SERVER_ONLY = ("early_terminate", "run_cap", "controller", "scheduler", "job", "image_uri")
"""Top-level keys that only a Weights & Biases server can follow."""
KEYS = ("name", "method", "metric", "parameters", *CARRIED, *SERVER_ONLY)

UNIFORM, INT_UNIFORM, LOG_UNIFORM = "uniform", "int_uniform", "log_uniform_values"
RANGES = (UNIFORM, INT_UNIFORM, LOG_UNIFORM)
DISTRIBUTIONS = (*RANGES, "categorical", "constant")

Value = str | int | float | bool | None
Point = dict[str, Value]
"""One configuration of a sweep: its keys, swept and fixed, with the values typed as in the file."""


@dataclass(frozen=True)
class Range:
    """Every number between two bounds (both included), by a distribution of Weights & Biases."""

    low: int | float
    high: int | float
    distribution: str


Values = tuple[Value, ...] | Range
"""What a key takes: one value (it is fixed), several, or a range."""


@dataclass(frozen=True)
class Metric:
    """What a sweep aims at: a column of the table of quantities, and which way is better."""

    name: str
    maximize: bool

    def as_mapping(self) -> dict[str, str]:
        """In the syntax of a sweep file."""
        return {"name": self.name, "goal": "maximize" if self.maximize else "minimize"}


USUAL_METRIC = Metric("ssim_phase", maximize=True)
"""What is good where a sweep names no metric."""


@dataclass(frozen=True)
class Sweep:
    """A checked sweep.

    name: as the file gives it, or the file's own name.
    server_only: keys of the file that `agent.local` cannot follow.
    """

    name: str
    method: str
    metric: Metric | None
    parameters: dict[str, Values]
    server_only: tuple[str, ...] = ()

    @property
    def swept(self) -> tuple[str, ...]:
        """The keys that take more than one value, in the order in which `RunConfig` has them."""
        return tuple(
            key for key in RunConfig.model_fields if len(_ends(self.parameters.get(key, ()))) > 1
        )

    @property
    def study_id(self) -> str:
        """The name of the sweep's study: `<name>-<8 hex digits of what the sweep asks>`.

        `patch_size: {value: 64}` changes no name, as it changes no run's: a scan's study of version
        0.1, which cut every scan to that, goes on where the sweep file says so.
        """
        slug = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:40].strip("-")
        asked = self.as_mapping()
        del asked["name"]
        if asked["parameters"].get("patch_size") == {"values": [N]}:
            del asked["parameters"]["patch_size"]
        text = json.dumps(asked, sort_keys=True, allow_nan=False)
        return f"{slug or 'sweep'}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def as_mapping(self) -> dict[str, Any]:
        """The sweep in the syntax of its file, in one spelling; `parse_sweep` takes it."""
        parameters = {
            key: {"min": values.low, "max": values.high, "distribution": values.distribution}
            if isinstance(values, Range)
            else {"values": list(values)}
            for key, values in sorted(self.parameters.items())
        }
        goal = None if self.metric is None else self.metric.as_mapping()
        return {"name": self.name, "method": self.method, "metric": goal, "parameters": parameters}


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file and check every value it holds, before any work.

    Raises:
        UserError: one line that names the file, the key, the value and what is allowed.
    """
    try:
        if not path.is_file():
            raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > MAX_BYTES:
        raise UserError(f"{path}: more than {MAX_BYTES} bytes; no sweep file is that large")
    try:
        loaded = _Loader(content).get_single_data()
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {_yaml_problem(error)}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:
        # PyYAML lets through what its constructors meet (`!!int ''`, 2001-99-99, deep nesting).
        raise UserError(_line(f"{path}: not readable as YAML: {error!r}")) from None
    return parse_sweep(loaded, str(path), path.stem)


def parse_sweep(loaded: object, source: str, default_name: str = "sweep") -> Sweep:
    """Make a `Sweep` of what YAML or JSON gave, with every value checked.

    Args:
        source: what error lines begin with, such as the file's path.
        default_name: the sweep's name where it gives none.

    Raises:
        UserError: one line that names the source, the key, the value and what is allowed.
    """
    try:
        return _parse(loaded, default_name)
    except UserError as error:
        raise UserError(_line(f"{source}: {error}")) from None


def points(sweep: Sweep) -> list[Point]:
    """The points of a grid in the order in which a Weights & Biases server hands them out.

    That is: keys in alphabetical order, the last one changing fastest.

    Raises:
        UserError: the sweep's method is not grid.
    """
    if sweep.method != "grid":
        raise UserError(f"method '{sweep.method}' has no list of points; only grid has")
    return list(_combinations(sweep.parameters))


def point_name(sweep: Sweep, point: Mapping[str, Value]) -> str:
    """A point for humans, by its swept keys only: 'fno sqrt m12 w32'."""
    short = {"modes": "m", "width": "w"}
    words = []
    for key in sweep.swept:
        value = point[key]
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        bare = isinstance(value, str) and key in ("architecture", "input_transform", "conditioning")
        words.append(text if bare else short.get(key, f"{key}=") + text)
    return " ".join(words) or "the only point"


def values_in_words(values: Values) -> str:
    """What a key takes, for humans: '8, 12, 16' or '0.001 … 0.1 (log_uniform_values)'."""
    if isinstance(values, Range):
        return f"{values.low} … {values.high} ({values.distribution})"
    return ", ".join(map(str, values))


class _Loader(yaml.SafeLoader):
    """YAML without its traps: a key given twice is refused, not the last one taken."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            # Merging merged mappings grows without bound from a few lines, and no sweep needs it.
            if key.tag == "tag:yaml.org,2002:merge":
                raise UserError("'<<' is not read; write the keys out")
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise UserError(f"key '{key.value}' is given twice")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse(loaded: object, default_name: str) -> Sweep:
    if loaded is None:
        raise UserError("empty; a sweep has 'method' and 'parameters'")
    top = _mapping(loaded, "a sweep file")
    _check_keys(top, KEYS)
    method = top.get("method")
    if method not in METHODS:
        given = "no method" if method is None else f"unknown method {_shown(method)}"
        raise UserError(f"{given}; known are {', '.join(METHODS)}")
    name = top.get("name", default_name)
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"name: {_shown(name)} is not a text (a number in quotes is one)")
    written = _mapping(top.get("parameters"), "parameters")
    if not written:
        raise UserError("parameters: no parameter is given")
    parameters = {key: _parameter(key, entry, str(method)) for key, entry in written.items()}
    metric = _metric(top.get("metric"))
    if method == "bayes" and metric is None:
        raise UserError("method bayes needs a metric: {name: ssim_phase, goal: maximize}")
    _check(parameters, str(method))
    server_only = tuple(key for key in SERVER_ONLY if key in top)
    return Sweep(name.strip(), str(method), metric, parameters, server_only)


def _parameter(key: str, entry: object, method: str) -> Values:
    """One parameter's values or range, its shape checked but not yet its values."""
    if key == "output_dir":
        raise UserError("output_dir: not for a sweep file; every run goes into the study's folder")
    if key not in RunConfig.model_fields:
        raise UserError(f"unknown parameter '{key}'{suggestion(key, RunConfig.model_fields)}")
    options = _mapping(entry, f"{key}: a parameter", "{value: …}, {values: […]}, {min: …, max: …}")
    if "parameters" in options:
        raise UserError(f"{key}: nested 'parameters' are not read; the runner's keys are flat")
    _check_keys(options, ("value", "values", "min", "max", "distribution"), f"{key}: ")
    distribution = options.get("distribution")
    if distribution is not None and distribution not in DISTRIBUTIONS:
        raise UserError(
            f"{key}: distribution {_shown(distribution)}; known are {', '.join(DISTRIBUTIONS)}"
        )
    given = sorted(option for option in options if option != "distribution")
    if given == ["max", "min"]:
        if method == "grid":
            raise UserError(f"{key}: method grid takes 'values', not 'min' and 'max'")
        return _range(key, options["min"], options["max"], distribution)
    if given not in (["value"], ["values"]):
        raise UserError(f"{key}: give one of 'value', 'values', or 'min' and 'max'")
    if distribution in RANGES:
        raise UserError(f"{key}: distribution {distribution} takes 'min' and 'max'")
    values = [options["value"]] if given == ["value"] else options["values"]
    if not isinstance(values, list):
        raise UserError(f"{key}: 'values' is {_shown(values)}, not a list")
    if not values:
        raise UserError(f"{key}: 'values' is empty")
    return tuple(_scalar(key, value) for value in values)


def _range(key: str, low: object, high: object, distribution: object) -> Range:
    field = RunConfig.model_fields[key]
    types = value_types(field)
    if choices(field) is not None or str in types:
        raise UserError(f"{key}: takes 'values', each {allowed(field)}, not 'min' and 'max'")
    for bound in (low, high):
        if isinstance(bound, str):  # says what the key takes, and how to write 1e-3
            load_config({key: bound})
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise UserError(f"{key}: {_shown(bound)} is not a number, as 'min' and 'max' are")
        _scalar(key, bound)
    assert isinstance(low, int | float) and isinstance(high, int | float)
    if not low < high:
        raise UserError(f"{key}: min {low} is not below max {high}")
    takes_integers = float not in types
    both_integers = isinstance(low, int) and isinstance(high, int)
    if distribution is None:
        distribution = INT_UNIFORM if both_integers else UNIFORM
        if both_integers and not takes_integers:
            # The server would draw integers only, which is hardly meant for such a key.
            raise UserError(f"{key}: say 'distribution: uniform' or 'log_uniform_values'")
    if distribution not in RANGES:
        raise UserError(f"{key}: distribution {distribution} takes 'value' or 'values'")
    if takes_integers and distribution != INT_UNIFORM:
        raise UserError(f"{key}: takes integers; allowed is distribution int_uniform")
    if distribution == INT_UNIFORM and not both_integers:
        raise UserError(f"{key}: distribution int_uniform takes integers, not {low} and {high}")
    if distribution == LOG_UNIFORM and low <= 0:
        raise UserError(f"{key}: distribution log_uniform_values needs min > 0, not {low}")
    return Range(low, high, str(distribution))


def _metric(entry: object) -> Metric | None:
    if entry is None:
        return None
    options = _mapping(entry, "metric", "{name: ssim_phase, goal: maximize}")
    _check_keys(options, ("name", "goal"), "metric: ")
    name, goal = options.get("name"), options.get("goal")
    if not isinstance(name, str) or name not in QUANTITIES:
        raise UserError(f"metric: unknown name {_shown(name)}{suggestion(str(name), QUANTITIES)}")
    if goal not in ("maximize", "minimize"):
        # The server would minimize where nothing is said: the worst SSIM would win.
        raise UserError(f"metric: goal is {_shown(goal)}; allowed is maximize | minimize")
    return Metric(name, goal == "maximize")


def _check(parameters: Mapping[str, Values], method: str) -> None:
    """Check every value by itself, then the points as wholes, for the rules between keys."""
    first = {key: _ends(values)[0] for key, values in parameters.items()}
    for key, values in parameters.items():
        for value in _ends(values):
            load_config({**first, key: value})
        if not isinstance(values, Range):
            for i, value in enumerate(values):
                if value in values[:i]:
                    raise UserError(f"{key}: {_shown(value)} is listed twice")
    count = math.prod(len(_ends(values)) for values in parameters.values())
    if method == "grid" and count > MAX_POINTS:
        raise UserError(f"a grid of {count} points; allowed are {MAX_POINTS}")
    # A larger space is for the samplers; what they draw is checked when it is drawn.
    for point in itertools.islice(_combinations(parameters), MAX_POINTS):
        load_config(point)


def _combinations(parameters: Mapping[str, Values]) -> Iterator[Point]:
    keys = sorted(parameters)
    for combination in itertools.product(*(_ends(parameters[key]) for key in keys)):
        yield dict(zip(keys, combination, strict=True))


def _ends(values: Values) -> tuple[Value, ...]:
    return (values.low, values.high) if isinstance(values, Range) else values


def _mapping(value: object, what: str, takes: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        missing = "missing" if value is None else f"{_shown(value)}, not a mapping"
        raise UserError(f"{what}: {missing}" + (f"; allowed is {takes}" if takes else ""))
    for key in value:
        if not isinstance(key, str):
            raise UserError(f"{what}: key {_shown(key)} is not a text")
    return value


def _check_keys(given: Mapping[str, Any], known: Sequence[str], where: str = "") -> None:
    for key in given:
        if key not in known:
            raise UserError(f"{where}unknown key '{key}'{suggestion(key, list(known))}")


def _scalar(key: str, value: object) -> Value:
    if not isinstance(value, get_args(Value)):
        raise UserError(f"{key}: {_shown(value)} is not a plain value")
    if isinstance(value, str) and "\0" in value:
        raise UserError(f"{key}: {_shown(value)} has a NUL, which no name of a file has")
    # Such an integer's digits could not even be printed.
    if isinstance(value, int) and value.bit_length() > 64:
        raise UserError(f"{key}: an integer of {value.bit_length()} bits; allowed are 64")
    return cast(Value, value)


def _shown(value: object) -> str:
    """A value in an error line: a list or mapping (which may hold itself) only by its kind."""
    for kind, name in ((list | tuple, "a list"), (set, "a set"), (dict, "a mapping")):
        if isinstance(value, kind):
            return name
    if isinstance(value, int) and value.bit_length() > 64:
        return "a huge integer"
    return repr(value)


def _yaml_problem(error: yaml.YAMLError) -> str:
    """PyYAML's several lines as one, with the place."""
    problem = getattr(error, "problem", None) or str(error)
    mark = getattr(error, "problem_mark", None)
    place = f" in line {mark.line + 1}" if mark is not None else ""
    return _line(f"not readable as YAML{place}: {problem}")


def _line(text: str) -> str:
    """One printable line of bounded length."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(plain.split())
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…"
