"""`agent.local` with real processes; a run is a stand-in that leaves a record and trains nothing.

Run as a script, this file is one more driver: `bench.py TOLD ARGUMENTS…`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from agent.local import main
from agent.scheduling import child, claims, driver
from agent.scheduling import queue as queue_module
from agent.study.sweepfile import Point
from fno_runner import process
from fno_runner.config import load_config
from fno_runner.result import RunResult

# The stand-in: does what its point's width says, notes that it started, leaves a record.
STAND_IN = """
import json, os, pathlib, random, signal, sys, time
record, starts, what = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
path = pathlib.Path(record["config"]["output_dir"], "runs", record["run_id"], "result.json")
def is_finished(path):
    return path.exists() and json.loads(path.read_text())["status"] == "finished"
with open(starts, "a") as stream:
    stream.write(f"{record['run_id']} {os.getpid()} {'again' if is_finished(path) else 'first'}\\n")
print("about to", what, flush=True)
if what == "sleep":
    time.sleep(60)
if what == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    time.sleep(60)
if what == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "segfault":
    os.kill(os.getpid(), signal.SIGSEGV)
if what == "random":
    time.sleep(random.random() * 0.3)
if what == "slow":
    time.sleep(random.random() * 1.5)
times = pathlib.Path(starts).read_text().count(record["run_id"])
data = pathlib.Path(record["config"]["train_npz"] or "")
if what == "data gone" and data.name == "lost.npz":
    data.unlink(missing_ok=True)
    sys.exit(2)
if what in ("1", "2", "3") or (what == "busy once" and times % 2):
    print("error: no such device", file=sys.stderr)
    sys.exit(3 if what == "busy once" else int(what))
if what.startswith("breaks the card"):
    busy = times > 2 and what.endswith("then is busy")
    error = "no such device" if busy else "the GPU failed: CUDA error: unspecified launch failure"
    print("error:", error, file=sys.stderr)
    sys.exit(3)
time.sleep(0.02)
record["status"] = "failed" if what == "fail" else "finished"
if what == "stopped":
    record |= {"status": what, "schema_version": 3}
if what == "fail":
    record["error"] = {"type": "ValueError", "message": "it broke", "traceback": None}
path.parent.mkdir(parents=True, exist_ok=True)
new = path.with_suffix(f".{os.getpid()}")
new.write_text(json.dumps(record))
new.replace(path)
"""


def stand_in_for(behaviour: Mapping[str, str]) -> Any:
    """A `start_point` whose runs do what `behaviour` says of their width (default: finish)."""

    def start_point(
        point: Point, study: Path, log: Path, variables: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        config = load_config({**point, "output_dir": str(study)})
        # Seeds other than the first scatter.
        noise = np.random.default_rng([config.seed, config.width]).normal(0, 0.05)
        quality = min(1.0, config.width / 100 + (noise if config.seed else 0.0))
        result = RunResult(
            run_id=log.stem,
            status="finished",
            config=config.model_dump(),
            metrics={"ssim": (0.5, quality), "psnr": (20.0, 20.0 + config.width)},
            model_params=config.width**2,
            inference_time_s=0.1,
        )
        what = behaviour.get(str(config.width), behaviour.get("*", "finish"))
        starts = str(study.parent / "starts")
        code = [sys.executable, "-S", "-E", "-c", STAND_IN, result.to_json(), starts, what]
        with log.open("ab") as stream:
            return subprocess.Popen(
                code, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )

    return start_point


SWEEP = """
name: test
method: METHOD
metric: {name: ssim_phase, goal: maximize}
parameters:
  width: {values: [8, 16, 24, 32]}
  epochs: {value: 1}
"""


class Bench:
    """A folder with a sweep file, and `agent.local` on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        self.study = folder / "study"
        self.write()

    def write(self, text: str = SWEEP, method: str = "grid") -> None:
        (self.folder / "sweep.yaml").write_text(text.replace("METHOD", method))

    @property
    def arguments(self) -> list[str]:
        return [str(self.folder / "sweep.yaml"), f"--study={self.study}"]

    def run(self, *options: str, **behaviour: str) -> int:
        """Run in this process; `w16='fail'` says what the point of width 16 does."""
        told = {key[1:]: what for key, what in behaviour.items()}
        self._monkeypatch.setattr(child, "start_point", stand_in_for(told))
        return main([*self.arguments, *options])

    def start(
        self, *options: str, told: Mapping[str, Any] | None = None, **behaviour: str
    ) -> subprocess.Popen[str]:
        """Start one more driver in a process of its own.

        Args:
            told: see `be_told`.
        """
        runs = {key[1:]: what for key, what in behaviour.items()}
        content = json.dumps({"runs": runs, **(told or {})})
        return subprocess.Popen(
            [sys.executable, "-m", "tests.bench", content, *self.arguments, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).parents[1],
        )

    def records(self) -> dict[int, RunResult]:
        """width -> record."""
        paths = self.study.glob("runs/*/result.json")
        results = [RunResult.model_validate_json(path.read_bytes()) for path in paths]
        return {result.config["width"]: result for result in results}

    def statuses(self) -> dict[int, str]:
        return {width: result.status for width, result in sorted(self.records().items())}

    def starts(self) -> list[tuple[str, int]]:
        """(run_id, pid) of every run that was started, in order."""
        path = self.folder / "starts"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(line.split()[0], int(line.split()[1])) for line in lines]

    def repeats(self) -> list[str]:
        """run_ids that were started although they had finished."""
        lines = (self.folder / "starts").read_text().splitlines()
        return [line.split()[0] for line in lines if line.endswith("again")]

    def wait_for_starts(self, count: int) -> list[tuple[str, int]]:
        deadline = time.monotonic() + 30
        while len(self.starts()) < count:
            assert time.monotonic() < deadline, "no run started"
            time.sleep(0.02)
        return self.starts()


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def be_told(content: Mapping[str, Any]) -> None:
    """Make this process the driver that a test wants.

    runs: width -> what its run does; "*" is any other width.
    host: it believes itself on a host of that name.
    beat_s, silent_s: of heartbeats, so that a test need not wait for minutes.
    go: it waits for that file, so that several drivers begin at the same moment.
    """
    child.start_point = stand_in_for(content["runs"])
    if host := content.get("host"):
        process._place = lambda: host  # type: ignore[assignment]
    for module in (claims, queue_module, driver):
        for name in ("BEAT_S", "SILENT_S"):
            if hasattr(module, name) and name.lower() in content:
                setattr(module, name, content[name.lower()])
    if go := content.get("go"):
        while not Path(go).exists():
            time.sleep(0.0005)


if __name__ == "__main__":
    be_told(json.loads(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
