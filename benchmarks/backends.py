"""How PyTorch's libraries may do float32 products: a global state that a side must not leak."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

FloatPrecision = tuple[str, ...]
"""One of none, ieee, tf32, … for each library."""


def float32_precision() -> FloatPrecision:
    """The state as it is."""
    return tuple(library.fp32_precision for library in _libraries())


def set_float32_precision(values: FloatPrecision) -> None:
    """Bring a state back that `float32_precision` gave."""
    for library, value in zip(_libraries(), values, strict=True):
        if library.fp32_precision != value:
            library.fp32_precision = value


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Within, all libraries do float32 products like this: `ieee` or `tf32`."""
    before = float32_precision()
    set_float32_precision((precision,) * len(before))
    try:
        yield
    finally:
        set_float32_precision(before)


def _libraries() -> tuple[Any, ...]:
    backends: Any = torch.backends
    return (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
    )
