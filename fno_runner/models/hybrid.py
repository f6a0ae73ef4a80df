"""`hybrid`: Fourier blocks down a U-Net's encoder, convolutions up its decoder."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from fno_runner.config import RunConfig
from fno_runner.models.blocks import (
    FourierBlock,
    Upsample,
    VacuumHead,
    beside,
    conv3x3,
    lifter,
    refiner,
)


class Hybrid(nn.Module):
    """lifter → encoder → bottleneck → decoder with skip connections → 1×1.

    The encoder has `blocks` Fourier blocks; between two of them a stride-2 convolution halves the
    side and doubles the channels. The bottleneck block keeps half the modes. Each level of the
    decoder is a transposed convolution, the skip connection (concatenated), and two 3×3.
    """

    def __init__(self, config: RunConfig, in_channels: int, patches: int, size: int) -> None:
        """`patches`: complex object patches to predict. `size`: side of the input [px]."""
        super().__init__()
        width, modes, blocks = config.width, config.modes, config.blocks
        self.lift = lifter(in_channels, width)
        widths = [width * 2**level for level in range(blocks)]
        self.encoder = nn.ModuleList(
            FourierBlock(channels, modes, size >> level) for level, channels in enumerate(widths)
        )
        self.down = nn.ModuleList(
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1) for channels in widths[:-1]
        )
        self.bottleneck = FourierBlock(widths[-1], max(modes // 2, 1), size >> (blocks - 1))
        self.up = nn.ModuleList(Upsample(2 * channels, channels) for channels in widths[-2::-1])
        self.merge = nn.ModuleList(
            nn.Sequential(conv3x3(2 * channels, channels), nn.GELU(), conv3x3(channels, channels))
            for channels in widths[-2::-1]
        )
        self.refine = refiner(width, config.cnn_blocks)
        self.head = VacuumHead(width, patches)

    def forward(self, x: Float[Tensor, "b i n n"]) -> Float[Tensor, "b o n n"]:
        x = self.lift(x)  # (B, width, N, N)
        skips = []
        for block, down in zip(self.encoder, [*self.down, None], strict=True):
            x = block(x)  # (B, width·2^level, N/2^level, N/2^level)
            if down is not None:
                skips.append(x)
                x = down(x)
        x = self.bottleneck(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(beside(up(x), skips.pop()))
        out: Tensor = self.head(self.refine(x))  # (B, 2·patches, N, N)
        return out
