"""Inference on a card: the CPU's answers, in slices that fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset
from fno_runner.reconstruct.inference import predict
from fno_runner.reconstructor import Reconstructor
from fno_runner.score.floors import iterate
from fno_runner.score.timing import timed_predict
from tests.gpu.conftest import given_half

CPU = torch.device("cpu")
NEAR = {"float32": 1e-4, "tf32": 5e-3, "bf16": 3e-2}
"""How far patches may be from the CPU's in float32, of their norm."""


def make_model(precision: str, width: int = 16) -> Reconstructor:
    torch.manual_seed(0)
    return Reconstructor(
        RunConfig.model_validate({"width": width, "modes": 12, "precision": precision})
    )


@pytest.mark.parametrize("precision", list(NEAR))
def test_a_card_predicts_what_a_cpu_does(
    precision: str, tiny: Dataset, device: torch.device
) -> None:
    """324 patterns in slices of 50 are six and one of 24; four passes, so that all are replayed."""
    expected = predict(make_model("float32"), tiny.test, 0.5, CPU, 50)
    model = make_model(precision).to(device)
    got, timing = timed_predict(model, tiny.test, 0.5, device, 50, ((4, 0.0),))
    assert np.linalg.norm(got - expected) < NEAR[precision] * np.linalg.norm(expected)
    assert timing["infer_batch_size"] == 50


def test_floors_are_what_a_cpu_computes(tiny: Dataset, device: torch.device) -> None:
    expected = iterate(tiny.test, 20, subpixel=False)
    got = iterate(tiny.test, 20, subpixel=False, device=device)
    assert np.linalg.norm(got - expected) < 1e-4 * np.linalg.norm(expected)


def test_slices_are_halved_until_they_fit(tiny: Dataset, card: torch.device) -> None:
    model = make_model("float32", width=64).to(card)

    def whole() -> np.ndarray:
        return predict(model, tiny.test, 0.5, card, 324)

    whole()
    expected = given_half(whole, card)
    got, timing = timed_predict(model, tiny.test, 0.5, card, 324, ((2, 0.0),))
    assert timing["infer_batch_size"] < 324, torch.cuda.memory_summary(card, abbreviated=True)
    assert timing["infer_batch_size_asked"] == 324
    assert np.linalg.norm(got - expected) < 1e-4 * np.linalg.norm(expected)
