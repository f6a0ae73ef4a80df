"""An interrupted training goes on from its checkpoint and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset
from fno_runner.identity import run_id
from fno_runner.runner import Outcome, run
from fno_runner.train import checkpoint
from fno_runner.train.checkpoint import Checkpoints, held_checkpoints
from fno_runner.train.progress import Epoch
from fno_runner.train.training import Trained, train
from tests import faults

CPU = torch.device("cpu")
EXAMPLES = 1000 if faults.EXHAUSTIVE else 25


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "INTERVAL_S", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", float("inf"))


def changed(config: RunConfig, **changes: object) -> RunConfig:
    return RunConfig.model_validate({**config.model_dump(), **changes})


@pytest.fixture
def least(tiny_config: RunConfig) -> RunConfig:
    """Two epochs of two steps of the smallest network."""
    small = {"width": 1, "modes": 2, "blocks": 1, "cnn_blocks": 0}
    return changed(tiny_config, train_patterns=16, batch_size=8, **small)


@pytest.fixture(scope="session")
def uninterrupted() -> dict[str, Outcome]:
    """What a run is compared with, made once."""
    return {}


def stop_at(step: int) -> Callable[[int, int, float], None]:
    """What a signal does, at a step of our choice."""

    def on_step(done: int, steps: int, loss: float) -> None:
        if done >= step:
            raise SystemExit(143)

    return on_step


def assert_same(resumed: Trained, whole: Trained) -> None:
    """Bit for bit, but for the times."""
    assert len(resumed.history) == len(whole.history)
    for line, expected in zip(resumed.history, whole.history, strict=True):
        for key in ("epoch", "train_loss", "val_loss", "learning_rate"):
            assert repr(line[key]) == repr(expected[key]), key
    assert str(resumed.error) == str(whole.error)
    weights = resumed.model.state_dict()
    for name, weight in whole.model.state_dict().items():
        assert torch.allclose(weights[name], weight, rtol=0, atol=0, equal_nan=True), name


@pytest.mark.parametrize(
    ("changes", "stop", "resumed_epochs"),
    [
        ({"architecture": "fno"}, 20, 3),
        ({"architecture": "hybrid", "learning_rate": 0.05}, 10, 1),
        # In the second seed: the first is not trained again.
        ({"replicates": 2}, 34, 4 + 1),
    ],
    ids=["fno", "hybrid", "one seed after the other"],
)
def test_what_was_interrupted_ends_as_if_it_had_not_been(
    changes: dict[str, object],
    stop: int,
    resumed_epochs: int,
    tiny: Dataset,
    tiny_config: RunConfig,
    tmp_path: Path,
) -> None:
    config = changed(tiny_config, epochs=4, **changes)  # of 6 steps
    whole = train(config, tiny, CPU)
    places = Checkpoints(tmp_path, "a")
    with pytest.raises(SystemExit):
        train(config, tiny, CPU, on_step=stop_at(stop), checkpoints=places)
    heard: list[object] = []
    resumed = train(
        config,
        tiny,
        CPU,
        on_epoch=lambda epoch: heard.append(epoch["epoch"]),
        checkpoints=places,
    )
    assert heard == [1, 2, 3, 4]
    for trained, expected in zip(resumed, whole, strict=True):
        assert_same(trained, expected)
    assert sum(trained.resumed for trained in resumed) == resumed_epochs


def test_a_seed_that_has_diverged_stays_so(
    tiny: Dataset, least: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.test_replicates import poison

    poison(monkeypatch, seed=0)
    config = changed(least, epochs=6, replicates=2)
    whole = train(config, tiny, CPU)
    places = Checkpoints(tmp_path, "a")
    with pytest.raises(SystemExit):
        train(config, tiny, CPU, on_step=stop_at(12 + 10), checkpoints=places)
    resumed = train(config, tiny, CPU, checkpoints=places)
    for trained, expected in zip(resumed, whole, strict=True):
        assert_same(trained, expected)
    assert [network.resumed for network in resumed] == [1, 4]
    assert whole[0].error is not None


# --- real processes and signals -------------------------------------------------------------------

EVERY_EPOCH = """
import sys
from fno_runner.train import checkpoint
checkpoint.INTERVAL_S, checkpoint.SHARE = 0.0, float("inf")
from {module} import main
sys.exit(main())
"""


def start(module: str, config: RunConfig) -> subprocess.Popen[str]:
    options = [f"--{k}={v}" for k, v in config.model_dump(exclude_none=True).items()]
    return subprocess.Popen(
        [sys.executable, "-c", EVERY_EPOCH.format(module=module), *options],
        env={**os.environ, "WANDB_MODE": "disabled"},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("fno_runner.__main__", signal.SIGTERM),
        pytest.param("fno_runner.__main__", signal.SIGINT, marks=pytest.mark.faults),
        pytest.param("fno_runner.__main__", signal.SIGUSR1, marks=pytest.mark.faults),
        ("agent.run", signal.SIGUSR1),
        pytest.param("agent.run", signal.SIGTERM, marks=pytest.mark.faults),
        pytest.param("agent.run", signal.SIGINT, marks=pytest.mark.faults),
        pytest.param("agent.run", signal.SIGKILL, marks=pytest.mark.faults),
    ],
)
def test_a_signal_in_an_epoch_costs_that_epoch_only(
    module: str,
    number: signal.Signals,
    least: RunConfig,
    uninterrupted: dict[str, Outcome],
) -> None:
    config = changed(least, epochs=60)
    if "whole" not in uninterrupted:
        uninterrupted["whole"] = run(changed(config, output_dir=f"{config.output_dir}-whole"))
    whole = uninterrupted["whole"].result
    with start(module, config) as process:
        assert process.stdout is not None
        while "epoch 3" not in process.stdout.readline():
            pass
        process.send_signal(number)
        faults.count(f"{number.name} in an epoch")
        process.stdout.read()
        status = process.wait(timeout=30)
    assert status == (-number if number == signal.SIGKILL else 128 + number)
    study = Path(config.output_dir)
    assert not list(study.rglob("result.json"))
    assert list((study / "checkpoints" / run_id(config)).glob("*.safetensors"))
    outcome = run(config)
    resumed = outcome.result.provenance["resumed_epochs"]
    assert isinstance(resumed, int) and 2 <= resumed < 60
    assert outcome.result.metrics == whole.metrics
    losses = [
        [(epoch["train_loss"], epoch["val_loss"]) for epoch in result.history]
        for result in (outcome.result, whole)
    ]
    assert losses[0] == losses[1]
    weights = [
        load_file(folder / "model.safetensors")
        for folder in (outcome.folder, uninterrupted["whole"].folder)
    ]
    assert all((weights[0][name] == weight).all() for name, weight in weights[1].items())
    # Nothing is left that somebody might go on from.
    assert not (study / "checkpoints" / run_id(config)).exists()
    if number != signal.SIGKILL:
        assert not list(study.rglob("*.partial"))


# --- what is not believed -------------------------------------------------------------------------


@pytest.fixture
def interrupted(tiny: Dataset, least: RunConfig, tmp_path: Path) -> Path:
    """A checkpoint after the first of two epochs."""

    def stop(epoch: Epoch) -> None:
        if epoch["epoch"] == 2:
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        train(least, tiny, CPU, on_epoch=stop, checkpoints=Checkpoints(tmp_path, "a"))
    (path,) = tmp_path.glob("*.safetensors")
    return path


def rewrite_facts(path: Path, **changes: object) -> None:
    """Change what the checkpoint says beside its tensors."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    facts = json.loads(header["__metadata__"]["facts"]) | changes
    header["__metadata__"]["facts"] = json.dumps(facts)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "empty": ("empty", lambda path: path.write_bytes(b"")),
    "cut": ("torn", lambda path: path.write_bytes(path.read_bytes()[:-1])),
    "half": ("torn", lambda path: path.write_bytes(path.read_bytes()[:5000])),
    "a bit": ("torn", flip),
    "text": ("torn", lambda path: path.write_text("hello")),
    "a header of 2^60 bytes": ("torn", lambda path: path.write_bytes(b"\0" * 7 + b"\x10")),
    "of a later version": ("future", lambda path: rewrite_facts(path, schema_version=3)),
    "of version 0.1": ("foreign", lambda path: rewrite_facts(path, schema_version=1)),
    "of other code": ("foreign", lambda path: rewrite_facts(path, code="0123456789ab")),
    "of other data": ("foreign", lambda path: rewrite_facts(path, identity="b")),
    "with other keys": ("foreign", lambda path: rewrite_facts(path, trust="me")),
    "an epoch further": ("torn", lambda path: rewrite_facts(path, epoch=2)),
    "too large": ("foreign", lambda path: os.truncate(path, 2**40)),
    "a folder": ("foreign", become_folder),
}


