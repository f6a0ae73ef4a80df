"""Patterns as tensors on a device, a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fno_runner.data.dataset import Patterns
from fno_runner.data.frames import Outline


@dataclass(frozen=True)
class Inputs:
    """Patterns as `Reconstructor` takes them, on one device.

    x (B, 1, N, N), positions (B, 1, 2, 1) [px], probe (N, N) or (M, N, N), scale (1, 1, 1, 1).
    """

    x: Tensor
    positions: Tensor
    probe: Tensor
    scale: Tensor

    @classmethod
    def of(cls, patterns: Patterns, scale: float, device: torch.device) -> Inputs:
        """`scale`: the input scale factor."""
        return cls(
            x=torch.from_numpy(patterns.amplitude)[:, None].to(device),
            positions=torch.from_numpy(patterns.positions)[:, None, :, None].to(device),
            probe=torch.from_numpy(patterns.probe).to(device),
            scale=torch.full((1, 1, 1, 1), scale, device=device),
        )

    def batch(self, rows: Tensor | slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four arguments of `Reconstructor.forward` for these patterns; x is the first."""
        x = self.x[rows]
        return x, self.positions[rows], self.probe, self.scale.expand(len(x), 1, 1, 1)


def mask_of(patterns: Patterns | Outline) -> Tensor | None:
    """The good pixels of patterns or of a scan, bool (N, N), or None where all are."""
    return None if patterns.mask is None else torch.from_numpy(patterns.mask)
