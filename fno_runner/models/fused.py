"""A Fourier block in fewer kernels, for a GPU, whose step is bound by their number.

What PyTorch's autograd derives of a block's formula adds up three gradients of its input, each in
a pass of its own; sums a gradient over all pixels for the convolution's bias; and makes five
copies where a product is added in place to what is seen through a view. Here the block is one
node, with its gradient written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, gelu

from fno_runner.models.spectral import columns_of, in_order, modes_of

WORD = torch.int64.itemsize
"""Bytes that a copy to another order moves at a time."""
Made = TypeVar("Made")


def fused_block(x: Float[Tensor, "b c h w"], *factors: Tensor) -> Float[Tensor, "b c h w"]:
    """y = x + GELU(SpectralConv(x) + Conv3×3(x)).

    factors: weight (C, C, 3, 3) and bias (C) of the convolution, then of the spectral layer
        `matrices`, `to_rows`, `to_cols`, `from_cols` and `from_rows`. Under autocast all are cast.
    """
    device, given = x.device.type, (x, *factors)
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return _apply(given)
    # Autocast would pass over what is done in place, and is off in the backward pass.
    kind = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        return _apply([tensor.to(kind) for tensor in given])


def _apply(given: Sequence[Tensor]) -> Tensor:
    y: Tensor = FusedBlock.apply(*given)  # type: ignore[no-untyped-call]
    return y


def needed_later(work: Callable[..., Made], *tensors: Tensor) -> Callable[[], Made]:
    """Work whose result is asked for only after other work, done at once.

    A seam: `benchmarks.ways` measures what a stream of its own would gain.
    """
    made = work(*tensors)
    return lambda: made


class FusedBlock(torch.autograd.Function):
    """The block as one node.

    A constant over all pixels is the mode of frequency zero, so that is where the convolution's
    bias is added, and where its gradient is found: both are a few numbers, not an image.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        matrices: Tensor,
        to_rows: Tensor,
        to_cols: Tensor,
        from_cols: Tensor,
        from_rows: Tensor,
    ) -> Tensor:
        batch, rows, cols = len(x), len(to_rows) // 2, len(to_cols) // 4
        convolved = needed_later(_convolved, x, weight)
        modes = modes_of(x, to_rows, to_cols, in_words)  # (rows·cols, 2·B, 2·C)
        mixed = torch.matmul(modes, matrices)  # (rows·cols, 2·B, C)
        mixed[rows // 2 * cols, :batch].add_(bias)
        columns = columns_of(mixed, rows, from_cols, in_words)  # (B, rows·2, W·C)
        z = convolved()
        _pixel_rows(z).baddbmm_(from_rows.expand(batch, -1, -1), columns)
        ctx.save_for_backward(
            x, weight, matrices, to_rows, to_cols, from_cols, from_rows, modes, z
        )  # fmt: skip
        return gelu(z).add_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, matrices, to_rows, to_cols, from_cols, from_rows, modes, z = ctx.saved_tensors
        (batch, channels, _, width), rows, cols = x.shape, len(to_rows) // 2, len(to_cols) // 4
        of_z = _channels_last(torch.ops.aten.gelu_backward(gradient, z))
        convolved = needed_later(_convolved_back, of_z, x, weight)

        # The spectral layer's products, transposed and in the opposite order.
        t = torch.matmul(from_rows.T, _pixel_rows(of_z))  # (B, rows·2, W·C)
        t = torch.matmul(from_cols.T, t.view(batch, rows, 2 * width, channels))
        of_bias = t[:, rows // 2, 0].sum(0)  # the real part of frequency zero
        t = in_words(t.view(batch, rows, cols, 2, channels), 1, 2, 3, 0, 4)
        t = t.view(rows * cols, 2 * batch, channels)
        of_matrices = torch.matmul(modes.mT, t)
        t = torch.matmul(t, matrices.mT)  # (rows·cols, 2·B, 2·C)
        t = in_words(t.view(rows, cols, 2, batch, 2, channels), 3, 0, 1, 2, 4, 5)
        t = torch.matmul(to_cols.T, t.view(batch, rows, cols * 4, channels))
        of_x, of_weight = convolved()
        _pixel_rows(of_x).baddbmm_(
            to_rows.T.expand(batch, -1, -1), t.view(batch, rows * 2, width * channels)
        )
        return of_x.add_(gradient), of_weight, of_bias, of_matrices, None, None, None, None


def in_words(t: Tensor, *axes: int) -> Tensor:
    """As `in_order`, of a tensor in whose last axis, which stays the last, numbers lie together.

    A GPU's copy to another order computes the place of each number it moves: in bfloat16 that takes
    longer than to move it. So it is given words of 8 bytes. No gradient goes through it.
    """
    if t.shape[-1] * t.element_size() % WORD:
        return in_order(t, *axes)
    return in_order(t.view(torch.int64), *axes).view(t.dtype)


def _convolved(x: Tensor, weight: Tensor) -> Tensor:
    return _channels_last(conv2d(x, weight, padding=1))


def _convolved_back(of_z: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients by x and by the weight."""
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        of_z, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False]
    )
    return _channels_last(of_x), of_weight


def _channels_last(image: Tensor) -> Tensor:
    """As a GPU's convolutions leave it: there nothing is done."""
    return image.contiguous(memory_format=torch.channels_last)


def _pixel_rows(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h wc"]:
    """A view of an image in channels-last memory."""
    return image.permute(0, 2, 3, 1).flatten(2)
