"""The rules of the choice on cases worked out by hand, and which runs may share a series."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.analysis.choice_options import ChoiceOptions, Limit
from agent.analysis.series import Series, series
from agent.report.recommendation_json import to_json
from agent.report.words import advice
from agent.study.quality import PHASE_SSIM, R_FROM_OBJECT, R_HELD_OUT
from agent.study.records import table
from fno_runner.config import RunConfig
from fno_runner.errors import UserError
from fno_runner.result import RunResult


def run(number: int, params: int | None, ssim: float | None, **config: Any) -> RunResult:
    status = config.pop("status", "finished")
    metrics = config.pop("metrics", {"ssim": (0.5, ssim)})
    provenance = config.pop("provenance", {})
    return RunResult(
        run_id=f"{number:012x}",
        status=status,
        config=RunConfig(**({"width": number} | config)).model_dump(),
        metrics=metrics,
        metrics_against="truth" if "ssim" in metrics else None,
        model_params=params,
        inference_time_s=0.1 * number,
        provenance=provenance,
    )


def seeds(number: int, params: int, *ssim: float, **config: Any) -> list[RunResult]:
    """One configuration once a seed."""
    return [
        run(10 * number + n, params, value, **({"width": number, "seed": n} | config))
        for n, value in enumerate(ssim)
    ]


def only(runs: list[RunResult], **asked: Any) -> Series:
    (compared,) = series(table(runs), ChoiceOptions(**asked))
    return compared


def chosen(runs: list[RunResult], **asked: Any) -> Any:
    """The recommendation, its configurations by their width."""
    compared = only(runs, **asked)
    advised = compared.recommendation
    if advised is None:
        return None
    widths = compared.configs["width"].tolist()
    return {
        key: None if (i := getattr(advised, key)) is None else widths[i]
        for key in ("config", "best", "runner_up", "next_better")
    }


STEPS = ((1, 10, 0.50), (2, 20, 0.69), (3, 40, 0.705), (4, 80, 0.712))
"""A doubling each, which gains 0.19, 0.015 and 0.007."""


def test_a_doubling_must_gain_the_price() -> None:
    runs = [run(*step) for step in STEPS]
    assert chosen(runs) == {"config": 3, "best": 4, "runner_up": 4, "next_better": 4}
    by_price = {p: chosen(runs, price=p)["config"] for p in (0, 0.005, 0.01, 0.02, 0.3)}
    assert by_price == {0: 4, 0.005: 4, 0.01: 3, 0.02: 2, 0.3: 1}
    compared = only(runs)
    advised = compared.recommendation
    assert advised is not None and advised.margin == pytest.approx(0.007)
    assert [(p.name, p.price, compared.configs["width"][p.config]) for p in advised.picks] == [
        ("frugal", 0.04, 2), ("sweet spot", 0.01, 3), ("best", 0.0, 4)
    ]  # fmt: skip
    rungs = [(compared.configs["width"][r.config], round(r.low, 6)) for r in advised.rungs]
    assert rungs == [(4, 0), (3, 0.007), (2, 0.015), (1, 0.19)]
    said = dict(advice(compared))
    assert "a network twice as large must gain 0.01 in phase SSIM" in said["rule"]
    assert said["prices"] == "it is the choice at every price from 0.007 to 0.015"
    assert "0.0070 better in phase SSIM for 2 × the parameters" in said["best"]
    assert "0.0150 worse in phase SSIM for 1/2 of the parameters" in said["frugal"]


def test_it_does_not_matter_where_the_grid_ends() -> None:
    """Dearer networks that are hardly better changed the choice of version 0.1."""
    runs = [run(*step) for step in STEPS]
    more = [run(5, 160, 0.7145), run(6, 320, 0.7150)]
    assert chosen(runs)["config"] == chosen([*runs, *more])["config"] == 3


def test_one_seed_each_is_provisional_and_says_nothing_of_probability() -> None:
    compared = only([run(*step) for step in STEPS])
    assert compared.recommendation is not None
    assert "ran with one seed" in compared.recommendation.provisional
    assert np.isnan(compared.recommendation.probability).all()
    assert "how sure" not in dict(advice(compared)) and compared.recommendation.contenders == []


def test_seeds_say_how_sure_the_choice_is() -> None:
    rng = np.random.default_rng(0)
    runs = [r for n, p, q in STEPS for r in seeds(n, p, *(q + rng.normal(0, 0.004, 4)))]
    compared = only(runs)
    chosen = compared.recommendation
    assert chosen is not None and chosen.provisional == ""
    assert np.nansum(chosen.probability) == pytest.approx(1)
    sure = chosen.probability[chosen.config]
    assert 0.3 < sure < 1 and f"{100 * sure:.0f} %" in dict(advice(compared))["how sure"]
    assert {d.verdict for d in chosen.contenders} <= {"better", "worse", "equal", "undecided"}
    # What clearly matters is found by its shared seeds.
    sharp = [r for n, p, q in STEPS for r in seeds(n, p, q - 1e-4, q, q + 1e-4)]
    chosen = only(sharp).recommendation
    assert chosen is not None and chosen.probability[chosen.config] > 0.99
    assert [d.verdict for d in chosen.contenders] == ["better"]


def test_one_seed_among_several_borrows_the_scatter() -> None:
    compared = only([*seeds(3, 30, 0.68, 0.73), run(1, 10, 0.70)])
    assert compared.recommendation is not None and compared.recommendation.provisional == ""
    assert compared.configs["ssim_phase_low"].notna().all()


def test_the_tolerance_is_the_rule_of_version_0_1() -> None:
    runs = [run(1, 10, 0.70), run(2, 20, 0.72)]
    assert 0.72 - 0.70 > 0.02  # in binary
    assert chosen(runs, tolerance=0.02)["config"] == 1
    assert chosen(runs, tolerance=0.0) == {
        "config": 2, "best": 2, "runner_up": 1, "next_better": None
    }  # fmt: skip
    said = dict(advice(only(runs, tolerance=0.02)))
    assert "within 0.02 of the best" in said["rule"]
    assert dict(advice(only(runs, tolerance=0.0)))["margin"] == "it is the best"


def test_another_cost_may_be_asked_for() -> None:
    """Times fall where parameters grow: `run` makes a time of 0.1 s a number."""
    runs = [run(1, 80, 0.70), run(2, 40, 0.70), run(4, 20, 0.705)]
    assert chosen(runs)["config"] == 4
    assert chosen(runs, cost="inference_time_s")["config"] == 1
    said = dict(advice(only(runs, cost="inference_time_s")))
    assert "twice the inference must gain 0.01" in said["rule"]
    runs[1] = runs[1].model_copy(update={"inference_time_s": None})
    advised = only(runs, cost="inference_time_s").recommendation
    assert advised is not None and list(advised.left_out) == ["without inference"]
    with pytest.raises(UserError, match="--cost latency_s: no finished configuration has it"):
        only(runs, cost="latency_s")


def test_limits_are_met_or_the_nearest_is_named() -> None:
    runs = [run(*step) for step in STEPS]
    at_least = Limit("ssim_phase", 0.71, least=True)
    limited = only(runs, limits=(at_least,))
    assert limited.recommendation is not None and limited.recommendation.compared == 1
    assert limited.configs["width"][limited.recommendation.config] == 4
    assert "with phase SSIM at least 0.71" in dict(advice(limited))["rule"]
    fast = Limit("inference_time_s", 0.25, least=False)
    limited = only(runs, limits=(at_least, fast))
    assert limited.recommendation is None
    assert "no configuration has phase SSIM at least 0.71 and inference at most" in limited.why_not
    assert "the nearest is fno sqrt modes 12 width 2 with phase SSIM 0.6900" in limited.why_not
    with pytest.raises(UserError, match=r"--at-most latency_s: .* it; there are .*ssim_phase"):
        only(runs, limits=(Limit("latency_s", 1.0, least=False),))


def test_what_collapsed_in_a_seed_is_chosen_only_if_asked() -> None:
    runs = [*seeds(1, 10, 0.70, 0.71), *seeds(2, 20, 0.80, 0.81), *seeds(3, 40, 0.801, 0.809)]
    runs[3] = runs[3].model_copy(update={"status": "collapsed"})
    compared = only(runs)
    assert compared.recommendation is not None
    assert compared.configs["width"][compared.recommendation.config] == 3
    told = dict(advice(compared))["left out"]
    assert told == "1 collapsed or diverged in a seed: fno sqrt modes 12 width 2"
    assert chosen(runs, allow_collapse=True)["config"] == 2
    row = compared.configs[compared.configs["width"] == 2].iloc[0]
    assert row["collapse"] == 0.5
    # Jeffreys: quantiles of Beta(1.5, 1.5), symmetric about a half.
    assert row["collapse_low"] == pytest.approx(0.0607, abs=1e-3)
    assert row["collapse_high"] == pytest.approx(1 - row["collapse_low"])
    sound = compared.configs[compared.configs["width"] == 1].iloc[0]
    assert (sound["collapse"], sound["collapse_low"]) == (0, 0)
    all_lost = [r.model_copy(update={"status": "collapsed"}) for r in seeds(1, 10, 0.1)]
    compared = only(
        [*seeds(1, 10, 0.70), *(a.model_copy(update={"run_id": "f" * 12}) for a in all_lost)]
    )
    assert compared.recommendation is None and "--allow-collapse" in compared.why_not


@pytest.mark.parametrize("option", ["price", "tolerance", "equal"])
def test_one_amount_has_no_sense_for_two_qualities(option: str) -> None:
    scan = run(9, 10, None, metrics={"r_factor": {"held_out": 0.08}})
    amount: dict[str, Any] = {option: 0.01}
    with pytest.raises(UserError, match=f"--{option} .* no unit in common"):
        series(table([run(1, 10, 0.7), scan]), ChoiceOptions(**amount))


def test_less_is_better_for_r_and_a_scan_has_no_second_object() -> None:
    runs = [
        run(n, 10 * 2**n, None, metrics={"r_factor": {"train": 0.07, "held_out": r}})
        for n, r in ((1, 0.0900), (2, 0.0815), (3, 0.0808))
    ]
    compared = only(runs)
    assert chosen(runs)["config"] == 2 and chosen(runs)["best"] == 3
    assert compared.reported == R_HELD_OUT and "held-out frames" in compared.choice.caveat
    assert compared.recommendation is not None
    assert compared.recommendation.margin == pytest.approx(0.0007)
    assert "must gain 0.001 in R on held-out frames" in dict(advice(compared))["rule"]


def test_of_equal_cost_the_better_and_of_equal_configurations_the_first_name() -> None:
    assert chosen([run(1, 10, 0.70), run(2, 10, 0.71)])["config"] == 2
    same = chosen([run(1, 10, 0.7), run(2, 10, 0.7)])
    assert (same["config"], same["best"], same["runner_up"]) == (1, 1, 2)


def test_another_seed_of_the_same_configuration_is_no_runner_up() -> None:
    runs = seeds(1, 10, 0.7, 0.7)
    assert chosen(runs)["runner_up"] is None
    assert chosen([*runs, *seeds(2, 20, 0.7, 0.7)])["runner_up"] == 2


def test_one_run_is_recommended_without_a_runner_up() -> None:
    assert chosen([run(1, 10, 0.7)]) == {
        "config": 1, "best": 1, "runner_up": None, "next_better": None
    }  # fmt: skip


def test_the_validation_object_chooses_and_the_test_object_is_reported() -> None:
    better_tested = run(1, 10, 0.9).model_dump() | {"metrics": {"ssim": (0.5, 0.9)}}
    rows = table([RunResult(**better_tested), run(2, 20, 0.8)])
    rows["val_ssim_phase"] = [0.6, 0.7]
    (compared,) = series(rows)
    assert compared.recommendation is not None
    assert compared.configs["width"][compared.recommendation.config] == 2
    assert compared.choice.caveat == "" and compared.reported == PHASE_SSIM
    assert compared.fronts[0].quality == PHASE_SSIM
    # Where a run lacks it, nobody is chosen by it, and the recommendation says so.
    rows["val_ssim_phase"] = [None, 0.7]
    (compared,) = series(rows)
    assert compared.recommendation is not None
    assert compared.configs["width"][compared.recommendation.config] == 1
    assert "1 of 2 finished runs have no validation metrics" in compared.choice.caveat
    assert dict(advice(compared))["caveat"] == compared.choice.caveat


@given(
    st.lists(st.tuples(st.integers(1, 5), st.floats(0, 1)), min_size=1, max_size=12),
    st.floats(0, 0.5),
)
def test_the_recommended_one_is_on_the_front_and_on_the_ladder(
    points: list[tuple[int, float]], price: float
) -> None:
    compared = only([run(n + 1, *point) for n, point in enumerate(points)], price=price)
    chosen = compared.recommendation
    assert chosen is not None and chosen.config in compared.fronts[0].members
    assert chosen.margin >= 0
    value = [q - price * math.log2(p) for p, q in points]
    width = compared.configs["width"][chosen.config]
    assert value[width - 1] >= max(value) - 1e-8
    json.loads(to_json("study", [compared]), parse_constant=lambda word: pytest.fail(word))


def test_the_choice_of_a_scan_is_on_the_front_of_what_it_is_chosen_by() -> None:
    def of_scan(width: int, params: int, own: float, from_object: float) -> RunResult:
        metrics = {"r_factor": {"held_out": own, "held_out_from_object": from_object}}
        return run(width, params, 0.5, metrics=metrics)

    # The second is best by each frame's own answer, the third by the object.
    runs = [of_scan(1, 10, 0.09, 0.1), of_scan(2, 20, 0.06, 0.12), of_scan(3, 40, 0.08, 0.05)]
    compared = only(runs)
    first, names = compared.fronts[0], [front.name for front in compared.fronts]
    assert first.quality == compared.choice.by == R_FROM_OBJECT
    assert compared.configs["width"][first.members].tolist() == [1, 3]
    assert compared.recommendation is not None and compared.recommendation.config in first.members
    reported = compared.fronts[names.index("model_params-r_held_out")]
    assert compared.configs["width"][reported.members].tolist() == [1, 2]
    # Where a run lacks it, nothing is chosen by it, and no front is over it.
    lacking = run(4, 80, 0.5, metrics={"r_factor": {"held_out": 0.07}})
    compared = only([*runs, lacking])
    assert {front.quality.column for front in compared.fronts} == {"r_held_out"}


def test_only_finished_runs_with_both_numbers_are_compared() -> None:
    judged = only(
        [
            run(1, 1, 0.99, status="collapsed"),
            run(2, 1, 0.99, status="failed"),
            run(3, 1, 0.99, status="diverged"),
            run(4, None, 0.99),
            run(5, 1, None),
            run(6, 50, 0.6),
        ]
    )
    assert judged.configs["width"][judged.fronts[0].members].tolist() == [6]
    assert judged.collapsed["run_id"].tolist() == ["000000000001"]
    assert judged.incomplete == ["000000000004", "000000000005"]
    assert judged.recommendation is not None and judged.recommendation.compared == 1
    counts = (
        judged.configs[["n_seeds", "n_failed", "n_collapsed", "n_diverged"]].to_numpy().tolist()
    )
    assert counts == [[0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1], *[[1, 0, 0, 0]] * 3]


def test_no_finished_run_is_a_series_without_a_recommendation() -> None:
    assert series(table([])) == []
    compared = only([run(1, 1, 0.9, status="failed"), run(2, 1, 0.9, status="collapsed")])
    assert compared.recommendation is None and compared.fronts == []
    assert compared.configs["n_runs"].tolist() == [1, 1]
    assert json.loads(to_json("study", [compared]))["series"][0]["recommended"] is None


def test_one_series_has_no_name() -> None:
    assert only([run(1, 10, 0.7), run(2, 20, 0.7)]).name == ""


@pytest.mark.parametrize(
    ("ours", "theirs", "name"),
    [
        ({"conditioning": "amplitude"}, {}, "conditioning amplitude"),
        ({"epochs": 5}, {}, "epochs 5"),
        ({"provenance": {"dataset": "aa"}}, {"provenance": {"dataset": "bb"}}, "dataset aa"),
        (
            {"nphotons": 1e5, "provenance": {"dataset": "aa"}},
            {"provenance": {"dataset": "bb"}},
            "nphotons 100000.0",
        ),
        (
            {"scan": "/box/a.npz", "provenance": {"dataset": "aa"}},
            {"scan": "b.npz", "provenance": {"dataset": "bb"}},
            "dataset a.npz",
        ),
        (
            {"scan": "/box/a.npz", "provenance": {"dataset": "aa"}},
            {"scan": "a.npz", "provenance": {"dataset": "bb"}},
            "dataset aa",
        ),
    ],
)
def test_runs_that_may_not_be_compared_are_not(
    ours: dict[str, Any], theirs: dict[str, Any], name: str
) -> None:
    failed = run(3, None, None, status="failed", metrics={}, **ours)
    split = series(table([run(1, 10, 0.4, **ours), run(2, 5, 0.9, **theirs), failed]))
    assert len(split) == 2
    mine = next(candidate for candidate in split if candidate.name == name)
    # A failed run is with those that it was to be compared with.
    assert mine.runs["run_id"].tolist() == ["000000000001", "000000000003"]


def test_a_scan_is_judged_by_its_held_out_frames_not_by_a_reference() -> None:
    """Another method's object is no truth: who is most like it is not therefore the best."""
    scan = {"r_factor": {"train": 0.07, "held_out": 0.08}}
    assert only([run(1, 10, None, metrics=scan)]).reported == R_HELD_OUT
    assert only([run(1, 10, None, metrics=scan | {"ssim": (0.5, 0.6)})]).reported == R_HELD_OUT


