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
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex64
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from fno_runner.reconstructor import Reconstructor


@torch.inference_mode()
def flops_per_pattern(model: Reconstructor, probe: Complex64[np.ndarray, "*m n n"]) -> int:
    """Operations of `forward_predict` for one pattern alone; M modes of the probe, M FFTs each."""
    device = next(model.parameters()).device
    unit = torch.ones(1, 1, 1, 1, device=device)
    on_device = torch.from_numpy(probe).to(device)
    model.eval()
    with OperationCounter() as counted:
        pattern = unit.expand(1, 1, *probe.shape[-2:])
        model.forward_predict(pattern, unit.expand(1, 1, 2, 1), on_device, unit)
    return counted.total


class OperationCounter(TorchDispatchMode):
    """Counts as PyTorch's `FlopCounterMode`, and besides FFTs and products that are added in place.

    That one imports the compiler, for which every run would wait a second.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing that is counted is being compiled, and to skip what is imports the compiler."""
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        aten = torch.ops.aten
        ours = {
            aten._fft_c2c: _c2c,
            aten.baddbmm_: _added_product,
        }
        self.total = 0
        self.formulas = flop_registry | {op: shape_wrapper(count) for op, count in ours.items()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What an operation gives; the operations that it takes are counted."""
        named = kwargs or {}
        formula = self.formulas.get(func.overloadpacket)
        if formula is None:
            with self:  # an operation that is made of others
                made = func.decompose(*args, **named)
            if made is not NotImplemented:
                return made
        made = func(*args, **named)
        if formula is not None:
            self.total += formula(*args, **named, out_val=made)
        return made


def fft_flops(shape: Sequence[int], dim: Sequence[int]) -> float:
    """5 N log₂ N for each complex FFT of N points over `dim`, of all in a tensor of this shape.

    The radix-2 Cooley–Tukey count by which FFTs are compared, whatever their algorithm: Frigo &
    Johnson, The Design and Implementation of FFTW3, Proc. IEEE 93, 216 (2005).
    """
    points = math.prod(shape[d] for d in dim)
    return 5 * math.prod(shape) * math.log2(points)


def _added_product(_: Any, first: Sequence[int], second: Sequence[int], **__: Any) -> int:
    return 2 * math.prod(first) * second[-1]


def _c2c(shape: Sequence[int], dim: Sequence[int], *_: Any, **__: Any) -> int:
    return round(fft_flops(shape, dim))
