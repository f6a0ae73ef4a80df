"""What only a GPU does in training: weights in a row, recorded steps, several networks at once."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch

from fno_runner.capture import WARM_UP, Captured
from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset
from fno_runner.models.blocks import FourierBlock
from fno_runner.train import checkpoint, rates, training
from fno_runner.train.checkpoint import Checkpoints
from fno_runner.train.network import Network
from fno_runner.train.progress import Epoch
from fno_runner.train.streams import OnStreams
from fno_runner.train.training import Trained, train
from tests.cuda_graphs import StandIn
from tests.test_replicates import poison

CPU = torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(monkeypatch)


@pytest.fixture
def saved_at_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "INTERVAL_S", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", float("inf"))


def changed(config: RunConfig, **changes: object) -> RunConfig:
    return RunConfig.model_validate({**config.model_dump(), **changes})


def assert_equal(first: Trained, other: Trained) -> None:
    """Bit for bit."""
    for ours, theirs in zip(first.history, other.history, strict=True):
        for key in ("epoch", "train_loss", "val_loss", "learning_rate"):
            assert repr(ours[key]) == repr(theirs[key]), key
    weights = other.model.state_dict()
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, weights[name]), name


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
def test_a_captured_training_is_the_plain_one(
    architecture: str,
    precision: str,
    tiny: Dataset,
    tiny_config: RunConfig,
    gpu: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """91 patterns are five steps of 16 and one of 11: both sizes are replayed.

    Of the hybrid's two levels each has its own rate.
    """
    how = {"architecture": architecture, "precision": precision, "rate_scaling": "fan_in"}
    monkeypatch.setattr(rates, "FULL_RATE_CHANNELS", 4)
    config = changed(tiny_config, epochs=4, grad_clip=0.02, **how)
    (plain,) = train(config, tiny, CPU)
    monkeypatch.setattr(FourierBlock, "forward", FourierBlock.fused)
    (captured,) = train(config, tiny, CPU, captured=True)
    tolerance = 1e-4 if precision == "float32" else 1e-3
    for ours, theirs in zip(captured.history, plain.history, strict=True):
        for key in ("train_loss", "val_loss", "learning_rate"):
            assert ours[key] == pytest.approx(theirs[key], rel=tolerance), key
    assert captured.captured is True and plain.captured is None
    # Steps of 16, the last ones of an epoch, the validation.
    assert gpu.replays == [4 * 5 - WARM_UP, 4 - WARM_UP, 4 - WARM_UP]


def test_networks_at_once_are_each_what_it_is_alone(
    tiny: Dataset, tiny_config: RunConfig, gpu: StandIn
) -> None:
    """Bit for bit; and all of them are one graph, on a stream each."""
    config = changed(tiny_config, replicates=3, seed=5, epochs=3, train_patterns=48, batch_size=8)
    together = train(config, tiny, CPU, captured=True)
    assert gpu.streams_joined and gpu.replays == [3 * 5 - WARM_UP]
    assert [trained.at_once for trained in together] == [3, 3, 3]
    for seed, trained in zip((5, 6, 7), together, strict=True):
        (alone,) = train(changed(config, seed=seed, replicates=1), tiny, CPU, captured=True)
        assert_equal(trained, alone)
        assert trained.scale == alone.scale
    assert len({trained.history[0]["val_loss"] for trained in together}) == 3


def test_a_network_that_diverges_leaves_the_others_alone(
    tiny: Dataset, tiny_config: RunConfig, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = changed(tiny_config, replicates=3, train_patterns=48, batch_size=8)
    whole = train(config, tiny, CPU, captured=True)
    poison(monkeypatch, seed=1)
    mixed = train(config, tiny, CPU, captured=True)
    assert [trained.error is None for trained in mixed] == [True, False, True]
    assert "epoch 1: training loss nan" in str(mixed[1].error) and len(mixed[1].history) == 1
    for k in (0, 2):
        assert_equal(mixed[k], whole[k])


@pytest.mark.usefixtures("saved_at_each_epoch")
def test_a_captured_training_goes_on_from_its_checkpoints(
    tiny: Dataset, tiny_config: RunConfig, tmp_path: Path, gpu: StandIn
) -> None:
    """Also where only some networks' files were written before the process was killed."""
    config = changed(tiny_config, replicates=2, epochs=4, train_patterns=48, batch_size=8)
    whole = train(config, tiny, CPU, captured=True)

    def stop(done: int, steps: int, loss: float) -> None:
        if done >= 2 * 15:  # of 6 steps an epoch, of both networks
            raise SystemExit(143)

    left = tmp_path / "left"
    with pytest.raises(SystemExit):
        train(config, tiny, CPU, captured=True, on_step=stop, checkpoints=Checkpoints(left, "a"))
    for written in ({0, 1}, {0}, {1}):
        places = Checkpoints(tmp_path / str(written), "a")
        shutil.copytree(left, places.folder)
        for seed in {0, 1} - written:
            (places.folder / f"cpu-seed-{seed}.safetensors").unlink()
        resumed = train(config, tiny, CPU, captured=True, checkpoints=places)
        for ours, theirs in zip(resumed, whole, strict=True):
            assert_equal(ours, theirs)
        assert [trained.resumed for trained in resumed] == [3 * (k in written) for k in range(2)]


