"""Whether a network and a scan fit together: conditioning, modes and likeness of the probe."""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import Complex

from fno_runner.apply.model import TrainedModel
from fno_runner.errors import UserError

log = logging.getLogger("fno_runner")

ALIKE = 0.95
"""An amplitude-only network is refused where the probes' likeness is less."""


def likeness(probe: Complex[np.ndarray, "m n n"], other: Complex[np.ndarray, "k n n"]) -> float:
    """How alike two beams of any number of incoherent modes are, 0 … 1, whatever their brightness.

    The fidelity of their mutual intensities, Tr √(√ρ σ √ρ) with traces of 1 (Uhlmann, 1976): for
    one mode each |⟨P|Q⟩|. It depends neither on global phases, nor on how modes are mixed.
    """
    ours, theirs = (modes.reshape(len(modes), -1).astype(np.complex128) for modes in (probe, other))
    overlap = ours.conj() @ theirs.T / (np.linalg.norm(ours) * np.linalg.norm(theirs))
    return min(1.0, float(np.linalg.svd(overlap, compute_uv=False).sum()))


def check_probe(
    model: TrainedModel, probe: Complex[np.ndarray, "m n n"], *, any_probe: bool = False
) -> float | None:
    """How alike the scan's probe and the training's are; what a user should know is logged.

    A network that is told the probe (conditioning projection) takes another one. One that sees
    amplitudes only has learnt the training's.

    Args:
        any_probe: whatever it is.

    Returns:
        the likeness; None where the run kept no probe.

    Raises:
        UserError: the network knows another probe only, or it cannot be told which.
    """
    trained = model.training_probe()
    blind = model.config.conditioning == "amplitude"
    anyway = "; --any-probe goes on"
    if trained is None:
        text = f"{model.name} kept no probe to compare the scan's with"
        if blind and not any_probe:
            raise UserError(
                f"{text}, and sees amplitudes only: it is good for one probe (train it again"
                f"{anyway})"
            )
        log.warning("%s", text)
        return None
    if trained.shape[1:] != probe.shape[1:]:
        raise UserError(f"{model.weights}: was trained with a probe of {trained.shape[1:]} px")
    alike = likeness(trained, probe)
    text = f"the scan's probe and the training's are alike to {alike:.3f} (1: equal)"
    why = "the network sees amplitudes only, and has learnt the training's probe"
    if blind and alike < ALIKE and not any_probe:
        raise UserError(f"{text}; {why}: {ALIKE} is needed{anyway}")
    log.warning("%s", text)
    if blind and alike < ALIKE:
        log.warning("%s", why)
    if len(trained) != len(probe):
        modes = f"{len(trained)} mode{'' if len(trained) == 1 else 's'} of the probe"
        log.warning("trained with %s, the scan's probe has %d", modes, len(probe))
    return alike
