"""The house: what may import what, and how long a file may be, read from the sources.

docs/architecture.md has the plan of the rooms in words.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fno_runner", "agent")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
LONGEST_FILE = 400
"""Lines: a longer file holds two ideas."""


def module_of(path: Path) -> str:
    """agent/study/records.py is agent.study.records, a room's __init__.py the room."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCES}
ROOMS = {
    f"{package}.{folder.name}"
    for package in PACKAGES
    for folder in (ROOT / package).iterdir()
    if (folder / "__init__.py").exists()
}


def room_of(module: str) -> str:
    """The room that a module lies in. At the top of a package every file is a room of its own.

    So is a room's __main__: it is a command that may use all rooms, and that nothing imports.
    """
    room = ".".join(module.split(".")[:2])
    return room if room in ROOMS and not module.endswith(".__main__") else module


def imports_of(path: Path) -> Iterator[str]:
    """The modules of this project that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            for name in node.names:
                submodule = f"{node.module}.{name.name}"
                yield submodule if submodule in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def arrows() -> dict[str, set[str]]:
    """Which rooms each room imports."""
    imported: dict[str, set[str]] = defaultdict(set)
    for module, path in MODULES.items():
        room = room_of(module)
        targets = (target for target in imports_of(path) if target.split(".")[0] in PACKAGES)
        imported[room] |= {room_of(target) for target in targets} - {room}
    return imported


def test_arrows_between_rooms_go_one_way() -> None:
    try:
        TopologicalSorter(arrows()).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' → '.join(reversed(error.args[1]))}")


def test_the_runner_knows_nothing_of_sweeps_nor_of_weights_and_biases() -> None:
    for module, path in MODULES.items():
        if module.startswith("fno_runner"):
            outside = {target.split(".")[0] for target in imports_of(path)} & {"agent", "wandb"}
            assert not outside, f"{module} imports {outside}"


def test_rooms_import_no_command() -> None:
    commands = {module for module in MODULES if module.count(".") == 1 and module not in ROOMS}
    commands = {module for module in commands if module.startswith("agent.")}
    for room, targets in arrows().items():
        if room in ROOMS:
            assert not targets & commands, f"{room} imports {targets & commands}"


@pytest.mark.parametrize(
    ("room", "never"),
    [
        ("agent.study", {"agent.analysis", "agent.report", "agent.scheduling", "agent.server"}),
        ("agent.analysis", {"agent.report", "agent.scheduling", "agent.server"}),
        ("agent.report", {"agent.scheduling", "agent.server"}),
        ("agent.scheduling", {"agent.analysis", "agent.report", "agent.server"}),
        ("agent.server", {"agent.analysis", "agent.report"}),
        ("fno_runner.data", ROOMS - {"fno_runner.data"}),
        ("fno_runner.models", ROOMS - {"fno_runner.models"}),
    ],
)
def test_a_room_knows_only_what_it_stands_on(room: str, never: set[str]) -> None:
    assert not arrows()[room] & never


def test_the_top_of_agent_holds_commands_only() -> None:
    top = [path for path in (ROOT / "agent").glob("*.py") if path.name != "__init__.py"]
    assert len(top) <= 11
    for path in top:
        assert 'if __name__ == "__main__":' in path.read_text(), f"{path.name} is no command"


@pytest.mark.parametrize("folder", [*PACKAGES, "tests", "benchmarks"])
def test_a_file_is_one_idea(folder: str) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert not {path.name: n for path, n in lengths.items() if n > LONGEST_FILE}


def test_the_documents_name_files_that_exist() -> None:
    named = re.compile(r"`((?:agent|fno_runner|tests|benchmarks)/[\w/.]*)`")
    for document in (ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md"):
        places = named.findall(document.read_text())
        missing = [place for place in places if not (ROOT / place).exists()]
        assert not missing, f"{document.name} names {missing}"
