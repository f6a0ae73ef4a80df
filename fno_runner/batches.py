"""Patterns as tensors on a device, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fno_runner.data.dataset import Patterns


@dataclass(frozen=True)
class Inputs:
    """Patterns as `Reconstructor` takes them, on one device, for K networks.

    x (B, 1, N, N), positions (B, 1, 2, 1) [px], probe (N, N) or (M, N, N), scale (K, 1, 1, 1).
    """

    x: Tensor
    positions: Tensor
    probe: Tensor
    scale: Tensor

    @classmethod
    def of(cls, patterns: Patterns, scale: Sequence[float], device: torch.device) -> Inputs:
        """`scale`: the input scale factor of each network."""
        return cls(
            x=torch.from_numpy(patterns.amplitude)[:, None].to(device),
            positions=torch.from_numpy(patterns.positions)[:, None, :, None].to(device),
            probe=torch.from_numpy(patterns.probe).to(device),
            scale=torch.tensor(scale, device=device).view(-1, 1, 1, 1),
        )

    def batch(self, rows: Tensor | slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four arguments of `forward` and `forward_predict` for these patterns.

        rows: (K, B), each network's own; the batch has them one network after the other. One
        network takes a slice, too.
        """
        if isinstance(rows, Tensor):
            rows = rows.flatten()
        x = self.x[rows]
        scale = self.scale.expand(-1, len(x) // len(self.scale), 1, 1).reshape(-1, 1, 1, 1)
        return x, self.positions[rows], self.probe, scale


def mask_of(patterns: Patterns) -> Tensor | None:
    """The good pixels, bool (N, N), or None where all are."""
    return None if patterns.mask is None else torch.from_numpy(patterns.mask)
