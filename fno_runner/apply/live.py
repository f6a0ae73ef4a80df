"""An object that grows while frames arrive: what is known of it, kept so that a restart goes on."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, FiniteFloat, NonNegativeInt

from fno_runner.apply.assemble import Assembler
from fno_runner.apply.prepared import Prepared
from fno_runner.apply.product import Product, now, record_of
from fno_runner.apply.watch import Piece
from fno_runner.data.frames import MAX_OBJECT, Outline, Scan, amplitudes, with_frames
from fno_runner.data.measured import Chained, Flags, InMemory, Measured
from fno_runner.data.npz import array_names, read_array, write_npz
from fno_runner.data.recording import Recording, clean
from fno_runner.data.scan import patterns_of
from fno_runner.errors import UserError
from fno_runner.reconstruct.stitching import GrowingCanvas

STATE = "watch.npz"


@dataclass(frozen=True)
class Opening:
    """What the first frames tell of the scan; later frames are treated accordingly.

    The mask, the beam's centre on the detector, what the frames' numbers are and the input scale
    factor are found from them; probe and pixel size are read with them.

    command: the line that began it.
    """

    recording: Recording
    scan: Scan
    prepared: Prepared
    keys: list[str]
    command: str

    @property
    def fingerprint(self) -> str:
        """Of the first frames, their positions, the probe and the network, 64 hex digits."""
        digest = hashlib.sha256(self.prepared.model.name.encode())
        assert self.scan.probe is not None
        for array in (self.scan.amplitude, self.scan.positions, self.scan.probe):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def bring(self, piece: Piece) -> Scan:
        """Frames of a piece as those of `scan`, their positions from the same origin.

        Raises:
            UserError: they are of another size.
        """
        scan = self.scan
        later = self.recording.going_on(piece.measured)
        scale = scan.crop.reach / self.recording.side
        origin = scan.positions[0] - self.recording.positions[0] * scale
        positions = later.positions * scale + origin
        blocks = amplitudes(later, scan.crop)
        return with_frames(scan, blocks, positions=positions, indexes=later.indexes)


def recording_of(pieces: list[Piece]) -> Recording:
    """The first frames of a scan as one recording, of the first one's format, probe and units.

    Raises:
        UserError: they cannot be frames of a scan.
    """
    parts = [piece.measured for piece in pieces]
    first = parts[0]

    def frames_of(part: Measured) -> np.ndarray:
        assert isinstance(part.frames, InMemory)
        return part.frames.array

    sizes = {part.frames.shape[1:] for part in parts}
    if len(sizes) > 1:
        shown = ", ".join(f"{height}×{width}" for height, width in sorted(sizes))
        raise UserError(f"{first.path}: the first frames are of several sizes: {shown} px")
    flags = first.flags
    if flags is not None and flags.marks.shape[0] == first.frames.shape[0] > 1:
        flags = Flags(Chained([part.flags.marks for part in parts if part.flags]), flags.bad)
    monitors = [part.monitor for part in parts if part.monitor is not None]
    indexes = [part.indexes for part in parts if part.indexes is not None]
    whole = replace(
        first,
        frames=InMemory(np.concatenate([frames_of(part) for part in parts])),
        positions=np.concatenate([part.positions for part in parts]),
        flags=flags,
        monitor=np.concatenate(monitors) if len(monitors) == len(parts) else None,
        indexes=np.concatenate(indexes) if len(indexes) == len(parts) else None,
        reference=None,
    )
    return clean(whole)


class Live:
    """The object so far, and which pieces are in it.

    refused: why pieces were left out, by their keys.
    left_out: frames without a beam.
    """

    def __init__(self, opening: Opening, title: str) -> None:
        self.opening, self.title = opening, title
        self.canvas = GrowingCanvas()
        self._assembler = Assembler(opening.prepared, self.canvas)
        self.positions, self.indexes = np.zeros((0, 2)), np.zeros(0, np.int64)
        self.keys: list[str] = []
        self.refused: dict[str, str] = {}
        self.left_out = 0
        self._record = record_of(opening.prepared, command=opening.command)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def r_own(self) -> float | None:
        """R of what the network says of each frame, over the frames so far."""
        r = self._assembler.own.r
        return r if math.isfinite(r) else None

    def take(self, piece: Piece) -> None:
        """Reconstruct a piece's frames and lay them on the canvas; what cannot be used is noted.

        Raises:
            DivergedError: a prediction is not a finite number.
        """
        try:
            scan = self.opening.bring(piece)
            positions = np.concatenate([self.positions, scan.positions])
            spread = np.ptp(positions, axis=0).max() if len(positions) else 0
            if spread + scan.size > MAX_OBJECT:
                raise UserError(
                    f"{piece.measured.path}: with these frames positions reach over {spread:.4g} "
                    f"px; at most {MAX_OBJECT} px are an object"
                )
        except UserError as error:
            self.refused[piece.key] = str(error)
        else:
            # Where no file counts the frames, they are counted as they come.
            before = 0 if piece.measured.indexes is not None else len(self) + self.left_out
            self.left_out += len(piece) - len(scan)
            if len(scan):
                self._assembler.add(patterns_of(scan))
                self.indexes = np.concatenate([self.indexes, scan.indexes + before])
                self.positions = positions
        self.keys.append(piece.key)

    def product(self, state: str) -> Product:
        """The object as it is now, cut to what the positions reach, as that of a whole file is."""
        opening = self.opening.scan
        row, col = np.floor(self.positions.min(axis=0)).astype(int) - opening.size // 2
        facts = vars(opening) | {"positions": self.positions - (row, col), "indexes": self.indexes}
        del facts["amplitude"]  # of the opening's frames only
        scan = Outline(**facts)
        canvas = self.canvas.window((int(row), int(col)), scan.shape)
        told = {"frames": len(self), "frames_without_beam": self.left_out}
        return Product(
            obj=canvas.mean(),
            seen=canvas.seen(),
            weight=canvas.weight,
            scan=scan,
            title=self.title,
            record=self._record
            | {
                "written": now(),
                "r_own": self.r_own,
                "watch": state,
                "scan": {"source": scan.source, **told},
            },
        )

    # --- a restart --------------------------------------------------------------------------------

    def save(self, folder: Path, empty: int) -> None:
        """Keep what a restart goes on from. empty: frames that never came.

        Raises:
            MachineError: the disk refuses.
        """
        own = self._assembler.own
        about = WatchFacts(
            version=1,
            opening=self.opening.keys,
            fingerprint=self.opening.fingerprint,
            keys=self.keys,
            refused=self.refused,
            left_out=self.left_out,
            empty=empty,
            off=own.off,
            all=own.all,
        )
        arrays: dict[str, np.ndarray] = {
            "about": np.frombuffer(about.model_dump_json().encode(), np.uint8),
            "total": self.canvas.total,
            "weight": self.canvas.weight,
            "origin": self.canvas.origin,
            "positions": self.positions,
            "indexes": self.indexes,
        }
        write_npz(folder / STATE, arrays)

    def go_on(self, kept: WatchState) -> None:
        """Begin with what was kept.

        Raises:
            UserError: it is of another scan, network or probe.
        """
        about = kept.about
        if about.fingerprint != self.opening.fingerprint:
            raise UserError(
                f"{kept.path}: is of another scan, another network or another probe; "
                f"-o names another folder"
            )
        self.canvas.total, self.canvas.weight = kept.total, kept.weight
        self.canvas.origin = kept.origin
        self.positions, self.indexes = kept.positions, kept.indexes
        self.keys, self.refused, self.left_out = about.keys, about.refused, about.left_out
        self._assembler.own.off, self._assembler.own.all = about.off, about.all


class WatchFacts(BaseModel):
    """What a watch keeps beside its arrays.

    opening: keys of the pieces that the opening was made of. fingerprint: the opening's. keys: of
    all pieces that came. refused: why pieces were left out, by their keys. left_out, empty: frames
    without beam, and those that never came. off, all: the sums that R of its own frames is made of.
    """

    version: Literal[1]
    opening: list[str]
    fingerprint: str
    keys: list[str]
    refused: dict[str, str]
    left_out: NonNegativeInt
    empty: NonNegativeInt
    off: FiniteFloat
    all: FiniteFloat


@dataclass(frozen=True)
class WatchState:
    """What `Live.save` wrote, checked: of one shape, finite, and of this version."""

    path: Path
    about: WatchFacts
    total: np.ndarray
    weight: np.ndarray
    origin: np.ndarray
    positions: np.ndarray
    indexes: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> WatchState | None:
        """None where there is none.

        Raises:
            UserError: it is damaged.
        """
        path = folder / STATE
        if not path.exists():
            return None
        names = ("total", "weight", "origin", "positions", "indexes")
        if not array_names(path) >= {"about", *names}:
            raise UserError(f"{path}: is not what a watch keeps")
        damaged = UserError(f"{path}: is damaged, or of another version")
        try:
            text = read_array(path, "about").astype(np.uint8).tobytes()
            about = WatchFacts.model_validate_json(text, strict=True)
        except (ValueError, TypeError):
            raise damaged from None
        arrays = [read_array(path, name) for name in names]
        total, weight, origin, positions, indexes = arrays
        fits = (
            total.ndim == 2
            and total.dtype == np.complex64
            and weight.dtype == np.float32
            and weight.shape == total.shape
            and origin.shape == (2,)
            and origin.dtype.kind == "i"
            and positions.dtype == np.float64
            and indexes.dtype == np.int64
            and indexes.ndim == 1
            and positions.shape == (len(indexes), 2)
            and all(np.isfinite(array).all() for array in arrays)
        )
        if not fits:
            raise damaged
        return cls(path, about, total, weight, origin, positions, indexes)
