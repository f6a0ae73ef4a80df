"""A training step written otherwise: what was tried, and what it takes.

    python -m benchmarks.variants fno 32 12

One thread on the CPU, in turns, by its processor time, which a busy machine does not change much.
Prints a Markdown table; `first step` is wall time, and holds what is done once, such as compiling.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter, thread_time

import torch
from torch import Tensor, nn

from benchmarks.measurement import amount
from benchmarks.plan import Network, noise
from benchmarks.turns import in_turns
from fno_runner.data.dataset import Dataset
from fno_runner.models.spectral import SpectralConv2d
from fno_runner.physics import amplitude_mae
from fno_runner.reconstructor import Reconstructor
from fno_runner.train.training import build_model

TURNS = 4
CPU = torch.device("cpu")


class SpectralFFT(nn.Module):
    """`SpectralConv2d` by a whole FFT, in float32 (there is none in bfloat16 on a CPU)."""

    def __init__(self, ours: SpectralConv2d) -> None:
        super().__init__()
        self.weight, self.rows, self.cols = ours.weight, ours.rows, ours.cols

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        rows = (torch.arange(self.rows) - self.rows // 2) % height
        with torch.autocast("cpu", enabled=False):
            kept = torch.fft.rfft2(x.float(), norm="forward")[:, :, rows, : self.cols]
            weight = torch.view_as_complex(self.weight)  # (rows, cols, in, out)
            mixed = torch.einsum("birc,rcio->borc", kept, weight)
            spectrum = mixed.new_zeros(batch, mixed.shape[1], height, width // 2 + 1)
            spectrum[:, :, rows, : self.cols] = mixed
            return torch.fft.irfft2(spectrum, s=(height, width), norm="forward").to(x.dtype)


class InFloat32(nn.Module):
    """A layer that bfloat16 autocast does not reach."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            out: Tensor = self.layer(x.float())
        return out.to(x.dtype)


def nchw(model: Reconstructor) -> None:
    """Convolutions in PyTorch's usual memory format."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.data = module.weight.data.contiguous()


def replace_spectral(layer: Callable[[SpectralConv2d], nn.Module], model: Reconstructor) -> None:
    """Another spectral layer, with the weights of ours."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SpectralConv2d):
                setattr(parent, name, layer(child))


def compiled(model: Reconstructor) -> None:
    """The network through `torch.compile`."""
    model.network.compile()


AS_IT_IS, IN_FLOAT32 = "as it is", "spectral layers in float32"
VARIANTS: dict[str, Callable[[Reconstructor], None]] = {
    AS_IT_IS: lambda model: None,
    "convolutions in NCHW memory": nchw,
    "FFT in place of the truncated DFT": partial(replace_spectral, SpectralFFT),
    IN_FLOAT32: partial(replace_spectral, InFloat32),
    "torch.compile": compiled,
}


def step(
    network: Network, precision: str, change: Callable[[Reconstructor], None], data: Dataset
) -> Callable[[], float]:
    """A training step of a changed model: the processor time [s] of each call."""
    model = build_model(network.config(precision), data, CPU)
    change(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    x, probe = torch.from_numpy(data.train.amplitude)[:, None], torch.from_numpy(data.train.probe)
    positions, scale = torch.zeros(len(x), 1, 2, 1), torch.ones(len(x), 1, 1, 1)

    def timed() -> float:
        start = thread_time()
        optimiser.zero_grad(set_to_none=True)
        amplitude_mae(model(x, positions, probe, scale), x).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return thread_time() - start

    return timed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("architecture", choices=["fno", "hybrid"])
    parser.add_argument("width", type=int)
    parser.add_argument("modes", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # what an earlier run compiled
    network = Network(given.architecture, given.width, given.modes)
    data = noise(network.batch, 1)
    print(f"| {network.label} | precision | first step | median | against as it is |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for precision in ("float32", "bf16"):
        steps, first = {}, {}
        for name, change in VARIANTS.items():
            if (name, precision) == (IN_FLOAT32, "float32"):
                continue
            steps[name] = step(network, precision, change, data)
            start = perf_counter()
            steps[name]()
            first[name] = perf_counter() - start
        times = {name: median(values) for name, values in in_turns(steps, TURNS).items()}
        for name, seconds in times.items():
            cells = [amount(first[name], "s"), amount(seconds, "s")]
            share = f"{seconds / times[AS_IT_IS]:.2f}"
            print(f"| {name} | {precision} | {' | '.join(cells)} | {share} |", flush=True)


if __name__ == "__main__":
    main()
