"""What lights a simulated sample, where, and how brightly: invented, or as in a scan."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Complex64, Float32

from fno_runner.config import RunConfig
from fno_runner.data.formats import read_scan
from fno_runner.data.probe import zone_plate_probe
from fno_runner.data.scan import probe_of
from fno_runner.data.source import Hints
from fno_runner.errors import UserError

log = logging.getLogger("fno_runner")

FEWEST_COUNTS = 10
"""Frames with fewer counts on average are in other units than photons."""
INSIDE = 0.499
"""Remainders stay within half a pixel, so that no rounding puts a patch into the next pixel."""


@dataclass(frozen=True)
class Beam:
    """The illumination of simulated patterns and what their detector sees.

    probe: complex64 (N, N), or M incoherent modes (M, N, N).
    photons: mean number of photons in a pattern.
    remainders: float32 (R, 2), sub-pixel parts of positions [px] that patterns draw theirs from;
        None where positions are whole.
    mask: bool (N, N), good pixels; None where all are.
    """

    probe: Complex64[np.ndarray, "*m n n"]
    photons: float
    remainders: Float32[np.ndarray, "r 2"] | None = None
    mask: Bool[np.ndarray, "n n"] | None = None

    @property
    def size(self) -> int:
        """N, the side of a pattern [px]."""
        return self.probe.shape[-1]

    def at(self, remainders: Float32[np.ndarray, "b 2"]) -> Complex64[np.ndarray, "..."]:
        """The probe, moved by each of these: (b, N, N), or (b, M, N, N)."""
        # PyTorch takes seconds to import, and a command that only starts others has no use for it.
        import torch

        from fno_runner.physics import shift_probe

        return shift_probe(torch.from_numpy(self.probe), torch.from_numpy(remainders)).numpy()


def beam_of(config: RunConfig) -> Beam:
    """The beam that a configuration simulates patterns under.

    Raises:
        UserError: the scan that it takes the probe from cannot be used.
    """
    if config.probe_file is None:
        return Beam(zone_plate_probe(config), config.nphotons)
    path = Path(config.probe_file)
    scan = read_scan(path, Hints.of(config), config.patch_size, config.bin)
    if scan.probe is None:
        raise UserError(
            f"{path}: has no probe that can be used; python -m fno_runner.data probe finds one"
        )
    photons = float(np.square(scan.amplitude, dtype=np.float64).sum() / len(scan))
    if config.nphotons != RunConfig.model_fields["nphotons"].default:
        photons = config.nphotons
    elif photons < FEWEST_COUNTS:
        raise UserError(
            f"{path}: its frames hold {photons:.3g} counts each, which are no photons; say nphotons"
        )
    log.info("%s: its probe lights simulated samples, %.4g photons a frame", path, photons)
    first = scan.positions - scan.size // 2
    remainders = (first - np.rint(first)).clip(-INSIDE, INSIDE).astype(np.float32)
    return Beam(probe_of(scan), photons, remainders, scan.mask)
