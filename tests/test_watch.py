"""A scan that is watched while real processes write it, and what is left when it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import h5py
import numpy as np
import pytest
from filelock import FileLock

from fno_runner.apply import follow, watch_file, watch_folder
from fno_runner.apply.command import main
from fno_runner.apply.follow import LOCK
from fno_runner.apply.live import STATE
from fno_runner.apply.live_page import PAGE
from fno_runner.apply.watch import Arrivals
from fno_runner.apply.watch_file import GrowingFile
from fno_runner.apply.watch_folder import Folder
from fno_runner.data.npz import read_array
from fno_runner.data.source import Hints
from fno_runner.errors import UserError
from tests.scans import simulate_scan, write_raw
from tests.test_apply import untrained

ROOT = Path(__file__).resolve().parents[1]
FRAMES = 60


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scan as the writers have it before them."""
    path = tmp_path_factory.mktemp("whole") / "s.npz"
    return write_raw(path, simulate_scan(frames=FRAMES), objectGuess=None)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_file, "UNCHANGED_S", 0.1)
    monkeypatch.setattr(watch_file, "EMPTY_S", 0.3)
    monkeypatch.setattr(watch_folder, "UNCHANGED_S", 0.1)


def writer(kind: str, scan: Path, target: Path, rate: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.writers", kind, str(scan), str(target), str(rate)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def options(network: Path, target: Path, out: Path, *more: str) -> list[str]:
    return [str(network), str(target), "--watch", "-o", str(out), "--device=cpu", *more]


def watcher(network: Path, target: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fno_runner.reconstruct"]
    return subprocess.Popen(
        [*command, *options(network, target, out, *more)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def frames_in(out: Path) -> int:
    try:
        return len(read_array(out / "object.npz", "xcoords"))
    except UserError:
        return 0


def wait_for_frames(out: Path, count: int, within: float = 60) -> None:
    end = time.monotonic() + within
    while frames_in(out) < count:
        assert time.monotonic() < end, f"{frames_in(out)} frames after {within} s"
        time.sleep(0.02)


def steps(path: Path) -> np.ndarray:
    """Positions from the smallest ones on, in the order in which the file has them."""
    positions = np.stack([read_array(path, f"{axis}coords") for axis in "yx"], axis=1)
    return np.asarray(positions - positions.min(axis=0))


def drained(source: Arrivals, polls: int = 12) -> list[int]:
    """The frames that a source gives, told by what is in their first pixel."""
    numbers = []
    for _ in range(polls):
        for piece in source.poll():
            _, block = next(iter(piece.measured.frames.blocks()))
            numbers += [int(frame[0, 0]) for frame in block]
        time.sleep(0.05)
    return numbers


# --- a scan in progress ---------------------------------------------------------------------------


def test_what_was_watched_is_what_the_whole_file_gives(
    network: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all positions there from the start, the end is known; all frames are the opening."""
    monkeypatch.setattr(follow, "OPENING", FRAMES)
    target, out = tmp_path / "scan.h5", tmp_path / "out"
    with writer("declared", whole, target, 100) as process:
        assert main(options(network, target, out, "--idle=20")) == 0
        assert process.wait() == 0
    offline = tmp_path / "offline"
    assert main([str(network), str(whole), "-o", str(offline), "--device=cpu"]) == 0
    for name in ("objectGuess", "object_light", "xcoords", "ycoords", "probeGuess"):
        watched, at_once = (read_array(path / "object.npz", name) for path in (out, offline))
        np.testing.assert_allclose(watched, at_once, rtol=1e-3, atol=1e-4 * np.abs(at_once).max())
    record = json.loads((out / "reconstruction.json").read_text())
    at_once = json.loads((offline / "reconstruction.json").read_text())
    assert record["r_own"] == pytest.approx(at_once["r_own"], rel=1e-4)
    assert "declares" in record["watch"]
    assert "--idle=20" in record["command"] and f"-o {offline}" in at_once["command"]
    assert {path.name for path in offline.iterdir()} < {path.name for path in out.iterdir()}


@pytest.mark.parametrize("kind", ["renamed", "slow"])
def test_a_folder_that_fills(
    kind: str, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "OPENING", 16)
    frames = 24 if kind == "renamed" else 18
    whole = write_raw(tmp_path / "s.npz", simulate_scan(frames=frames), objectGuess=None)
    monkeypatch.setattr(watch_folder, "UNCHANGED_S", 0.05)  # halves are further apart than this
    target, out = tmp_path / "scan", tmp_path / "out"
    with writer(kind, whole, target, 50) as process:
        assert main(options(network, target, out, f"--frames={frames}")) == 0
        assert process.wait() == 0
    np.testing.assert_allclose(steps(out / "object.npz"), steps(whole), atol=1e-9)


def test_a_second_watch_and_options_that_do_not_go_together_are_refused(
    network: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / LOCK):
        assert main(options(network, whole, out)) == 2
    assert "another watch" in capsys.readouterr().err
    assert main(options(network, whole, out, "--refine=2")) == 2
    assert main([str(network), str(whole), "--serve=8000"]) == 2


def test_a_scan_that_never_comes_is_told_and_leaves_nothing(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(options(network, tmp_path / "never.h5", out, "--wait=0.3")) == 2
    assert "0.3 s" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_a_folder_that_is_there_is_left_as_it_is(
    network: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "scan", tmp_path / "out"
    folder.mkdir()
    (folder / "all.npz").write_bytes(whole.read_bytes())
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for _ in range(2):  # again: the watch's own folder is found, and nothing is laid down twice
        assert main(options(network, folder, out, "--idle=0.5")) == 0
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    assert frames_in(tmp_path / "out-2") == FRAMES
    assert not (tmp_path / "out-3").exists()
    # A torn state is set aside, and the frames are read again.
    state = tmp_path / "out-2" / STATE
    state.write_bytes(state.read_bytes()[:1000])
    assert main(options(network, folder, out, "--idle=0.5")) == 0
    assert frames_in(tmp_path / "out-2") == FRAMES
    assert list((tmp_path / "out-2").glob(f"{STATE}.torn-*"))


def test_another_scan_does_not_go_on_in_a_folder(
    network: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "scan", tmp_path / "out"
    folder.mkdir()
    (folder / "all.npz").write_bytes(whole.read_bytes())
    assert main(options(network, folder, out, "--idle=0.5")) == 0
    before = (out / "object.npz").read_bytes()
    other = simulate_scan(frames=FRAMES, photons=1e6)
    write_raw(folder / "all.npz", other, objectGuess=None)
    assert main(options(network, folder, out, "--idle=0.5")) == 2
    assert "another scan" in capsys.readouterr().err
    assert (out / "object.npz").read_bytes() == before


@pytest.mark.slow
def test_ctrl_c_leaves_a_whole_result_and_a_restart_goes_on(network: Path, tmp_path: Path) -> None:
    frames = 500
    whole = write_raw(tmp_path / "s.npz", simulate_scan(frames=frames), objectGuess=None)
    target, out = tmp_path / "scan.h5", tmp_path / "out"
    with writer("swmr", whole, target, 15) as process:
        with watcher(network, target, out) as watching:
            wait_for_frames(out, 100)
            second = watcher(network, target, out)
            assert "another watch" in second.communicate()[1]
            assert second.returncode == 2
            watching.send_signal(signal.SIGINT)
            told, _ = watching.communicate()
            assert watching.returncode == 128 + signal.SIGINT
            assert "stopped" in told
        done = frames_in(out)
        assert 100 <= done < frames
        assert (out / "object.cxi").exists() and "stopped" in (out / PAGE).read_text()
        with watcher(network, target, out) as watching:  # killed: goes on from what was kept
            wait_for_frames(out, min(done + 60, frames))
            watching.kill()
        with watcher(network, target, out, f"--frames={frames}") as watching:
            _, said = watching.communicate()
            assert watching.returncode == 0 and "going on after" in said
        assert process.wait() == 0
    np.testing.assert_allclose(steps(out / "object.npz"), steps(whole), atol=1e-9)


@pytest.mark.slow
def test_nothing_is_lost_at_a_hundred_frames_a_second(network: Path, tmp_path: Path) -> None:
    whole = write_raw(tmp_path / "s.npz", simulate_scan(frames=600), objectGuess=None)
    target, out = tmp_path / "scan.h5", tmp_path / "out"
    with writer("swmr", whole, target, 100) as process:
        assert main(options(network, target, out, "--idle=3")) == 0
        assert process.wait() == 0
    np.testing.assert_allclose(steps(out / "object.npz"), steps(whole), atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["deleted", "replaced"])
def test_the_page_is_served_and_a_file_that_goes_leaves_a_whole_result(
    end: str, network: Path, whole: Path, tmp_path: Path
) -> None:
    target, out = tmp_path / "scan.h5", tmp_path / "out"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with writer("swmr", whole, target, 200) as process:
        assert process.wait() == 0
    with watcher(network, target, out, f"--serve={port}") as watching:
        wait_for_frames(out, FRAMES)
        end_of_wait = time.monotonic() + 20
        while f"{FRAMES} frames" not in urlopen(f"http://127.0.0.1:{port}/").read().decode():
            assert time.monotonic() < end_of_wait
            time.sleep(0.1)
        shown = urlopen(f"http://127.0.0.1:{port}/object.png?{FRAMES}")
        assert shown.read().startswith(b"\x89PNG")
        if end == "deleted":
            target.unlink()
        else:
            (tmp_path / "other").write_bytes(target.read_bytes())
            (tmp_path / "other").replace(target)
        _, said = watching.communicate()
        assert watching.returncode == 2 and end in said, said
    assert f"was {end}" in (out / PAGE).read_text() and (out / "object.cxi").exists()
    np.testing.assert_allclose(steps(out / "object.npz"), steps(whole), atol=1e-9)


def test_a_disk_that_fills_ends_it_in_a_line(network: Path, whole: Path, tmp_path: Path) -> None:
    """Files that are there stay whole."""
    folder, out = tmp_path / "scan", tmp_path / "out"
    folder.mkdir()
    (folder / "all.npz").write_bytes(whole.read_bytes())
    program = (
        "import resource, sys\n"
        "from fno_runner.apply.command import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, 250_000))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", program, *options(network, folder, out, "--idle=1")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and "cannot write" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(out.glob(".*.npz.*"))
    assert main(options(network, folder, out, "--idle=0.5")) == 0
    assert frames_in(out) == FRAMES


# --- what has arrived -----------------------------------------------------------------------------


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[h5py.File]:
    """A file of the raw layout's names whose arrays are written by hand, closed or not."""
    # Without a lock, as one process does not open a file in both ways.
    with h5py.File(tmp_path / "scan.h5", "w", libver="latest", locking=False) as file:
        file.create_dataset(
            "diff3d", (0, 64, 64), "f4", maxshape=(None, 64, 64), chunks=(1, 64, 64)
        )
        for name in ("xcoords", "ycoords"):
            file.create_dataset(name, (0,), "f8", maxshape=(None,), chunks=(8,))
        file.swmr_mode = True
        yield file


def grow(file: h5py.File, name: str, values: np.ndarray) -> None:
    dataset = file[name]
    before = len(dataset)
    dataset.resize(before + len(values), axis=0)
    dataset[before:] = values
    dataset.flush()


def marked(*numbers: int) -> np.ndarray:
    """Frames that are full of their number."""
    return np.full((len(numbers), 64, 64), np.array(numbers)[:, None, None], np.float32)


def test_as_many_frames_are_taken_as_the_shortest_array_has(
    growing: h5py.File, tmp_path: Path
) -> None:
    source = GrowingFile(tmp_path / "scan.h5", Hints())
    assert drained(source, 2) == []
    grow(growing, "diff3d", marked(1, 2, 3, 4))
    grow(growing, "xcoords", np.arange(3.0))
    assert drained(source, 3) == []
    grow(growing, "ycoords", np.arange(2.0))
    assert list(source.poll()) == []  # so long only since now: they may still be in writing
    assert drained(source) == [1, 2]
    grow(growing, "ycoords", np.arange(2.0))
    assert drained(source) == [3]


def test_an_empty_frame_is_waited_for_and_left_out_if_it_does_not_come(
    growing: h5py.File, tmp_path: Path
) -> None:
    source = GrowingFile(tmp_path / "scan.h5", Hints())
    for name in ("xcoords", "ycoords"):
        grow(growing, name, np.arange(6.0))
    grow(growing, "diff3d", marked(1, 0, 3, 0, 5, 0))
    assert drained(source, 3) == [1]
    growing["diff3d"][1] = marked(2)[0]
    growing["diff3d"].flush()
    assert drained(source, 2) == [2, 3]
    assert drained(source, 12) == [5]  # the fourth never came; the last one may still
    assert source.left_out == 1 and source.remarks()
    growing["diff3d"][5] = marked(6)[0]
    growing["diff3d"].flush()
    assert drained(source, 3) == [6]


def test_a_file_that_is_deleted_or_replaced_is_told(growing: h5py.File, tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    source = GrowingFile(path, Hints())
    assert list(source.poll()) == []
    (tmp_path / "other").write_bytes(path.read_bytes())
    (tmp_path / "other").replace(path)
    with pytest.raises(UserError, match="replaced"):
        list(source.poll())
    path.unlink()
    with pytest.raises(UserError, match="deleted"):
        list(source.poll())


def test_a_file_of_a_folder_is_taken_when_it_is_whole(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scan"
    source = Folder(folder, Hints())
    assert list(source.poll()) == []
    folder.mkdir()
    content = whole.read_bytes()
    (folder / "a.npz").write_bytes(content[: len(content) // 2])
    (folder / ".b.npz").write_bytes(content)
    (folder / "notes.txt").write_text("no scan")
    assert drained(source, 5) == []
    assert len(source.remarks()) == 2
    (folder / "a.npz").write_bytes(content)
    assert len(drained(source, 5)) == FRAMES
    assert len(source.remarks()) == 1  # the notes
    (folder / "a.npz").write_bytes(content)
    assert drained(source, 5) == []
    assert any("a.npz" in remark for remark in source.remarks())
