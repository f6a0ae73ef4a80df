"""The documents' commands exist and their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text: str) -> list[str]:
    """The lines of a document's shell blocks, continued lines joined, comments dropped."""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, flags=re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and line[0] != "#"]


ALL = sorted({c for document in DOCUMENTS for c in commands(document.read_text())})


def test_readme_starts_with_its_two_commands() -> None:
    shown = commands((ROOT / "README.md").read_text())
    assert "make quickstart" in shown and "make test" in shown


@pytest.mark.parametrize("target", sorted({c.split()[1] for c in ALL if c.startswith("make ")}))
def test_make_targets_exist(target: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


MODULES = sorted({m for c in ALL for m in re.findall(r"python -m ([a-z_.]+)", c)} - {"venv", "pip"})


OTHER_HELP = "--iterative"
"""An option that makes another command of `fno_runner.reconstruct`, with options of its own."""


@pytest.mark.parametrize("module", MODULES)
def test_modules_exist_and_know_the_options(module: str) -> None:
    commands = [command for command in ALL if f"python -m {module} " in f"{command} "]
    for of_other in {OTHER_HELP in command for command in commands}:
        done = subprocess.run(
            [sys.executable, "-m", module, *([OTHER_HELP] if of_other else []), "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for command in commands:
            if (OTHER_HELP in command) == of_other:
                for option in re.findall(r" (--[a-z_-]+)", command.split(module, 1)[1]):
                    assert option in done.stdout, f"{command}: {option}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_links_and_pictures_are_there(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_sweep_files_of_the_documents_exist() -> None:
    for command in ALL:
        for file in re.findall(r"[\w/-]+\.yaml", command):
            assert (ROOT / file).exists(), command
