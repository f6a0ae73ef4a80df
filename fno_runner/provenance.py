"""Where a result comes from: code, machine, time. Nothing secret: no environment, no arguments."""

from __future__ import annotations

import hashlib
import platform
import resource
import socket
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import torch

Provenance = dict[str, str | float | int | bool | None]


def provenance(device: torch.device) -> Provenance:
    """This code, its commit, torch, Python, device, threads, host, start time."""
    commit, dirty = _git()
    return {
        "code": code(),
        "git_commit": commit,
        "git_dirty": dirty,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(device),
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "host": socket.gethostname(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def code() -> str:
    """What computes a result: a hash (12 hex digits) of this package's source files.

    Unlike a commit's, it stays the same where only documents, tests or the agent change, and
    tells changes that were not committed.
    """
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return kernel_says("cpuinfo", "model name") or platform.processor() or platform.machine()


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory this process has held: on the GPU if it computes there, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not ru_maxrss, which on Linux begins with the parent's.
    if resident := kernel_says("self/status", "VmHWM"):
        return int(resident.split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def kernel_says(file: str, key: str) -> str | None:
    """The first value of a key in a file of Linux's /proc; None where there is none."""
    with suppress(FileNotFoundError):
        for line in Path("/proc", file).read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return None


def _git() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout this package lies in; None for an installed one."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None, None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None
