"""A PostgreSQL server of a test's own: on a free loopback port, as a user who is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DEBIANS = Path("/usr/lib/postgresql")
"""A folder of programs for each version, in no PATH."""


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of an empty database, without a password; a test is skipped where none can be."""
    folders = sorted(map(str, DEBIANS.glob("*/bin")), reverse=True)
    path = os.pathsep.join([*folders, os.environ.get("PATH", "")])
    tools = {name: shutil.which(name, path=path) for name in ("initdb", "pg_ctl")}
    pytest.importorskip("psycopg", reason="no psycopg: pip install '.[postgresql]'")
    if None in tools.values():
        pytest.skip("no PostgreSQL server here: apt-get install postgresql")
    user = pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:  # it refuses to run as root
        user = "postgres" if _exists("postgres") else "nobody"
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        data = Path(folder, "data")
        data.mkdir()
        if os.geteuid() == 0:
            for place in (folder, str(data)):
                shutil.chown(place, user)

        def call(*command: str) -> subprocess.CompletedProcess[bytes]:
            demote = {"user": user} if os.geteuid() == 0 else {}
            return subprocess.run(
                command, check=False, capture_output=True, cwd=folder, timeout=60, **demote
            )  # type: ignore[call-overload]

        made = call(str(tools["initdb"]), "-D", str(data), "-U", "test", "-A", "trust", "-N")
        options = (
            f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        )
        log = str(data / "log")
        begun = call(str(tools["pg_ctl"]), "-D", str(data), "-w", "-l", log, "-o", options, "start")
        if begun.returncode:
            pytest.skip(f"PostgreSQL does not start: {(made.stderr + begun.stdout)[-300:]!r}")
        try:
            yield f"postgresql://test@127.0.0.1:{port}/postgres"
        finally:
            call(str(tools["pg_ctl"]), "-D", str(data), "-m", "immediate", "stop")


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
