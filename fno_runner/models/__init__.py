"""The networks, by name."""

from __future__ import annotations

import torch
from torch import nn

from fno_runner.config import RunConfig
from fno_runner.models.fno import FNO
from fno_runner.models.hybrid import Hybrid

ARCHITECTURES: dict[str, type[FNO] | type[Hybrid]] = {"fno": FNO, "hybrid": Hybrid}


def build_network(
    config: RunConfig, in_channels: int, patches: int = 1, size: int | None = None
) -> FNO | Hybrid:
    """The network of a configuration: real (B, in_channels, N, N) → (B, 2·patches, N, N).

    `size` is N, by default the configuration's.
    Its convolutions are in channels-last memory, in which they are two to four times as fast.
    """
    network = ARCHITECTURES[config.architecture](config, in_channels, patches, size or config.size)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    return network


def count_parameters(module: nn.Module) -> int:
    """Trainable parameters, counted as real numbers: a complex weight is two."""
    return sum(
        p.numel() * (2 if p.is_complex() else 1) for p in module.parameters() if p.requires_grad
    )
