"""What is installed is all that is needed: declared dependencies, and files that are no sources."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agent", "fno_runner")
NAMES = {"pil": "pillow", "skimage": "scikit-image", "yaml": "pyyaml"}
"""What a module's distribution is called, where that is not the module's own name."""
BROUGHT = {"markupsafe": "jinja2", "pydantic_core": "pydantic"}
"""Modules that a declared dependency is made of."""


def imported() -> set[str]:
    """The distributions of all modules that the packages import and Python does not bring."""
    found = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
                found.add(node.module.split(".")[0])
    foreign = {name.lower() for name in found - sys.stdlib_module_names - set(PACKAGES)}
    return {(NAMES | BROUGHT).get(name, name.replace("_", "-")) for name in foreign}


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = (project["optional-dependencies"][key] for key in ("dashboard", "export"))
    declared = {
        re.split(r"[^\w.-]", line)[0] for line in sum(optional, start=project["dependencies"])
    }
    assert imported() <= declared


def test_the_wheel_has_the_pages_and_says_that_it_is_typed(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    for package in PACKAGES:
        leave_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=leave_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    there = {
        path.relative_to(tmp_path).as_posix()
        for package in PACKAGES
        for path in (tmp_path / package).rglob("*")
        if path.is_file()
    }
    assert there <= names
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
