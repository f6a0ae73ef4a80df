"""A sweep file: what it becomes, and the one line that a wrong one gets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.study.folder import MARKER, check_study, newest_study, open_study, read_study
from agent.study.sweepfile import Range, Sweep, parse_sweep, point_name, points, read_sweep
from fno_runner.config import RunConfig, load_config
from fno_runner.errors import UserError
from fno_runner.identity import run_id

ROOT = Path(__file__).parent.parent

GRID = """
name: Small Grid
method: grid
metric: {name: ssim_phase, goal: maximize}
parameters:
  width: {values: [8, 16]}
  architecture: {values: [fno, hybrid]}
  modes: {value: 12}
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "some.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def with_parameter(entry: str, method: str = "grid") -> str:
    return f"method: {method}\nparameters:\n  {entry}\n"


def test_a_grid_is_walked_in_the_servers_order(tmp_path: Path) -> None:
    sweep = read_sweep(write(tmp_path, GRID))
    assert [point_name(sweep, point) for point in points(sweep)] == [
        "fno w8", "fno w16", "hybrid w8", "hybrid w16",
    ]  # fmt: skip
    assert points(sweep)[0] == {"architecture": "fno", "modes": 12, "width": 8}


def test_values_keep_their_types(tmp_path: Path) -> None:
    text = with_parameter("learning_rate: {values: [1, 1.0e-3]}\n  train_patterns: {value: null}")
    first, second = points(read_sweep(write(tmp_path, text)))
    assert [type(point["learning_rate"]) for point in (first, second)] == [int, float]
    assert first["train_patterns"] is None


def test_the_study_asks_54_points() -> None:
    sweep = read_sweep(ROOT / "sweep.yaml")
    grid = points(sweep)
    assert len(grid) == 54
    assert {point["conditioning"] for point in grid} == {"amplitude"}
    assert {point["epochs"] for point in grid} == {20}
    assert len({point_name(sweep, point) for point in grid}) == 54
    assert point_name(sweep, grid[0]) == "fno none m12 w32"


def test_a_study_of_version_0_1_is_named_by_the_file_without_what_was_added() -> None:
    """So it stays what it is, in its own folder, and finished; the new file is another study."""
    ids = {"sweep.yaml": "92bc900e", "sweeps/projection.yaml": "61853732"}
    for file, of_0_1 in ids.items():
        content = yaml.safe_load((ROOT / file).read_text())
        assert content["parameters"].pop("precision") == {"value": "bf16"}
        for objects in ("nimgs_val", "nimgs_test"):
            assert content["parameters"].pop(objects) == {"value": 5}
        assert content["parameters"].pop("rate_scaling") == {"value": "fan_in"}
        sweep = parse_sweep(content, file)
        assert sweep.study_id.endswith(f"-{of_0_1}")
        assert not read_sweep(ROOT / file).study_id.endswith(f"-{of_0_1}")


def test_the_projection_study_differs_in_the_conditioning_only() -> None:
    amplitude = points(read_sweep(ROOT / "sweep.yaml"))
    projection = points(read_sweep(ROOT / "sweeps/projection.yaml"))
    assert projection == [{**point, "conditioning": "projection"} for point in amplitude]


def test_at_the_default_rate_the_study_of_two_rates_is_that_of_one() -> None:
    """So that its records count there."""
    default = RunConfig().learning_rate
    two = map(load_config, points(read_sweep(ROOT / "sweeps/two-rates.yaml")))
    at_default = {run_id(config) for config in two if config.learning_rate == default}
    one = map(load_config, points(read_sweep(ROOT / "sweep.yaml")))
    assert at_default == {run_id(config) for config in one}


@pytest.mark.parametrize("path", [ROOT / "sweep.yaml", *sorted((ROOT / "sweeps").glob("*.yaml"))])
def test_every_sweep_file_here_starts_agent_run(path: Path) -> None:
    read_sweep(path)
    command = yaml.safe_load(path.read_text())["command"]
    assert command == ["${env}", "${interpreter}", "-m", "agent.run", "${args}"]


