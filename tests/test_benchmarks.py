"""The harness measures what it says: same function, fair turns, counted work, a table of it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import pytest
import torch

import benchmarks.__main__ as command
from benchmarks import baseline, growth, inference, machine, training
from benchmarks.backends import Tf32, set_tf32, tf32
from benchmarks.floor import floor, least_memory, work
from benchmarks.growth import ARCHITECTURES, STEP, Grown
from benchmarks.growth_plot import draw_growth, last_slope
from benchmarks.inference import one_pass
from benchmarks.iterative import converged
from benchmarks.machine import Rates
from benchmarks.measurement import Measurement, amount, compared
from benchmarks.plan import Network, Plan, noise
from benchmarks.report import COLUMNS
from benchmarks.training import measure_memory
from benchmarks.turns import Paused, in_turns
from fno_runner.capture import WARM_UP
from fno_runner.config import N, RunConfig
from fno_runner.physics import amplitude_mae
from fno_runner.train.network import build_model
from fno_runner.train.training import train
from tests.cuda_graphs import StandIn
from tests.test_overlapped import on_stand_in

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_baseline_computes_the_same(architecture: Literal["fno", "hybrid"]) -> None:
    """With our weights: the same patch, the same amplitude, the same gradients."""
    config = Network(architecture, 4, 24).config("float32")  # hybrid: more modes than pixels
    data = noise(3, 1)
    x, probe = (torch.from_numpy(a) for a in (data.train.amplitude[:, None], data.train.probe))
    batch = x, torch.zeros(len(x), 1, 2, 1), probe, torch.full((len(x), 1, 1, 1), 0.5)
    ours = build_model(config, data, CPU)
    plain = baseline.PlainReconstructor(config, probe, 0.5)
    baseline.copy_weights(ours.network, plain.network)
    with torch.inference_mode():
        expected = ours.forward_predict(*batch)
    patches = baseline.predict(plain, x, CPU, 2)
    assert (patches - expected).abs().max() < 1e-4 * expected.abs().max()
    gradients = []
    for predicted, model in ((ours(*batch), ours), (plain(x), plain)):
        torch.testing.assert_close(predicted, ours(*batch), rtol=1e-4, atol=1e-4)
        amplitude_mae(predicted, x).backward()
        gradients.append(dict(model.named_parameters())["network.lift.0.weight"].grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_sides_take_turns_and_keep_their_precision() -> None:
    seen: list[tuple[str, Tf32]] = []
    before, yes, no = tf32(), (True, True), (False, False)

    def side(name: str, wanted: Tf32) -> float:
        seen.append((name, tf32()))
        set_tf32(wanted)
        return float(len(seen))

    times = in_turns({"a": lambda: side("a", yes), "b": lambda: side("b", no)}, 2)
    assert "".join(name for name, _ in seen) == "ababab"
    assert [state for _, state in seen] == [before, before, yes, no, yes, no]
    assert times == {"a": [3, 5], "b": [4, 6]}  # the first turn is burn-in
    assert tf32() == before


def test_a_side_computes_in_the_precision_that_it_is_called_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In version 0.1 `float32` and `tf32` were one program, and both used TF32 in convolutions."""
    seen: dict[str, set[Tf32]] = {}
    train_side = training.training

    def noted(side: str, *arguments: Any) -> Any:
        def train(on_epoch: Any) -> None:
            def note(seconds: float) -> None:
                seen.setdefault(side, set()).add(tf32())
                on_epoch(seconds)

            train_side(side, *arguments)(note)

        return train

    def noting(side: str, one_pass: Callable[[], float]) -> Callable[[], float]:
        def timed() -> float:
            seconds = one_pass()
            seen.setdefault(side, set()).add(tf32())
            return seconds

        return timed

    network, plain = Network("fno", 2, 4, batch=2), (False, True)  # as PyTorch begins
    expected = {
        "baseline": {plain},
        "float32": {(False, False)},
        "tf32": {(True, True)},
        "bf16": {(False, False)},
    }
    set_tf32(plain)
    plan = Plan((network,), ("bf16",), turns=2, steps=2, patterns=4, slices=(4,))
    monkeypatch.setattr(training, "training", noted)
    training.epochs({side: network.config(side, epochs=99) for side in expected}, CPU, plan)
    assert seen == expected
    seen.clear()
    data = noise(1, 4)
    passes = {side: noting(side, one_pass(side, network, data, CPU, 4)) for side in expected}
    in_turns(passes, 2)
    assert seen == expected and tf32() == plain


