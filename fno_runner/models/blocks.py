"""The parts that `fno` and `hybrid` share: lifter, Fourier block, output layer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, pad

from fno_runner.models.fused import fused_block
from fno_runner.models.spectral import SpectralConv2d


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3×3 convolution that keeps the image's size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class FirstConv(nn.Conv2d):
    """A 3×3 convolution of the few input channels; on a GPU nine taps and one matrix product.

    With one input channel a GPU's library spends a quarter of a whole training step on the weight
    gradient alone (docs/performance.md, On a GPU). As a product it is one of its fastest kernels.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        return super().forward(x) if x.device.type == "cpu" else self.as_product(x)

    def as_product(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        """The same convolution: each pixel's 3×3 neighbours in a row, times the weights."""
        padded = pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (B, H+2, W+2, I)
        taps = padded.unfold(1, 3, 1).unfold(2, 3, 1)  # (B, H, W, I, 3, 3), a view
        taps = taps.permute(0, 1, 2, 4, 5, 3).flatten(3)  # (B, H, W, 3·3·I)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # (O, 3·3·I)
        return linear(taps, weight, self.bias).permute(0, 3, 1, 2)


def lifter(in_channels: int, width: int) -> nn.Sequential:
    """From input channels to `width` features, before any Fourier layer."""
    return nn.Sequential(FirstConv(in_channels, width), nn.GELU(), conv3x3(width, width))


def refiner(width: int, layers: int) -> nn.Sequential:
    """So many 3×3 convolutions, each with its GELU, between Fourier layers and output."""
    return nn.Sequential(
        *(layer for _ in range(layers) for layer in (conv3x3(width, width), nn.GELU()))
    )


def beside(
    first: Float[Tensor, "b c h w"], second: Float[Tensor, "b d h w"]
) -> Float[Tensor, "b c+d h w"]:
    """The channels of one image, then those of the other."""
    if first.device.type == "cpu":
        return torch.cat([first, second], dim=1)
    return beside_in_rows(first, second)


def beside_in_rows(
    first: Float[Tensor, "b c h w"], second: Float[Tensor, "b d h w"]
) -> Float[Tensor, "b c+d h w"]:
    """The same for a GPU, as contiguous memory: of that PyTorch moves 16 bytes at a time.

    Of the same memory seen as channels-last it moves number by number.
    """
    rows = [image.permute(0, 2, 3, 1) for image in (first, second)]  # (B, H, W, C)
    return torch.cat(rows, dim=-1).permute(0, 3, 1, 2)


class FourierBlock(nn.Module):
    """y = x + GELU(SpectralConv(x) + Conv3×3(x)): global and local, side by side."""

    def __init__(self, width: int, modes: int, size: int) -> None:
        super().__init__()
        self.spectral = SpectralConv2d(width, width, modes, size)
        self.local = conv3x3(width, width)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        # A compiler fuses what it likes itself.
        if x.device.type == "cpu" or torch.compiler.is_compiling():
            local = self.local(x)
            return x + gelu(self.spectral(x) + local)
        return self.fused(x)

    def fused(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The same with fewer kernels, for a GPU (`fno_runner.models.fused`)."""
        spectral, local = self.spectral, self.local
        assert local.bias is not None
        return fused_block(x, local.weight, local.bias, spectral.matrices, *spectral.factors)


class Upsample(nn.ConvTranspose2d):
    """Twice the side: a transposed 2×2 convolution of stride 2, as one matrix product.

    No two of its 2×2 tiles overlap, so each pixel's four are a product of its channels. In bfloat16
    on a CPU forward and backward take two thirds of the time of the library's kernel.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 2, stride=2)

    def forward(
        self, x: Float[Tensor, "b i h w"], output_size: list[int] | None = None
    ) -> Float[Tensor, "b o 2*h 2*w"]:
        batch, _, height, width = x.shape
        assert self.bias is not None and output_size is None
        tile = self.weight.permute(0, 2, 3, 1).flatten(1).T  # (2·2·O, I)
        t = linear(x.permute(0, 2, 3, 1), tile, self.bias.repeat(4))  # (B, H, W, 2·2·O)
        t = t.view(batch, height, width, 2, 2, -1).transpose(2, 3)
        return t.reshape(batch, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


class Conv1x1(nn.Conv2d):
    """A 1×1 convolution; on a GPU as the matrix product that it is, bias included."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        return super().forward(x) if x.device.type == "cpu" else self.as_product(x)

    def as_product(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        """The same convolution, in channels-last memory."""
        product = linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return product.permute(0, 3, 1, 2)


class VacuumHead(Conv1x1):
    """The last 1×1 convolution, started at vacuum: every object patch is 1 + 0i, nearly.

    Without this start the network begins far from any object, and most seeds never leave a flat
    phase. Output channels are (real, imaginary) of each object patch in turn.
    """

    def __init__(self, width: int, patches: int) -> None:
        super().__init__(width, 2 * patches)
        assert self.bias is not None
        with torch.no_grad():
            self.weight *= 0.1
            self.bias.copy_(torch.tensor([1.0, 0.0]).repeat(patches))
