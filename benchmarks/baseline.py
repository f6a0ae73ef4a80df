"""The same networks as a competent user writes them with neuraloperator: eager, float32, NCHW.

What `python -m benchmarks` compares with: a DataLoader, `torch.fft`, plain Adam, nothing tuned.
Its weights have the names of ours, so that `copy_weights` can show that both compute the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter

import torch
from jaxtyping import Complex64, Float, Float32
from neuralop.layers.spectral_convolution import SpectralConv
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.utils.data import DataLoader, TensorDataset

from fno_runner.config import RunConfig
from fno_runner.data.dataset import Patterns
from fno_runner.physics import amplitude_mae
from fno_runner.reconstructor import INPUT_TRANSFORMS, input_scale_factor
from fno_runner.train.network import VALIDATION


class Block(nn.Module):
    """y = x + GELU(SpectralConv(x) + Conv3×3(x))."""

    def __init__(self, width: int, modes: int, size: int) -> None:
        super().__init__()
        kept = min(modes, size)
        self.spectral = SpectralConv(width, width, (kept, kept), bias=False)
        self.local = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + gelu(self.spectral(x) + self.local(x))


def _lifter(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1)
    )


def _refiner(width: int, layers: int) -> nn.Sequential:
    return nn.Sequential(
        *(m for _ in range(layers) for m in (nn.Conv2d(width, width, 3, padding=1), nn.GELU()))
    )


class FNO(nn.Module):
    """lifter → Fourier blocks → 1×1 → (3×3, GELU) × cnn_blocks → 1×1."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        width = config.width
        self.lift = _lifter(width)
        blocks = (Block(width, config.modes, config.size) for _ in range(config.blocks))
        self.blocks = nn.Sequential(*blocks)
        self.mix = nn.Conv2d(width, width, 1)
        self.refine = _refiner(width, config.cnn_blocks)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Float[Tensor, "b 1 n n"]) -> Float[Tensor, "b 2 n n"]:
        out: Tensor = self.head(self.refine(self.mix(self.blocks(self.lift(x)))))
        return out


class Hybrid(nn.Module):
    """Fourier blocks down a U-Net's encoder, convolutions up its decoder."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        width, modes, levels = config.width, config.modes, config.blocks
        size = config.size
        widths = [width * 2**level for level in range(levels)]
        self.lift = _lifter(width)
        self.encoder = nn.ModuleList(Block(c, modes, size >> k) for k, c in enumerate(widths))
        self.down = nn.ModuleList(nn.Conv2d(c, 2 * c, 4, stride=2, padding=1) for c in widths[:-1])
        self.bottleneck = Block(widths[-1], max(modes // 2, 1), size >> (levels - 1))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, stride=2) for c in widths[-2::-1])
        self.merge = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(2 * c, c, 3, padding=1), nn.GELU(), nn.Conv2d(c, c, 3, padding=1)
            )
            for c in widths[-2::-1]
        )
        self.refine = _refiner(width, config.cnn_blocks)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Float[Tensor, "b 1 n n"]) -> Float[Tensor, "b 2 n n"]:
        x = self.lift(x)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x)
            if level < len(self.down):
                skips.append(x)
                x = self.down[level](x)
        x = self.bottleneck(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), skips.pop()], dim=1))
        out: Tensor = self.head(self.refine(x))
        return out


class PlainReconstructor(nn.Module):
    """Amplitude → network → object patch → probe → FFT, for conditioning=amplitude."""

    def __init__(self, config: RunConfig, probe: Complex64[Tensor, "n n"], scale: float) -> None:
        """`scale`: the input scale factor, see `fno_runner.reconstructor`."""
        super().__init__()
        self.network = FNO(config) if config.architecture == "fno" else Hybrid(config)
        self.transform = INPUT_TRANSFORMS[config.input_transform]
        self.scale = scale
        self.to_unit = probe.shape[-1] / float(probe.abs().square().sum().sqrt())
        self.register_buffer("probe", probe, persistent=False)

    probe: Tensor

    def patch(self, x: Float32[Tensor, "b 1 n n"]) -> Complex64[Tensor, "b 1 n n"]:
        """The object patches, in normalised units."""
        out = self.network(self.transform(x * (self.scale * self.to_unit)))
        return torch.complex(out[:, :1], out[:, 1:])

    def forward(self, x: Float32[Tensor, "b 1 n n"]) -> Float32[Tensor, "b 1 n n"]:
        """The amplitude that the reconstructed patches would diffract to, in x's units."""
        wave = self.patch(x) * (self.probe * self.to_unit)
        far = torch.fft.fftshift(torch.fft.fft2(wave, norm="ortho"), dim=(-2, -1))
        return far.abs() / (self.scale * self.to_unit)


def copy_weights(ours: nn.Module, plain: nn.Module) -> None:
    """Load the weights of one of `fno_runner.models` into the plain network of its shape."""
    weights = {}
    for name, value in ours.state_dict().items():
        if name.endswith("spectral.weight"):  # (rows, cols, in, out, 2) → complex (in, out, …)
            weight = torch.view_as_complex(value.contiguous())
            weights[f"{name}.tensor"] = weight.permute(2, 3, 0, 1)
        else:
            weights[name] = value
    plain.load_state_dict(weights)


def train(
    config: RunConfig,
    patterns: Patterns,
    device: torch.device,
    on_epoch: Callable[[float], None],
) -> None:
    """An ordinary loop; loss, clipping, schedule, validation and best state are those of ours.

    on_epoch: called with the wall time [s] of an epoch's steps, after its validation.
    """
    probe = torch.from_numpy(patterns.probe)
    amplitude = torch.from_numpy(patterns.amplitude)[:, None]
    scale = input_scale_factor(float(amplitude.square().sum()) / len(amplitude), probe)
    model = PlainReconstructor(config, probe, scale).to(device)
    validation, fit = amplitude.tensor_split([max(1, round(VALIDATION * len(amplitude)))])
    pinned = device.type == "cuda"
    loader = DataLoader(TensorDataset(fit), config.batch_size, shuffle=True, pin_memory=pinned)
    held_out = DataLoader(TensorDataset(validation), config.infer_batch_size, pin_memory=pinned)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        config.learning_rate,
        total_steps=len(loader) * config.epochs,
        pct_start=0.2,
        cycle_momentum=False,
    )
    best, best_state = math.inf, model.state_dict()
    for _ in range(config.epochs):
        start = perf_counter()
        model.train()
        total = torch.zeros((), device=device)
        for (batch,) in loader:
            x = batch.to(device, non_blocking=True)
            loss = amplitude_mae(model(x), x)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
            optimiser.step()
            schedule.step()
            total += loss.detach() * len(x)
        float(total)  # waits for the device
        seconds = perf_counter() - start
        model.eval()
        misfit = 0.0
        with torch.no_grad():
            for (batch,) in held_out:
                x = batch.to(device, non_blocking=True)
                misfit += float(amplitude_mae(model(x), x)) * len(x)
        on_epoch(seconds)
        if misfit < best:
            best = misfit
            best_state = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best_state)


@torch.inference_mode()
def predict(
    model: PlainReconstructor,
    patterns: Float32[Tensor, "b 1 n n"],
    device: torch.device,
    batch_size: int,
) -> Complex64[Tensor, "b 1 n n"]:
    """The object patch of every pattern, on the CPU."""
    model.eval()
    loader = DataLoader(TensorDataset(patterns), batch_size, pin_memory=device.type == "cuda")
    return torch.cat(
        [
            model.patch(batch.to(device, non_blocking=True)).cpu() / model.scale
            for (batch,) in loader
        ]
    )
