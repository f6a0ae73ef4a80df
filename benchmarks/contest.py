"""What a race is about: frames that every side gets, others that judge, and the scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Complex64, Float64

from fno_runner.config import RunConfig
from fno_runner.data.crop import Crop
from fno_runner.data.formats import read_scan
from fno_runner.data.frames import Scan, beam_diameter
from fno_runner.data.gridlines import OBJECT, grid_lines_object
from fno_runner.data.probe import zone_plate_probe
from fno_runner.data.scan import hold_out, patterns_of
from fno_runner.physics import amplitude_of, local_probe
from fno_runner.reconstruct.stitching import Canvas, cut
from fno_runner.scan.iterative import Fit, residual
from fno_runner.score.metrics import score

JITTER = 0.15
"""Positions of a simulated raster are off by up to this share of its step, as real ones are."""
JUDGED = 60
"""Simulated frames that no side gets."""
LEVEL = 4.2
"""What grid lines are divided by to be near 1."""
SLICE = 256


@dataclass(frozen=True)
class Contest:
    """kept: what every side gets; its reference is no more than the object's shape. judged: what
    none gets. truth: the object where it is known.
    """

    kept: Scan
    judged: Scan
    truth: Complex64[np.ndarray, "h w"] | None = None

    def lit(self) -> Bool[np.ndarray, "h w"]:
        """Where the kept frames' light tells of the object."""
        patterns = patterns_of(self.kept)
        canvas = Canvas(self.kept.shape)
        ones = cut(np.ones(self.kept.shape, np.complex64), patterns.positions, self.kept.size)
        canvas.add(ones, patterns.positions, patterns.probe)
        return canvas.seen()

    def scores(self, fit: Fit) -> dict[str, float | None]:
        """r: of the judged frames, as the object predicts them. r_kept: of the kept ones.

        ssim, psnr [dB], frc [1/px], pearson: of the phase against the truth, where light fell.
        """
        judged = replace(fit, positions=self.judged.positions)
        told: dict[str, float | None] = {
            "r": residual(judged, self.judged) if len(self.judged) else None,
            "r_kept": residual(fit, self.kept),
        }
        if self.truth is not None:
            of_truth = score(fit.obj[None], self.truth[None], self.lit()[None])
            names = {"ssim": "ssim", "psnr": "psnr", "frc": "frc50", "pearson": "pearson"}
            told |= {ours: of_truth[theirs][1] for ours, theirs in names.items()}
        return told


def only(scan: Scan, frames: Bool[np.ndarray, " f"]) -> Scan:
    """These frames of a scan, in an object of the same shape that says nothing."""
    return replace(
        scan,
        amplitude=np.ascontiguousarray(scan.amplitude[frames]),
        positions=scan.positions[frames],
        indexes=scan.indexes[frames],
        reference=np.ones(scan.shape, np.complex64),
    )


def measured(
    path: Path,
    *,
    share: float = 1.0,
    photons: float | None = None,
    draw: int = 0,
    coarse: bool = False,
    everything: bool = False,
) -> Contest:
    """A contest on a scan's frames.

    Args:
        share: of the frames, drawn at random, that is kept; the others judge. Where all are kept, a
            tenth judges.
        photons: counts are thinned binomially to so many a frame.
        coarse: keep a coarser raster, each frame as far from those before as there is, rather than
            frames at random.
        everything: all frames are kept, and all judge.
    """
    scan = read_scan(path)
    rng = np.random.default_rng([draw, round(1000 * share)])
    count = len(scan)
    if photons is not None:
        counts = np.rint(np.square(scan.amplitude)).astype(np.int64)
        thinned = rng.binomial(counts, min(1.0, photons / counts.sum((1, 2)).mean()))
        dimmer = np.float32(np.sqrt(thinned.sum() / counts.sum()))
        scan = replace(
            scan,
            amplitude=np.sqrt(thinned).astype(np.float32),
            probe=None if scan.probe is None else scan.probe * dimmer,
        )
    if everything:
        every = np.ones(count, bool)
        return Contest(only(scan, every), only(scan, every))
    if share == 1:
        kept = ~hold_out(scan.positions, draw)[0]
    elif coarse:
        kept = _spread(scan.positions, round(share * count), rng)
    else:
        kept = np.zeros(count, bool)
        kept[rng.choice(count, round(share * count), replace=False)] = True
    return Contest(only(scan, kept), only(scan, ~kept))


