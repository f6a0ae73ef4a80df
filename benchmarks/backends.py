"""How PyTorch's libraries may do float32 products: a global state that a side must not leak."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fno_runner.device import allow_tf32

Tf32 = tuple[bool, bool]
"""Whether a GPU may round factors to it, in matrix products and in convolutions.

PyTorch's default is no and yes, which `allow_tf32` cannot say. Both are asked and told by the older
of PyTorch's two ways, as everywhere here: it refuses to answer once they are mixed."""


def tf32() -> Tf32:
    """The state as it is."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def set_tf32(allowed: Tf32) -> None:
    """Bring a state back that `tf32` gave."""
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Within, products of float32 are done in `tf32` or in what float32 is."""
    before = tf32()
    allow_tf32(precision == "tf32")
    try:
        yield
    finally:
        set_tf32(before)