def test_a_scan_is_chosen_by_what_the_object_predicts_and_reported_by_the_frames_own_answers() -> (
    None
):
    runs = [
        run(n, 10, None, metrics={"r_factor": {"held_out": r, "held_out_from_object": o}})
        for n, r, o in ((1, 0.070, 0.090), (2, 0.080, 0.084))
    ]
    compared = only(runs)
    assert (compared.choice.by, compared.choice.reported) == (R_FROM_OBJECT, R_HELD_OUT)
    assert chosen(runs)["config"] == 2


def test_integers_with_a_gap_stay_integers() -> None:
    column = table([run(1, 10, 0.5), run(2, None, 0.7)])["model_params"]
    assert isinstance(column, pd.Series) and column.tolist() == [10, None]
    assert not isinstance(column[0], float | np.floating)


def test_a_limit_that_the_choice_may_miss_is_told_with_how_sure_it_is() -> None:
    runs = [*seeds(1, 10, 0.700, 0.708), *seeds(2, 80, 0.76, 0.768)]
    compared = only(runs, price=0.05, limits=(Limit("ssim_phase", 0.703, least=True),))
    advised = compared.recommendation
    assert advised is not None and compared.configs["width"][advised.config] == 1
    assert 0.5 < advised.probability[advised.config] < 0.9
    assert "else fno sqrt modes 12 width 2 (" in dict(advice(compared))["how sure"]
    narrow = Limit("ssim_phase", 0.767, least=True)
    compared = only(runs, price=0.05, limits=(narrow,))
    assert compared.recommendation is None
    compared = only(runs, price=0.05, limits=(Limit("ssim_phase", 0.763, least=True),))
    assert "none meets the limits" in dict(advice(compared))["how sure"]
