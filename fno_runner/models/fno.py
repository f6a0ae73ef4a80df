"""`fno`: Fourier blocks at full resolution."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from fno_runner.models.blocks import Conv1x1, FourierBlock, VacuumHead, conv3x3, lifter


class FNO(nn.Module):
    """lifter → Fourier blocks → 1×1 → (3×3, GELU) × cnn_blocks → 1×1."""

    def __init__(
        self,
        in_channels: int,
        patches: int,
        *,
        width: int,
        modes: int,
        blocks: int,
        cnn_blocks: int,
        size: int,
    ) -> None:
        """`patches`: complex object patches to predict. `size`: side of the input [px]."""
        super().__init__()
        self.lift = lifter(in_channels, width)
        self.blocks = nn.Sequential(*(FourierBlock(width, modes, size) for _ in range(blocks)))
        self.mix = Conv1x1(width, width)
        self.refine = nn.Sequential(
            *(layer for _ in range(cnn_blocks) for layer in (conv3x3(width, width), nn.GELU()))
        )
        self.head = VacuumHead(width, patches)

    def forward(self, x: Float[Tensor, "b i n n"]) -> Float[Tensor, "b o n n"]:
        x = self.lift(x)  # (B, width, N, N)
        x = self.blocks(x)
        x = self.refine(self.mix(x))
        out: Tensor = self.head(x)  # (B, 2·patches, N, N)
        return out