def test_the_study_id_depends_on_what_is_asked_only(tmp_path: Path) -> None:
    identifier = read_sweep(write(tmp_path, GRID)).study_id
    assert identifier.startswith("small-grid-")
    same = GRID.replace("{value: 12}", "{values: [12]}  # fixed") + "description: words\n"
    assert read_sweep(write(tmp_path, same)).study_id == identifier
    other = GRID.replace("{value: 12}", "{value: 16}")
    assert read_sweep(write(tmp_path, other)).study_id != identifier


def test_ranges_are_for_samplers(tmp_path: Path) -> None:
    text = with_parameter(
        "modes: {min: 4, max: 16}\n"
        "  learning_rate: {min: 1.0e-4, max: 1.0e-2, distribution: log_uniform_values}",
        "random",
    )
    sweep = read_sweep(write(tmp_path, text))
    assert sweep.parameters == {
        "modes": Range(4, 16, "int_uniform"),
        "learning_rate": Range(1e-4, 1e-2, "log_uniform_values"),
    }
    assert sweep.swept == ("modes", "learning_rate")
    assert parse_sweep(sweep.as_mapping(), "again") == sweep
    with pytest.raises(UserError, match="only grid"):
        points(sweep)


def test_what_only_a_server_can_follow_is_named(tmp_path: Path) -> None:
    assert read_sweep(write(tmp_path, GRID + "run_cap: 3\n")).server_only == ("run_cap",)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("- a\n- b\n", "a sweep file: a list, not a mapping"),
        ("just words", "'just words', not a mapping"),
        ("method: [grid\n", "not readable as YAML in line"),
        (b"\xff\xfe\x00", "not readable as YAML"),
        (b"method: \x00", "not readable as YAML"),
        ("[" * 5000, "not readable as YAML"),
        ("method: !!int ''\n", "not readable as YAML"),
        ("method: 2001-99-99\n", "not readable as YAML"),
        ("a: !!python/object:os.system {}\n", "could not determine a constructor"),
        ("method: &m [*m]\n", "unknown method a list"),
        ("method: annealing\nparameters: {}\n", "unknown method 'annealing'; known are grid,"),
        ("parameters: {}\n", "no method; known are grid, random, bayes"),
        ("method: grid\n", "parameters: missing"),
        ("method: grid\nparameters: {}\n", "no parameter is given"),
        ("method: grid\nparameters: [1]\n", "parameters: a list, not a mapping"),
        ("method: grid\nparamters: {}\n", "unknown key 'paramters'; did you mean 'parameters'?"),
        ("method: grid\n1: 2\n", "key 1 is not a text"),
        ("method: grid\nmethod: bayes\n", "'method' is given twice"),
        ("name: 3\nmethod: grid\nparameters: {seed: {value: 1}}\n", "name: 3 is not a text ("),
        (with_parameter("modes: {value: 8}\n  modes: {value: 9}"), "'modes' is given twice"),
        (with_parameter("<<: {modes: {value: 8}}"), "'<<' is not read"),
        (with_parameter("mode: {value: 8}"), "unknown parameter 'mode'; did you mean 'modes'?"),
        (with_parameter("output_dir: {value: x}"), "output_dir: not for a sweep file"),
        (with_parameter("modes: 8"), "a parameter: 8, not a mapping; allowed is {value: …}, "),
        (with_parameter("modes:"), "modes: a parameter: missing; allowed is {value: …}, "),
        (with_parameter("modes: {}"), "modes: give one of 'value', 'values'"),
        (with_parameter("modes: {value: 8, values: [8]}"), "modes: give one of"),
        (with_parameter("modes: {vals: [8]}"), "unknown key 'vals'; did you mean 'values'?"),
        (with_parameter("modes: {values: []}"), "modes: 'values' is empty"),
        (with_parameter("modes: {values: 8}"), "modes: 'values' is 8, not a list"),
        (with_parameter("modes: {values: [8, 12, 8]}"), "modes: 8 is listed twice"),
        (with_parameter("learning_rate: {values: [1, 1.0]}"), "1.0 is listed twice"),
        (with_parameter("modes: {values: [8, 0]}"), "modes=0: allowed is an integer ≥ 1"),
        (with_parameter("width: {value: -3}"), "width=-3: allowed is"),
        (with_parameter("width: {value: 8.0}"), "width=8.0: allowed is an integer"),
        (with_parameter("width: {value: true}"), "width=True: allowed is an integer"),
        (with_parameter("architecture: {values: [fno, cnn]}"), "architecture='cnn': allowed is"),
        (with_parameter("input_transform: {value: exp}"), "allowed is none | log1p | sqrt"),
        (with_parameter("learning_rate: {value: 1e-3}"), "write 1.0e-3"),
        (with_parameter("learning_rate: {value: .nan}"), "learning_rate=nan: allowed is"),
        (with_parameter("modes: {values: [[8]]}"), "modes: a list is not a plain value"),
        (with_parameter("modes: {values: !!set {8, 12}}"), "'values' is a set, not a list"),
        (with_parameter('scan: {value: "a\\0b"}'), "has a NUL"),
        (with_parameter("modes: {values: &a [*a]}"), "modes: a list is not a plain value"),
        (with_parameter(f"modes: {{value: 0x{'f' * 5000}}}"), "an integer of 20000 bits"),
        (with_parameter("modes: {parameters: {low: {value: 1}}}"), "nested 'parameters'"),
        (with_parameter("modes: {min: 4, max: 8}"), "method grid takes 'values'"),
        (with_parameter("modes: {values: [8], distribution: normal}"), "distribution 'normal'"),
        (with_parameter("modes: {min: 4, max: 4}", "random"), "min 4 is not below max 4"),
        (with_parameter("modes: {min: 4, max: 99}", "random"), "modes=99: allowed is"),
        (with_parameter("modes: {min: 4, max: x}", "random"), "modes='x': allowed is an integer"),
        (with_parameter("modes: {min: 4, max: [8]}", "random"), "a list is not a number"),
        (with_parameter("learning_rate: {min: 1e-4, max: 1.0}", "random"), "write 1.0e-3"),
        (with_parameter("scan: {min: 0, max: 8}", "random"), "scan: takes 'values', each a text"),
        (with_parameter("loss: {min: 0, max: 8}", "random"), "loss: takes 'values', each "),
        (with_parameter("modes: {min: 4.5, max: 8.5}", "random"), "takes integers"),
        (with_parameter("nphotons: {min: 1, max: 100}", "random"), "say 'distribution: uniform'"),
        (with_parameter("modes: {min: 4}", "random"), "give one of"),
        (with_parameter("modes: {value: 8}", "bayes"), "bayes needs a metric"),
        (GRID.replace("ssim_phase", "ssim_phas"), "did you mean 'ssim_phase'?"),
        (GRID.replace(", goal: maximize", ""), "metric: goal is None"),
        (
            GRID.replace("{name: ssim_phase, goal: maximize}", "ssim_phase"),
            "not a mapping; allowed is {name: ssim_phase, goal: maximize}",
        ),
        (GRID.replace("goal:", "gaol:"), "metric: unknown key 'gaol'"),
        (
            with_parameter("architecture: {values: [fno, hybrid]}\n  blocks: {values: [4, 8]}"),
            "blocks=8: hybrid allows at most 5",
        ),
        (with_parameter("train_npz: {value: a.npz}"), "given together"),
        (
            with_parameter(
                f"seed: {{values: {list(range(200))}}}\n  epochs: {{values: {list(range(1, 99))}}}"
            ),
            "a grid of 19600 points; allowed are 10000",
        ),
        ("#" * 300_000, "no sweep file is that large"),
    ],
)
def test_a_wrong_file_gets_one_line(tmp_path: Path, text: str | bytes, line: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_sweep(path)
    message = str(caught.value)
    assert line in message
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))


