"""A training step can be captured: it reads nothing back and decides nothing by data."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, is_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from benchmarks.plan import Network as Size
from benchmarks.plan import noise
from fno_runner.batches import Inputs
from fno_runner.config import RunConfig
from fno_runner.data.dataset import Dataset, Freeform, Patterns
from fno_runner.reconstruct.overlapped import _Work
from fno_runner.reconstructor import Reconstructor, UnitProbe
from fno_runner.train.adam import Adam, AdamOfRows
from fno_runner.train.network import Network
from fno_runner.train.rates import names_of_shares

CPU, META = torch.device("cpu"), torch.device("meta")
ROOT = Path(__file__).resolve().parents[1]
READS_BACK = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique", "equal")
"""Operations whose result Python, or a shape, depends on: each waits for the device."""


class NoReadBack(TorchDispatchMode):
    """Refuses the operations that would make a GPU's host wait."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        name = func.__name__.split(".")[0].lstrip("_")
        if name in {forbidden.lstrip("_") for forbidden in READS_BACK}:
            raise AssertionError(f"{func} in a step")
        return func(*args, **(kwargs or {}))


def make_network(
    config: RunConfig, data: Dataset, device: torch.device = CPU, *, flat: bool = False
) -> Network:
    kind = torch.float64 if device == CPU else torch.float32
    rate = torch.full((), config.learning_rate, dtype=kind, device=device)
    return Network(config, data, Inputs.of(data.train, 1.0, device), rate, flat=flat)


@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
@pytest.mark.parametrize("conditioning", ["projection", "amplitude"])
@pytest.mark.parametrize(
    ("precision", "flat"), [("float32", True), ("bf16", True), ("bf16", False)]
)
def test_a_step_reads_nothing_back(
    architecture: str,
    conditioning: str,
    precision: str,
    flat: bool,
    tiny: Dataset,
    tiny_config: RunConfig,
) -> None:
    changes = {
        "architecture": architecture,
        "conditioning": conditioning,
        "precision": precision,
    }
    network = make_network(tiny_config.model_copy(update=changes), tiny, flat=flat)
    rows = torch.arange(16)
    network.step(rows)  # what is made only once may look at what it likes
    with NoReadBack():
        loss, misfit = network.step(rows), network.misfit(rows)
    assert loss.isfinite() and misfit.isfinite()


