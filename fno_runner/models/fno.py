"""`fno`: Fourier blocks at full resolution."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from fno_runner.config import RunConfig
from fno_runner.models.blocks import Conv1x1, FourierBlock, VacuumHead, lifter, refiner


class FNO(nn.Module):
    """lifter → Fourier blocks → 1×1 → (3×3, GELU) × cnn_blocks → 1×1."""

    def __init__(self, config: RunConfig, in_channels: int, patches: int, size: int) -> None:
        """`patches`: complex object patches to predict. `size`: side of the input [px]."""
        super().__init__()
        width, modes, blocks = config.width, config.modes, config.blocks
        self.lift = lifter(in_channels, width)
        self.blocks = nn.Sequential(*(FourierBlock(width, modes, size) for _ in range(blocks)))
        self.mix = Conv1x1(width, width)
        self.refine = refiner(width, config.cnn_blocks)
        self.head = VacuumHead(width, patches)

    def forward(self, x: Float[Tensor, "b i n n"]) -> Float[Tensor, "b o n n"]:
        x = self.lift(x)  # (B, width, N, N)
        x = self.blocks(x)
        x = self.refine(self.mix(x))
        out: Tensor = self.head(x)  # (B, 2·patches, N, N)
        return out
