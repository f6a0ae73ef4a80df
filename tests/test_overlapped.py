"""Inference as a GPU does it: slices in flight, buffers that are used again, one replayed graph."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fno_runner.capture import WARM_UP
from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset, Patterns
from fno_runner.device import allow_tf32
from fno_runner.errors import DivergedError
from fno_runner.reconstruct import inference, overlapped
from fno_runner.reconstruct.inference import predict
from fno_runner.reconstruct.overlapped import OverlappedPredictor
from fno_runner.reconstructor import Reconstructor
from fno_runner.score import timing
from fno_runner.score.timing import timed_predict
from fno_runner.train.training import train
from tests.cuda_graphs import StandIn

CPU = torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(monkeypatch)


def make_model(precision: str = "float32", **options: Any) -> Reconstructor:
    torch.manual_seed(0)
    config = RunConfig.model_validate({"width": 4, "modes": 6, "blocks": 2, "precision": precision})
    return Reconstructor(config, **options)


def overlapping(model: Reconstructor, patterns: Patterns, size: int) -> OverlappedPredictor:
    return OverlappedPredictor(model, patterns.probe, 0.5, size)


def on_stand_in(
    model: Reconstructor, probe: Any, scale: float, _: object, size: int
) -> OverlappedPredictor:
    """As `make_predictor`, whatever the device."""
    return OverlappedPredictor(model, probe, scale, size)


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("slice_size", [1, 4, 7])
def test_slices_in_flight_land_in_their_own_rows(
    slots: int, slice_size: int, tiny: Dataset, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain and replayed, whole slices and the last one: 7 patterns in slices of 4 are 4 and 3."""
    monkeypatch.setattr(overlapped, "SLOTS", slots)
    model, few = make_model(subpixel=True), tiny.test.take(np.arange(7))
    few.positions[:] += np.linspace(0, 0.4, 7, dtype=np.float32)[:, None]
    expected = predict(model, few, 0.5, CPU, slice_size)
    predictor = overlapping(model, few, slice_size)
    for _ in range(5):
        np.testing.assert_allclose(predictor(few), expected, rtol=1e-5, atol=1e-6)
        few.amplitude[:] *= 1.0
    assert len(gpu.replays) == (2 if 7 % slice_size else 1)
    other = tiny.test.take(np.arange(7, 14))
    other.positions[:] = few.positions
    np.testing.assert_allclose(
        predictor(other), predict(model, other, 0.5, CPU, slice_size), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("bad", [0, 3, 6])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_none_is_found_in_whatever_slice(
    bad: int, value: float, tiny: Dataset, gpu: StandIn
) -> None:
    model, few = make_model(), tiny.test.take(np.arange(7))
    predictor = overlapping(model, few, 2)
    good = predictor(few)
    spoiled = few.take(np.arange(7))
    spoiled.amplitude[bad] = value
    for _ in range(4):
        with pytest.raises(DivergedError, match="not finite"):
            predictor(spoiled)
        np.testing.assert_array_equal(predictor(few), good)


def test_a_pass_that_failed_leaves_nothing_in_flight(
    tiny: Dataset, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, few = make_model(), tiny.test.take(np.arange(7))
    predictor = overlapping(model, few, 2)
    expected = predict(model, few, 0.5, CPU, 2)
    forward, calls = model.forward_predict, []

    def full(*args: Any) -> Tensor:
        calls.append(args)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args)

    monkeypatch.setattr(model, "forward_predict", full)
    with pytest.raises(torch.OutOfMemoryError):
        predictor(few)
    np.testing.assert_allclose(
        predictor(few.take(np.arange(3))), expected[:3], rtol=1e-5, atol=1e-6
    )


def test_a_predictor_that_nobody_needs_is_gone_at_once(tiny: Dataset, gpu: StandIn) -> None:
    """With its graphs: a run makes one for each set of patterns, beside others on the card."""
    predictor = overlapping(make_model(), tiny.test, 4)
    left = weakref.ref(predictor)
    gc.disable()
    try:
        for _ in range(WARM_UP + 2):
            predictor(tiny.test.take(np.arange(4)))
        del predictor
        assert gpu.replays and left() is None
    finally:
        gc.enable()


def test_bf16_is_cast_once_and_is_autocast_s(tiny: Dataset, gpu: StandIn) -> None:
    model, few = make_model("bf16"), tiny.test.take(np.arange(6))
    predictor = overlapping(model, few, 3)
    np.testing.assert_array_equal(predictor(few), predict(model, few, 0.5, CPU, 3))
    assert next(model.parameters()).dtype == torch.float32


class Whole(TorchDispatchMode):
    """Refuses what a GPU refuses: to pin, or to copy on its own, a tensor that overlaps itself."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.copies = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        name = func.__name__.split(".")[0]
        is_pinned = name in ("_pin_memory", "pin_memory")
        if is_pinned or (name == "copy_" and args[2:] == (True,)):
            self.copies += 1
            for tensor in tree_leaves(args):
                if isinstance(tensor, Tensor) and torch._debug_has_internal_overlap(tensor) == 1:
                    raise AssertionError(f"{name} of a tensor of strides {tensor.stride()}")
            if is_pinned:
                return args[0].clone()
        return func(*args, **(kwargs or {}))


def test_what_is_pinned_or_sent_does_not_overlap_itself(tiny: Dataset, gpu: StandIn) -> None:
    """As the factor of version 0.1 did, which one number stood for: every run on a GPU failed."""
    model, few = make_model(), tiny.test.take(np.arange(7))
    with Whole() as whole:
        overlapping(model, few, 4)(few)
    assert whole.copies == 2 * 2
    with pytest.raises(AssertionError, match="of strides"), Whole():
        torch.ones(1, 1, 1, 1).expand(4, 1, 1, 1).pin_memory()


def test_a_gpu_s_own_time_is_recorded_beside_the_pass(
    tiny: Dataset, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine slices of a millisecond each. On a CPU there is no such number."""
    model, some = make_model(), tiny.test.take(np.arange(33))
    assert "inference_device_s" not in timed_predict(model, some, 0.5, CPU, 4, ((2, 0.0),))[1]

    monkeypatch.setattr(timing, "make_predictor", on_stand_in)
    patches, taken = timed_predict(model, some, 0.5, CPU, 4, ((2, 0.0),))
    np.testing.assert_allclose(patches, predict(model, some, 0.5, CPU, 4), rtol=1e-5, atol=1e-6)
    assert taken["inference_device_s"] == pytest.approx(9e-3)
    # All graphs were recorded before the clock started: of 4, of the last one, of one alone.
    assert gpu.replays == [1 + 2 * 8, 1 + 2 * 1, 1 + 2 * 1]


@pytest.mark.parametrize(
    ("precision", "is_allowed"), [("float32", False), ("tf32", True), ("bf16", False)]
)
def test_the_libraries_are_in_the_precision_that_was_asked_for(
    precision: str, is_allowed: bool, tiny: Dataset, tiny_config: RunConfig
) -> None:
    """TF32 is a state of the whole process: whoever trains or predicts brings it about."""
    backends: Any = torch.backends
    libraries = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    model, few = make_model(precision), tiny.test.take(np.arange(2))
    config = tiny_config.model_copy(update={"precision": precision, "epochs": 1})
    for work in (
        lambda: inference.make_predictor(model, few.probe, 0.5, CPU, 2),
        lambda: train(config, tiny, CPU),
    ):
        allow_tf32(not is_allowed)
        work()
        assert [library.fp32_precision == "tf32" for library in libraries] == 3 * [is_allowed]
    allow_tf32(False)