class OnOneDevice(TorchDispatchMode):
    """Refuses operations with a tensor of another device: in a graph it would be a host's."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        # The fused update, in place, is the one operation that `meta` does not have.
        is_update = func.__name__.startswith("_fused_adam_")
        result = None if is_update else func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, Tensor) and leaf.device.type != self._device.type:
                raise AssertionError(f"{func}: a tensor of the {leaf.device.type}")
        return result


def data_of(kind: str, size: int) -> Dataset:
    """Patterns without meaning, of a raster or of a scan; of one with bad pixels, or two modes."""
    data = noise(20, 1)
    probe = np.ones((2, size, size) if kind == "two modes" else (size, size), np.complex64)
    mask = np.arange(size * size).reshape(size, size) > 3 if kind != "raster" else None
    some = Patterns(np.ones((20, size, size), np.float32), data.train.positions, probe, mask)
    geometry = data.geometry if kind == "raster" else Freeform((300, 300))
    return replace(data, train=some, geometry=geometry)


@pytest.mark.parametrize("architecture", ["fno", "hybrid"])
@pytest.mark.parametrize("conditioning", ["projection", "amplitude"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    ("kind", "size", "transform"),
    [("raster", 64, "none"), ("one mode", 128, "log1p"), ("two modes", 256, "sqrt")],
)
def test_neither_a_step_nor_a_slice_brings_in_a_tensor_of_the_host(
    architecture: str,
    conditioning: str,
    precision: str,
    kind: str,
    size: int,
    transform: str,
    tiny_config: RunConfig,
) -> None:
    """On the `meta` device, which computes nothing and takes a GPU's ways where they differ.

    The slice with weights in the network's own type, as a GPU has them there.
    """
    changes = {
        "architecture": architecture,
        "conditioning": conditioning,
        "precision": precision,
        "input_transform": transform,
    }
    config = tiny_config.model_copy(update=changes)
    network = make_network(config, data_of(kind, size), META, flat=True)
    rows = torch.arange(16, device=META)
    with OnOneDevice(META):
        assert network.step(rows).shape == network.misfit(rows).shape == ()
    model, inputs = network.model.eval(), network._inputs
    model.network.to(model.product_type)
    work = _Work(model, inputs.probe, UnitProbe.of(inputs.probe), inputs.scale)
    with OnOneDevice(META), torch.inference_mode():
        assert work(inputs.x[:5], inputs.positions[:5]).shape == (5, 1, size, size)


VIEWS = ("view", "permute", "transpose", "slice", "select", "expand", "detach", "squeeze", "split",
         "unfold", "unsafe_view", "unbind", "t", "unsqueeze", "alias", "empty", "real", "conj",
         "as_strided", "new_empty", "new_empty_strided")  # fmt: skip
"""Beginnings of the names of operations that start nothing on a GPU."""


class Counting(TorchDispatchMode):
    """Counts the operations that start something on a GPU.

    Convolutions leave channels-last memory there, which they do not do on `meta`: what follows
    would be counted with copies that no GPU makes, and without those that only a GPU makes.
    """

    count = 0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        name = func.__name__.split(".")[0].lstrip("_")
        is_view = name in VIEWS or name.startswith(("empty", "view_as", "split", "record_function"))
        self.count += not is_view and func.namespace != "profiler"
        made = None if name == "fused_adam_" else func(*args, **(kwargs or {}))
        return tree_map_only(Tensor, _channels_last, made) if "convolution" in name else made


def _channels_last(made: Tensor) -> Tensor:
    return made.contiguous(memory_format=torch.channels_last) if made.ndim == 4 else made


@pytest.mark.parametrize(("architecture", "most"), [("fno", 155), ("hybrid", 230)])
def test_a_step_on_a_gpu_has_few_operations(
    architecture: Literal["fno", "hybrid"], most: int
) -> None:
    """Their number bounds it: `fno` had 262 in version 0.1, which started 357 kernels.

    155 and 228. A block derived by autograd, with the spectral layer added in place to what is seen
    through a view, makes them 179 and 256.
    """
    config = Size(architecture, 32, 12).config("bf16")
    made = make_network(config, noise(20, 1), META, flat=True)
    with Counting() as counting:
        made.step(torch.arange(16, device=META))
    assert 0.8 * most < counting.count <= most


class Fast(Counting):
    """Refuses what a GPU has slow kernels for."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        if func in (torch.ops.aten.bmm.default, torch.ops.aten.baddbmm_.default):
            for factor in args:
                one, *others = sorted(factor.stride()[1:])
                starts = [stride * factor.element_size() % 16 for stride in others]
                assert one == 1 and not any(starts), f"{func}: rows at {factor.stride()}"
        if func is torch.ops.aten.cat.default:
            assert all(part.is_contiguous() for part in args[0]), f"{func}: channels-last memory"
        return super().__torch_dispatch__(func, types, args, kwargs)


@pytest.mark.parametrize(
    "size", [Size("fno", 32, 12), Size("fno", 48, 16), Size("hybrid", 32, 12)], ids=str
)
def test_products_and_copies_of_a_step_are_of_the_fast_kind(size: Size) -> None:
    """Rows that a product reads begin at multiples of 16 bytes, whatever the modes.

    The bottleneck of `hybrid` 32/12 keeps 6 modes, which are 7 numbers along the columns.
    """
    made = make_network(size.config("bf16"), noise(20, 1), META, flat=True)
    with Fast() as fast:
        made.step(torch.arange(16, device=META))
    assert fast.count > 0


class AsLargeAs(TorchDispatchMode):
    """Counts the tensors of so many numbers at least that operations make."""

    def __init__(self, least: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._least, self.names = least, list[str]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        is_update = func.__name__.startswith("_fused_adam_")
        made = None if is_update else func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves(args) if is_tensor(leaf)}
        self.names += [
            func.__name__
            for leaf in tree_leaves(made)
            if is_tensor(leaf)
            and leaf.numel() >= self._least
            and leaf.untyped_storage()._cdata not in given
        ]
        return made


def test_of_all_weights_a_step_makes_one_array() -> None:
    """Their cast. To put gradients in a row, and to cast that, moved an eighth of its bytes."""
    made = make_network(Size("hybrid", 64, 24).config("bf16"), noise(20, 1), META, flat=True)
    weights = sum(weight.numel() for weight in made.model.parameters())
    with AsLargeAs(weights) as large:
        made.step(torch.arange(16, device=META))
    assert large.names == ["_to_copy.default"]


def test_the_checks_themselves_can_fail() -> None:
    with pytest.raises(AssertionError, match="in a step"), NoReadBack():
        float(torch.ones(1).sum())
    with pytest.raises(AssertionError, match="of the cpu"), OnOneDevice(META):
        torch.ones(1).to(META)


