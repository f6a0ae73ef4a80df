"""Passes over overlapping patches: the fit without a network, begun from a network's object."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Complex64

from fno_runner.data.dataset import Patterns
from fno_runner.data.scan import scan_of
from fno_runner.scan.iterative import r_of_object, reconstruct


@dataclass
class Overlap:
    """Improves a stitched object by `passes` over the patterns that it was stitched of.

    A network answers for each pattern alone. Neighbours see the same place, and what they do not
    agree on the fit settles, with the probe held. Times and R of all calls are kept.

    r_before, r_after: R = Σ|predicted − measured| / Σ measured of all patterns of a call, as the
        object predicts them. seconds: of the passes [s].
    """

    passes: int
    device: torch.device
    r_before: list[float] = field(default_factory=list)
    r_after: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __call__(
        self,
        obj: Complex64[np.ndarray, "h w"],
        seen: Bool[np.ndarray, "h w"],
        patterns: Patterns,
    ) -> Complex64[np.ndarray, "h w"]:
        """The better object, in the same units.

        Args:
            seen: where enough light fell; elsewhere the fit begins in vacuum.
            patterns: at positions of `obj`.
        """
        scan = scan_of(patterns, obj.shape)
        assert scan.probe is not None
        fit = reconstruct(
            scan,
            modes=len(scan.probe),
            iterations=self.passes,
            fit_probe=False,
            first_object=np.where(seen, obj, 0).astype(np.complex64),
            device=self.device,
        )
        self.r_before.append(r_of_object(obj, patterns))
        self.r_after.append(r_of_object(fit.obj, patterns))
        self.seconds.append(fit.seconds)
        return fit.obj
