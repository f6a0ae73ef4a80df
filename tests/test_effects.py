"""What each swept key does, on studies whose answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from agent.analysis.series import series
from agent.study.records import table
from fno_runner.result import RunResult
from tests.studies import result
from tests.test_recommendation import run


def study(noise: float, seeds: int = 3, leave_out: int = 0) -> list[RunResult]:
    """SSIM = 0.5 + 0.2 (hybrid) + 0.05 (width 16), and noise; modes do nothing."""
    rng = np.random.default_rng(0)
    points = list(itertools.product(["fno", "hybrid"], [8, 12], [8, 16]))[leave_out:]
    return [
        run(
            100 * number + seed + 1,
            1000 * (number + 1),
            0.5 + 0.2 * (a == "hybrid") + 0.05 * (w == 16) + rng.normal(0, noise),
            architecture=a,
            modes=m,
            width=w,
            seed=seed,
        )
        for number, (a, m, w) in enumerate(points)
        for seed in range(seeds)
    ]


def test_marginal_means_and_importance_find_what_was_put_in() -> None:
    (compared,) = series(table(study(0.005)))
    by_key = {effect.key: effect for effect in compared.effects}
    assert set(by_key) == {"architecture", "modes", "width"}
    hybrid = by_key["architecture"]
    assert hybrid.values == ["fno", "hybrid"] and hybrid.balanced
    assert np.diff(hybrid.mean) == pytest.approx([0.2], abs=0.01)
    assert (hybrid.low < hybrid.mean).all() and (hybrid.mean < hybrid.high).all()
    assert np.diff(by_key["width"].mean) == pytest.approx([0.05], abs=0.01)
    assert np.abs(np.diff(by_key["modes"].mean)) < 0.01
    importance = [by_key[key].importance for key in ("architecture", "width", "modes")]
    assert importance[0] > 0.7 > importance[1] > importance[2]
    assert sum(importance) == pytest.approx(1)
    (again,) = series(table(study(0.005)))
    assert [e.importance for e in again.effects] == [e.importance for e in compared.effects]


def test_importance_is_the_share_of_the_variance_whatever_the_scale_of_a_key() -> None:
    """A balanced grid whose quality is a sum of two effects: the shares are those of an ANOVA.

    The lowest of four learning rates costs 0.3, each doubling of the width brings 0.05. Over four
    equal weights the variances are 0.3² · 3/16 and 0.05² · 20/16.
    """
    grid = [(rate, width) for rate in (1e-4, 1e-3, 1e-2, 1e-1) for width in (8, 16, 32, 64)]
    (compared,) = series(
        table(
            [
                run(
                    number,
                    1000 * width,
                    0.5 - 0.3 * (rate == 1e-4) + 0.05 * np.log2(width / 8),
                    learning_rate=rate,
                    width=width,
                )
                for number, (rate, width) in enumerate(grid, start=1)
            ]
        )
    )
    importance = {effect.key: effect.importance for effect in compared.effects}
    variances = 0.3**2 * 3 / 16, 0.05**2 * 20 / 16
    assert importance["learning_rate"] == pytest.approx(variances[0] / sum(variances), abs=0.01)
    assert importance["width"] == pytest.approx(variances[1] / sum(variances), abs=0.01)


def test_rounding_is_no_effect() -> None:
    made = [run(n, 1000 * n, 0.7, width=8 * n) for n in range(1, 5)]
    made.append(run(5, 5000, float(np.nextafter(0.7, 1)), width=40))
    (compared,) = series(table(made))
    assert all(np.isnan(effect.importance) for effect in compared.effects)


def test_one_seed_has_no_interval_and_a_hole_in_the_grid_is_told() -> None:
    (compared,) = series(table(study(0.005, seeds=1, leave_out=1)))
    assert all(np.isnan(effect.low).all() for effect in compared.effects)
    assert not any(effect.balanced for effect in compared.effects)


def test_little_says_little() -> None:
    (compared,) = series(table([run(1, 10, 0.5), run(2, 20, 0.6)]))
    (width,) = compared.effects
    assert width.mean.tolist() == [0.5, 0.6] and np.isnan(width.importance)
    (same,) = series(table([run(1, 10, 0.5)]))
    assert same.effects == []


def test_an_interval_ends_where_the_quality_does() -> None:
    """Two seeds that scatter widely near 1: no mean SSIM can be more."""
    runs = [result(width=width, seed=seed) for width in (16, 32) for seed in (0, 1)]
    for record in runs:
        record.metrics.pairs["ssim"] = (0.9, 0.999 - 0.3 * record.config["seed"])
    (compared,) = series(table(runs))
    (effect,) = compared.effects
    assert (effect.high == 1).all() and (effect.low >= -1).all()


@pytest.mark.parametrize("part", [1e-6, 1e-9, 1e-11])
def test_importance_is_the_same_in_a_smaller_unit(part: float) -> None:
    """Configurations that hardly differ: a forest that splits nothing has no variance to share."""
    runs = study(0.01)
    (expected,) = (compared.effects for compared in series(table(runs)))
    for record in runs:
        ssim = record.metrics.pairs["ssim"][1]
        assert ssim is not None
        record.metrics.pairs["ssim"] = (0.9, 0.6 + part * ssim)
    (small,) = (compared.effects for compared in series(table(runs)))
    for effect, other in zip(small, expected, strict=True):
        assert effect.importance == pytest.approx(other.importance, abs=0.02)