def test_our_adam_is_pytorch_s() -> None:
    """Also where some weights learn at a share of the rate."""
    torch.manual_seed(0)
    start, gradients = torch.randn(2, 5, 7), torch.randn(4, 2, 5, 7)
    rate = torch.tensor(0.1, dtype=torch.float64)
    mine, others = ([torch.nn.Parameter(weight.clone()) for weight in start] for _ in range(2))
    shares = {1.0: mine[:1], 0.25: mine[1:]}
    groups = [{"params": others[:1], "lr": 0.1}, {"params": others[1:], "lr": 0.025}]
    ours, theirs = Adam(shares, rate), torch.optim.Adam(groups, fused=True)
    for number, gradient in enumerate(gradients):
        rate.fill_(0.1 / (1 + number))
        for group, share in zip(theirs.param_groups, shares, strict=True):
            group["lr"] = share * 0.1 / (1 + number)
        for weights, optimiser in zip((mine, others), (ours, theirs), strict=True):
            optimiser.zero_grad()
            (torch.stack(weights) * gradient).sum().backward()  # type: ignore[arg-type]
            optimiser.step()
    for weight, other, first in zip(mine, others, start, strict=True):
        assert torch.equal(weight, other) and not torch.equal(weight, first)


def test_adam_of_rows_is_pytorch_s() -> None:
    """In pieces, of which the last is shorter, with gradients that are too long and not."""
    torch.manual_seed(0)
    sizes = {1.0: 5_003, 0.25: 70}
    mine, others = (
        {share: torch.nn.Parameter(torch.zeros(size)) for share, size in sizes.items()}
        for _ in range(2)
    )
    rate = torch.tensor(0.1, dtype=torch.float64)
    ours = AdamOfRows(mine, rate)
    groups = [{"params": [row], "lr": share * 0.1} for share, row in others.items()]
    theirs = torch.optim.Adam(groups, fused=True)
    for length in (0.1, 300.0, 1.0):
        for row, other in zip(mine.values(), others.values(), strict=True):
            row.grad = length * torch.randn(len(row))
            other.grad = row.grad.clone()
        ours.clip(longest=20.0)
        ours.step()
        torch.nn.utils.clip_grad_norm_(others.values(), 20.0)
        theirs.step()
        for row, other in zip(mine.values(), others.values(), strict=True):
            torch.testing.assert_close(row, other, rtol=1e-5, atol=1e-7)
    assert [float(state["step"]) for state in ours.state.values()] == [3.0, 3.0]


@pytest.mark.parametrize("flat", [False, True])
def test_a_wide_layer_s_weights_learn_at_a_share_of_the_rate(
    flat: bool, tiny: Dataset, tiny_config: RunConfig
) -> None:
    """Adam's first step moves a weight by the rate, unless its gradient is near nothing."""
    config = tiny_config.model_copy(
        update={"architecture": "hybrid", "width": 32, "grad_clip": 1e9, "rate_scaling": "fan_in"}
    )
    network = make_network(config, tiny, flat=flat)
    before = {name: weight.clone() for name, weight in network.model.state_dict().items()}
    network.step(torch.arange(16))
    moved = {
        name: float((weight - before[name]).abs().max()) / config.learning_rate
        for name, weight in network.model.state_dict().items()
    }
    shares = {
        "lift.0.weight": 1, "lift.2.weight": 1, "encoder.0.spectral.weight": 1, "down.0.weight": 1,
        "encoder.1.spectral.weight": 1 / 2, "encoder.1.local.weight": 1 / 2,
        "bottleneck.spectral.weight": 1 / 2, "bottleneck.local.bias": 1, "up.0.weight": 1 / 2,
        "merge.0.0.weight": 1 / 2, "merge.0.2.weight": 1, "head.weight": 1,
    }  # fmt: skip
    for name, share in shares.items():
        assert moved[f"network.{name}"] == pytest.approx(share, rel=0.05), name


@pytest.mark.parametrize("width", [8, 48])
def test_all_layers_of_an_fno_learn_at_the_full_rate(width: int, tiny_config: RunConfig) -> None:
    config = tiny_config.model_copy(update={"width": width, "rate_scaling": "fan_in"})
    model = Reconstructor(config)
    assert names_of_shares(model, config) == {1.0: [name for name, _ in model.named_parameters()]}


def test_a_run_does_not_import_the_compiler() -> None:
    """It takes a second or more, which each training or count of operations would wait for."""
    script = """
import sys, torch
from benchmarks.plan import Network, noise
from fno_runner.score.flops import flops_per_pattern
from fno_runner.train.training import train
config = Network("hybrid", 2, 4).config("bf16", epochs=1)
data = noise(20, 1)
(trained,) = train(config, data, torch.device("cpu"))
assert flops_per_pattern(trained.model, data.test.probe) > 0
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
