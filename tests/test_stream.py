"""A scan that is read block by block, in whatever pieces its file gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from fno_runner.apply import assemble as assembling
from fno_runner.apply import stream as streaming
from fno_runner.apply.assemble import assemble
from fno_runner.apply.model import find_model
from fno_runner.apply.prepared import prepare
from fno_runner.apply.stream import Stream
from fno_runner.config import N
from fno_runner.data.dataset import Patterns
from fno_runner.data.formats import read_scan
from fno_runner.data.frames import FrameBlocks
from fno_runner.reconstruct.predictor import Predictor
from fno_runner.reconstructor import Reconstructor
from tests.scans import simulate_scan, write_raw
from tests.test_apply import untrained


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_one_predictor_does_for_a_scan_that_is_read_in_odd_pieces(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU with whole slices only, as a graph is recorded of each size."""
    model = find_model(untrained(tmp_path))
    scan = read_scan(write_raw(tmp_path / "s.npz", simulate_scan(), objectGuess=None))
    cpu = torch.device("cpu")
    prepared = prepare(model, Stream.of(scan), cpu, infer_batch_size=8)
    expected = assemble(prepared)
    order = np.random.default_rng(0).permutation(len(scan))

    def pieces() -> FrameBlocks:
        for rows in np.split(order, [1, 4, 21, 50]):
            yield rows, scan.amplitude[rows]

    class Spy(Predictor):
        made: ClassVar[list[Spy]] = []
        lengths: list[int]

        def __call__(self, patterns: Patterns) -> np.ndarray:
            self.lengths.append(len(patterns))
            return super().__call__(patterns)

    def made(model: Reconstructor, probe: np.ndarray, scale: float, _: object, size: int) -> Spy:
        spy = Spy(model, probe, scale, size)
        spy.lengths = []
        Spy.made.append(spy)
        return spy

    monkeypatch.setattr(assembling, "make_predictor", made)
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 20 * 4 * N * N)
    stream = Stream(scan, prepared.stream.mean_intensity, pieces)
    got = assemble(replace(prepared, stream=stream, device=torch.device(device)))
    (spy,) = Spy.made
    assert spy.lengths == [16, 16, 16, 12 if device == "cpu" else 16]
    np.testing.assert_allclose(got.obj, expected.obj, atol=1e-5)
    assert (got.r_own, got.r) == pytest.approx((expected.r_own, expected.r), rel=1e-5)
