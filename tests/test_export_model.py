"""A network outside this program: the same answers, in a process that has nothing of ours."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import fno_runner
from agent.study.records import read_records
from fno_runner.apply.command import main as reconstruct
from fno_runner.apply.model import find_model
from fno_runner.apply.portable import Portable
from fno_runner.config import N, RunConfig
from fno_runner.data.npz import write_npz
from fno_runner.export_model import main
from fno_runner.reconstructor import Reconstructor
from fno_runner.runner import run
from tests.scans import Simulated, simulate_scan, write_raw
from tests.test_apply import untrained

PACKAGES = Path(onnxruntime.__file__).parents[1]
ALONE = "import sys; sys.path.insert(0, sys.argv[1])\n"
"""For `python -I -S`: third parties' packages, and nothing that an installation adds to them."""
NOTHING_OF_OURS = """
import importlib.util
assert importlib.util.find_spec("fno_runner") is None and importlib.util.find_spec("agent") is None
"""


@pytest.fixture(scope="module")
def scan() -> Simulated:
    return simulate_scan(modes=2)


@pytest.fixture(scope="module")
def exported(scan: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network, exported with both formats; its scan beside it as s.npz."""
    folder = tmp_path_factory.mktemp("exported")
    mask = np.ones((N, N), bool)
    mask[40:44, :5] = False
    scan_file = write_raw(folder / "s.npz", scan, mask=mask, objectGuess=None)
    config = RunConfig(
        width=4, modes=6, blocks=2, epochs=2, device="cpu", scan=str(scan_file),
        output_dir=str(folder / "study"),
    )  # fmt: skip
    outcome = run(config)
    assert outcome.result.status == "finished", outcome.result.error
    assert main([str(outcome.folder), "-o", str(folder / "model"), "--license=CC-BY-4.0"]) == 0
    return folder / "model"


def true_answers(model: Path, scan: Path) -> dict[str, np.ndarray]:
    """What forward_predict says of the scan's frames, and what it was told."""
    from fno_runner.data.formats import read_scan
    from fno_runner.data.scan import patterns_of
    from fno_runner.reconstructor import input_scale_factor

    read = read_scan(scan)
    patterns = patterns_of(read)
    mask = None if read.mask is None else torch.from_numpy(read.mask)
    probe = torch.from_numpy(patterns.probe)
    mean = float(np.square(patterns.amplitude).sum((1, 2)).mean())
    network = find_model(model).load(torch.device("cpu"), mask).eval()
    factor = torch.full((len(read), 1, 1, 1), input_scale_factor(mean, probe, mask))
    x = torch.from_numpy(patterns.amplitude)[:, None]
    positions = torch.from_numpy(patterns.positions)
    with torch.inference_mode():
        patches = network.forward_predict(x, positions[:, None, :, None], probe, factor)
    return {
        "amplitude": patterns.amplitude,
        "probe": probe.numpy() if probe.ndim == 3 else probe[None].numpy(),
        "positions": patterns.positions,
        "mask": np.ones((N, N), bool) if read.mask is None else read.mask,
        "expected": patches[:, 0].numpy(),
    }


def run_alone(program: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE + NOTHING_OF_OURS + program, str(PACKAGES)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_cards_own_program_gives_the_answers(exported: Path, tmp_path: Path) -> None:
    """What README.md tells to do, word for word, in a process without this project."""
    answers = true_answers(exported, exported.with_name("s.npz"))
    answers["amplitude"][:, ~answers["mask"]] = np.nan  # or whatever a detector writes there
    write_npz(tmp_path / "frames.npz", answers)
    (code,) = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.S)
    run_alone(
        "import numpy as np, os\n"
        f"frames = np.load({str(tmp_path / 'frames.npz')!r})\n"
        "amplitude, probe, positions, mask = (frames[n] for n in "
        "('amplitude', 'probe', 'positions', 'mask'))\n"
        f"{code}\n"
        "apart = np.abs(patches - frames['expected']).max() / np.abs(frames['expected']).max()\n"
        "assert patches.shape == frames['expected'].shape and apart < 1e-4, apart\n",
        exported,
    )


@pytest.mark.slow
def test_torch_export_needs_torch_only(exported: Path, tmp_path: Path) -> None:
    answers = true_answers(exported, exported.with_name("s.npz"))
    far = np.fft.fftshift(np.fft.fft2(answers["probe"], norm="ortho"), axes=(-2, -1))
    counts = np.square(answers["amplitude"]).sum((1, 2)).mean()
    scale = np.sqrt(np.square(np.abs(far * answers["mask"])).sum() / counts)
    write_npz(tmp_path / "frames.npz", answers | {"scale": np.array([scale], np.float32)})
    run_alone(
        "import numpy as np, torch\n"
        f"f = np.load({str(tmp_path / 'frames.npz')!r})\n"
        "probe = np.stack([f['probe'].real, f['probe'].imag], 1).astype(np.float32)\n"
        "model = torch.export.load('model.pt2').module()\n"
        "given = (f['amplitude'][:7, None], f['scale'], probe, f['positions'][:7], "
        "f['mask'].astype(np.float32))\n"
        "out = model(*map(torch.from_numpy, given)).detach().numpy()\n"
        "out, expected = out[:, 0] + 1j * out[:, 1], f['expected'][:7]\n"
        "assert np.abs(out - expected).max() / np.abs(expected).max() < 1e-4\n",
        exported,
    )


def test_an_exported_model_is_a_model(exported: Path, tmp_path: Path) -> None:
    scan_file = exported.with_name("s.npz")
    assert reconstruct([str(exported), str(scan_file), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "object.npz").is_file()


def test_an_export_of_a_run_is_no_run_of_its_study(exported: Path) -> None:
    """Every folder in `runs` is taken for a run."""
    study = exported.with_name("study")
    (trained,) = (study / "runs").iterdir()
    assert main([str(trained), "--format=pt2"]) == 0
    assert read_records(study).rejected == []
    assert (study / f"{trained.name}.exported" / "model.pt2").is_file()


def test_a_network_adapted_under_another_files_probe_is_exported(
    scan: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan's own file has none: the check takes the one that the adapted network keeps.

    Wherever it is called from; the card names the run that it came from.
    """
    bare = write_raw(tmp_path / "bare.npz", scan, probeGuess=None, objectGuess=None)
    lit = write_raw(tmp_path / "lit.npz", scan, objectGuess=None)
    out = tmp_path / "out"
    options = ["--adapt=1", f"--probe={lit}", f"--output={out}", "--device=cpu"]
    monkeypatch.chdir(tmp_path)
    begun = untrained(tmp_path)
    assert reconstruct([str(begun), bare.name, *options]) == 0
    model = tmp_path / "model"
    monkeypatch.chdir(begun)
    assert main([str(out / "network"), "--format=pt2", f"--output={model}"]) == 0
    found, kept = (find_model(path).training_probe() for path in (model, out / "network"))
    assert found is not None and kept is not None
    np.testing.assert_array_equal(found, kept)
    assert begun.name in (model / "README.md").read_text()


def test_the_card_says_what_it_is_of(exported: Path) -> None:
    text = (exported / "README.md").read_text()
    record = find_model(exported).record
    for said in (
        record.run_id, str(record.provenance["dataset"]), "CC-BY-4.0", "| width | 4 |",
        f"{record.metrics.scan['r_factor']['held_out']:.4f}", "2 incoherent mode",
    ):  # fmt: skip
        assert said in text


def test_the_card_has_units_and_no_more_digits_than_they_deserve(tmp_path: Path) -> None:
    folder = untrained(tmp_path)
    record = json.loads((folder / "result.json").read_text())
    record["metrics"] |= {"psnr": [24.0, 21.45138], "mae": [0.1, 0.09262]}
    (folder / "result.json").write_text(json.dumps(record))
    assert main([str(folder), "-o", str(tmp_path / "model"), "--format=pt2"]) == 0
    text = (tmp_path / "model" / "README.md").read_text()
    assert "| phase PSNR [dB] | 21.45 |" in text and "| phase MAE [rad] | 0.0926 |" in text


@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
@pytest.mark.parametrize("conditioning", ["projection", "amplitude"])
@pytest.mark.parametrize("modes", [1, 2])
def test_real_arithmetic_is_the_complex_one(
    architecture: str, conditioning: str, modes: int
) -> None:
    torch.manual_seed(0)
    config = RunConfig(
        width=4, modes=6, blocks=2, architecture=architecture, conditioning=conditioning  # type: ignore[arg-type]
    )  # fmt: skip
    mask = torch.rand(N, N) > 0.1
    model = Reconstructor(config, subpixel=True, mask=mask).eval()
    probe = torch.randn(modes, N, N, dtype=torch.complex64)
    positions = 100 * torch.rand(3, 2)
    x = torch.rand(3, 1, N, N) * mask
    x[0, 0, :10] = 0
    factor = torch.tensor([0.7])
    with torch.inference_mode():
        expected = model.forward_predict(
            x, positions[:, None, :, None], probe[0] if modes == 1 else probe,
            factor.view(1, 1, 1, 1).expand(3, 1, 1, 1),
        )  # fmt: skip
        split = torch.stack([probe.real, probe.imag], 1)
        out = Portable(model, N).eval()(x, factor, split, positions, mask.float())
    torch.testing.assert_close(
        torch.complex(out[:, 0], out[:, 1]), expected[:, 0], atol=1e-5, rtol=1e-4
    )


def test_the_project_is_where_an_isolated_process_does_not_look() -> None:
    assert Path(fno_runner.__file__).parents[1] != PACKAGES
