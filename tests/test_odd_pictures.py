"""Pictures of studies in which many keys vary, or floats do, are as legible as those of a grid."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from agent.analysis.comparison import compare
from agent.analysis.configurations import short_texts
from agent.analysis.series import Series, series
from agent.report import pareto_plot
from agent.report.compare_page import render_comparison
from agent.report.effects_plot import MOST_LEVELS, effects_figure, in_order
from agent.report.figures import NAME_WIDTH, wrapped
from agent.report.ladder_plot import ladder_figure
from agent.report.pareto_plot import pareto_figure
from agent.study.quality import PHASE_SSIM
from agent.study.records import Cell, table
from fno_runner.pictures import draw_reconstruction
from fno_runner.result import RunResult
from tests.studies import grid, result
from tests.test_plots import assert_legible


def drawn_at_random(count: int = 40) -> list[RunResult]:
    """As sweeps of method random draw them: no value of a float twice."""
    rng = np.random.default_rng(0)
    return [
        result(
            width=int(rng.integers(8, 64)),
            modes=int(rng.integers(4, 30)),
            learning_rate=round(float(10 ** rng.uniform(-4, -1)), 6),
            grad_clip=round(float(rng.uniform(0.1, 3)), 4),
        )
        for _ in range(count)
    ]


def of_many_keys() -> list[RunResult]:
    """Two seeds of 32 configurations that take six keys to name."""
    swept: dict[str, Sequence[Any]] = {
        "width": (16, 32),
        "learning_rate": (1e-3, 3e-3),
        "rate_scaling": ("none", "fan_in"),
        "loss": ("mae", "poisson"),
        "precision": ("float32", "bf16"),
        "seed": (0, 1),
    }
    return [
        result(architecture="hybrid", **dict(zip(swept, values, strict=True)))
        for values in itertools.product(*swept.values())
    ]


STUDIES = {"random": drawn_at_random, "many keys": of_many_keys}


@pytest.fixture(scope="module", params=STUDIES)
def compared(request: pytest.FixtureRequest) -> list[Series]:
    return series(table(STUDIES[request.param]()))


def test_no_text_of_the_fronts_touches_another(compared: list[Series]) -> None:
    figure = pareto_figure(compared)
    assert_legible(figure)
    for axes in figure.axes:
        assert axes.get_window_extent().width > 0.4 * figure.bbox.width / len(figure.axes)


def test_no_text_of_the_ladder_touches_another(compared: list[Series]) -> None:
    figure = ladder_figure(compared)
    assert_legible(figure)
    assert figure.axes[0].get_window_extent().width > 0.25 * figure.bbox.width


def test_the_name_of_a_series_leaves_the_price_its_place() -> None:
    runs = [
        result(width=width, epochs=epochs, conditioning=conditioning)
        for width in (8, 32) for epochs in (1, 2) for conditioning in ("amplitude", "projection")
    ]  # fmt: skip
    all_series = series(table(runs))
    assert all_series[0].name == "conditioning amplitude, epochs 1"
    for draw in (ladder_figure, pareto_figure):
        assert_legible(draw(all_series))


def test_no_text_of_the_main_effects_touches_another(compared: list[Series]) -> None:
    assert_legible(effects_figure(compared))


def test_a_key_of_many_numbers_has_an_axis_of_numbers() -> None:
    """A logarithmic one where they span a decade; few values and words have a tick each."""
    (compared,) = series(table(drawn_at_random()))
    figure = effects_figure([compared])
    scales = {}
    for effect, axes in zip(in_order(compared), figure.axes, strict=True):
        (points, _, _) = axes.containers[0]
        assert np.asarray(points.get_xdata(), dtype=float).tolist() == effect.values
        scales[effect.key] = axes.get_xscale()
    log, linear = "log", "linear"
    assert scales == {"learning_rate": log, "grad_clip": log, "width": linear, "modes": linear}


def test_long_ticks_stand_upright() -> None:
    def ticks_of(levels: Sequence[float]) -> Figure:
        return effects_figure(series(table([result(learning_rate=level) for level in levels])))

    few = [0.0001234, 0.0005678, 0.001234, 0.005678]
    for levels, angle in ((few, 90), ([0.001, 0.003], 0)):
        assert len(levels) <= MOST_LEVELS
        figure = ticks_of(levels)
        assert {tick.get_rotation() for tick in figure.axes[0].get_xticklabels()} == {angle}
        assert_legible(figure)


def test_a_comparison_of_long_names_is_drawn() -> None:
    """Beside names of eight keys more no panel was left, of which matplotlib warns."""
    keys: dict[str, Sequence[Any]] = {
        "learning_rate": (1e-3, 3e-3),
        "loss": ("mae", "poisson"),
        "rate_scaling": ("none", "fan_in"),
        "grad_clip": (0.5, 1.5),
        "cnn_blocks": (1, 2),
        "batch_size": (8, 16),
        "train_patterns": (1000, 2000),
        "epochs": (10, 20),
    }
    a, b = (
        [
            result(precision=precision, seed=seed, **dict(zip(keys, values, strict=True)))
            for values in zip(*keys.values(), strict=True)
            for seed in (0, 1)
        ]
        for precision in ("float32", "bf16")
    )
    comparison = compare(table(a), table(b), PHASE_SSIM)
    page = render_comparison(comparison, ("A", "B"), "2026-01-02T03:04:05+00:00")
    assert "data:image/png" in page


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.000121607122, 0.5], ["0.0001216", "0.5"]),
        ([1.23456, 1.23458, 2.0], ["1.23456", "1.23458", "2.0"]),
        ([16, 1024, 123456], ["16", "1024", "123456"]),
        (["sqrt", None, True], ["sqrt", "None", "True"]),
    ],
    ids=["short", "alike", "whole", "words"],
)
def test_texts_are_short_and_tell_values_apart(values: list[Cell], texts: list[str]) -> None:
    assert short_texts(values) == texts


def test_a_name_is_broken_between_its_keys_where_that_will_do() -> None:
    name = "hybrid sqrt modes 12 width 16, learning_rate 0.003, loss poisson, precision bf16"
    lines = wrapped(name).split("\n")
    assert " ".join(lines) == name and len(lines) > 1
    assert all(len(line) <= NAME_WIDTH for line in lines)
    assert all(line.endswith(",") for line in lines[:-1])
    long = "x" * 3 * NAME_WIDTH
    assert max(map(len, wrapped(f"fno, scan {long}").split("\n"))) <= NAME_WIDTH


@pytest.mark.parametrize("contrast", [1.0, 1e-2, 1e-3])
def test_no_text_of_a_reconstruction_leaves_the_page(
    contrast: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weak object has ticks of many digits, which push the label of its colours outwards."""
    rng = np.random.default_rng(0)
    objects = 1 + contrast * (rng.random((2, 40, 40)) + 1j * rng.random((2, 40, 40)))
    truth, made = objects.astype(np.complex64)
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    seen = np.ones((40, 40), bool)
    draw_reconstruction(tmp_path / "recon.png", "fno", made, seen, truth, "truth", {})
    assert_legible(figures[0])


def test_intervals_that_are_not_drawn_take_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many configurations they would hide the points, which then fill the panel."""

    def drawn() -> tuple[float, set[str]]:
        figure = pareto_figure(series(table(grid(seeds=(0, 1)))))
        low, high = figure.axes[0].get_ylim()
        return high - low, {text.get_text() for text in figure.legends[0].get_texts()}

    with_bars, told = drawn()
    assert "95 % interval of the mean" in told
    monkeypatch.setattr(pareto_plot, "MOST_BARS", 50)
    without, told = drawn()
    assert without < with_bars and "95 % interval of the mean" not in told


def test_the_legend_of_the_scatter_covers_no_point() -> None:
    figure = ladder_figure(series(table(grid())))
    _, scatter = figure.axes
    legend = scatter.get_legend()
    assert legend is not None
    assert not legend.get_window_extent().overlaps(scatter.get_window_extent())
    assert_legible(figure)
