"""Nothing secret is written, nothing is unpickled, and a server chooses no place on disk."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.server.point import DATA_PATHS, run_point
from agent.server.stop_request import SWEEP_ID
from agent.study.folder import server_study
from fno_runner.stop import StopSignals
from tests import faults

ROOT = Path(__file__).resolve().parents[1]
SECRET = "5ecret" + "0123456789abcdef" * 2 + "00"
"""40 characters, as a key of Weights & Biases has."""

SWEEP = """
name: secrets
method: grid
parameters:
  width: {values: [1, 2]}
  modes: {value: 2}
  blocks: {value: 1}
  cnn_blocks: {value: 0}
  epochs: {value: EPOCHS}
  train_patterns: {value: 16}
  train_npz: {value: TRAIN}
  test_npz: {value: TEST}
  data_dir: {value: DATA}
  device: {value: cpu}
"""


@pytest.mark.slow
@pytest.mark.faults
def test_no_secret_is_written_anywhere(
    tiny_npz: tuple[Path, Path], data_dir: Path, tmp_path: Path
) -> None:
    """Planted in the environment, in .netrc, in a storage's URL, in a remote's; grepped for."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {SECRET}\n")
    (home / ".netrc").chmod(0o600)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    remote = f"https://user:{SECRET}@example.com/a.git"
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", remote], check=True)
    text = SWEEP.replace("EPOCHS", "1").replace("DATA", str(data_dir))
    text = text.replace("TRAIN", str(tiny_npz[0])).replace("TEST", str(tiny_npz[1]))
    (tmp_path / "sweep.yaml").write_text(text)
    env = {
        **os.environ,
        "HOME": str(home),
        "WANDB_API_KEY": SECRET,
        "WANDB_MODE": "offline",
        "PGPASSWORD": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "https_proxy": f"http://user:{SECRET}@127.0.0.1:1",
        "PYTHONPATH": str(ROOT),
    }
    said = ""
    for module, *options in (
        ("agent.local", "sweep.yaml", "--study=study"),
        ("agent.export", "study"),
        ("agent.local", "sweep.yaml", f"--storage=postgresql://u:{SECRET}@127.0.0.1:1/d"),
        ("agent.local", "sweep.yaml", f"--storage=mysql://u:{SECRET}@h/d"),
        ("fno_runner", "--width=0", f"--scan={tmp_path / 'none.npz'}"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", module, *options],
            env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280,
        )  # fmt: skip
        said += done.stdout + done.stderr
    assert (tmp_path / "study" / "study_results.csv").exists(), said
    planted = {home / ".netrc", tmp_path / ".git" / "config"}
    files = [p for p in tmp_path.rglob("*") if p.is_file() and p not in planted]
    assert len(files) > 20
    leaks = [p for p in files if SECRET.encode() in p.read_bytes()]
    assert leaks == []
    assert SECRET not in said
    faults.count("secrets planted", 7)


# --- what a server may say ------------------------------------------------------------------------


@pytest.fixture
def of_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(SWEEP_ID, "abc123")
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    monkeypatch.delenv(DATA_PATHS, raising=False)
    yield


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--output_dir=/etc", "a server's sweep writes to"),
        ("--output_dir=.", "a server's sweep writes to"),
        ("--output_dir=outputs/fno_hyperparam_study/other", "a server's sweep writes to"),
        ("--output_dir=outputs/fno_hyperparam_study/abc123/../..", "a server's sweep writes to"),
        ("--data_dir=/var/tmp/x", "names files below"),
        ("--data_dir=../x", "names files below"),
        ("--scan=/etc/passwd", "names files below"),
        ("--scan=a/../../b", "names files below"),
    ],
)
@pytest.mark.usefixtures("of_a_sweep")
def test_a_server_chooses_no_place(
    option: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_point([option, "--device=cpu"], StopSignals()) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    faults.count("paths from a server")


@pytest.mark.usefixtures("of_a_sweep")
def test_what_this_machine_allows_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It gets as far as reading the file."""
    monkeypatch.setenv(DATA_PATHS, os.pathsep.join(["/nowhere", "/data"]))
    study = server_study("abc123")
    for place in ("here.npz", str(tmp_path / "below" / "there.npz"), "/data/scan.npz"):
        assert run_point([f"--scan={place}", f"--output_dir={study}"], StopSignals()) == 2
        assert f"{place}: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("identifier", ["../../etc", "a/b", "a\x00b", "..", "a b;rm -rf"])
def test_ids_of_a_server_become_plain_names(identifier: str) -> None:
    study = server_study(identifier)
    assert study.parent == server_study("x").parent
    assert study.name.replace("_", "").replace("-", "").isalnum() or set(study.name) <= {"_"}


# --- what is never done ---------------------------------------------------------------------------


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """(dotted name, call) of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


FORBIDDEN = {
    "eval", "exec", "__import__", "pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load",
    "yaml.full_load", "torch.load", "np.load", "numpy.load", "joblib.load", "marshal.loads",
    "shelve.open", "os.system", "os.popen",
}  # fmt: skip


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell() -> None:
    leaks = []
    for folder in ("agent", "fno_runner"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            assert "import pickle" not in text, path
            assert not re.search(r"importlib(?!\.metadata)", text), path  # which only reads
            for name, call in calls(path):
                shell = any(k.arg == "shell" for k in call.keywords)
                pickled = any(
                    k.arg == "allow_pickle" and not (isinstance(k.value, ast.Constant)
                                                     and k.value.value is False)
                    for k in call.keywords
                )  # fmt: skip
                if name in FORBIDDEN or shell or pickled:
                    leaks.append(f"{path}: {name}")
    assert leaks == []
