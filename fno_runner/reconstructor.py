"""Network and physics together: diffraction amplitude → object patch → predicted amplitude."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex64, Float32
from torch import Tensor, nn

from fno_runner.config import RunConfig
from fno_runner.models import build_network
from fno_runner.physics import (
    amplitude_by,
    centring,
    far_field,
    local_probe,
    object_update,
    subpixel_remainder,
)

INPUT_TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
}


class Reconstructor(nn.Module):
    """Unsupervised, physics-informed reconstruction (Hoidn, Mishra & Mehta, 2023: PtychoPINN).

    Everything inside is in normalised units, whatever the data's: the probe has mean intensity 1
    and the object is near 1 where nothing absorbs. `input_scale_factor` brings an amplitude there;
    the function of that name says how it follows from the data.
    """

    mask: Tensor | None

    def __init__(
        self,
        config: RunConfig,
        patches: int = 1,
        *,
        size: int | None = None,
        subpixel: bool = False,
        mask: Bool[Tensor, "n n"] | None = None,
    ) -> None:
        """`size`: side of the patterns [px], by default the configuration's.

        subpixel: whether positions have fractions that the probe must be shifted by.
        mask: good pixels of the detector; at the others nothing is predicted, so no loss is there.
        """
        super().__init__()
        self.conditioning = config.conditioning
        self.input_transform = config.input_transform
        self.transform = INPUT_TRANSFORMS[config.input_transform]
        self.subpixel = subpixel
        self.precision = config.precision
        self.register_buffer("mask", mask, persistent=False)
        channels = 3 * patches if config.conditioning == "projection" else patches
        self.network: nn.Module = build_network(config, channels, patches, size)

    def forward(
        self,
        x: Float32[Tensor, "b c n n"],
        positions: Float32[Tensor, "b 1 2 c"],
        probe: Complex64[Tensor, "*m n n"],
        input_scale_factor: Float32[Tensor, "b 1 1 1"],
        unit_probe: UnitProbe | None = None,
    ) -> Float32[Tensor, "b c n n"]:
        """The amplitude that the reconstructed patches would diffract to, in x's units.

        x: diffraction amplitude. positions: row and column of the patch centre [px].
        probe: at the sample, or its M incoherent modes (M, N, N).
        input_scale_factor: 1 / the object's amplitude in vacuum.
        unit_probe: `UnitProbe.of` the probe, where it is known already.
        """
        unit_probe = unit_probe or UnitProbe.of(probe)
        shift = self._shift(x, positions)
        patch, scale = self._reconstruct(x, shift, unit_probe, input_scale_factor)
        predicted = amplitude_by(patch, unit_probe.centred_at(shift)) / scale
        return predicted if self.mask is None else predicted * self.mask

    def forward_predict(
        self,
        x: Float32[Tensor, "b c n n"],
        positions: Float32[Tensor, "b 1 2 c"],
        probe: Complex64[Tensor, "*m n n"],
        input_scale_factor: Float32[Tensor, "b 1 1 1"],
        unit_probe: UnitProbe | None = None,
    ) -> Complex64[Tensor, "b c n n"]:
        """The complex object patches, so that x ≈ |far field of probe · patch|.

        Arguments as in `forward`.
        """
        unit_probe = unit_probe or UnitProbe.of(probe)
        patch, _ = self._reconstruct(x, self._shift(x, positions), unit_probe, input_scale_factor)
        return patch / input_scale_factor

    @property
    def product_type(self) -> torch.dtype:
        """The type that the network multiplies in: by autocast, or because its weights have it."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def network_constants(self) -> dict[str, Tensor]:
        """The network's buffers, which are matrices of Fourier transforms, by their names here."""
        return {f"network.{name}": value for name, value in self.network.named_buffers()}

    def _shift(self, x: Tensor, positions: Tensor) -> Tensor | None:
        """What the probe is moved by for each pattern [px], (B, C, 2); None where by nothing."""
        return subpixel_remainder(positions, x.shape[-1]) if self.subpixel else None

    def _reconstruct(
        self, x: Tensor, shift: Tensor | None, unit_probe: UnitProbe, input_scale_factor: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Normalised patch (B, C, N, N), and the factor from x to normalised."""
        scale = input_scale_factor * unit_probe.to_unit  # (B, 1, 1, 1)
        amplitude = x * scale  # mean square 1 over a dataset
        channels = [self.transform(amplitude)]
        if self.conditioning == "projection":
            local = local_probe(unit_probe.probe, shift)
            update = object_update(amplitude, local, mask=self.mask)  # (B, C, N, N)
            channels += [update.real, update.imag]
        # Not contiguous(memory_format=…): it leaves a single channel in the other format.
        if len(channels) == amplitude.shape[1] == 1:
            features = channels[0].squeeze(1).unsqueeze(-1)  # (B, N, N, 1), nothing is copied
        else:
            features = torch.cat([c.permute(0, 2, 3, 1) for c in channels], dim=-1)  # (B, N, N, I)
        kind = next(self.network.parameters()).dtype
        is_mixed = kind != self.product_type
        mixed = torch.autocast(x.device.type, self.product_type) if is_mixed else nullcontext()
        with mixed:
            out = self.network(features.to(kind).permute(0, 3, 1, 2))  # (B, 2C, N, N)
        # Real and imaginary part lie beside each other in channels-last memory: nothing is copied.
        pairs = out.float().permute(0, 2, 3, 1).unflatten(3, (-1, 2))  # (B, N, N, C, 2)
        patch = torch.view_as_complex(pairs.contiguous()).permute(0, 3, 1, 2)  # (B, C, N, N)
        return patch, scale


@dataclass(frozen=True)
class UnitProbe:
    """A probe in the model's units, and with it what no batch changes.

    probe: with mean intensity 1, complex64 (N, N) or (M, N, N). centred: `centring` of it.
    to_unit: what it was multiplied by, float32 ().
    """

    probe: Tensor
    centred: Tensor
    to_unit: Tensor

    @classmethod
    def of(cls, probe: Complex64[Tensor, "*m n n"]) -> UnitProbe:
        """`probe`: at the sample, in the data's units, or its M incoherent modes."""
        to_unit = probe.shape[-1] / probe.abs().square().sum().sqrt()
        unit = probe * to_unit
        return cls(unit, centring(unit), to_unit)

    def to(self, device: torch.device) -> UnitProbe:
        """The same on another device."""
        return UnitProbe(self.probe.to(device), self.centred.to(device), self.to_unit.to(device))

    def centred_at(self, shift: Float32[Tensor, "b c 2"] | None) -> Tensor:
        """As `amplitude_by` takes it, moved by each pattern's shift [px], if any."""
        if shift is None:
            return local_probe(self.centred)
        return centring(local_probe(self.probe, shift))


def input_scale_factor(
    mean_intensity: float,
    probe: Complex64[Tensor, "*m n n"],
    mask: Bool[Tensor, "n n"] | None = None,
) -> float:
    """1 / s, with s the object's amplitude if it were vacuum: s² = mean Σ A² / Σ |P|².

    mean_intensity: Σ A² of a pattern, mean over the dataset. With a mask, A and the probe's far
    field count where it is true.
    """
    wave = probe if mask is None else far_field(probe) * mask
    return math.sqrt(float(wave.abs().square().sum()) / mean_intensity)
