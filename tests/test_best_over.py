"""Each configuration at its best value of a key, and how selection by the same seeds is met."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from agent.analysis.best_over import cross_fitted
from agent.analysis.choice_options import ChoiceOptions
from agent.analysis.series import series
from agent.export import main
from agent.report.terminal import RECOMMENDATION
from agent.report.write import PAGE
from agent.study.records import table
from fno_runner.config import RunConfig
from fno_runner.identity import run_id
from fno_runner.result import RunResult
from tests.studies import result, save

HIGH, LOW = 3e-3, 1e-3


def trained(
    rate: float, seed: int, validation: float, test: float, status: str = "finished", width: int = 8
) -> RunResult:
    config = RunConfig(width=width, learning_rate=rate, seed=seed)
    return RunResult(
        run_id=run_id(config),
        status=status,
        config=config.model_dump(),
        metrics={"ssim": (0.9, test)},
        validation={"ssim": (0.9, validation)},
        metrics_against="truth",
        model_params=100 * width,
    )


VALIDATION = {HIGH: (0.80, 0.90, 0.70), LOW: (0.85, 0.77, 0.85)}
TEST = {HIGH: (0.60, 0.61, 0.62), LOW: (0.70, 0.71, 0.72)}
"""Of seeds 0, 1, 2."""


def runs(seeds: tuple[int, ...] = (0, 1, 2), **statuses: str) -> list[RunResult]:
    return [
        trained(rate, seed, VALIDATION[rate][seed], TEST[rate][seed],
                statuses.get(f"low{seed}", "finished") if rate == LOW else "finished")
        for rate in (HIGH, LOW)
        for seed in seeds
    ]  # fmt: skip


def test_no_seed_chooses_for_itself() -> None:
    """Seeds 1 and 2 are 0.80 and 0.81 on average, so seed 0 is counted at the low rate; seeds 0 and
    2 are 0.75 and 0.85: low; seeds 0 and 1 are 0.85 and 0.81: seed 2 is counted at the high rate.
    """
    (compared,) = series(table(runs()), ChoiceOptions(best_over="learning_rate"))
    row = compared.configs.iloc[0]
    assert len(compared.configs) == 1 and row["n_seeds"] == 3
    assert row["learning_rate"] == "best", "no single value is behind these numbers"
    assert row["ssim_phase_mean"] == pytest.approx((0.70 + 0.71 + 0.62) / 3)
    assert row["val_ssim_phase_mean"] == pytest.approx((0.85 + 0.77 + 0.70) / 3)
    assert compared.best_over is not None
    assert compared.best_over.of(compared.configs) == [LOW], "0.823 of all seeds against 0.80"


def test_a_value_that_failed_with_another_seed_comes_last() -> None:
    """The low rate collapsed with seed 1: seeds 0 and 2 do not take it. Seed 1, which cannot know
    that, does, and its collapse counts."""
    (compared,) = series(table(runs(low1="collapsed")), ChoiceOptions(best_over="learning_rate"))
    row = compared.configs.iloc[0]
    assert (row["n_seeds"], row["n_collapsed"], row["seeds"]) == (2, 1, "0 2")
    assert row["ssim_phase_mean"] == pytest.approx((0.60 + 0.62) / 2)


def test_a_single_seed_chooses_by_validation_and_that_is_said() -> None:
    (compared,) = series(table(runs(seeds=(0,))), ChoiceOptions(best_over="learning_rate"))
    assert compared.configs["ssim_phase_mean"].tolist() == [0.70]
    assert compared.best_over is not None and "chose for itself" in compared.best_over.words


@pytest.mark.parametrize(("lead", "least_covered"), [(0.0, 0.86), (2.0, 0.92)])
def test_what_the_other_seeds_choose_is_not_flattered(lead: float, least_covered: float) -> None:
    """Four values, three seeds that scatter by 1, the first value better by `lead`.

    Of equal ones the luckiest mean lies 1.03 / √3 = 0.594 too high (the largest of four normal
    numbers). What the other seeds choose lies where it should; but seeds that choose for each other
    are not independent, and their interval covers less than 95 % where the values are equal.
    """
    draws = np.random.default_rng(1).standard_normal((4000, 4, 3))
    means = np.array([lead, 0, 0, 0])[:, None]
    none, all_of_it = np.zeros((4, 3), bool), np.ones((4, 3), bool)
    errors = []
    for noise in draws:
        chosen, _ = cross_fitted(means + noise, none, all_of_it)
        errors.append(noise[chosen, np.arange(3)].mean())
    assert np.mean(errors) == pytest.approx(0, abs=0.04)
    assert (np.abs(errors) < 1.96 / math.sqrt(3)).mean() >= least_covered
    if lead == 0:
        assert draws.mean(axis=2).max(axis=1).mean() == pytest.approx(0.594, abs=0.04)


def test_an_architecture_that_needs_another_rate_is_not_judged_at_the_wrong_one() -> None:
    """At the high rate the wide one is the worse by 0.1; at its own it is better by 0.05."""
    of = {(8, HIGH): 0.80, (8, LOW): 0.70, (16, HIGH): 0.70, (16, LOW): 0.85}
    records = [
        trained(rate, seed, ssim + 0.001 * seed, ssim + 0.001 * seed, width=width)
        for (width, rate), ssim in of.items()
        for seed in range(3)
    ]
    (compared,) = series(table(records), ChoiceOptions(best_over="learning_rate", price=0.01))
    assert compared.best_over is not None and compared.recommendation is not None
    assert compared.best_over.of(compared.configs) == [HIGH, LOW]
    assert compared.configs["width"].tolist() == [8, 16]
    assert compared.configs["ssim_phase_mean"].tolist() == pytest.approx([0.801, 0.851])
    assert compared.configs["width"][compared.recommendation.config] == 16


def test_an_export_says_how_and_at_which_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = save(tmp_path / "study", runs(), pictures=False)
    assert main([str(study), "--best-over", "learning_rate"]) == 0
    assert "chosen for every seed by the other seeds" in " ".join(capsys.readouterr().out.split())
    (told,) = json.loads((study / RECOMMENDATION).read_text())["series"]
    assert told["best_over"]["values"] == {told["recommended"]["configuration"]: LOW}
    lines = (study / "study_configs.csv").read_text().splitlines()
    cells = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert float(cells["best_learning_rate"]) == LOW
    rates = (study / "study_results.csv").read_text()
    assert rates.count("0.003") >= 3, "the table of runs keeps every run and its own value"


def test_the_best_of_a_key_that_has_colours_is_drawn_too(tmp_path: Path) -> None:
    points = itertools.product((8, 16), ("sqrt", "log1p"), (0, 1))
    records = [result(width=w, input_transform=t, seed=seed) for w, t, seed in points]
    study = save(tmp_path / "study", records, pictures=False)
    assert main([str(study), "--best-over", "input_transform"]) == 0
    page = (study / PAGE).read_text()
    assert '"kind":["fno, best","fno, best"]' in page and '"fno, best":{"color":' in page


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("learning_rat", "did you mean 'learning_rate'?"),
        ("batch_size", "does not vary"),
        ("epochs", "are not compared"),
        ("width", "differ in cost"),
    ],
)
def test_a_key_without_sense_is_one_line(
    key: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [result(width=width, seed=seed) for width in (8, 16) for seed in (0, 1)]
    study = save(tmp_path / "study", records, pictures=False)
    assert main([str(study), "--best-over", key]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --best-over") and key in line and said in line
    assert not (study / RECOMMENDATION).exists()


def test_seeds_that_never_finished_leave_no_value() -> None:
    nothing = np.full((2, 2), math.nan)
    chosen, alone = cross_fitted(nothing, np.ones((2, 2), bool), np.ones((2, 2), bool))
    assert chosen.tolist() == [0, 0] and alone.all()
