"""Whatever bytes a file holds, a reader believes it or says why not: in bounded time and memory."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.export import export
from agent.study.records import read_record, read_records
from agent.study.sweepfile import read_sweep
from fno_runner.config import RunConfig
from fno_runner.data import load_dataset
from fno_runner.data.npz import array_names, fingerprint, read_array
from fno_runner.errors import UnbelievableError, UserError
from fno_runner.result import run_folder, write_result
from tests import faults
from tests.bench import SWEEP, Bench
from tests.test_records import UNBELIEVABLE, make, put

EXAMPLES = 2000 if faults.EXHAUSTIVE else 60
fuzzing = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def spoiled(whole: bytes) -> st.SearchStrategy[bytes]:
    """`whole` with bytes changed, cut, doubled or put in; or any bytes at all."""

    def change(edits: list[tuple[str, int, bytes]]) -> bytes:
        content = bytearray(whole)
        for kind, place, other in edits:
            at = place % (len(content) + 1)
            if kind == "put":
                content[at:at] = other
            elif kind == "cut":
                del content[at : at + len(other)]
            else:
                content[at : at + len(other)] = other
        return bytes(content)

    edit = st.tuples(
        st.sampled_from(["put", "cut", "write"]), st.integers(0, 2**20), st.binary(max_size=8)
    )
    return st.lists(edit, min_size=1, max_size=4).map(change) | st.binary(max_size=400)


RECORD = make().to_json().encode()


@fuzzing
@given(content=spoiled(RECORD))
def test_any_bytes_are_a_record_or_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    faults.fuzzed["records"] += 1
    try:
        read_record(path, "000000000001")
    except UnbelievableError as error:
        assert error.kind in ("empty", "torn", "foreign", "future")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@fuzzing
@given(key=st.sampled_from(sorted(json.loads(RECORD))), value=JSON)
def test_any_value_of_any_key_is_a_record_or_is_refused(
    key: str, value: Any, tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(json.loads(RECORD) | {key: value}))
    faults.fuzzed["records"] += 1
    try:
        read_record(path, "000000000001")
    except UnbelievableError:
        return


def archive() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, diffraction=np.ones((2, 4, 4), "f4"), probe=np.ones(3, "c8"))
    return stream.getvalue()


@fuzzing
@example(content=archive().replace(b"diffraction.npy", b"\niffraction.npy"))
@given(content=spoiled(archive()))
def test_any_bytes_are_an_npz_or_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    faults.fuzzed["NPZ files"] += 1
    try:
        fingerprint(path)
        for name in array_names(path):
            read_array(path, name)
    except UserError as error:
        assert "\n" not in str(error)


HEADER = "{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


@fuzzing
@example(descr="'<U0'", order="False", shape="(4000000000,)", data=b"")
@given(
    descr=st.sampled_from(
        ["'<f4'", "'|O'", "'V0'", "'<U0'", "[('a', '<f4')]", "'x'", "3", "(" * 99]
    )
    | st.text(max_size=20),
    order=st.sampled_from(["False", "True", "1", "''"]),
    shape=st.lists(st.integers(-3, 10**14), max_size=3).map(lambda n: repr(tuple(n)))
    | st.text(max_size=20),
    data=st.binary(max_size=64),
)
def test_any_npy_header_is_an_array_or_is_refused(
    descr: str, order: str, shape: str, data: bytes, tmp_path: Path
) -> None:
    text = HEADER.format(descr=descr, order=order, shape=shape).encode("latin1", "replace") + b"\n"
    member = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as stored:
        stored.writestr("a.npy", member)
    faults.fuzzed["NPY headers"] += 1
    try:
        assert read_array(tmp_path / "a.npz", "a").nbytes <= len(data)
    except UserError as error:
        assert "\n" not in str(error)


@fuzzing
@given(content=spoiled(SWEEP.replace("METHOD", "grid").encode()))
def test_any_bytes_are_a_sweep_or_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(content)
    faults.fuzzed["sweep files"] += 1
    try:
        read_sweep(path)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000


# --- bombs ----------------------------------------------------------------------------------------

LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from fno_runner.data.npz import read_array
from fno_runner.errors import UserError
import numpy
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 200 * 2**20,) * 2)
try:
    read_array(Path(sys.argv[1]), "a")
except UserError as error:
    print(error)
"""


