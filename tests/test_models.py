"""The spectral convolution against neuraloperator and a direct sum; sizes reach the network."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from neuralop.layers.spectral_convolution import SpectralConv
from torch.nn.functional import conv_transpose2d
from torch.utils._python_dispatch import TorchDispatchMode

from fno_runner.config import N, RunConfig
from fno_runner.models import build_network, count_parameters
from fno_runner.models.blocks import (
    Conv1x1,
    FirstConv,
    FourierBlock,
    Upsample,
    beside,
    beside_in_rows,
)
from fno_runner.models.fno import FNO
from fno_runner.models.fused import in_words
from fno_runner.models.hybrid import Hybrid
from fno_runner.models.spectral import SpectralConv2d


def as_neuralop(ours: SpectralConv2d, modes: int) -> SpectralConv:
    """neuraloperator's layer with our weights."""
    weight = torch.view_as_complex(ours.weight.detach().contiguous()).permute(2, 3, 0, 1)
    theirs = SpectralConv(*weight.shape[:2], (modes, modes), bias=False)
    with torch.no_grad():
        theirs.weight.tensor.copy_(weight)
    return theirs


@pytest.mark.parametrize(
    ("channels_in", "channels_out", "modes", "size"),
    [(3, 5, 12, 64), (2, 2, 13, 64), (4, 4, 24, 64), (2, 2, 1, 8), (2, 3, 16, 16), (1, 1, 64, 64)],
)
def test_equals_neuralop(channels_in: int, channels_out: int, modes: int, size: int) -> None:
    """Copied weights give the same result and the same gradients, to 1e-5 relative."""
    torch.manual_seed(0)
    ours = SpectralConv2d(channels_in, channels_out, modes, size)
    theirs = as_neuralop(ours, modes)
    x = torch.randn(2, channels_in, size, size)
    results = []
    for layer in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        y.square().sum().backward()
        results.append((y.detach(), leaf.grad))
    for a, b in zip(*results, strict=True):
        assert isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
        assert (a - b).norm() / b.norm() < 1e-5