@pytest.mark.parametrize(("kind", "spoil"), SPOILED.values(), ids=list(SPOILED))
def test_an_unbelievable_checkpoint_is_kept_aside_and_training_starts_over(
    kind: str,
    spoil: Callable[[Path], object],
    interrupted: Path,
    tiny: Dataset,
    least: RunConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spoil(interrupted)
    places = Checkpoints(interrupted.parent, "a")
    (again,) = train(least, tiny, CPU, checkpoints=places)
    assert again.resumed == 0 and len(again.history) == 2
    faults.count(f"checkpoints {kind}")
    assert f"kept as {interrupted}.{kind}-1" in caplog.text
    assert Path(f"{interrupted}.{kind}-1").exists()
    (interrupted.parent / f".{interrupted.name}.begun").write_text("by a killed writer")
    places.remove()
    assert [path.name for path in interrupted.parent.iterdir()] == [f"{interrupted.name}.{kind}-1"]


def test_a_checkpoint_of_another_network_is_foreign(
    interrupted: Path, tiny: Dataset, least: RunConfig
) -> None:
    places = Checkpoints(interrupted.parent, "a")
    (other,) = train(changed(least, width=2), tiny, CPU, checkpoints=places)
    assert other.resumed == 0
    assert Path(f"{interrupted}.foreign-1").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=EXAMPLES)
