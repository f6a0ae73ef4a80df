"""What reports say of probabilities, of what is better, and of how many: one truth everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.analysis.comparison import compare
from agent.analysis.series import series
from agent.export import main
from agent.report.compare_page import said
from agent.report.page_data import page_data
from agent.report.pareto_plot import pareto_figure
from agent.report.picks import pick_table
from agent.report.words import advice, rule, signed
from agent.study.quality import PHASE_SSIM
from agent.study.records import table
from fno_runner.result import Metrics, RunResult
from tests.studies import result, save
from tests.test_plots import legend


def far_apart() -> list[RunResult]:
    """Three configurations of two seeds, each dearer and better by far more than seeds scatter."""
    runs = []
    for width, ssim in ((16, 0.5), (32, 0.7), (64, 0.9)):
        for seed in (0, 1):
            runs.append(result(width=width, seed=seed))
            runs[-1].metrics.pairs["ssim"] = (0.9, ssim + 0.001 * seed)
    return runs


def test_one_probability_is_the_same_in_the_terminals_table_its_advice_and_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Draws tell neither 0 nor 100 %."""
    assert main([str(save(tmp_path, far_apart(), pictures=False))]) == 0
    told = {int(percent) for percent in re.findall(r"(\d+) %", capsys.readouterr().out)}
    told.discard(95)  # intervals
    shown = page_data(series(table(far_apart())), [], tmp_path)["rows"]["on_front"]
    assert set(shown) == told == {99}


def test_where_less_is_better_nobody_is_told_to_want_the_most() -> None:
    runs = [
        result(width=width, metrics_against=None, floors={}, metrics=Metrics(
            scan={"r_factor": {"train": 0.08, "held_out": 0.1 - 0.001 * width}}))
        for width in (16, 32)
    ]  # fmt: skip
    for runs_of, word in ((runs, "best"), (far_apart(), "most")):
        (compared,) = series(table(runs_of))
        chosen = compared.recommendation
        assert chosen is not None
        picks = pick_table(compared, chosen)
        for text in (rule(chosen), picks["rows"][-1]["when"]):
            assert f"the {word} {compared.choice.by.label}" in text


def test_the_steps_between_picks_are_of_what_is_chosen_by() -> None:
    """As the terminal has them: the price is of that, and not of what is reported."""
    runs = [
        result(width=width, metrics_against=None, floors={}, metrics=Metrics(scan={"r_factor": {
            "train": 0.08, "held_out": 0.1 - 0.001 * width, "held_out_from_object": r}}))
        for width, r in ((16, 0.09), (32, 0.08))
    ]  # fmt: skip
    (compared,) = series(table(runs))
    assert compared.recommendation is not None
    picks = pick_table(compared, compared.recommendation)
    assert "from the object" in picks["heads"][2]
    assert picks["rows"][-1]["quality"] == "0.0800"
    compared_at_once = [row["step"] for row in picks["rows"] if "better" in row["step"]]
    assert all("0.0100 better in R of held-out frames, from" in step for step in compared_at_once)


def test_the_legend_names_a_recommendation_only_where_there_is_one() -> None:
    runs = [result(width=width, seed=seed) for width in (32, 48) for seed in (0, 1)]
    assert "recommended" in legend(pareto_figure(series(table(runs))))
    for run in runs[::2]:
        run.status = "collapsed"
    all_series = series(table(runs))
    assert all_series[0].fronts and all_series[0].recommendation is None
    assert "recommended" not in legend(pareto_figure(all_series))


def test_a_change_is_told_over_the_configurations_that_have_it() -> None:
    a = [result(width=width, seed=seed) for width in (16, 32, 48) for seed in (0, 1)]
    b = [
        result(width=width, seed=seed, precision="bf16")
        for width in (16, 32, 48) for seed in (0, 1)
    ]  # fmt: skip
    for run in (run for run in b if run.config["width"] > 16):
        run.status, run.metrics = "failed", Metrics()
    lines = said(compare(table(a), table(b), PHASE_SSIM))
    (over,) = (line for line in lines if line.startswith("Over "))
    assert re.findall(r"\d+ configurations?", over) == ["1 configuration"]