def header_of(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    content = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, content)
    return stream.getvalue()


def claims_10_to_the_12(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as stored:
        stored.writestr("a.npy", header_of((10**12,)) + bytes(64))


def zip_bomb(path: Path) -> None:
    """A gigabyte of zeros in a megabyte."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stored,
        stored.open("a.npy", "w", force_zip64=True) as stream,
    ):
        stream.write(header_of((2**28,)))
        for _ in range(2**10):
            stream.write(bytes(2**20))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("make_bomb", "said"), [(claims_10_to_the_12, "claims"), (zip_bomb, "packed")]
)
def test_a_bomb_is_refused_before_memory_is_spent(
    make_bomb: Any, said: str, tmp_path: Path
) -> None:
    """In a process that could not have the memory."""
    make_bomb(tmp_path / "bomb.npz")
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, str(tmp_path / "bomb.npz")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    faults.count("NPZ bombs")


# --- set aside, named, made again -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [("empty", "empty"), ("torn", "torn"), ("foreign", "foreign"), ("future", "future")],
)
def test_an_unbelievable_record_is_kept_aside_and_its_point_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    name: str, kind: str,
) -> None:  # fmt: skip
    bench = Bench(tmp_path, monkeypatch)
    assert bench.run() == 0
    record = bench.study / "runs" / bench.records()[16].run_id / "result.json"
    content = UNBELIEVABLE[name][0]
    record.write_bytes(content.encode() if isinstance(content, str) else content)
    spoiled = record.read_bytes()
    capsys.readouterr()
    export(bench.study)  # reads only, and says what it does not believe
    assert record.read_bytes() == spoiled
    assert bench.run() == 0
    assert "result.json is not believed" in capsys.readouterr().out
    assert (record.parent / f"result.json.{kind}-1").read_bytes() == spoiled
    assert set(bench.statuses().values()) == {"finished"}
    assert len(bench.starts()) == 5
    assert read_records(bench.study).rejected == []
    faults.count(f"records {kind}")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    """A bit of `diffraction`, the last array: of those that no run reads, none is verified."""
    content = bytearray(path.read_bytes())
    content[-100_000] ^= 1
    path.write_bytes(content)


def replace(path: Path) -> None:
    np.savez(path.with_suffix(""), other=np.ones(3))


@pytest.mark.slow
@pytest.mark.faults
def test_a_damaged_cache_is_kept_aside_and_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = RunConfig(data_dir=str(tmp_path), nimgs_train=1)
    first = load_dataset(config).fingerprint
    folder = tmp_path / "N64" / "gs1"
    for spoil, file, kind in (
        (empty, "test.npz", "empty"),
        (cut, "test.npz", "torn"),
        (flip, "train.npz", "torn"),
        (replace, "train.npz", "foreign"),
        (cut, "manifest.json", "torn"),
        (empty, "manifest.json", "empty"),
    ):
        spoil(folder / file)
        damaged = (folder / file).read_bytes()
        number = len(list(folder.glob(f"{file}.{kind}-*"))) + 1
        assert load_dataset(config).fingerprint == first
        assert (folder / f"{file}.{kind}-{number}").read_bytes() == damaged
        assert f"kept as {file}.{kind}-{number}" in caplog.text
        faults.count(f"caches {kind}")


def test_a_record_of_every_unbelievable_kind_is_no_harm_to_the_export(tmp_path: Path) -> None:
    write_result(make(2), run_folder(tmp_path, "000000000002"))
    for number, (content, _) in enumerate(UNBELIEVABLE.values(), start=16):
        put(tmp_path, f"{number:012x}", content)
    export(tmp_path)
    rows = (tmp_path / "study_results.csv").read_text().splitlines()
    assert len(rows) == 2 and rows[1].startswith("000000000002")