def test_where_no_graph_can_be_made_the_plain_step_goes_on(
    tiny: Dataset, tiny_config: RunConfig, gpu: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    config = changed(tiny_config, replicates=2, train_patterns=48, batch_size=8)
    whole = train(config, tiny, CPU, captured=True)
    gpu.fail(RuntimeError("CUDA error: operation not permitted when stream is capturing"))
    with caplog.at_level(logging.WARNING):
        plain = train(config, tiny, CPU, captured=True)
    assert caplog.text.count("no CUDA graph of it could be made") == 1
    assert "operation not permitted" in caplog.text
    for ours, theirs in zip(plain, whole, strict=True):
        assert ours.captured is False
        assert_equal(ours, theirs)
    assert gpu.underway == set() and len(gpu.released) == 1, "the allocator knows that it is over"


@pytest.mark.parametrize(
    ("most", "at_once"), [(5, [5, 5, 5, 5, 5]), (4, [2, 2, 2, 2, 1]), (1, [1, 1, 1, 1, 1])]
)
def test_where_memory_does_not_suffice_fewer_networks_train_at_once(
    most: int,
    at_once: list[int],
    tiny: Dataset,
    tiny_config: RunConfig,
    gpu: StandIn,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = changed(tiny_config, replicates=5, epochs=1, train_patterns=32, batch_size=4, width=2)
    whole = train(config, tiny, CPU, captured=True)

    class Limited(OnStreams):
        def __call__(self, rows: torch.Tensor) -> torch.Tensor:
            if len(rows) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().__call__(rows)

    monkeypatch.setattr(training, "OnStreams", Limited)
    limited = train(config, tiny, CPU, captured=True)
    assert [trained.at_once for trained in limited] == at_once
    assert ("networks at once from here on" in caplog.text) == (most < 5)
    for ours, theirs in zip(limited, whole, strict=True):
        assert_equal(ours, theirs)


def test_memory_that_runs_out_on_a_stream_leaves_the_recording_to_be_ended(
    tiny: Dataset,
    tiny_config: RunConfig,
    gpu: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the recording itself, in the second of three networks: streams that have not met end none.

    A recording that has not ended keeps its memory, so that none would be free for fewer networks.
    """
    config = changed(tiny_config, replicates=3, epochs=1, train_patterns=48, batch_size=8)
    whole = train(config, tiny, CPU, captured=True)
    calls, step = [0], Network.step

    def full(network: Network, rows: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 3 * WARM_UP + 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return step(network, rows)

    monkeypatch.setattr(Network, "step", full)
    limited = train(config, tiny, CPU, captured=True)
    assert [(trained.at_once, trained.captured) for trained in limited] == [(1, True)] * 3
    assert gpu.underway == set() and gpu.released == []
    for ours, theirs in zip(limited, whole, strict=True):
        assert_equal(ours, theirs)


@pytest.mark.usefixtures("saved_at_each_epoch")
@pytest.mark.parametrize("earlier", [0, 1])
def test_checkpoints_of_this_process_are_not_an_earlier_one_s(
    earlier: int,
    tiny: Dataset,
    tiny_config: RunConfig,
    tmp_path: Path,
    gpu: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory runs out in the third epoch of two networks, some of which another process trained."""
    config = changed(tiny_config, replicates=2, epochs=3, train_patterns=48, batch_size=8)
    whole = train(config, tiny, CPU, captured=True)
    places = Checkpoints(tmp_path, "a")

    def stop(entry: Epoch) -> None:
        if entry["epoch"] == 1 + earlier:
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        train(config, tiny, CPU, captured=True, on_epoch=stop, checkpoints=places)
    heard: list[object] = []

    class Limited(OnStreams):
        def __call__(self, rows: torch.Tensor) -> torch.Tensor:
            if len(heard) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().__call__(rows)

    def hear(entry: Epoch) -> None:
        heard.append(entry["epoch"])

    monkeypatch.setattr(training, "OnStreams", Limited)
    limited = train(config, tiny, CPU, captured=True, on_epoch=hear, checkpoints=places)
    assert heard == [1, 2, 3]
    assert [(trained.at_once, trained.resumed) for trained in limited] == [(1, earlier)] * 2
    for ours, theirs in zip(limited, whole, strict=True):
        assert_equal(ours, theirs)


def test_memory_that_suffices_for_no_graph_of_one_network_costs_the_graph_only(
    tiny: Dataset, tiny_config: RunConfig, gpu: StandIn
) -> None:
    config = changed(tiny_config, epochs=1, train_patterns=48, batch_size=8)
    gpu.fail(torch.OutOfMemoryError("CUDA out of memory"))
    (alone,) = train(config, tiny, CPU, captured=True)
    assert alone.captured is False and len(alone.history) == 1


def test_a_recording_reads_its_inputs_and_keeps_what_is_outside(gpu: StandIn) -> None:
    """The stand-in itself: as a graph, it sees new inputs and no number of the host again."""
    of_the_host, state = 1.0, torch.zeros(2)

    def work(x: torch.Tensor) -> torch.Tensor:
        state.add_(x)
        return state * of_the_host

    captured = Captured(work)
    for call in range(WARM_UP + 3):
        of_the_host = 10.0**call
        result = captured(torch.ones(2)).clone()
        expected = (call + 1) * 10.0 ** min(call, WARM_UP)
        assert result.tolist() == [expected, expected]
    assert gpu.replays == [3] and captured.captured is True