def test_a_choice_that_is_no_better_than_no_network_is_told_so() -> None:
    """Its phase SSIM is 0.5, in three trainings that differ in how much fifty projections reach."""
    for reached, is_told in ((0.49, False), (0.5, True), (0.8, True)):
        floors = {"flat_phase": {"ssim": (0.4, 0.02)}, "projection_50": {"ssim": (0.9, reached)}}
        runs = [result(width=16, seed=seed, floors=floors) for seed in (0, 1)]
        for run in runs:
            run.metrics.pairs["ssim"] = (0.9, 0.5)
        (compared,) = series(table(runs))
        told = dict(advice(compared)).get("without a network", "")
        assert (f"50 projections {reached:.4f}" in told) == is_told and "flat" not in told


def test_a_small_difference_is_not_told_as_zero() -> None:
    """Seeds that all gain 2e-5, and seeds that gain nothing: only the latter may read 0.0000."""
    assert (PHASE_SSIM.shown(2e-5), PHASE_SSIM.shown(0.00012)) == ("2e-05", "0.0001")
    assert (PHASE_SSIM.shown(0.0), PHASE_SSIM.shown(-1e-17)) == ("0.0000", "0.0000")
    assert PHASE_SSIM.shown(float("nan")) == signed(float("nan"), PHASE_SSIM) == "nan"
    assert (signed(-2e-5, PHASE_SSIM), signed(0.0123, PHASE_SSIM)) == ("−2e-05", "+0.0123")
    assert signed(-1e-17, PHASE_SSIM) == signed(0.0, PHASE_SSIM) == "0.0000"
    for more, expected in ((2e-5, "by +2e-05 (95 %: +2e-05 … +2e-05)"),
                           (0.0, "by 0.0000 (95 %: 0.0000 … 0.0000)")):  # fmt: skip
        a, b = (
            [result(width=w, seed=s, precision=p) for w in (16, 32) for s in (0, 1)]
            for p in ("float32", "bf16")
        )
        for first, second in zip(a, b, strict=True):
            quality = first.metrics.pairs["ssim"][1]
            assert quality is not None
            second.metrics.pairs["ssim"] = (0.9, quality + more)
        (over,) = (x for x in said(compare(table(a), table(b), PHASE_SSIM)) if x[:4] == "Over")
        assert expected in over
    runs = [result(width=width, seed=seed) for width in (16, 32) for seed in (0, 1)]
    for run in runs:
        narrow = run.config["width"] == 16
        run.metrics.pairs["ssim"] = (0.9, 0.5 + 0.01 * run.config["seed"] + 2e-5 * (not narrow))
    (compared,) = series(table(runs))
    told = dict(advice(compared))
    assert "2e-05 better in phase SSIM" in told["best"]
    assert told["margin"].startswith("2e-05 below the best")
    assert "2e-05 better" in told["for more"]


def test_where_no_seed_finished_in_both_one_seed_is_not_blamed() -> None:
    a, b = ([result(width=16, seed=s, precision=p) for s in (0, 1)] for p in ("float32", "bf16"))
    for run in b:
        run.status = "collapsed"
    lines = said(compare(table(a), table(b), PHASE_SSIM))
    assert any("in 1 no seed has it in both" in x for x in lines)
    assert not any("one seed" in x for x in lines)


def test_what_a_scan_is_chosen_by_stands_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"r_factor": {"held_out": 0.07, "held_out_from_object": 0.0815}}
    runs = [
        result(width=width, metrics={**metrics, "psnr": (20.0, 25.0)}, metrics_against="reference")
        for width in (16, 32)
    ]
    save(tmp_path, runs, pictures=False)
    assert main([str(tmp_path)]) == 0
    said = " ".join(re.sub(r"[┃│]", " ", capsys.readouterr().out).split())
    assert "0.0815" in said and "0.0700" in said and "PSNR" not in said
    rows = page_data(series(table(runs)), [], Path())["rows"]
    assert rows["r_held_out_from_object"] == [0.0815, 0.0815]
