"""Reconstruction without a network: gradient descent on object, probe and, if asked, positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Bool, Complex64, Float64
from torch import Tensor

from fno_runner.data.dataset import Patterns
from fno_runner.data.frames import Scan
from fno_runner.data.scan import patterns_of
from fno_runner.errors import UserError
from fno_runner.physics import near_field
from fno_runner.reconstruct.inference import predicted_amplitude
from fno_runner.reconstruct.predictor import slices
from fno_runner.reconstruct.stitching import cut
from fno_runner.scan.descent import Descent, Sought
from fno_runner.score.metrics import r_factor
from fno_runner.train.schedule import one_cycle

BATCH, STEPS = 16, 16
"""Frames a step; fewer where a pass would have fewer than so many steps."""
ITERATIONS = 40
"""Passes over all frames."""
RATE, POSITION_RATE = 0.05, 0.02
"""Adam's highest rates for object and probe (in units of their typical modulus), positions [px]."""
RISE = 0.1
"""The share of all steps in which the rates rise."""
MODE_REACH = 0.625
"""Further modes begin as the first times y or x over this share of the window."""
SLICE = 128
"""Patterns whose R is computed at a time."""

OnIteration = Callable[[int, int, float], None]
"""Called after a pass with its number, the number of all passes, and R during it."""


@dataclass(frozen=True)
class Fit:
    """What a reconstruction came to.

    obj: complex64 (H, W). probe: complex64 (M, N, N), modes that are orthogonal to each other, the
        strongest first, so that amplitudes are in the scan's units. How bright the beam was and how
        much the sample lets through cannot be told apart: a probe that is fitted has the frames'
        mean counts, and the object is near 1; one that is held is as bright as the scan's.
    positions: float64 (F, 2) [px], as in `Scan`; all patches lie in `obj`.
    seconds: wall time [s]. r: one a pass, during it.
    """

    obj: Complex64[np.ndarray, "h w"]
    probe: Complex64[np.ndarray, "m n n"]
    positions: Float64[np.ndarray, "f 2"]
    seconds: float
    r: tuple[float, ...]

    def fitted(self, scan: Scan) -> Scan:
        """The scan with this probe and these positions; its reference is the object they are of."""
        return replace(scan, probe=self.probe, positions=self.positions, reference=self.obj)


