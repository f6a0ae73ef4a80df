"""A third object to choose by: scored as the test object is, and no part of the training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.server.rows import server_row
from agent.study.records import read_record, row
from fno_runner.config import RunConfig
from fno_runner.data.gridlines import simulate
from fno_runner.data.npz_pair import load_npz_pair
from fno_runner.errors import UserError
from fno_runner.identity import run_id
from fno_runner.provenance import code
from fno_runner.result import RECORD
from fno_runner.runner import run
from tests.test_mirrored import of_server


def test_the_same_object_validates_as_it_tests(
    tiny_config: RunConfig, tiny_npz: tuple[Path, Path], tmp_path: Path
) -> None:
    """Named as the validation object, the test object gets the very metrics of the test."""
    plain = run(tiny_config).result
    config = tiny_config.model_copy(
        update={"val_npz": str(tiny_npz[1]), "output_dir": str(tmp_path / "validated")}
    )
    outcome = run(config)
    assert plain.validation == {} and "validation_object" not in plain.provenance
    assert outcome.result.validation == outcome.result.metrics.pairs == plain.metrics.pairs
    assert [e["train_loss"] for e in outcome.result.history] == [
        e["train_loss"] for e in plain.history
    ]
    cells = row(read_record(outcome.folder / RECORD))
    assert cells["val_ssim_phase"] == cells["ssim_phase"] is not None
    assert cells["schema_version"] == 3 and cells["code"] == code()
    # The same by way of a server.
    parts = server_row(of_server(outcome.result)).parts
    there = {k: v for part in parts for k, v in part.items()}
    assert there["val_ssim_phase"] == cells["val_ssim_phase"]
    assert there["val_psnr_amp"] == cells["val_psnr_amp"]


def test_each_seed_has_its_own(
    tiny_config: RunConfig, tiny_npz: tuple[Path, Path], tmp_path: Path
) -> None:
    config = tiny_config.model_copy(update={"val_npz": str(tiny_npz[1]), "replicates": 2})
    result = run(config).result
    first, second = (row(seed)["val_ssim_phase"] for seed in result.by_seed())
    assert isinstance(first, float) and isinstance(second, float) and first != second
    assert row(result)["val_ssim_phase"] == pytest.approx((first + second) / 2)


def test_a_run_without_keeps_the_name_it_had(
    tiny_config: RunConfig, tiny_npz: tuple[Path, Path]
) -> None:
    assert run_id(RunConfig()) == "dd3364804479"  # as schema 1 named it: its studies resume
    validated = tiny_config.model_copy(update={"val_npz": str(tiny_npz[1])})
    assert run_id(validated) != run_id(tiny_config)


def test_the_simulated_object_is_a_third_one() -> None:
    config = RunConfig(nphotons=1e6)
    test, validation = (dict(simulate(config, split)) for split in ("test", "validation"))
    assert {k: v.shape for k, v in test.items()} == {k: v.shape for k, v in validation.items()}
    phases = [np.angle(split["YY_ground_truth"]).ravel() for split in (test, validation)]
    assert abs(np.corrcoef(*phases)[0, 1]) < 0.3


def test_a_validation_object_goes_with_the_others(tiny_npz: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="val_npz goes with train_npz and test_npz"):
        RunConfig(val_npz="val.npz")
    with pytest.raises(UserError, match="no such file"):
        load_npz_pair(*tiny_npz, Path("nowhere.npz"))
