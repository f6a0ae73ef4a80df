"""Floating-point operations that inference takes: a cost that no machine changes.

Counted is what the program executes for one pattern: all convolutions and matrix products, two
operations a multiply-add, as `torch.utils.flop_counter` counts them; the spectral layers' truncated
DFTs are matrix products and so among them. FFTs (of the projection input) count by the usual
formula. Additions of biases, GELUs and other work element by element are left out: some percent.

Executed, and not what a textbook's FFT would need in the spectral layers: divided by the measured
time it is the rate that a machine reaches, and its dependence on `modes` is the real one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from inspect import unwrap
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex64
from torch.utils import flop_counter

from fno_runner.reconstructor import Reconstructor


@torch.inference_mode()
def flops_per_pattern(model: Reconstructor, probe: Complex64[np.ndarray, "*m n n"]) -> int:
    """Operations of `forward_predict` for one pattern alone; M modes of the probe, M FFTs each."""
    device = next(model.parameters()).device
    unit = torch.ones(1, 1, 1, 1, device=device)
    on_device = torch.from_numpy(probe).to(device)
    model.eval()
    with counter() as counted:
        pattern = unit.expand(1, 1, *probe.shape[-2:])
        model.forward_predict(pattern, unit.expand(1, 1, 2, 1), on_device, unit)
    return counted.get_total_flops()


def counter() -> flop_counter.FlopCounterMode:
    """Counts, besides what PyTorch's own does, FFTs."""
    # The decorator that is taken off here imports the compiler, which takes a second or more.
    mode = flop_counter._FlopCounterMode
    mode.__torch_dispatch__ = unwrap(mode.__torch_dispatch__)  # type: ignore[method-assign]
    aten = torch.ops.aten
    return flop_counter.FlopCounterMode(
        display=False,
        custom_mapping={aten._fft_c2c: _c2c, aten._fft_r2c: _r2c, aten._fft_c2r: _c2r},
    )


def fft_flops(shape: Sequence[int], dim: Sequence[int]) -> float:
    """5 N log₂ N for each complex FFT of N points over `dim`, of all in a tensor of this shape.

    The radix-2 Cooley–Tukey count by which FFTs are compared, whatever their algorithm: Frigo &
    Johnson, The Design and Implementation of FFTW3, Proc. IEEE 93, 216 (2005). Half of it for
    real data.
    """
    points = math.prod(shape[d] for d in dim)
    return 5 * math.prod(shape) * math.log2(points)


def _c2c(shape: Sequence[int], dim: Sequence[int], *_: Any, **__: Any) -> int:
    return round(fft_flops(shape, dim))


def _r2c(shape: Sequence[int], dim: Sequence[int], *_: Any, **__: Any) -> int:
    return round(fft_flops(shape, dim) / 2)


def _c2r(_: Any, dim: Sequence[int], *__: Any, out_shape: Sequence[int], **___: Any) -> int:
    return round(fft_flops(out_shape, dim) / 2)
