"""The spectral convolution: a learned matrix for every kept Fourier mode.

Li et al., Fourier Neural Operator for Parametric Partial Differential Equations, ICLR 2021, with
the mode convention of neuraloperator's `SpectralConv`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


def in_order(t: Tensor, *axes: int) -> Tensor:
    """The same numbers, contiguous, with the axes in this order."""
    return t.permute(axes).contiguous()


class SpectralConv2d(nn.Module):
    """y = F⁻¹(W · F(x)) on the kept modes, zero elsewhere.

    Kept are rows −modes/2 … modes/2 − 1 and columns 0 … modes/2 of the real FFT, as far as the
    grid has them: weights that could never see a gradient are not created. The forward transform
    is divided by H·W, the inverse is not (norm="forward").

    The few kept modes are reached by matrix products with truncated DFT matrices: that is less
    work than a full FFT, and all of it runs in the fastest unit that a processor has. Features are
    expected, and given, in channels-last memory, where no product needs a copy of them. The complex
    product of a mode is one real product: with X = Xr + i·Xi and W likewise,

        Re W·X = [Xr, −Xi] · [Wr; Wi]        Im W·X = [Xi, Xr] · [Wr; Wi]

    and the forward transform gives all four parts of X at once.

    weight: float32 (rows, cols, in, out, 2), the last axis real and imaginary part. In memory this
    axis stands before `in`, as the product wants it.
    """

    def __init__(self, in_channels: int, out_channels: int, modes: int, size: int) -> None:
        """`size`: side of the square grid [px] that the layer will see."""
        super().__init__()
        self.in_channels = in_channels
        self.rows = min(modes, size)
        self.cols = min(modes // 2 + 1, size // 2 + 1)
        # As neuraloperator: variance 2 / (in + out), on the real and the imaginary part together.
        std = (2 / (in_channels + out_channels)) ** 0.5 / 2**0.5
        weight = std * torch.randn(self.rows, self.cols, in_channels, out_channels, 2)
        weight = weight.permute(0, 1, 4, 2, 3).contiguous()  # (rows, cols, 2, in, out)
        self.weight = nn.Parameter(weight.permute(0, 1, 3, 4, 2))
        pixels = torch.arange(size)
        # Angles in float64, by exact integers modulo `size`: no precision is lost to large k·x.
        row_angle = _angle(torch.arange(self.rows) - self.rows // 2, pixels, size)
        col_angle = _angle(torch.arange(self.cols), pixels, size)
        # Real and imaginary part are an axis of length 2: complex products as real matrices.
        from_real = torch.stack([row_angle.cos(), -row_angle.sin()], 1)  # (rows, 2, H)
        self._constant("to_rows", from_real.flatten(0, 1) / size)
        self._constant("to_cols", _four_parts(_rotation(-col_angle)).flatten(0, 2) / size)
        # A column that stands for itself and its conjugate counts twice in the real inverse.
        alone = (torch.arange(self.cols) * 2) % size == 0
        back = torch.where(alone, 1.0, 2.0).double()[:, None, None, None] * _rotation(col_angle)
        self._constant("from_cols", back.permute(1, 3, 0, 2).flatten(2).flatten(0, 1))
        self._constant("from_rows", from_real.flatten(0, 1).T)

    to_rows: Tensor  # (rows·2, H)
    to_cols: Tensor  # (cols·2·2, 2·W)
    from_cols: Tensor  # (2·W, cols·2)
    from_rows: Tensor  # (H, rows·2)

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value.float().contiguous(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SpectralConv2d:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # A GPU multiplies fastest what begins at multiples of 16 bytes in every row. Numbers of
        # pixels are such multiples, numbers of modes are not: there pixels lie side by side.
        on_cpu = self.from_rows.device.type == "cpu"
        self.from_cols, self.from_rows = (
            factor.contiguous() if on_cpu else factor.T.contiguous().T
            for factor in (self.from_cols, self.from_rows)
        )
        return self

    @property
    def matrices(self) -> Float[Tensor, "modes parts o"]:
        """[Wr; Wi] of every kept mode, row by row: (rows·cols, 2·I, O), a view of the weight."""
        return self.weight.permute(0, 1, 4, 2, 3).flatten(2, 3).flatten(0, 1)

    @property
    def factors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`to_rows`, `to_cols`, `from_cols` and `from_rows`."""
        return self.to_rows, self.to_cols, self.from_cols, self.from_rows

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        batch, _, height, width = x.shape
        modes = torch.matmul(modes_of(x, self.to_rows, self.to_cols), self.matrices)
        columns = columns_of(modes, self.rows, self.from_cols)
        t = torch.matmul(self.from_rows, columns)  # (B, H, W·O)
        return t.view(batch, height, width, -1).permute(0, 3, 1, 2)


def modes_of(
    x: Float[Tensor, "b i h w"],
    to_rows: Tensor,
    to_cols: Tensor,
    ordered: Callable[..., Tensor] = in_order,
) -> Tensor:
    """F(x) on the kept modes: rows first, then columns.

    Args:
        ordered: another way to do what `in_order` does.

    Returns:
        (rows·cols, 2·B, 2·I): for each mode, of every pattern [Xr, −Xi], then of every [Xi, Xr].
    """
    batch, channels, height, width = x.shape
    rows, cols = len(to_rows) // 2, len(to_cols) // 4
    t = x.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    t = torch.matmul(to_rows, t)  # (B, rows·2, W·I)
    t = torch.matmul(to_cols, t.view(batch, rows, 2 * width, channels))
    t = ordered(t.view(batch, rows, cols, 2, 2, channels), 1, 2, 3, 0, 4, 5)
    return t.view(rows * cols, 2 * batch, 2 * channels)


def columns_of(
    modes: Float[Tensor, "modes parts o"],
    rows: int,
    from_cols: Tensor,
    ordered: Callable[..., Tensor] = in_order,
) -> Tensor:
    """Back along the columns: pixels there, modes along the rows; only real parts are formed.

    Args:
        modes: (rows·cols, 2·B, O), of each the real part of every pattern, then the imaginary ones.
        ordered: another way to do what `in_order` does.

    Returns:
        (B, rows·2, W·O).
    """
    cols, batch = from_cols.shape[1] // 2, modes.shape[1] // 2
    t = ordered(modes.view(rows, cols, 2, batch, -1), 3, 0, 1, 2, 4)
    t = torch.matmul(from_cols, t.view(batch, rows, cols * 2, -1))
    return t.view(batch, rows * 2, -1)


def _angle(frequencies: Tensor, pixels: Tensor, size: int) -> Tensor:
    """2π k x / size [rad], float64 (k, x)."""
    return 2 * torch.pi * (frequencies[:, None] * pixels % size).double() / size


def _rotation(angle: Tensor) -> Tensor:
    """Multiplication by exp(i·angle) as real 2 × 2 matrices: (k, out, in, x)."""
    cos, sin = angle.cos(), angle.sin()  # (k, x)
    return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)


def _four_parts(rotation: Tensor) -> Tensor:
    """What gives (X's real and imaginary part) made to give [[Xr, −Xi], [Xi, Xr]].

    rotation: (k, 2, 2, x), its second axis the part that is given.

    Returns:
        (k, 2, 2, 2·x).
    """
    real, imaginary = rotation.flatten(2).unbind(1)  # (k, 2·x)
    rows = [torch.stack([real, -imaginary], 1), torch.stack([imaginary, real], 1)]
    return torch.stack(rows, 1)
