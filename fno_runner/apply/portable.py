"""A trained network and its physics in plain real arithmetic, for programs that have none of ours.

`Reconstructor.forward_predict` computes with complex numbers and FFTs, which ONNX's operators and
its runtimes know in part only. Here complex numbers are pairs of real ones, and a Fourier transform
of 64 to 256 px is two products with a matrix.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fno_runner.config import centre
from fno_runner.reconstructor import Reconstructor

SMALLEST = 1e-30
"""A far field below it has no phase."""

Pair = tuple[Tensor, Tensor]
"""Real and imaginary part."""


class Portable(nn.Module):
    """Object patches of diffraction amplitudes, as `Reconstructor.forward_predict` gives them.

    Everything is float32; precision `bf16` of the training is not kept.
    """

    def __init__(self, model: Reconstructor, size: int) -> None:
        """`size`: N, the side of a pattern [px]."""
        super().__init__()
        self.network, self.transform = model.network, model.transform
        self.projection = model.conditioning == "projection"
        self.size = size
        k = torch.arange(size)
        angle = -2 * torch.pi * (k[:, None] * k % size).double() / size
        plain = torch.polar(torch.ones_like(angle), angle) / size**0.5
        # Zero frequency in the middle: signs of a checkerboard before the transform.
        centred = plain * (1 - 2 * (k % 2))
        for name, matrix in (("plain", plain), ("centred", centred)):
            self.register_buffer(f"{name}_re", matrix.real.float().contiguous(), persistent=False)
            self.register_buffer(f"{name}_im", matrix.imag.float().contiguous(), persistent=False)
        frequency = torch.fft.fftfreq(size)
        self.register_buffer("frequency", frequency, persistent=False)

    plain_re: Tensor
    plain_im: Tensor
    centred_re: Tensor
    centred_im: Tensor
    frequency: Tensor

    def forward(
        self,
        amplitude: Float[Tensor, "b 1 n n"],
        input_scale_factor: Float[Tensor, " 1"],
        probe: Float[Tensor, "m 2 n n"],
        positions: Float[Tensor, "b 2"],
        mask: Float[Tensor, "n n"],
    ) -> Float[Tensor, "b 2 n n"]:
        """Real and imaginary part of the patches, channel 0 and 1.

        amplitude: zero frequency at [N/2, N/2], 0 at bad pixels. input_scale_factor: 1 / the
        object's amplitude in vacuum. probe: modes, real and imaginary part. positions: row and
        column of the patch's centre [px]. mask: 1 at good pixels, else 0. A network that sees
        amplitudes only ignores the last two.
        """
        to_unit = self.size / probe.square().sum().sqrt()
        normalised = amplitude * (input_scale_factor * to_unit)
        channels = [self.transform(normalised)]
        if self.projection:
            channels += self._update(normalised, probe * to_unit, positions, mask)
        features = torch.cat([c.permute(0, 2, 3, 1) for c in channels], dim=-1)  # (B, N, N, I)
        out: Tensor = self.network(features.permute(0, 3, 1, 2))
        return out / input_scale_factor

    def _update(self, amplitude: Tensor, probe: Tensor, positions: Tensor, mask: Tensor) -> Pair:
        """As `physics.object_update` from vacuum: (B, 1, N, N) each."""
        local = self._shifted((probe[None, :, 0], probe[None, :, 1]), positions)  # (B, M, N, N)
        far = _between(local, (self.centred_re, self.centred_im))
        total = (far[0].square() + far[1].square()).sum(1, keepdim=True).sqrt()
        factor = torch.where(mask > 0, amplitude / total.clamp_min(SMALLEST), 1.0)
        inverse = self.centred_re.T, -self.centred_im.T
        near = _between((far[0] * factor, far[1] * factor), inverse)
        strongest = (local[0].square() + local[1].square()).sum(1, keepdim=True)
        strongest = strongest.amax(dim=(-2, -1), keepdim=True)
        re, im = _product((local[0], -local[1]), (near[0] - local[0], near[1] - local[1]))
        return re.sum(1, keepdim=True) / strongest, im.sum(1, keepdim=True) / strongest

    def _shifted(self, probe: Pair, positions: Tensor) -> Pair:
        """The probe moved by each position's sub-pixel remainder, as `physics.shift_probe` does."""
        first = positions - centre(self.size)
        angle = -2 * torch.pi * (first - first.round())[:, :, None] * self.frequency  # (B, 2, N)
        angle = angle[:, 0, :, None] + angle[:, 1, None, :]  # (B, N, N)
        ramp = angle.cos()[:, None], angle.sin()[:, None]
        forward = self.plain_re, self.plain_im
        inverse = self.plain_re, -self.plain_im
        return _between(_product(_between(probe, forward), ramp), inverse)


def _product(a: Pair, b: Pair) -> Pair:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _between(x: Pair, matrix: Pair) -> Pair:
    """matrix · x · matrixᵀ: a transform of both axes."""
    return _matmul(_matmul(matrix, x), (matrix[0].T, matrix[1].T))


def _matmul(a: Pair, b: Pair) -> Pair:
    return a[0] @ b[0] - a[1] @ b[1], a[0] @ b[1] + a[1] @ b[0]