def simulated(overlap: float, photons: float, frames: int, seed: int) -> Contest:
    """Grid lines under the study's probe, on a raster of so many frames (or one frame).

    overlap: 1 − step / the beam's diameter. photons: of a frame, the mean.
    """
    rng = np.random.default_rng([seed, frames])
    obj = (grid_lines_object(rng) / LEVEL).astype(np.complex64)
    probe = zone_plate_probe(RunConfig())[None]
    step = (1 - overlap) * beam_diameter(probe)
    half, side = probe.shape[-1] // 2, int(np.sqrt(frames))
    extent = min(step * (side - 1), OBJECT - 2 * half - 2)
    along = (np.arange(side) - (side - 1) / 2) * (extent / max(side - 1, 1))
    raster = np.stack(np.meshgrid(along, along, indexing="ij"), -1).reshape(-1, 2)
    raster = raster + rng.uniform(-JITTER, JITTER, raster.shape) * step
    others = rng.uniform(-extent / 2, extent / 2, (JUDGED if frames > 1 else 0, 2))
    edge = half + 1
    kept, judged = (np.clip(p + OBJECT / 2, edge, OBJECT - edge) for p in (raster, others))
    level = _mean_counts(obj, probe, kept)
    probe = probe * np.float32(np.sqrt(photons / level))
    return Contest(_exposed(obj, probe, kept, rng), _exposed(obj, probe, judged, rng), obj)


def _exposed(
    obj: np.ndarray, probe: np.ndarray, positions: np.ndarray, rng: np.random.Generator
) -> Scan:
    counts = rng.poisson(np.square(_amplitude(obj, probe, positions), dtype=np.float64))
    return Scan(
        amplitude=np.sqrt(counts).astype(np.float32),
        mask=None,
        probe=probe.astype(np.complex64),
        positions=positions,
        indexes=np.arange(len(positions)),
        pixel_size=None,
        reference=np.ones_like(obj),
        source="simulated",
        crop=Crop(probe.shape[-1], 1, 1.0, None),
    )


def _mean_counts(obj: np.ndarray, probe: np.ndarray, positions: np.ndarray) -> float:
    return float(np.square(_amplitude(obj, probe, positions)).sum((1, 2)).mean())


def _amplitude(
    obj: np.ndarray, probe: np.ndarray, positions: Float64[np.ndarray, "f 2"]
) -> np.ndarray:
    """(F, N, N), of the sub-pixel model that every side has."""
    size = probe.shape[-1]
    first = positions - size // 2
    corner = np.rint(first).astype(int)
    shift = torch.from_numpy((first - corner).astype(np.float32))[:, None]
    patches = [obj[r : r + size, c : c + size] for r, c in corner]
    if not patches:
        return np.zeros((0, size, size), np.float32)
    waves = torch.from_numpy(np.stack(patches).astype(np.complex64))[:, None]
    light = torch.from_numpy(probe.astype(np.complex64))
    parts = [
        amplitude_of(waves[i : i + SLICE], local_probe(light, shift[i : i + SLICE]))[:, 0].numpy()
        for i in range(0, len(patches), SLICE)
    ]
    return np.concatenate(parts)


def _spread(positions: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Frames chosen one by one, each the furthest from those chosen before."""
    kept = np.zeros(len(positions), bool)
    far = np.linalg.norm(positions - positions[rng.integers(len(positions))], axis=1)
    for _ in range(count):
        next_one = int(np.argmax(far))
        kept[next_one] = True
        far = np.minimum(far, np.linalg.norm(positions - positions[next_one], axis=1))
    return kept


def training_frames(
    like: Scan, photons: float, objects: int, frames: int, seed: int, *, weak: bool
) -> Scan:
    """Frames of other, simulated objects under a scan's probe, for a network to learn from.

    Args:
        weak: objects that dim by up to a half and shift the phase by up to 2 rad where lines are,
            as a thin sample does; else grid lines as the study has them.
    """
    assert like.probe is not None
    rng = np.random.default_rng([seed, 1])
    size, parts, levels = like.size, [], []
    edge = size // 2 + 1
    for _ in range(objects):
        obj = grid_lines_object(rng) / LEVEL
        if weak:
            depth = np.abs(obj) / np.abs(obj).max()
            obj = (1 - rng.uniform(0, 0.5) * depth) * np.exp(1j * rng.uniform(-2, 2) * depth)
        positions = rng.uniform(edge, OBJECT - edge, (frames // objects, 2))
        obj = obj.astype(np.complex64)
        levels.append(np.float32(np.sqrt(photons / _mean_counts(obj, like.probe, positions))))
        parts.append(_exposed(obj, like.probe * levels[-1], positions, rng))
    # One probe for all: what a network sees is the amplitude over the probe's own.
    amplitude = [p.amplitude * (levels[0] / level) for p, level in zip(parts, levels, strict=True)]
    return replace(
        parts[0],
        amplitude=np.concatenate(amplitude),
        positions=np.concatenate([p.positions for p in parts]),
        indexes=np.arange(sum(map(len, parts))),
    )
