"""The network's object as the start of the fit without a network."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from fno_runner.apply.prepared import Prepared
from fno_runner.apply.product import Product
from fno_runner.scan.iterative import OnIteration, reconstruct, residual

log = logging.getLogger("fno_runner")


def refine(
    prepared: Prepared,
    product: Product,
    passes: int,
    *,
    probe: bool = False,
    positions: bool = False,
    compare: bool = False,
    on_pass: OnIteration | None = None,
) -> Product:
    """Go on from a network's object by gradient descent on the amplitudes.

    Args:
        passes: over all frames; the rates of the fit follow one cycle over them.
        probe, positions: fit them, too.
        compare: fit as long from an object of 1 everywhere as well, for comparison.

    Returns:
        the object, and the probe and positions where they were fitted; its record has R of the
        whole fit, during each pass, and the same of the fit from vacuum.
    """
    scan = prepared.stream.whole
    assert scan.probe is not None
    # As far as the frames reach; the fit keeps vacuum where no light told of the object.
    start = np.where(product.seen, product.obj, 0).astype(np.complex64)
    told: dict[str, object] = {"passes": passes, "probe": probe, "positions": positions}
    fits = {}
    for name, first_object in (("network", start), ("vacuum", None)):
        if first_object is None and not compare:
            continue
        fit = reconstruct(
            scan,
            modes=len(scan.probe),
            iterations=passes,
            fit_probe=probe,
            fit_positions=positions,
            first_object=first_object,
            on_iteration=on_pass,
        )
        fits[name] = fit
        r = residual(fit, scan)
        told[f"from_{name}"] = {"r": r, "r_of_passes": list(fit.r), "seconds": fit.seconds}
        log.info("%d passes from %s: R %.4f, %.2f s", passes, name, r, fit.seconds)
    fit = fits["network"]
    refined = told["from_network"]
    assert isinstance(refined, dict)
    return replace(
        product,
        obj=fit.obj,
        scan=replace(product.scan, probe=fit.probe, positions=fit.positions),
        record={
            **product.record,
            "r_of_network": product.record["r"],
            "r": refined["r"],
            "refined": told,
        },
    )