def reconstruct(
    scan: Scan,
    *,
    modes: int = 1,
    iterations: int = ITERATIONS,
    fit_probe: bool = True,
    fit_positions: bool = False,
    smooth: float = 0.0,
    frames: Bool[np.ndarray, " f"] | None = None,
    first_object: Complex64[np.ndarray, "h w"] | None = None,
    device: torch.device | None = None,
    on_iteration: OnIteration | None = None,
) -> Fit:
    """Fit object and probe to a scan's amplitudes by least squares (Adam, one cycle).

    It begins with an object of 1 everywhere and with the scan's probe. Where a scan has none, the
    probe begins as the focus whose far field has the mean pattern's amplitude. The same input gives
    the same fit on a CPU. Where positions are fitted, the object grows by vacuum as far as they
    have moved.

    Args:
        modes: how many incoherent ones the probe has.
        smooth: weight of the object's total variation, mean |∇O| [1/px], beside the mean square of
            (predicted − measured amplitude) in units in which the probe's mean intensity is 1.
        first_object: begin with this one, of the scan's shape and in the units that belong to its
            probe, in place of 1; where it is 0 nothing is known of it, and 1 stays.
        frames: fit to these only; by default to all.
        device: where to compute; by default the CPU.

    Raises:
        UserError: positions were fitted, and are no numbers any more: the fit diverged.
    """
    start = perf_counter()
    device = device or torch.device("cpu")
    used = torch.arange(len(scan)) if frames is None else torch.from_numpy(np.flatnonzero(frames))
    begin = _first_probe(scan, torch.from_numpy(scan.amplitude)[used], modes)
    unit = float(begin[0].abs().square().mean().sqrt())
    obj = _first_object(scan, begin, first_object)
    sought = Sought(probe=fit_probe, positions=fit_positions, smooth=smooth)
    descent = Descent(scan, obj, begin / unit, unit, sought, device)
    batch = min(BATCH, max(1, len(used) // STEPS))
    steps, step = -(-len(used) // batch) * iterations, 0
    shuffle = torch.Generator().manual_seed(0)
    history = []
    for iteration in range(1, iterations + 1):
        order = used[torch.randperm(len(used), generator=shuffle)].to(device)
        for rows in order.split(batch):
            rate = one_cycle(1.0, step, steps, RISE)
            descent.step(rows, RATE * rate, POSITION_RATE * rate)
            step += 1
        history.append(descent.take_r())
        if on_iteration is not None:
            on_iteration(iteration, iterations, history[-1])
    found, positions = descent.obj.cpu().numpy(), scan.positions
    if fit_positions:
        if not np.isfinite(positions := descent.positions()).all():
            raise UserError(f"{scan.source}: the fit without a network diverged: positions are NaN")
        found, positions = _grown(found, positions, scan.size)
    # P·O is all that is measured: of a probe that is fitted the descent moves the brightness, too.
    is_held = not fit_probe and scan.probe is not None
    if is_held:
        brighter = _brightness(scan, begin)
    else:
        brighter = float(descent.probe.norm().cpu()) * unit / float(begin.norm())
    found, unit = found * np.float32(brighter), unit / brighter
    return Fit(
        obj=found,
        probe=orthogonal_modes((descent.probe * unit).cpu().numpy()),
        positions=positions,
        seconds=perf_counter() - start,
        r=tuple(history),
    )


def residual(fit: Fit, scan: Scan, frames: Bool[np.ndarray, " f"] | None = None) -> float:
    """R = Σ|predicted − measured| / Σ measured of a fit, on some frames or on all.

    Raises:
        UserError: it is no number: the fit diverged.
    """
    patterns = patterns_of(fit.fitted(scan))
    r = r_of_object(fit.obj, patterns if frames is None else patterns.take(frames))
    if not math.isfinite(r):
        raise UserError(f"{scan.source}: the fit without a network diverged: R is {r}")
    return r


def r_of_object(obj: Complex64[np.ndarray, "h w"], patterns: Patterns) -> float:
    """R = Σ|predicted − measured| / Σ measured of patterns, as an object predicts them."""
    predicted = np.empty_like(patterns.amplitude)
    for rows in slices(len(patterns), SLICE):
        some = patterns.take(rows)
        patches = cut(obj, some.positions, some.size)
        predicted[rows] = predicted_amplitude(patches, some, SLICE)
    return r_factor(predicted, patterns.amplitude)


def _grown(
    obj: Complex64[np.ndarray, "h w"], positions: Float64[np.ndarray, "f 2"], size: int
) -> tuple[Complex64[np.ndarray, "y x"], Float64[np.ndarray, "f 2"]]:
    """An object with vacuum at its rim as far as patches at these positions reach, and their
    positions in it. Nothing changes where they lie in it already."""
    first = positions - size // 2
    before = np.maximum(0, -np.floor(first.min(axis=0))).astype(int)
    end = np.ceil(first.max(axis=0)).astype(int) + size
    after = np.maximum(0, end - obj.shape)
    grown = np.pad(obj, list(zip(before, after, strict=True)), constant_values=1)
    return grown, positions + before


def orthogonal_modes(probe: Complex64[np.ndarray, "m n n"]) -> Complex64[np.ndarray, "m n n"]:
    """The same sum of intensities as orthogonal modes, the strongest first (Thibault & Menzel).

    Only the modes' density matrix can be seen; its eigenvectors are these.
    """
    flat = probe.reshape(len(probe), -1)
    _, values, vectors = np.linalg.svd(flat, full_matrices=False)
    modes: np.ndarray = (values[:, None] * vectors).reshape(probe.shape)
    # A mode's phase is free: keep the first one's where it was.
    phases = np.exp(1j * np.angle(np.sum(probe * modes.conj(), axis=(1, 2))))
    return (modes * phases[:, None, None]).astype(np.complex64)


def _first_object(scan: Scan, begin: Tensor, given: np.ndarray | None) -> Tensor:
    """Where to begin, (H, W): with `begin` it diffracts as `given` does with the scan's probe."""
    vacuum = torch.ones(scan.shape, dtype=torch.complex64)
    if given is None:
        return vacuum
    assert given.shape == scan.shape
    obj = torch.from_numpy(np.ascontiguousarray(given))
    return torch.where(obj == 0, vacuum, obj / _brightness(scan, begin))


def _brightness(scan: Scan, probe: Tensor) -> float:
    """By what a probe is brighter than the scan's, in amplitude."""
    assert scan.probe is not None
    return float(probe.abs().square().sum().sqrt()) / float(np.linalg.norm(scan.probe))


def _first_probe(scan: Scan, amplitude: Tensor, modes: int) -> Tensor:
    """Where to begin: (M, N, N) with these amplitudes' mean counts."""
    if scan.probe is None:
        # Converging light with a flat phase in the far field: a focus of the right extent.
        given = near_field(amplitude.square().mean(0).sqrt().to(torch.complex64))[None]
    else:
        given = torch.from_numpy(scan.probe)
    ramp = (torch.arange(scan.size) - scan.size // 2) / (MODE_REACH * scan.size)
    further = [given[0] * (ramp[:, None] if m % 2 else ramp) ** (1 + m // 2) for m in range(modes)]
    probe = torch.cat([given[:modes], *(mode[None] for mode in further[len(given[:modes]) :])])
    counts = amplitude.square().sum() / len(amplitude)
    return probe * (counts / probe.abs().square().sum()).sqrt()
