"""What is said of a study is what its records say: names, reasons, counts of seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.analysis.choice_options import ChoiceOptions, Limit
from agent.analysis.series import series
from agent.study.csv_files import as_csv, read_csv
from agent.study.records import table
from fno_runner.errors import UserError
from fno_runner.result import RunResult, SeedResult
from tests.test_recommendation import only, run, seeds


def test_of_several_lost_seeds_no_configuration_is_said_to_have_run_once() -> None:
    runs = [*seeds(1, 10, 0.6, 0.6), *seeds(2, 20, 0.7, 0.7)]
    for lost in (runs[0], runs[2]):
        lost.status = "collapsed"
    told = only(runs, allow_collapse=True).recommendation
    assert told is not None and "one finished seed" in told.provisional


def test_what_failed_is_not_said_to_have_collapsed() -> None:
    runs = seeds(1, 10, 0.6, 0.6)
    runs[0].status = "collapsed"
    failed = run(2, 20, None, status="failed", metrics={})
    lost = seeds(3, 30, 0.7, 0.7)
    lost[1].status = "diverged"
    assert only([*runs, failed]).why_not.startswith("the only configuration to choose from")
    assert only([*runs, *lost, failed]).why_not.startswith("all 2 configurations to choose from")


def test_where_nothing_finished_nothing_is_said_of_validation() -> None:
    assert only([run(1, 10, None, status="failed", metrics={})]).choice.caveat == ""


def test_a_limit_is_said_to_the_digit_at_which_it_is_asked() -> None:
    assert "0.9300001" in Limit("ssim_phase", 0.9300001, least=True).words
    assert "1234600" in Limit("model_params", 1234600.0, least=False).words


def test_one_series_without_a_cost_does_not_keep_the_others_from_their_choice() -> None:
    """Runs of another time of training are a series of their own."""
    timed = [run(n, 10 * n, 0.5 + 0.1 * n) for n in (1, 2)]
    for record in timed:
        record.timing["latency_s"] = 0.01
    untimed = [run(n, 10 * n, 0.6, width=n, epochs=3) for n in (3, 4)]
    by_latency = ChoiceOptions(cost="latency_s")
    told = {s.name: s for s in series(table([*timed, *untimed]), by_latency)}
    reasons = {name: s.why_not for name, s in told.items()}
    assert sorted(reason == "" for reason in reasons.values()) == [False, True]
    assert "no finished run has latency" in reasons.values()
    with pytest.raises(UserError, match="--cost latency_s"):
        series(table(untimed), by_latency)


def test_a_seed_counts_once_in_the_collapse_however_many_rows_it_has() -> None:
    """Seed 0 alone, and again among three replicates: one of three seeds collapsed."""
    alone = run(1, 10, 0.1, status="collapsed", width=8)
    together = run(2, 10, 0.7, width=8, replicates=3)
    together.seeds = [
        SeedResult(seed=seed, status="finished" if seed else "collapsed", metrics=together.metrics)
        for seed in range(3)
    ]
    (row,) = only([alone, together]).configs.to_dict("records")
    assert row["collapse"] == pytest.approx(1 / 3) and row["n_runs"] == 4


def named(*changes: Mapping[str, object]) -> list[str]:
    runs: list[RunResult] = [run(n, 10, 0.7, **changed) for n, changed in enumerate(changes, 1)]
    return [str(name) for name in only(runs).configs["configuration"]]


def test_names_have_short_numbers_in_the_order_of_numbers() -> None:
    rates = [0.00012160712233, 0.0031, 0.02]
    names = named(*({"width": w, "learning_rate": rate} for w in (8, 16) for rate in rates))
    assert [name.split(" width ")[1] for name in names] == [
        f"{width}, learning_rate {rate}"
        for width in (8, 16)
        for rate in ("0.0001216", 0.0031, 0.02)
    ]
    close = named({"width": 8, "learning_rate": 0.00300001}, {"width": 8, "learning_rate": 0.003})
    assert len(set(close)) == 2
    whole = named({"width": 8, "grad_clip": 1.0}, {"width": 8, "grad_clip": 2.0})
    assert [name.rsplit(" ", 1)[1] for name in whole] == ["1.0", "2.0"]


def test_a_column_of_a_foreign_record_is_no_formula(tmp_path: Path) -> None:
    record = run(1, 10, 0.7, provenance={"=HYPERLINK(1)": "x"})
    written = as_csv(table([record]))
    assert not any(name.startswith("=") for name in written.splitlines()[0].split(","))
    (tmp_path / "table.csv").write_text(written)
    assert read_csv(tmp_path / "table.csv")[0]["=HYPERLINK(1)"] == "x"
