"""Reports of studies that lack what others have, or whose texts are odd: each has all its files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from matplotlib.text import Text

from agent.analysis.series import series
from agent.export import main
from agent.report.effects_plot import effects_figure
from agent.report.ladder_plot import ladder_figure
from agent.report.pareto_plot import pareto_figure
from agent.report.terminal import RECOMMENDATION
from agent.report.write import LADDER, PAGE, RECONSTRUCTIONS
from agent.study.records import table
from fno_runner.result import ErrorInfo, RunResult
from tests.studies import grid, result, save


def collapsed(**changes: object) -> RunResult:
    run = result(**changes)
    run.status = "collapsed"
    run.error = ErrorInfo(type="Collapsed", message="the phase recovered nothing")
    return run


def test_a_collapsed_run_without_a_quality_is_pictured(tmp_path: Path) -> None:
    lost = collapsed(width=8)
    lost.metrics.pairs = {"ssim": (0.1, None)}
    study = save(tmp_path, [result(width=32), result(width=48), lost])
    assert main([str(study)]) == 0
    assert (study / RECONSTRUCTIONS).exists()
    assert "collapsed: fno sqrt modes 12 width 8, phase SSIM –" in (study / PAGE).read_text()


def test_a_study_of_times_needs_no_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [result(width=width, model_params=None) for width in (32, 48)]
    study = save(tmp_path, runs, pictures=False)
    assert main([str(study), "--cost", "inference_time_s"]) == 0
    assert "recommended" in capsys.readouterr().out
    assert (study / LADDER).exists() and (study / PAGE).exists()


def test_the_terminal_and_the_page_name_the_same_failures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = save(tmp_path, [result(width=32), collapsed(width=8, seed=3)], pictures=False)
    assert main([str(study)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "fno sqrt modes 12 width 8 seed 3" in said
    assert "fno sqrt modes 12 width 8 seed 3" in (study / PAGE).read_text()


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems hold UTF-8 only")
def test_a_folder_whose_name_is_no_utf_8(tmp_path: Path) -> None:
    study = Path(os.fsdecode(os.fsencode(tmp_path) + b"/na\xffme"))
    save(study, [result(width=32), result(width=48)], pictures=False)
    assert main([str(study)]) == 0
    told = json.loads((study / RECOMMENDATION).read_text())
    assert told["study"].endswith(study.name)
    assert "na\\udcffme" in (study / PAGE).read_text()


def test_a_text_with_dollars_is_no_formula(tmp_path: Path) -> None:
    device = {"device_name": r"A $\frac{ card $ of $5"}
    runs = [result(width=width, provenance=device) for width in (32, 48)]
    study = save(tmp_path, runs, pictures=False)
    assert main([str(study)]) == 0
    assert (study / LADDER).exists()


def test_no_label_of_a_picture_is_a_formula() -> None:
    """Ticks of matplotlib's own logarithmic axes are: none of them is left."""
    compared = series(table(grid(seeds=(0, 1))))
    for draw in (pareto_figure, ladder_figure, effects_figure):
        figure = draw(compared)
        figure.draw_without_rendering()
        labels = [text.get_text() for text in figure.findobj(Text)]
        assert labels and not [label for label in labels if "$" in label]


@pytest.mark.parametrize("perfect", [1 + 2**-52, 1 + 8e-7])
def test_a_quality_that_rounding_put_beyond_its_bound_is_drawn(perfect: float) -> None:
    """A record's SSIM may be above 1 by 1e-6; its interval ends at 1, its bar does not turn."""
    runs = [result(width=width, seed=seed) for width in (16, 32) for seed in (0, 1, 2)]
    for run in runs:
        falls = 0.01 * run.config["seed"] * (run.config["width"] == 16)
        run.metrics.pairs["ssim"] = (0.9, perfect - falls)
    all_series = series(table(runs))
    pareto_figure(all_series)
    effects_figure(all_series)