def test_growth_and_inference_time_replays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a step is an epoch, too, as in a batch of 32 of 32 patterns."""
    gpu = StandIn(monkeypatch)
    monkeypatch.setattr(training, "train", partial(train, captured=True))
    monkeypatch.setattr(growth, "burn_in", lambda _: WARM_UP + 1)
    monkeypatch.setattr(inference, "make_predictor", on_stand_in)
    monkeypatch.setattr(growth, "measure_memory", lambda *_: [])
    monkeypatch.setattr(growth, "ARCHITECTURES", ("fno",))
    monkeypatch.setattr(growth, "_grown", lambda *_: None)
    ladder = growth.Ladder(Network("fno", 2, 4), 32, {"batch": (32,)}, turns=2)
    list(growth.measure_growth(CPU, Rates({"float32": 1e9}, 1e9), ladder))
    steps, validation, passes = gpu.replays
    assert steps == validation == 1 + 2  # the turns, and the last of the burn-in
    assert passes == 1 + 1 + 2  # the end of the warm-up, one turn of burn-in, the turns


def test_a_training_is_held_after_every_epoch_and_left_at_the_end() -> None:
    epochs: list[int] = []
    threads = threading.active_count()

    def train(on_epoch: object) -> None:
        assert callable(on_epoch)
        for epoch in range(10):
            epochs.append(epoch)
            on_epoch(0.25)

    with Paused(train) as held:
        assert epochs == []
        steps, whole = held.epoch()
        assert (epochs, steps) == ([0], 0.25) and whole > 0
        held.epoch()
    assert epochs == [0, 1] and threading.active_count() == threads

    def broken(_: object) -> None:
        raise ValueError("no data")

    with Paused(broken) as held, pytest.raises(ValueError, match="no data"):
        held.epoch()


def test_ratios_are_of_the_same_turn() -> None:
    """A machine that slows down meanwhile does not change what is said of the two."""
    slow, fast = compared("step", "fno", "s", {"baseline": [2, 20, 40], "bf16": [1, 10, 10]})
    assert (slow.ratio, fast.ratio, fast.value) == (1, 2, 10)


def test_counted_operations_and_bytes() -> None:
    network = Network("fno", 4, 6)
    of_one, of_two = (work(network.config("float32"), n, training=False) for n in (1, 2))
    image = 2 * N * N  # of a 1×1 convolution from one channel to one
    convolutions = image * (9 * (4 + 4 * 4 * (1 + 4 + 2)) + 4 * 4 + 4 * 2)
    counted = of_one.operations["float32"]
    assert convolutions < counted < 3 * convolutions  # the rest are the spectral layers
    assert of_two.operations["float32"] == 2 * counted
    activations = 4 * N * N * (4 * (2 + 4 * 2 + 1 + 2) + 2)
    assert of_two.bytes - of_one.bytes == 2 * activations
    step = work(network.config("float32"), 1, training=True)
    assert 2.5 * counted < step.operations["float32"] <= 3 * counted
    in_bf16 = work(network.config("bf16"), 1, training=True)
    assert in_bf16.operations.get("bf16", 0) > 0.5 * step.operations["float32"]
    assert in_bf16.bytes < step.bytes
    assert least_memory(network.config("float32"), 8) > 3 * least_memory(
        network.config("float32"), 1
    )


def test_the_floor_is_the_slower_of_computing_and_moving() -> None:
    done = work(Network("fno", 4, 6).config("float32"), 1, training=True)
    for operations, moved, bound in ((1.0, 1e30, "operations"), (1e30, 1.0, "bytes")):
        least = floor(done, Rates({"float32": operations}, moved))
        assert least.bound == bound
        assert least.seconds == (
            done.operations["float32"] if bound == "operations" else done.bytes
        )


def test_the_command_writes_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All sides, tiny: numbers that fit together, and the machine's name."""
    ours = ("float32", "bf16")
    tiny = Plan(
        (Network("hybrid", 2, 4, batch=2),), ours, turns=2, steps=2, patterns=4, slices=(2, 4)
    )
    monkeypatch.setattr(command, "plan", lambda device, quick: tiny)
    monkeypatch.setattr(machine, "TRIES_S", 0.01)
    options = ["--only", "step,inference", "--device", "cpu", "--output", str(tmp_path)]
    assert command.main(options) == 0
    printed = capsys.readouterr().out
    (table,), (text,) = tmp_path.glob("*.csv"), tmp_path.glob("*.md")
    assert table.name in printed and text.name in printed
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0])[: len(COLUMNS)] == COLUMNS and rows[0]["processor"]
    assert len(rows) == 4 * 3  # quantities, sides
    for row in rows:
        assert 0 < float(row["lowest"]) <= float(row["median"]) <= float(row["highest"])
        assert float(row["floor_share"]) == pytest.approx(
            float(row["floor_s"]) / float(row["median"]), rel=1e-3
        )
        assert float(row["ratio"]) == 1 or row["side"] != "baseline"
    steps = [float(row["median"]) for row in rows if row["quantity"] == "training step"]
    epochs = [float(row["median"]) for row in rows if row["quantity"].startswith("epoch")]
    assert all(epoch > 819 * step for step, epoch in zip(steps, epochs, strict=True))
    assert "| training step | hybrid 2/4 |" in text.read_text()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--only", "speed"], "'speed': known are step, inference,"),
        (["--device", "cuda"], "device=cuda: this machine has no CUDA device"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("this machine has one")
    assert command.main(options) in (2, 3)
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1


def test_growth_is_drawn_with_its_slopes(tmp_path: Path) -> None:
    grown = [
        Grown("width", at, Measurement(STEP, f"{name} {at}/12", "float32", "s", (at**2,)), at)
        for name in ARCHITECTURES
        for at in (8, 16, 32)
    ]
    draw_growth(grown, "a machine", tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert last_slope([8, 16, 32], [64, 256, 1024]) == pytest.approx(2)


def test_amounts_have_three_digits_and_a_unit() -> None:
    values = (0.4123, 0.00123, 5e-5, 12.345, 1591.2)
    assert [amount(v, "s") for v in values] == ["412 ms", "1.23 ms", "50 µs", "12.3 s", "1,591 s"]
    assert amount(4096.4, "MiB") == "4,096 MiB"


@pytest.mark.slow
def test_the_first_step_is_told_and_ends_the_run(tiny_config: RunConfig, tmp_path: Path) -> None:
    options = tiny_config.model_dump(exclude_unset=True)
    start = monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.first_step"),
            *(f"--{key}={value}" for key, value in options.items()),
        ],
        cwd=ROOT,
        env={**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])["first_step_at"]
    assert 0 < told - start < monotonic() - start
    assert not list(Path(tiny_config.output_dir).glob("runs/*"))  # it was left, not finished


@pytest.mark.slow
def test_memory_grows_with_the_batch() -> None:
    """In processes of their own; a batch of 32 keeps 32 patterns' activations."""
    small, large = (
        measure_memory(Network("fno", 16, 4, batch), CPU, ["float32"])[0].value for batch in (2, 32)
    )
    assert large - small > 16 * 16 * N * N * 4 * 16 / 2**20


def test_a_fit_has_converged_where_more_passes_bring_nothing() -> None:
    assert converged({20: 0.0845, 80: 0.0772, 320: 0.07702, 1280: 0.07697}) == 320
    assert converged({20: 0.0845, 80: 0.0772, 320: 0.0765}) == 320