def test_a_missing_file_and_a_folder_get_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: no such file"):
        read_sweep(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="not a file"):
        read_sweep(tmp_path)


SOME_KEYS = st.sampled_from([*RunConfig.model_fields, "mode", "name", "values", ""])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ENTRIES = st.dictionaries(
    st.sampled_from(["value", "values", "min", "max", "distribution", "parameters"]) | SCALARS,
    SCALARS | st.lists(SCALARS, max_size=3),
    max_size=3,
)
SWEEPS = st.fixed_dictionaries(
    {"method": st.sampled_from(["grid", "random", "bayes"]) | SCALARS},
    optional={
        "name": SCALARS,
        "metric": ENTRIES | SCALARS,
        "parameters": st.dictionaries(SOME_KEYS, ENTRIES | SCALARS, max_size=4) | SCALARS,
    },
)


@settings(max_examples=150, deadline=None)
@given(SWEEPS | SCALARS | st.lists(SCALARS, max_size=2))
def test_only_a_user_error_escapes_from_a_structure(loaded: Any) -> None:
    try:
        sweep = parse_sweep(loaded, "here")
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert parse_sweep(json.loads(json.dumps(sweep.as_mapping())), "again") == sweep
    if sweep.method == "grid":
        for point in points(sweep):
            load_config(point)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=60) | st.text("{}[]:-&*!<>|'\"#%@ \n01aé.~?", max_size=40))
