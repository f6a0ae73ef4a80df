"""Full, read-only and vanished disks; no memory; deaths; numbers that are none."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agent.export import export
from agent.study.records import read_records
from fno_runner import runner
from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset
from fno_runner.data.npz import write_npz
from fno_runner.errors import MachineError, UserError
from fno_runner.files import write_text_atomically
from fno_runner.physics import LOSSES
from fno_runner.reconstructor import Reconstructor
from fno_runner.result import Metrics
from fno_runner.runner import run
from fno_runner.score import evaluation
from fno_runner.score.metrics import score_each
from fno_runner.train import network
from tests import faults
from tests.bench import Bench


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def fill(place: Path) -> None:
    with (place / "filler").open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(4096))


def test_a_full_disk_leaves_no_half_written_record(small_disk: Path) -> None:
    path = small_disk / "result.json"
    write_text_atomically(path, "whole")
    fill(small_disk)
    with pytest.raises(MachineError, match="No space left"):
        write_text_atomically(path, "x" * 100_000)
    assert path.read_text() == "whole"
    assert sorted(p.name for p in small_disk.iterdir()) == ["filler", "result.json"]
    faults.count("disks filled")


@pytest.mark.faults
def test_a_disk_that_fills_in_a_study_ends_it_with_one_line_and_nothing_is_lost(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(small_disk, monkeypatch)
    assert bench.run("--limit=2") == 0
    fill(small_disk)
    driver = bench.start()
    output = driver.communicate(timeout=60)[0]
    assert driver.returncode == 3, output
    assert "No space left" in output and "Traceback" not in output
    before = bench.statuses()
    assert {w for w, status in before.items() if status == "finished"} >= {8, 16}
    assert read_records(bench.study).rejected == []
    (small_disk / "filler").unlink()
    assert bench.run("--retry-failed") == 0
    assert set(bench.statuses().values()) == {"finished"} and len(bench.statuses()) == 4
    faults.count("disks filled")


def test_a_disk_that_fills_in_a_run_ends_it_without_a_record(
    tiny_config: RunConfig, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any file that cannot be written, of the point's own: the machine is unfit, not the point."""

    def full(*_: object) -> None:
        raise MachineError("cannot write recon.npz: No space left on device")

    monkeypatch.setattr(runner, "write_npz", full)
    with pytest.raises(MachineError, match="No space left"):
        run(tiny_config.model_copy(update={"epochs": 1}), tiny)
    study = Path(tiny_config.output_dir)
    assert not list(study.rglob("result.json")) and not list(study.rglob("*.partial"))
    # The training itself is kept, for when there is room again.
    assert list((study / "checkpoints").rglob("*.safetensors"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
def test_a_file_size_limit_is_one_line_too(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from fno_runner.files import write_text_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_text_atomically(Path(sys.argv[1]), 'x' * 5000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "MachineError: cannot write" in done.stderr and "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.faults
def test_a_read_only_disk_is_refused_before_any_work(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(small_disk, monkeypatch)
    assert bench.run("--limit=1") == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    capsys.readouterr()
    assert bench.run() == 3
    error = capsys.readouterr().err
    assert "Read-only file system" in error and error.count("\n") == 1
    assert len(bench.records()) == 1
    with pytest.raises(UserError):
        export(bench.study)
    faults.count("disks read-only")


def test_a_study_that_vanishes_in_a_run_leaves_nothing_half_made(
    tiny_config: RunConfig, tiny: Dataset
) -> None:
    study = Path(tiny_config.output_dir)
    with pytest.raises(MachineError):
        run(tiny_config, tiny, on_epoch=lambda _: shutil.rmtree(study, ignore_errors=True))
    assert not list(study.rglob("result.json")) and not list(study.rglob("recon*"))
    faults.count("disks vanished")


# --- memory and deaths ----------------------------------------------------------------------------


@pytest.mark.parametrize(("death", "name"), [("killed", "SIGKILL"), ("segfault", "SIGSEGV")])
def test_a_run_that_the_kernel_ends_is_recorded_and_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, death: str, name: str
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    assert bench.run(w16=death) == 1
    error = bench.records()[16].error
    assert error is not None and error.type == "ProcessDied" and name in error.message
    assert bench.statuses() == {8: "finished", 16: "failed", 24: "finished", 32: "finished"}
    faults.count(f"runs ended by {name}")


OUT_OF_MEMORY = """
import resource, sys
from fno_runner.__main__ import main
from fno_runner.train import training
real = training.train

def limited(*arguments, **options):
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 64 * 2**20,) * 2)
    return real(*arguments, **options)

from fno_runner import runner
runner.train = limited
sys.exit(main())
"""


@pytest.mark.faults
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_a_run_that_exceeds_its_memory_is_recorded_as_such(tiny_config: RunConfig) -> None:
    config = tiny_config.model_copy(update={"width": 256, "modes": 32, "batch_size": 64})
    options = [f"--{k}={v}" for k, v in config.model_dump(exclude_none=True).items()]
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr[-2000:]
    (result,) = read_records(Path(config.output_dir)).results
    assert result.status == "failed" and result.error is not None
    assert "memory" in result.error.message.lower() or result.error.type == "MemoryError"
    faults.count("runs out of memory")


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_input_that_is_no_number_is_refused_with_its_place(
    value: float, tiny_npz: tuple[Path, Path], tiny_config: RunConfig, tmp_path: Path
) -> None:
    for key in ("diffraction", "probe_simulated", "coords_offsets", "YY_ground_truth"):
        with np.load(tiny_npz[1]) as stored:
            arrays = {name: stored[name] for name in stored.files}
        arrays[key] = arrays[key].copy()
        arrays[key].reshape(-1)[7] = value
        write_npz(tmp_path / "bad.npz", arrays)
        with pytest.raises(UserError, match=f"bad.npz: '{key}' has 1 values that are NaN or inf"):
            run(tiny_config.model_copy(update={"test_npz": str(tmp_path / "bad.npz")}))
        faults.count("numbers that are none")
    assert not list(Path(tiny_config.output_dir).rglob("result.json"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("stage", ["loss", "gradient", "weight", "prediction", "metric"])
def test_a_number_that_is_none_ends_in_divergence(
    stage: str,
    value: float,
    tiny: Dataset,
    tiny_config: RunConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = {"width": 1, "modes": 2, "blocks": 1, "cnn_blocks": 0, "train_patterns": 16}
    config = tiny_config.model_copy(update=small)
    if stage == "loss":
        monkeypatch.setitem(LOSSES, "mae", lambda predicted, _: predicted.mean() * value)
    elif stage in ("gradient", "weight"):
        build = network.build_model

        def spoil(*arguments: Any) -> Any:
            model = build(*arguments)
            first = next(model.parameters())
            if stage == "weight":
                first.data[(0,) * first.dim()] = value
            else:
                first.register_hook(lambda gradient: gradient * value)
            return model

        monkeypatch.setattr(network, "build_model", spoil)
    elif stage == "prediction":
        forward = Reconstructor.forward_predict
        monkeypatch.setattr(
            Reconstructor, "forward_predict", lambda *a: forward(*a) * torch.tensor(value)
        )
    else:
        monkeypatch.setattr(
            evaluation,
            "score_each",
            lambda *a: [{**scores, "mae": (0.1, value)} for scores in score_each(*a)],
        )
    result = run(config, tiny).result
    assert result.status == "diverged"
    assert result.error is not None
    assert any(word in result.error.message for word in ("nan", "inf", "not finite"))
    assert result.metrics == Metrics()
    faults.count("numbers that are none")


# --- long life ------------------------------------------------------------------------------------

LONG = """
name: long
method: grid
parameters:
  seed: {values: SEEDS}
  epochs: {value: 1}
"""


@pytest.mark.faults
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_three_hundred_points_leave_the_driver_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory and file descriptors flat, no zombie, logs bounded."""
    bench = Bench(tmp_path, monkeypatch)
    bench.write(LONG.replace("SEEDS", str(list(range(300)))))
    driver = bench.start("--workers=4")
    samples: list[tuple[int, int, int]] = []  # points, resident [KiB], open files
    zombies = 0
    place = Path("/proc", str(driver.pid))
    output: list[str] = []
    reader = threading.Thread(target=lambda: output.append(driver.communicate(timeout=600)[0]))
    reader.start()
    while reader.is_alive():
        try:
            status = (place / "status").read_text()
            resident = int(status.split("VmRSS:")[1].split()[0])
            samples.append((len(bench.starts()), resident, len(list((place / "fd").iterdir()))))
            children = (place / "task" / str(driver.pid) / "children").read_text().split()
            states = [Path("/proc", pid, "stat").read_text().split()[2] for pid in children]
            zombies = max(zombies, states.count("Z"))
        except (OSError, IndexError, ValueError):
            pass
        time.sleep(0.2)
    assert driver.returncode == 0, output
    assert len(bench.starts()) == 300 and bench.repeats() == []
    early = [s for s in samples if 40 <= s[0] <= 100]
    late = [s for s in samples if s[0] >= 240]
    growth = max(s[1] for s in late) - max(s[1] for s in early)
    assert growth < 8 * 1024, f"{growth} KiB more after 300 points"
    assert max(s[2] for s in late) <= max(s[2] for s in early) + 2
    assert zombies <= 4, "a run that ended is waited for at the next look"
    assert sum(p.stat().st_size for p in (bench.study / "logs").iterdir()) < 300 * 4096
    assert (bench.study / "queue.journal").stat().st_size < 300 * 4096
    faults.observe("points in one study", 300, lost=300 - len(list(bench.study.glob("runs/*"))))
    print(f"300 points: resident {growth:+d} KiB, {max(s[2] for s in late)} open files")
