"""Variance components of seeds and objects: by hand, and whether their intervals cover."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from agent.analysis.choice_options import ChoiceOptions
from agent.analysis.configurations import configurations
from agent.analysis.differences import differences
from agent.analysis.means import ObjectChange, exact, means
from agent.analysis.objects import component_columns, components, interaction, object_columns
from agent.analysis.price import Price
from agent.analysis.probabilities import choice_probabilities
from agent.analysis.recommendation import choose_by, recommend
from agent.export import main
from agent.report.terminal import CONFIGS, CSV
from agent.study.quality import PHASE_SSIM, Array, cells, numbers
from agent.study.records import check_cells, read_record, table
from fno_runner.result import RECORD, run_folder
from tests.studies import result, save
from tests.test_export import rows


def test_components_by_hand() -> None:
    """Two seeds 0 and 2 apart from it, three objects −3, 0, 3, no rest.

    y = μ ± 1 + object: MS(seed) = 3 · 2 = 6, MS(object) = 2 · 9 = 18, MS(rest) = 0.
    """
    one = np.array([[-1.0], [1.0]]) + np.array([-3.0, 0.0, 3.0]) + 5
    found = components([one, one], "linear")
    assert found.object == pytest.approx(math.sqrt(18 / 2))
    assert found.seed == pytest.approx(math.sqrt(6 / 3), rel=0.05)  # two alike moderate each other
    assert found.rest == pytest.approx(0)


def test_a_rest_is_told_from_both() -> None:
    """Rows (1, 2) and (4, 1): mean 2, seeds ±0.5, objects ±0.5, rest ±1: MS(rest) = 4."""
    found = components([np.array([[1.0, 2.0], [4.0, 1.0]])] * 2, "linear")
    assert found.rest == pytest.approx(2.0)
    assert found.object == pytest.approx(0.0) and found.seed == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("seed_sd", "object_sd", "rest_sd"), [(0.006, 0.01, 0.002), (0.006, 0.0, 0.002), (0, 0.01, 0)]
)
def test_intervals_cover_what_they_say(seed_sd: float, object_sd: float, rest_sd: float) -> None:
    """Over simulated studies of 12 configurations, 3 seeds, 5 objects that all of them share."""
    rng = np.random.default_rng(0)
    k, n, m = 12, 3, 5
    mean = np.linspace(0.8, 0.9, k)
    over_objects, of_new = [], []
    for _ in range(250):
        objects = rng.normal(0, object_sd, m)
        samples = [
            mu
            + rng.normal(0, seed_sd, (n, 1))
            + objects
            + rng.normal(0, rest_sd, (n, m))
            for mu in mean
        ]  # fmt: skip
        found = components(samples, "linear")
        new = mean + rng.normal(0, math.hypot(object_sd, seed_sd, rest_sd), k)
        over_objects.append((found.objects_low <= mean) & (mean <= found.objects_high))
        of_new.append((found.new_low <= new) & (new <= found.new_high))
    assert 0.92 <= np.mean(over_objects) <= 1
    assert 0.92 <= np.mean(of_new) <= 0.99


def test_what_configurations_change_places_by_is_told_from_seeds_and_common_objects() -> None:
    """Over 400 simulated studies: a variance that is right on average, whatever else scatters."""
    rng = np.random.default_rng(0)
    k, n, m, change_sd = 12, 3, 5, 0.004
    variances = []
    for _ in range(400):
        objects = rng.normal(0, 0.02, m)
        samples = [
            mu
            + rng.normal(0, 0.006, (n, 1))
            + objects
            + rng.normal(0, change_sd, m)
            + rng.normal(0, 0.002, (n, m))
            for mu in np.linspace(0.8, 0.9, k)
        ]  # fmt: skip
        change = interaction(samples, "linear")
        assert change is not None and change.freedom == (k - 1) * (m - 1)
        variances.append([change.own[0] ** 2, change.common[0] ** 2])
    assert np.mean(variances, axis=0) == pytest.approx([change_sd**2, 0.02**2], rel=0.1)


def test_poor_configurations_do_not_tell_how_the_good_ones_change_places() -> None:
    """Even in the logit: what is near one moves by 1 − level² of what is near zero."""
    rng = np.random.default_rng(0)
    level, change_sd = np.linspace(0.3, 0.95, 12), 0.02
    found = []
    for _ in range(200):
        even = rng.normal(0, change_sd, (12, 5)) + rng.normal(0, 0.03, 5)
        samples = [a + (1 - a**2) * changed + rng.normal(0, 1e-4, (3, 5))
                   for a, changed in zip(level, even, strict=True)]  # fmt: skip
        change = interaction(samples, "logit")
        assert change is not None
        found.append([np.square(change.own), np.square(change.common)])
    for which, sd in enumerate((change_sd, 0.03)):
        expected = sd * (1 - level**2)
        assert np.sqrt(np.mean(found, axis=0)[which]) == pytest.approx(expected, rel=0.15)


def test_what_differs_on_one_object_need_not_differ_on_others() -> None:
    """No configuration is better over objects; on the one that seeds were seen on, some are."""
    rng = np.random.default_rng(2)
    called = {True: 0, False: 0}
    for _ in range(300):
        places = rng.normal(0, 0.01, (6, 6))
        y = 0.8 + places[:, None, :] + rng.normal(0, 0.002, (6, 3, 6))
        change = interaction([*y[:, :, 1:]], "linear")
        on_one = means(y[:, :, 0], "linear", np.empty((6, 0)))
        for allows in called:
            of = replace(on_one, change=change) if allows else on_one
            (told,) = differences(of, 1, 0, [1], 0.0)
            called[allows] += told.verdict != "undecided"
    assert called[True] < 0.08 * 300 < 0.5 * 300 < called[False]


def test_another_object_may_choose_otherwise() -> None:
    """Without scatter of seeds: what leads by d on one object leads on others with Φ(d/√2σ)."""
    two = means(np.array([[0.9, 0.9], [0.91, 0.91]]), "linear", np.empty((2, 0)), paired=False)
    cost, rows = exact(np.array([10.0, 10.0])), np.arange(2)
    for change, leads in ((0.0, 1.0), (0.01 / math.sqrt(2), stats.norm.cdf(1))):
        of_objects = ObjectChange(np.full(2, change), 200.0, np.full(2, 0.3), 4.0)
        quality = replace(two, change=of_objects)
        probability = choice_probabilities(quality, cost, 1, Price(0.01), rows)
        assert probability[1] == pytest.approx(leads, abs=0.03)


def choices(validated: int, studies: int = 60) -> tuple[Array, Array]:
    """What the choice's probability says, and whether it is right over objects (studies,).

    Of 18 configurations with two seeds, which change places by more than seeds scatter.
    """
    keys = itertools.product(("fno", "hybrid"), (12, 16, 24), (32, 48, 64), (0, 1))
    names = ("architecture", "modes", "width", "seed")
    results = [result(**dict(zip(names, each, strict=True)), nimgs_val=validated) for each in keys]
    runs = table(results)
    size, seed = numbers(runs, "model_params"), np.array(cells(runs, "seed"))
    sizes, which = np.unique(size, return_inverse=True)
    says, right = np.empty(studies), np.empty(studies, bool)
    for study in range(studies):
        rng = np.random.default_rng(study)
        level = 1.2 + 0.035 * np.log2(sizes) + rng.normal(0, 0.05, len(sizes))
        off = rng.normal(0, 0.12, (len(sizes), 1, 100)) + rng.normal(0, 0.1, 100)
        drawn = np.tanh(level[:, None, None] + off + rng.normal(0, 0.02, (len(sizes), 2, 1)))
        seen = drawn[which, seed]
        columns = {"val_ssim_phase": seen[:, :validated].mean(axis=1)}
        columns |= {f"ssim_phase_object{n}": seen[:, -n] for n in range(1, 6)}
        columns["ssim_phase"] = seen[:, -5:].mean(axis=1)
        of = runs.assign(**columns)
        configs = configurations(of)
        found = recommend(configs, choose_by(of), ChoiceOptions())
        assert not isinstance(found, str)
        value = drawn.mean(axis=(1, 2)) - found.price * np.log2(sizes)
        chosen = configs.table["model_params"][found.config]
        says[study] = found.probability[found.config]
        right[study] = sizes[np.argmax(value)] == chosen
    return says, right


def test_more_validation_objects_make_the_choice_surer_and_as_right_as_it_says() -> None:
    """Of 300 studies with 1, 5, 16 of them: it says 48, 64, 75 %, and 50, 66, 81 % are right."""
    (one, of_one), (many, of_many) = choices(1), choices(16)
    assert many.mean() > one.mean() + 0.15 and of_many.mean() > of_one.mean() + 0.1
    assert one.mean() == pytest.approx(of_one.mean(), abs=0.15)
    assert many.mean() == pytest.approx(of_many.mean(), abs=0.15)


def test_seeds_alone_do_not_cover_a_new_object() -> None:
    """What a table with one test object cannot tell: its intervals are for this object."""
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(300):
        y = 0.85 + rng.normal(0, 0.01) + rng.normal(0, 0.003, 3)
        reach = 4.303 * y.std(ddof=1) / math.sqrt(3)
        covered.append(abs(y.mean() - 0.85) <= reach)
    assert np.mean(covered) < 0.75


def test_too_few_to_tell_is_nan() -> None:
    for samples in ([np.ones((3, 1))], [np.ones((1, 5))], [np.empty((0, 5))], []):
        found = components(samples, "linear")
        assert np.isnan(found.seed).all() and np.isnan(found.objects_low).all()


def test_a_configuration_without_seeds_leaves_the_others_theirs() -> None:
    rng = np.random.default_rng(0)
    found = components(
        [rng.normal(size=(3, 4)), np.empty((0, 4)), rng.normal(size=(1, 4))], "linear"
    )
    assert np.isfinite(found.objects_low).tolist() == [True, False, True]


def test_columns_of_a_table() -> None:
    rng = np.random.default_rng(0)
    y = 0.9 + 0.01 * rng.normal(size=(4, 3))
    runs = pd.DataFrame({f"ssim_phase_object{o + 1}": y[:, o] for o in range(3)})
    assert object_columns("ssim_phase", runs) == [f"ssim_phase_object{o}" for o in (1, 2, 3)]
    table = component_columns(PHASE_SSIM, runs, [[0, 1], [2, 3]])
    assert table["ssim_phase_n_objects"].tolist() == [3, 3]
    low, high = (table[f"ssim_phase_objects_{end}"] for end in ("low", "high"))
    new_low, new_high = (table[f"ssim_phase_new_object_{end}"] for end in ("low", "high"))
    assert (new_low < low).all() and (high < new_high).all() and (new_high <= 1).all()


def test_one_object_has_no_components() -> None:
    table = component_columns(PHASE_SSIM, pd.DataFrame({"ssim_phase": [0.8, 0.9]}), [[0, 1]])
    assert table["ssim_phase_n_objects"].tolist() == [1]
    assert table.drop(columns="ssim_phase_n_objects").isna().all(axis=None)


def test_every_test_object_is_in_the_tables(tmp_path: Path) -> None:
    """From the records to study_configs.csv; a mean over objects is what it was."""
    rng = np.random.default_rng(0)
    results = []
    for seed in range(3):
        one = result(seed=seed, nimgs_test=3)
        quality = 0.8 + np.array([0.0, 0.05, -0.05]) + 0.01 * rng.normal()
        one.objects = [{"ssim": (0.9, float(q))} for q in quality]
        one.metrics.pairs["ssim"] = (0.9, float(quality.mean()))
        results.append(one)
    study = save(tmp_path, results, pictures=False)
    assert main([str(study)]) == 0
    runs, (row,) = rows(study / CSV), rows(study / CONFIGS)
    assert float(runs[0]["ssim_phase_object2"]) == results[0].objects[1]["ssim"][1]
    assert row["ssim_phase_n_objects"] == "3"
    assert float(row["ssim_phase_object_sd"]) == pytest.approx(0.05, abs=0.002)
    assert float(row["ssim_phase_rest_sd"]) == pytest.approx(0, abs=1e-9)
    assert float(row["ssim_phase_objects_low"]) < float(row["ssim_phase_low"])
    read = read_record(run_folder(study, results[0].run_id) / RECORD)
    assert read == results[0]
    check_cells({"ssim_phase_object1": 0.5})
    with pytest.raises(ValueError, match="ssim_phase_object1"):
        check_cells({"ssim_phase_object1": 1.5})
