"""The spectral convolution: a learned matrix for every kept Fourier mode.

Li et al., Fourier Neural Operator for Parametric Partial Differential Equations, ICLR 2021, with
the mode convention of neuraloperator's `SpectralConv`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SpectralConv2d(nn.Module):
    """y = F⁻¹(W · F(x)) on the kept modes, zero elsewhere.

    Kept are rows −modes/2 … modes/2 − 1 and columns 0 … modes/2 of the real FFT, as far as the
    grid has them: weights that could never see a gradient are not created. The forward transform
    is divided by H·W, the inverse is not (norm="forward").

    The few kept modes are reached by matrix products with truncated DFT matrices: that is less
    work than a full FFT, and all of it runs in the fastest unit that a processor has.

    weight: float32 (rows, cols, in, out, 2), the last axis real and imaginary part.
    """

    def __init__(self, in_channels: int, out_channels: int, modes: int, size: int) -> None:
        """`size`: side of the square grid [px] that the layer will see."""
        super().__init__()
        self.rows = min(modes, size)
        self.cols = min(modes // 2 + 1, size // 2 + 1)
        # As neuraloperator: variance 2 / (in + out), on the real and the imaginary part together.
        std = (2 / (in_channels + out_channels)) ** 0.5 / 2**0.5
        self.weight = nn.Parameter(
            std * torch.randn(self.rows, self.cols, in_channels, out_channels, 2)
        )
        row_frequencies = torch.arange(self.rows) - self.rows // 2
        col_frequencies = torch.arange(self.cols)
        pixels = torch.arange(size)
        # Angles in float64, by exact integers modulo `size`: no precision is lost to large k·x.
        row_angle = _angle(row_frequencies, pixels, size)  # (rows, H)
        col_angle = _angle(col_frequencies, pixels, size)  # (cols, W)
        # A column that stands for itself and its conjugate counts twice in the real inverse.
        twice = torch.where((col_frequencies == 0) | (2 * col_frequencies == size), 1.0, 2.0)
        inverse_col = twice[:, None].double()
        self._constant("to_rows", torch.cat([row_angle.cos(), -row_angle.sin()]) / size)
        self._constant("to_cols", torch.cat([col_angle.cos(), -col_angle.sin()]).T / size)
        self._constant("from_rows", torch.cat([row_angle.cos(), -row_angle.sin()]).T)
        self._constant(
            "from_cols",
            torch.cat([inverse_col * col_angle.cos(), inverse_col * col_angle.sin()], 1),
        )

    to_rows: Tensor  # (2·rows, H)
    to_cols: Tensor  # (W, 2·cols)
    from_rows: Tensor  # (H, 2·rows)
    from_cols: Tensor  # (cols, 2·W)

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value.float().contiguous(), persistent=False)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        batch, channels, _, width = x.shape
        # F(x) on the kept modes: rows first, then columns.
        t = torch.matmul(self.to_rows, x)  # (B, I, 2·rows, W)
        t = torch.matmul(t, self.to_cols)  # (B, I, 2·rows, 2·cols)
        t = t.view(batch, channels, 2, self.rows, 2, self.cols)
        real = t[:, :, 0, :, 0] - t[:, :, 1, :, 1]  # (B, I, rows, cols)
        imag = t[:, :, 0, :, 1] + t[:, :, 1, :, 0]
        modes = torch.complex(real, imag).permute(2, 3, 0, 1)  # (rows, cols, B, I)

        weight = torch.view_as_complex(self.weight)
        mixed = torch.matmul(modes, weight).permute(2, 3, 0, 1)  # (B, O, rows, cols)

        # Back: columns first, then rows; only the real part is ever formed.
        s = torch.cat([mixed.real, mixed.imag], dim=2)  # (B, O, 2·rows, cols)
        s = torch.matmul(s, self.from_cols).view(batch, -1, 2, self.rows, 2, width)
        real = s[:, :, 0, :, 0] - s[:, :, 1, :, 1]  # (B, O, rows, W)
        imag = s[:, :, 0, :, 1] + s[:, :, 1, :, 0]
        return torch.matmul(self.from_rows, torch.cat([real, imag], dim=2))  # (B, O, H, W)


def _angle(frequencies: Tensor, pixels: Tensor, size: int) -> Tensor:
    """2π k x / size [rad], float64 (k, x)."""
    return 2 * torch.pi * (frequencies[:, None] * pixels % size).double() / size
