"""The protocol: how often, what is made of it, and what a record says of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset, Patterns
from fno_runner.reconstruct.inference import predict
from fno_runner.reconstruct.predictor import Predictor
from fno_runner.reconstructor import Reconstructor
from fno_runner.score import timing
from fno_runner.score.timing import (
    Times,
    Timing,
    is_enough,
    lengthen_pass,
    repeat_timed,
    timed_predict,
)

CPU = torch.device("cpu")


@pytest.fixture
def model() -> Reconstructor:
    torch.manual_seed(0)
    return Reconstructor(RunConfig(width=4, modes=6, blocks=2))


@pytest.mark.parametrize(
    ("seconds", "repeats"),
    [(1e-3, 100), (0.05, 20), (0.11, 10), (0.4, 10), (0.6, 9), (2.0, 3), (30.0, 3)],
)
def test_work_is_repeated_ten_times_and_a_second_within_reason(
    seconds: float, repeats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clock() -> Iterator[float]:
        now = 0.0
        while True:
            yield now
            now += seconds * 1.0001  # no sum of exact halves falls just short
            yield now

    ticks = clock()
    monkeypatch.setattr(timing, "perf_counter", lambda: next(ticks))
    calls: list[None] = []
    _, times = repeat_timed(lambda: calls.append(None), CPU)
    assert len(times.seconds) == len(calls) == repeats
    assert times.median == pytest.approx(seconds, rel=1e-3)
    # Whatever the work, it is at least ten repeats or a second.
    assert repeats >= 10 or repeats * seconds >= 1
    assert not is_enough(times.seconds[:-1])


def test_times_are_told_by_quartiles() -> None:
    times = Times((5.0, 1.0, 2.0, 3.0, 4.0))
    assert (times.median, times.iqr) == (3.0, 2.0)
    assert times.p90 == pytest.approx(4.6)
    assert Times((7.0,)).iqr == 0


def test_a_record_says_throughput_latency_and_how_they_were_found(
    model: Reconstructor, tiny: Dataset
) -> None:
    few = tiny.test.take(np.arange(32))
    patches, timing = timed_predict(model, few, 0.5, CPU, 16)
    np.testing.assert_array_equal(patches, predict(model, few, 0.5, CPU, 16))
    assert timing["inference_repeats"] >= 10 and timing["latency_repeats"] >= 10
    for name in ("inference_time", "latency"):
        assert 0 < timing[f"{name}_s"] <= timing[f"{name}_p90_s"]
        assert timing[f"{name}_iqr_s"] >= 0
    assert timing["inference_patterns_per_s"] == pytest.approx(32 / timing["inference_time_s"])
    assert timing["infer_batch_size"] == 16 and "infer_batch_size_asked" not in timing
    assert timing["threads"] == torch.get_num_threads() and timing["tf32"] is False


def test_latency_is_one_pattern_and_a_pass_is_all_after_warm_up(
    model: Reconstructor, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[tuple[int, int]] = []

    class Spy(Predictor):
        def __call__(self, patterns: Patterns) -> np.ndarray:
            passes.append((len(patterns), self._slice_size))
            return np.zeros((1, 64, 64), np.complex64)

    def spy(model: Reconstructor, probe: np.ndarray, scale: float, _: object, size: int) -> Spy:
        return Spy(model, probe, scale, size)

    monkeypatch.setattr(timing, "make_predictor", spy)
    timed_predict(model, tiny.test.take(np.arange(40)), 0.5, CPU, 16)
    assert passes == 2 * [(16, 16)] + 100 * [(40, 16)] + 2 * [(1, 1)] + 100 * [(1, 1)]


def test_what_follows_a_pass_is_in_all_its_times() -> None:
    timing: Timing = {
        "inference_time_s": 0.1, "inference_time_p90_s": 0.15, "inference_time_iqr_s": 0.02,
        "inference_patterns_per_s": 800.0, "latency_s": 0.01,
    }  # fmt: skip
    lengthen_pass(timing, 0.3)
    assert timing == pytest.approx({
        "inference_time_s": 0.4, "inference_time_p90_s": 0.45, "inference_time_iqr_s": 0.02,
        "inference_patterns_per_s": 200.0, "latency_s": 0.01,
    })  # fmt: skip