def test_equals_a_direct_sum() -> None:
    """Σ over kept (r, c) of W·X(r, c)·exp(2πi(r h + c w)/n), both signs of r, in float64."""
    torch.manual_seed(1)
    size, modes = 16, 6
    layer = SpectralConv2d(2, 3, modes, size)
    x = np.random.default_rng(0).normal(size=(2, size, size))
    spectrum = np.fft.fft2(x) / size**2
    weight = torch.view_as_complex(layer.weight.detach().contiguous()).numpy()
    full = np.zeros((3, size, size), complex)
    h, w = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    for i, row in enumerate(range(-modes // 2, modes // 2)):
        for col in range(modes // 2 + 1):
            value = spectrum[:, row, col] @ weight[i, col]
            wave = np.exp(2j * np.pi * (row * h + col * w) / size)
            full += (1 if col == 0 else 2) * (value[:, None, None] * wave).real
    y = layer(torch.from_numpy(x).float()[None])[0].detach().numpy()
    np.testing.assert_allclose(y, full.real, rtol=0, atol=1e-5)


def test_negative_row_frequencies_pass() -> None:
    """A layer that keeps one corner only would lose this wave."""
    layer = SpectralConv2d(1, 1, 8, 32)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[..., 0] = 1.0
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    wave = torch.cos(2 * torch.pi * (2 * x - 3 * y) / 32)[None, None]
    torch.testing.assert_close(layer(wave), wave, rtol=0, atol=1e-5)


def test_modes_are_capped_by_the_grid() -> None:
    assert SpectralConv2d(1, 1, 24, 8).weight.shape == (8, 5, 1, 1, 2)


def parameters_of_fno(width: int, modes: int, blocks: int, cnn_blocks: int) -> int:
    """Counted by hand: a complex weight is two numbers."""

    def conv(i: int, o: int, k: int) -> int:
        return i * o * k * k + o

    lift = conv(3, width, 3) + conv(width, width, 3)
    block = 2 * width * width * modes * (modes // 2 + 1) + conv(width, width, 3)
    tail = conv(width, width, 1) + cnn_blocks * conv(width, width, 3) + conv(width, 2, 1)
    return lift + blocks * block + tail


@pytest.mark.parametrize(("width", "modes", "blocks", "cnn_blocks"), [(8, 12, 4, 2), (5, 7, 3, 0)])
def test_parameters_of_fno(width: int, modes: int, blocks: int, cnn_blocks: int) -> None:
    config = RunConfig(width=width, modes=modes, blocks=blocks, cnn_blocks=cnn_blocks)
    assert count_parameters(build_network(config, 3)) == parameters_of_fno(
        width, modes, blocks, cnn_blocks
    )


@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
@pytest.mark.parametrize("sizes", [{"blocks": 1}, {"blocks": 3, "cnn_blocks": 0}, {"modes": 64}])
def test_shape_and_vacuum_start(architecture: str, sizes: dict[str, Any]) -> None:
    """Every size builds, keeps the image's size and starts near an object of 1 + 0i."""
    config = RunConfig.model_validate({"architecture": architecture, "width": 4, **sizes})
    torch.manual_seed(0)
    out = build_network(config, 3)(torch.randn(2, 3, N, N))
    assert out.shape == (2, 2, N, N)
    assert (out[:, 0] - 1).abs().mean() < 0.3
    assert out[:, 1].abs().mean() < 0.3


def test_upsampling_is_the_library_s_transposed_convolution() -> None:
    torch.manual_seed(0)
    layer = Upsample(6, 5)
    x = torch.randn(3, 6, 7, 4).contiguous(memory_format=torch.channels_last)
    y = layer(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    plain = conv_transpose2d(x, layer.weight, layer.bias, stride=2)
    torch.testing.assert_close(y, plain)
    given = torch.randn_like(y)
    weights = tuple(layer.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(y, weights, given), torch.autograd.grad(plain, weights, given)
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "layer", [FirstConv(1, 4), FirstConv(3, 4), Conv1x1(5, 4)], ids=["1 channel", "3", "1×1"]
)
def test_what_a_gpu_takes_as_a_product_is_the_convolution(layer: FirstConv | Conv1x1) -> None:
    """In float64: values, gradients by weights and input, and gradients against differences."""
    torch.manual_seed(0)
    layer = deepcopy(layer).double()
    layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    x = torch.randn(2, layer.in_channels, 6, 5, dtype=torch.float64, requires_grad=True)
    expected, y = layer(x), layer.as_product(x)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    assert y.is_contiguous(memory_format=torch.channels_last)
    given, leaves = torch.randn_like(y), (x, *layer.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(y, leaves, given), torch.autograd.grad(expected, leaves, given)
    )
    assert torch.autograd.gradcheck(layer.as_product, x)


@pytest.mark.parametrize("modes", [1, 5, 6, 8, 24])
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_a_fused_block_is_the_block(modes: int, memory: torch.memory_format) -> None:
    """In float64: values, and gradients by the input and by all weights."""
    torch.manual_seed(0)
    block = FourierBlock(3, modes, 8).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64).contiguous(memory_format=memory)
    x.requires_grad_()
    expected, y = block(x), block.fused(x)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    assert y.is_contiguous(memory_format=torch.channels_last)
    given, leaves = torch.randn_like(y), (x, *block.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(y, leaves, given),
        torch.autograd.grad(expected, leaves, given),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    assert torch.autograd.gradcheck(block.fused, x, fast_mode=True)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("last", [1, 4, 6, 7, 8])
def test_numbers_are_brought_into_another_order_by_words(kind: torch.dtype, last: int) -> None:
    t = torch.randn(2, 3, 5, last).to(kind)
    with Made() as made:
        moved = in_words(t, 2, 0, 1, 3)
    assert moved.is_contiguous() and torch.equal(moved, t.permute(2, 0, 1, 3))
    words = last * kind.itemsize // 8 if last * kind.itemsize % 8 == 0 else last
    assert made.of["clone"] == [30 * words]


class Made(TorchDispatchMode):
    """Notes how many numbers operations make, by their names."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.of: dict[str, list[int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        made = func(*args, **(kwargs or {}))
        self.of.setdefault(func.__name__.split(".")[0], []).append(made.numel())
        return made


def test_images_beside_each_other_are_channels_last() -> None:
    first, second = (
        torch.randn(2, channels, 4, 4).contiguous(memory_format=torch.channels_last)
        for channels in (3, 5)
    )
    both, expected = beside_in_rows(first, second), torch.cat([first, second], dim=1)
    assert torch.equal(both, expected) and both.stride() == expected.stride()
    assert torch.equal(beside(first, second), expected)


def test_a_fused_block_takes_a_gradient_that_is_part_of_another() -> None:
    """As a skip connection's is, which is cut out of that of two images side by side."""
    torch.manual_seed(0)
    block, x = FourierBlock(3, 6, 8).double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    given = torch.randn(2, 5, 8, 8, dtype=torch.float64)[:, 1:4]
    leaves = tuple(block.parameters())
    ours = torch.autograd.grad(block.fused(x), leaves, given)
    theirs = torch.autograd.grad(block(x), leaves, given)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_a_fused_block_casts_under_autocast() -> None:
    """Float32 weights and bfloat16 products: what a GPU does in a network that is not in a row."""
    torch.manual_seed(0)
    block, x = FourierBlock(4, 6, 16), torch.randn(2, 4, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        expected, y = block(x), block.fused(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected.float(), rtol=0.02, atol=0.02)
    given, leaves = torch.randn_like(y), tuple(block.parameters())
    ours = torch.autograd.grad(y, leaves, given)
    theirs = torch.autograd.grad(expected, leaves, given.to(expected.dtype))
    for gradient, other in zip(ours, theirs, strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
def test_every_parameter_sees_a_gradient(architecture: str) -> None:
    """No dead weights are counted. The imaginary part of a real DC is the one exception."""
    config = RunConfig.model_validate({"architecture": architecture, "width": 4, "modes": 24})
    network = build_network(config, 3)
    network(torch.randn(2, 3, N, N)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        dead = parameter.grad == 0
        if name.endswith("spectral.weight"):
            dead[dead.shape[0] // 2, 0, :, :, 1] = False
            side = {24: 64, 16: 16, 8: 8}.get(parameter.shape[0], 64)
            if parameter.shape[0] == side:  # a grid at its Nyquist frequency: real as DC is
                dead[0, 0, :, :, 1] = dead[side // 2, -1, :, :, 1] = dead[0, -1, :, :, 1] = False
        assert not dead.any(), name


def test_hybrid_halves_and_doubles() -> None:
    network = build_network(RunConfig(architecture="hybrid", width=4, blocks=3, modes=12), 1)
    assert isinstance(network, Hybrid)
    shapes = [tuple(b.spectral.weight.shape) for b in [*network.encoder, network.bottleneck]]
    assert shapes == [(12, 7, 4, 4, 2), (12, 7, 8, 8, 2), (12, 7, 16, 16, 2), (6, 4, 16, 16, 2)]


def test_sizes_reach_the_network() -> None:
    network = build_network(RunConfig(width=6, modes=10, blocks=3, cnn_blocks=1), 1)
    assert isinstance(network, FNO)
    assert len(network.blocks) == 3
    first = network.blocks[0]
    assert isinstance(first, FourierBlock)
    assert first.spectral.weight.shape == (10, 6, 6, 6, 2)
    assert len(network.refine) == 2