def test_only_a_user_error_escapes_from_a_file(tmp_path: Path, content: bytes | str) -> None:
    raw = content if isinstance(content, bytes) else content.encode()
    with pytest.raises(UserError) as caught:
        read_sweep(write(tmp_path, raw))
    assert "\n" not in str(caught.value)


def sweep_of(width: int = 8) -> Sweep:
    return parse_sweep({"method": "grid", "parameters": {"width": {"value": width}}}, "test")


def test_a_study_remembers_its_sweep(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    for _ in range(2):
        open_study(folder, sweep_of())
        assert read_study(folder).sweep == sweep_of()
    with pytest.raises(UserError, match="of another sweep"):
        open_study(folder, sweep_of(16))


def test_single_runs_are_a_study_without_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    study = read_study(tmp_path)
    assert (study.study_id, study.sweep) == (tmp_path.name, None)
    with pytest.raises(UserError, match="holds single runs"):
        check_study(tmp_path, sweep_of())


DAMAGED = (
    "{",
    "[]",
    "{}",
    '{"schema_version": 2}',
    "[" * 10_000,
    '{"schema_version": 1, "sweep": {"method": "x"}}',
)


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_marker_gets_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / MARKER).write_text(content)
    with pytest.raises(UserError, match=MARKER):
        read_study(tmp_path)


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for folder, line in (
        (tmp_path, "not a study"),
        (tmp_path / "letter.txt", "(?i)not a (folder|directory)"),
    ):
        with pytest.raises(UserError, match=line):
            check_study(folder, sweep_of())
    with pytest.raises(UserError, match="no such study folder"):
        read_study(tmp_path / "none")


def test_the_newest_study_is_the_one_with_the_newest_sign_of_life(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no study"):
        newest_study(tmp_path / "none")
    old, new = tmp_path / "b", tmp_path / "a"
    open_study(old, sweep_of())
    open_study(new, sweep_of(16))

    os.utime(old / MARKER, (1, 1))
    assert newest_study(tmp_path) == new
    record = old / "runs" / ("0" * 12) / "result.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    os.utime(record, (2e9, 2e9))
    assert newest_study(tmp_path) == old
