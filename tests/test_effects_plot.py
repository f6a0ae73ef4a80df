"""main_effects.png: a panel a key, the most important first, bars that are the intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from agent.analysis.series import Series, series
from agent.report.effects_plot import effects_figure, in_order
from agent.report.figures import save_png
from agent.study.records import table
from fno_runner.result import RunResult
from tests.studies import grid, result


def drawn(runs: list[RunResult]) -> tuple[list[Series], Figure]:
    all_series = series(table(runs))
    return all_series, effects_figure(all_series)


def test_panels_stand_in_the_order_of_importance_on_one_axis() -> None:
    (compared,), figure = drawn(grid(seeds=(0, 1)))
    keys = [axes.get_xlabel() for axes in figure.axes]
    assert sorted(keys) == ["architecture", "input_transform", "modes", "width"]
    importance = {effect.key: effect.importance for effect in compared.effects}
    assert keys == sorted(keys, key=lambda key: -importance[key])
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "phase SSIM\nmean, 95 % interval",
        "",
        "",
        "",
    ]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert figure.axes[0].get_title() == f"importance {100 * importance[keys[0]]:.0f} %"


def test_a_point_is_the_mean_and_its_bar_the_interval() -> None:
    (compared,), figure = drawn(grid(seeds=(0, 1)))
    for effect, axes in zip(in_order(compared), figure.axes, strict=True):
        (points, _, (bars,)) = axes.containers[0]
        np.testing.assert_allclose(np.asarray(points.get_ydata(), dtype=float), effect.mean)
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends[:, 0], effect.low)
        np.testing.assert_allclose(ends[:, 1], effect.high)
        words = [label.get_text() for label in axes.get_xticklabels()]
        assert words == [str(value) for value in effect.values]


def test_one_seed_has_no_bar_and_two_series_two_rows(tmp_path: Path) -> None:
    runs = [result(width=w, epochs=e) for w in (32, 48) for e in (1, 2)]
    all_series, figure = drawn(runs)
    assert [axes.get_xlabel() for axes in figure.axes] == ["width", "width"]
    assert [compared.name for compared in all_series] == ["epochs 1", "epochs 2"]
    for axes in figure.axes:
        (_, _, (bars,)) = axes.containers[0]
        assert all(np.ptp(segment[:, 1]) == 0 for segment in bars.get_segments())
    save_png(figure, tmp_path / "effects.png")


def test_noise_does_not_fill_a_panel() -> None:
    runs = [result(width=w, metrics={"ssim": (0.5, 0.5 + 1e-6 * w)}) for w in (32, 48)]
    _, figure = drawn(runs)
    low, high = figure.axes[0].get_ylim()
    assert high - low == pytest.approx(0.05)
