"""The documents' commands exist and their links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("**/*.md")),
]


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


HELPS = """
import gc, json, os, runpy, sys
import matplotlib.axes, neuralop, optuna, pandas, scipy.stats, sqlalchemy, torch
import wandb.sdk.launch.api

gc.freeze()
for number, words in enumerate(json.load(sys.stdin)):
    if os.fork() == 0:
        sys.stdout = open(str(number), "w")
        sys.argv = words
        try:
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code or 0)
        sys.exit("it did not end by itself")
    _, status = os.wait()
    print(os.waitstatus_to_exitcode(status))
"""
"""Runs commands, each in a process of its own that has other people's packages already: they take
seconds to import, and there are twenty commands. What each says goes to a file."""


@pytest.fixture(scope="module")
def helps(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], tuple[int, str]]:
    """(module, whether of its other command) -> (exit status, what its --help says)."""
    of_all = [(module, of_other) for module in MODULES for of_other in kinds(module)]
    words = [[module, *([OTHER_HELP] * of_other), "--help"] for module, of_other in of_all]
    folder = tmp_path_factory.mktemp("helps")
    done = subprocess.run(
        [sys.executable, "-c", HELPS],
        input=json.dumps(words),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    statuses = [int(line) for line in done.stdout.splitlines()]
    assert len(statuses) == len(of_all)
    return {
        which: (status, (folder / str(number)).read_text())
        for number, (which, status) in enumerate(zip(of_all, statuses, strict=True))
    }


def shown(module: str) -> list[str]:
    """The documents' commands that start a module."""
    return [command for command in ALL if f"python -m {module} " in f"{command} "]


def kinds(module: str) -> set[bool]:
    """Whether the documents show a module's own command, its other command, or both."""
    return {OTHER_HELP in command for command in shown(module)}


@pytest.mark.parametrize("module", MODULES)
def test_modules_exist_and_know_the_options(
    module: str, helps: dict[tuple[str, bool], tuple[int, str]]
) -> None:
    for command in shown(module):
        status, said = helps[module, OTHER_HELP in command]
        assert status == 0, module
        for option in re.findall(r" (--[a-z_-]+)", command.split(module, 1)[1]):
            assert option in said, f"{command}: {option}"


def anchors(document: Path) -> set[str]:
    """What a link to a heading of a document says behind #, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: f"{d.parent.name}/{d.name}")
def test_links_pictures_and_headings_are_there(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", document.read_text()):
        file, _, anchor = target.partition("#")
        place = document.parent / file if file else document
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def test_sweep_files_of_the_documents_exist() -> None:
    for command in ALL:
        for file in re.findall(r"[\w/-]+\.yaml", command):
            assert (ROOT / file).exists() or file == "short.yaml", command


def test_promises_name_tests_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = text[text.index("| A study …") : text.index("**Checks of the numbers**")]
    names = set(re.findall(r"`(\w+)`", rows))
    there = [path.stem for path in (ROOT / "tests").glob("*.py")]
    for path in (ROOT / "tests").glob("*.py"):
        there += re.findall(r"^def (test_\w+)", path.read_text(), flags=re.M)
    assert len(names) > 20 and not {n for n in names if not any(n in test for test in there)}
