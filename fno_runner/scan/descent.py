"""One step of the fit without a network: its gradient, written out, and Adam's update.

With ψ = P·O, Ψ = F ψ and n measured pixels, the loss is L = Σ (|Ψ| − A)² / n. With the gradient of
a real loss with respect to z = x + iy written as ∂L/∂x + i ∂L/∂y it is G = F⁻¹(2 (1 − A/|Ψ|) Ψ) / n
for ψ, P*·G for the object and O*·G for the probe. Written out, a step needs two transforms a frame
where only the object is fitted. The patterns are brought to zero frequency at [0, 0] once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex64, Float32, Float64, Int64
from torch import Tensor

from fno_runner.batches import mask_of
from fno_runner.capture import Captured
from fno_runner.data.frames import Scan
from fno_runner.train.adam import PlainAdam

BETAS = (0.9, 0.99)
"""Of Adam's two moments."""
EDGE = 1e-3
"""Slopes much smaller than this [1/px] count by their square: total variation has no kink there."""
KEPT_BYTES = 2**28
"""So much may the moved probes of all frames take, where nothing changes them."""


@dataclass(frozen=True)
class Sought:
    """What is fitted beside the object, and the weight of the object's total variation."""

    probe: bool
    positions: bool
    smooth: float


class Descent:
    """Object, probe and positions on a device, and how some frames improve them.

    obj: (H, W), near 1. probe: (M, N, N), of a mean intensity near 1. gradient: of the last step's
        loss with respect to what is sought, real and imaginary parts as a last axis.
    """

    def __init__(
        self,
        scan: Scan,
        obj: Complex64[Tensor, "h w"],
        probe: Complex64[Tensor, "m n n"],
        unit: float,
        sought: Sought,
        device: torch.device,
    ) -> None:
        """`unit`: what the scan's amplitudes are divided by, so that they belong to this probe."""
        self._sought, self._size, self._middle = sought, scan.size, scan.size // 2
        first = torch.from_numpy(scan.positions - self._middle)
        self._corner = first.round()
        self._rows, self._cols = self._corner.long().to(device).unbind(1)
        amplitude = torch.from_numpy(scan.amplitude).to(device)
        self._amplitude = torch.fft.ifftshift(amplitude, dim=(1, 2)) / unit
        mask = mask_of(scan)
        self._mask = None if mask is None else torch.fft.ifftshift(mask.to(device))
        self.obj, self.probe = obj.to(device, copy=True), probe.to(device, copy=True)
        self._remainder = (first - self._corner).float().to(device)
        self._frequency = torch.fft.fftfreq(self._size, device=device)
        along = torch.arange(self._size, device=device)
        self._window = (along[:, None] * obj.shape[1] + along).flatten()
        self._light = self._moved_probes()
        places = {"object": torch.view_as_real(self.obj)}
        if sought.probe:
            places["probe"] = torch.view_as_real(self.probe)
        if sought.positions:
            places["positions"] = self._remainder
        self.gradient = {name: torch.zeros_like(place) for name, place in places.items()}
        for name, place in places.items():
            place.grad = self.gradient[name]
        self._given = torch.zeros(2, device=device)
        self._rates = [torch.tensor(0.0, device=device) for _ in range(2)]
        moved = [places.pop("positions")] if sought.positions else []
        groups = [
            {"params": tensors, "lr": rate}
            for tensors, rate in zip((list(places.values()), moved), self._rates, strict=True)
            if tensors
        ]
        on_gpu = device.type == "cuda"
        self._adam = PlainAdam(groups, betas=BETAS, fused=True, capturable=on_gpu)
        self._misfit = torch.zeros(2, device=device)
        self._step = Captured(self._improve, plain_if_full=True) if on_gpu else self._improve

    def step(self, rows: Int64[Tensor, " b"], rate: float, position_rate: float) -> None:
        """Let these frames improve what is sought, at these rates of Adam."""
        # By a kernel each: a copy from the host would wait until the last step is done.
        for given, number in zip(self._given, (rate, position_rate), strict=True):
            given.fill_(number)
        self._step(rows, self._given)

    def take_r(self) -> float:
        """R = Σ|predicted − measured| / Σ measured during the steps since the last call."""
        off, measured = self._misfit.tolist()
        self._misfit.zero_()
        return off / measured

    def positions(self) -> Float64[np.ndarray, "f 2"]:
        """As in `Scan`."""
        moved: np.ndarray = (self._corner + self._remainder.cpu().double()).numpy()
        return moved + self._middle

    def _moved_probes(self) -> Tensor | None:
        """The probe at each frame's place (F, M, N, N), or None where it changes or takes much."""
        amount = len(self._amplitude) * self.probe.nelement() * self.probe.element_size()
        if self._sought.probe or self._sought.positions or amount > KEPT_BYTES:
            return None
        everywhere = torch.arange(len(self._amplitude), device=self.probe.device)
        return torch.fft.ifft2(torch.fft.fft2(self.probe) * self._ramp(everywhere))

    def _improve(self, rows: Tensor, rates: Tensor) -> Tensor:
        """One step; reads nothing back, so that it can be recorded."""
        for rate, given in zip(self._rates, rates, strict=True):
            rate.copy_(given)
        width = self.obj.shape[1]
        corner = self._rows[rows] * width + self._cols[rows]
        pixels = (corner[:, None] + self._window).flatten()
        patch = self.obj.flatten().index_select(0, pixels)
        patch = patch.view(len(rows), 1, self._size, self._size)
        ramp = None
        if self._light is not None:
            light = self._light[rows]
        else:
            ramp = self._ramp(rows)
            light = torch.fft.ifft2(torch.fft.fft2(self.probe) * ramp)
        far = torch.fft.fft2(light * patch, norm="ortho")  # (B, M, N, N)
        measured = self._amplitude[rows]
        intensity = _intensity(far).clamp_min(torch.finfo(torch.float32).tiny)
        inverse = intensity.rsqrt()
        off = intensity * inverse - measured  # (B, N, N)
        if self._mask is not None:
            off *= self._mask
        self._misfit += torch.stack([off.abs().sum(), measured.sum()])
        inverse *= off * (2 / off.nelement())
        back = torch.fft.ifft2(far * inverse[:, None], norm="ortho")
        self._slope(light, back, pixels)
        if ramp is not None:
            self._slope_of_light(patch.conj() * back, ramp, rows)
        self._adam.step()
        return self._misfit

    def _slope(self, light: Tensor, back: Tensor, pixels: Tensor) -> None:
        """The object's gradient."""
        gradient = torch.view_as_complex(self.gradient["object"]).zero_()
        gradient.flatten().index_add_(0, pixels, (light.conj() * back).sum(1).flatten())
        if self._sought.smooth:
            _add_slope_of_variation(self.obj, self.gradient["object"], self._sought.smooth)

    def _slope_of_light(self, of_light: Tensor, ramp: Tensor, rows: Tensor) -> None:
        """The probe's and the positions' gradients, from that of the moved probe (B, M, N, N).

        The moved probe is F⁻¹(e^{−2πi k·s} F P), so its slope along s is F⁻¹(−2πi k e^{…} F P).
        """
        spectrum = torch.fft.fft2(of_light)
        if self._sought.probe:
            gradient = torch.fft.ifft2((spectrum * ramp.conj()).sum(0))
            self.gradient["probe"].copy_(torch.view_as_real(gradient))
        if self._sought.positions:
            # Re Σ G*·(−2πi k L) = 2π Σ k Im(G* L), by Parseval with the factor 1/N².
            moved = torch.fft.fft2(self.probe) * ramp
            product = (spectrum.conj() * moved).sum(1).imag * (2 * torch.pi / self._size**2)
            along = [(product.sum(axis) * self._frequency).sum(1) for axis in (2, 1)]
            self.gradient["positions"].zero_()[rows] = torch.stack(along, 1)

    def _ramp(self, rows: Tensor) -> Tensor:
        """e^{−2πi k·s} of some frames, (B, 1, N, N)."""
        angle = -2 * torch.pi * self._frequency * self._remainder[rows][..., None]  # (B, 2, N)
        wave = torch.polar(torch.ones_like(angle), angle)
        return (wave[:, 0, :, None] * wave[:, 1, None, :])[:, None]


def _intensity(far: Complex64[Tensor, "b m n n"]) -> Float32[Tensor, "b n n"]:
    """Σ |Ψ|² over modes; by the square of parts, as a complex modulus takes three times as long."""
    square = torch.view_as_real(far).square()
    intensity = square[..., 0] + square[..., 1]
    return intensity[:, 0] if intensity.shape[1] == 1 else intensity.sum(1)


def _add_slope_of_variation(obj: Tensor, gradient: Tensor, weight: float) -> None:
    """Add the gradient of weight · mean √(|∂O/∂y|² + |∂O/∂x|² + EDGE²) to (H, W, 2).

    After Rudin, Osher & Fatemi (1992), of a complex object.
    """
    parts = torch.view_as_real(obj)
    here = parts[:-1, :-1]
    down, right = parts[1:, :-1] - here, parts[:-1, 1:] - here
    square = down.square() + right.square()
    steep = (square[..., 0] + square[..., 1]).add_(EDGE**2).rsqrt_().mul_(weight / obj.nelement())
    down *= steep[..., None]
    right *= steep[..., None]
    gradient[1:, :-1] += down
    gradient[:-1, 1:] += right
    gradient[:-1, :-1] -= down + right
