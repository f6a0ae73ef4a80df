"""The memory of a scan is that of the frames that are kept, whatever the size of its file."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from fno_runner.config import N
from tests.layouts import cxi
from tests.scans import Simulated
from tests.test_apply import untrained

GIB = 2**30
FRAME = 512
"""Pixels a side of the detector."""

PROGRAM = """
import json, sys
from pathlib import Path

import torch

from fno_runner.config import RunConfig
from fno_runner.data import load_dataset
from fno_runner.data.formats import read_scan
from fno_runner.data.npz import read_array
from fno_runner.scan.command import main
from fno_runner.train.training import train

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

what, file, folder = sys.argv[1:]
interpreter = peak()
if what == "reconstruct":
    from fno_runner.apply.command import main

    assert main([folder, file, "-o", f"{folder}/out", "--device=cpu"]) == 0
    interpreter = 0  # all that the process had
    kept = read_array(Path(folder) / "out" / "object.npz", "objectGuess").nbytes
elif what == "read":
    kept = read_scan(Path(file)).amplitude.nbytes
else:
    assert main(["inspect", file, "--output", f"{folder}/s.png"]) == 0
    config = RunConfig(scan=file, train_patterns=32, batch_size=16, epochs=1, width=4, modes=6,
                       blocks=2, device="cpu", data_dir=folder, output_dir=folder)
    dataset = load_dataset(config)
    config = config.of_size(dataset.train.amplitude.shape[-1])
    assert len(train(config, dataset, torch.device("cpu"))) == 1
    kept = dataset.test.amplitude.nbytes
print(json.dumps({"beyond": peak() - interpreter, "kept": kept}))
"""


def write_large(path: Path, frames: int, detector: int = FRAME) -> None:
    """A CXI scan of `frames` frames of detector × detector px, gzip, without ever holding them.

    All but the central 64 × 64 pixels are 0, and every hundredth frame is the same.
    """
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(frames)))
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)
    y, x = np.indices((detector, detector)) - detector // 2
    beam = np.exp(-(x**2 + y**2) / 300)[None].astype(np.complex64)
    inner = slice(detector // 2 - N // 2, detector // 2 + N // 2)
    shape = np.exp(-(x**2 + y**2) / 200)[inner, inner]
    scan = Simulated(beam, beam, grid[:frames] * 5.0, np.zeros((1, N, N)))
    place = "instrument_1/detector_1"
    cxi.put(path, cxi.cxi(scan, **{f"{place}/data": None, f"{place}/mask": None}))
    with h5py.File(path, "a") as file:
        data = file.create_dataset(
            f"entry_1/{place}/data", (frames, detector, detector), "u2",
            chunks=(1, detector, detector), compression="gzip",
        )  # fmt: skip
        chunks = []
        for _ in range(100):
            frame = np.zeros((detector, detector), np.uint16)
            frame[inner, inner] = rng.poisson(500 * shape * rng.uniform(0.5, 1.5, shape.shape))
            chunks.append(zlib.compress(frame.tobytes(), 4))
        for number in range(frames):
            data.id.write_direct_chunk((number, 0, 0), chunks[number % len(chunks)])


def measured(what: str, path: Path, folder: Path | None = None) -> tuple[int, int]:
    """Peak memory beyond that of the interpreter with its imports, and the frames' [bytes]."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, what, str(path), str(folder or path.parent)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    return told["beyond"], told["kept"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_read_takes_the_kept_frames_and_a_block(tmp_path: Path) -> None:
    """Of 600 frames, 315 MB, 10 MB are kept."""
    write_large(tmp_path / "s.cxi", 600)
    beyond, kept = measured("read", tmp_path / "s.cxi")
    assert kept == 600 * N * N * 4
    assert beyond < kept + GIB / 4


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ten_thousand_frames_are_inspected_and_trained_on(tmp_path: Path) -> None:
    """5.2 GB of frames: inspect and two training steps within 1.5 GiB beyond the interpreter."""
    write_large(tmp_path / "s.cxi", 10_000)
    beyond, kept = measured("inspect and train", tmp_path / "s.cxi")
    assert kept == 10_000 * N * N * 4
    assert beyond < 1.5 * GIB


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_twenty_thousand_frames_are_reconstructed_within_a_gibibyte(tmp_path: Path) -> None:
    """The whole process, interpreter and libraries included, less the object."""
    write_large(tmp_path / "s.cxi", 20_000, detector=N)
    run = untrained(tmp_path / "study")
    peak, obj = measured("reconstruct", tmp_path / "s.cxi", run)
    assert obj > 700 * 700 * 8
    assert peak < obj + GIB
