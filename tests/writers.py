"""Processes that write a scan while it is watched, as a beamline does.

    python -m tests.writers swmr|declared|renamed|slow SCAN.npz TARGET FRAMES_A_SECOND

swmr: an HDF5 file in SWMR mode, frames and positions getting longer. declared: the same, with all
positions there from the start. renamed: a folder of NPZ files of a frame each, each under another
name first. slow: such a folder, each file written in place, in halves.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from time import monotonic, sleep

import h5py
import numpy as np


def main(kind: str, scan: Path, target: Path, rate: float) -> None:
    """Write the whole scan, a frame after the other; one line with its time for each."""
    with np.load(scan) as file:
        arrays = {name: file[name] for name in ("diff3d", "xcoords", "ycoords", "probeGuess")}
    if kind in ("swmr", "declared"):
        _hdf5(arrays, target, rate, all_positions=kind == "declared")
    else:
        _folder(arrays, target, rate, slow=kind == "slow")


def _told(number: int, start: float, rate: float) -> None:
    print(number, monotonic(), flush=True)
    sleep(max(0.0, start + (number + 1) / rate - monotonic()))


def _hdf5(arrays: dict[str, np.ndarray], path: Path, rate: float, all_positions: bool) -> None:
    frames = arrays["diff3d"]
    with h5py.File(path, "w", libver="latest") as file:
        shape = frames.shape[1:]
        growing = [file.create_dataset("diff3d", (0, *shape), "f4", maxshape=(None, *shape),
                                       chunks=(1, *shape))]  # fmt: skip
        file["probeGuess"] = arrays["probeGuess"]
        for name in ("xcoords", "ycoords"):
            if all_positions:
                file[name] = arrays[name]
            else:
                growing.append(
                    file.create_dataset(name, (0,), "f8", maxshape=(None,), chunks=(64,))
                )
        file.swmr_mode = True
        start = monotonic()
        for number in range(len(frames)):
            for dataset in growing:
                dataset.resize(number + 1, axis=0)
                dataset[number] = arrays[dataset.name.strip("/")][number]
                dataset.flush()
            _told(number, start, rate)


def _folder(arrays: dict[str, np.ndarray], folder: Path, rate: float, slow: bool) -> None:
    folder.mkdir()
    start = monotonic()
    for number in range(len(arrays["diff3d"])):
        memory = io.BytesIO()
        rows = slice(number, number + 1)
        np.savez(
            memory,
            diff3d=arrays["diff3d"][rows],
            xcoords=arrays["xcoords"][rows],
            ycoords=arrays["ycoords"][rows],
            probeGuess=arrays["probeGuess"],
        )
        content, path = memory.getvalue(), folder / f"{number:06d}.npz"
        if slow:
            with path.open("wb") as stream:
                stream.write(content[: len(content) // 2])
                stream.flush()
                sleep(0.15)
                stream.write(content[len(content) // 2 :])
        else:
            hidden = folder / f".{number:06d}"
            hidden.write_bytes(content)
            hidden.rename(path)
        _told(number, start, rate)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
