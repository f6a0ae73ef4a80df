"""The share of the learning rate that each weight learns at."""

from __future__ import annotations

from typing import Literal

from torch import nn

from fno_runner.models.spectral import SpectralConv2d

FULL_RATE_CHANNELS = 32
"""Weights that sum over at most so many channels learn at the full rate."""


def names_of_shares(model: nn.Module, scaling: Literal["none", "fan_in"]) -> dict[float, list[str]]:
    """Share of the learning rate → names of the weights that learn at it; every weight once.

    A step of Adam moves each weight by about the rate, however small its gradient. What a layer
    gives is a sum over its input channels, and all its weights move the sum the same way: over n
    channels it moves n times as far. With `fan_in` a weight learns at the share 32 / n of the rate,
    where n is above 32, so that one rate suits every width, and every level of a hybrid, whose
    channels double from one to the next (Yang et al., 2022, Tensor Programs V: the maximal update
    parametrisation, of which these are the rates for Adam). Biases learn at the full rate.
    """
    shares = {name: 1.0 for name, _ in model.named_parameters()}
    if scaling == "fan_in":
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | SpectralConv2d):
                shares[f"{name}.weight"] = min(1.0, FULL_RATE_CHANNELS / layer.in_channels)
    names: dict[float, list[str]] = {}
    for name, share in shares.items():
        names.setdefault(share, []).append(name)
    return names