@given(data=st.data())
def test_no_bytes_escape_as_another_error(
    data: st.DataObject, interrupted: Path, tiny: Dataset, least: RunConfig
) -> None:
    """Any change of any bytes, and any bytes at all: the training starts over or goes on right."""
    whole = interrupted.read_bytes()
    try:
        kind = data.draw(st.sampled_from(["flip", "cut", "any"]))
        if kind == "any":
            spoiled = data.draw(st.binary(max_size=300))
        elif kind == "cut":
            spoiled = whole[: data.draw(st.integers(0, len(whole) - 1))]
        else:
            mutable = bytearray(whole)
            # Most of it is weights; its header is what is read with most effort.
            place = data.draw(st.integers(0, 3000) | st.integers(0, len(whole) - 1))
            mutable[place] ^= data.draw(st.integers(1, 255))
            spoiled = bytes(mutable)
        interrupted.write_bytes(spoiled)
        config = changed(least, epochs=1)
        (again,) = train(config, tiny, CPU, checkpoints=Checkpoints(interrupted.parent, "a"))
        assert again.resumed == 0
        faults.fuzzed["checkpoints"] += 1
    finally:
        interrupted.write_bytes(whole)
        for aside in interrupted.parent.glob("*.safetensors.*"):
            aside.unlink()


# --- the folder -----------------------------------------------------------------------------------


def test_two_processes_never_share_checkpoints(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with held_checkpoints(tmp_path, "0" * 12, "d") as mine:
        assert mine is not None
        with held_checkpoints(tmp_path, "0" * 12, "d") as yours:
            assert yours is None
        assert "is in use" in caplog.text
    with held_checkpoints(tmp_path, "0" * 12, "d") as later:
        assert later is not None
        later.remove()
    assert not list((tmp_path / "checkpoints").iterdir())


def test_checkpoints_that_cannot_be_written_do_not_cost_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with held_checkpoints(tmp_path, "0" * 12, "d") as none:
        assert none is None
    assert "this run leaves no checkpoints" in caplog.text


def test_a_disk_that_refuses_is_named_once_and_training_goes_on(
    tiny: Dataset, least: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    (trained,) = train(least, tiny, CPU, checkpoints=Checkpoints(tmp_path / "file", "a"))
    assert len(trained.history) == 2
    assert caplog.text.count("goes on without checkpoints") == 1


def test_writing_takes_a_hundredth_of_the_time_at_most(
    tiny: Dataset, least: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that takes a second, with epochs of ten seconds, ten epochs share a checkpoint."""
    clock = [0.0]
    written: list[float] = []

    def slow_write(path: Path, write: object) -> None:
        clock[0] += 1.0
        written.append(clock[0])

    monkeypatch.setattr(checkpoint, "monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoint, "write_atomically", slow_write)
    monkeypatch.setattr(checkpoint, "INTERVAL_S", 30.0)
    monkeypatch.setattr(checkpoint, "SHARE", 0.01)

    def ten_seconds(_: object) -> None:
        clock[0] += 10.0

    config = changed(least, epochs=25)
    train(config, tiny, CPU, on_epoch=ten_seconds, checkpoints=Checkpoints(tmp_path, "a"))
    assert written == [31.0, 132.0, 233.0, 254.0]  # and one at the end


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from fno_runner.train.checkpoint import held_checkpoints\n"
        "with held_checkpoints(Path(sys.argv[1]), '0' * 12, 'd') as mine:\n"
        "    assert mine is not None; os.kill(os.getpid(), 9)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert died.returncode == -9
    with FileLock(tmp_path / "checkpoints" / ("0" * 12) / ".lock", timeout=0):
        pass
    with held_checkpoints(tmp_path, "0" * 12, "d") as mine:
        assert mine is not None
