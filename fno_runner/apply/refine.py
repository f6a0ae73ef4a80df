"""The network's object as the start of the fit without a network."""

from __future__ import annotations

import logging

import numpy as np

from fno_runner.apply.prepared import Prepared
from fno_runner.apply.product import Product
from fno_runner.scan.iterative import Fit, reconstruct, residual

log = logging.getLogger("fno_runner")


def refine(
    prepared: Prepared,
    product: Product,
    passes: int,
    *,
    probe: bool = False,
    positions: bool = False,
    compare: bool = False,
) -> Product:
    """Go on from a network's object by gradient descent on the amplitudes.

    Args:
        passes: over all frames; the rates of the fit follow one cycle over them.
        probe, positions: fit them, too.
        compare: fit as long from an object of 1 everywhere as well, for comparison.

    Returns:
        the object, its light, and the probe and positions where they were fitted; its record has R
        of the whole fit, during each pass, and the same of the fit from vacuum.
    """
    scan = prepared.stream.whole
    # As far as the frames reach; the fit keeps vacuum where no light told of the object.
    start = np.where(product.seen, product.obj, 0).astype(np.complex64)
    told: dict[str, object] = {"passes": passes, "probe": probe, "positions": positions}

    def fitted(name: str, first_object: np.ndarray | None) -> tuple[Fit, float]:
        fit = reconstruct(
            scan,
            modes=len(product.probe),
            iterations=passes,
            fit_probe=probe,
            fit_positions=positions,
            first_object=first_object,
            device=prepared.device,
        )
        r = residual(fit, scan)
        told[f"from_{name}"] = {"r": r, "r_of_passes": list(fit.r), "seconds": fit.seconds}
        log.info("%d passes from %s: R %.4f, %.2f s", passes, name, r, fit.seconds)
        return fit, r

    fit, r = fitted("network", start)
    if compare:
        fitted("vacuum", None)
    record = product.record | {"r_of_network": product.record["r"], "r": r, "refined": told}
    return Product.of_fit(fit, scan, product.title, record)
