"""The share of the learning rate that each weight learns at."""

from __future__ import annotations

from torch import nn

from fno_runner.config import RunConfig
from fno_runner.models.spectral import SpectralConv2d

FULL_RATE_CHANNELS = 32
"""Weights that sum over at most so many channels learn at the full rate in every network."""


def names_of_shares(model: nn.Module, config: RunConfig) -> dict[float, list[str]]:
    """Share of the learning rate → names of the weights that learn at it; every weight once.

    A step of Adam moves each weight by about the rate, however small its gradient. What a layer
    gives is a sum over its input channels, and all its weights move the sum the same way: over n
    channels it moves n times as far. With `rate_scaling` fan_in a weight learns at the share m / n,
    m being the channels of the first Fourier layer, 32 at least: this is how the maximal update
    parametrisation (Yang et al., 2022: Tensor Programs V, table 3) scales Adam's rate of hidden and
    output weights. So the levels of a hybrid, whose channels double from one to the next, all move
    as the first one does; in an `fno` all layers have m channels, and nothing changes.
    """
    full = max(config.width, FULL_RATE_CHANNELS)
    shares = {name: 1.0 for name, _ in model.named_parameters()}
    if config.rate_scaling == "fan_in":
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | SpectralConv2d):
                shares[f"{name}.weight"] = min(1.0, full / layer.in_channels)
    names: dict[float, list[str]] = {}
    for name, share in shares.items():
        names.setdefault(share, []).append(name)
    return names
