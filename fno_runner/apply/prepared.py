"""A network and a scan that fit together, loaded and ready to be used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fno_runner.apply.compatible import check_probe
from fno_runner.apply.model import TrainedModel
from fno_runner.apply.stream import Stream
from fno_runner.batches import mask_of
from fno_runner.data.dataset import Patterns
from fno_runner.device import allow_tf32
from fno_runner.provenance import provenance
from fno_runner.reconstruct.inference import predict, predicted_amplitude
from fno_runner.reconstructor import Reconstructor


@dataclass(frozen=True)
class Prepared:
    """What every use of a network on a scan begins with.

    network: on `device`, for the scan's detector. scale: the input scale factor of the scan.
    likeness: of the scan's probe and the training's; None where the run kept none.
    """

    model: TrainedModel
    stream: Stream
    network: Reconstructor
    scale: float
    device: torch.device
    infer_batch_size: int
    likeness: float | None


def prepare(
    model: TrainedModel,
    stream: Stream,
    device: torch.device,
    *,
    infer_batch_size: int | None = None,
    any_probe: bool = False,
) -> Prepared:
    """Check that they fit, say what is remarkable, and load the network.

    Args:
        any_probe: whatever probe an amplitude-only network was trained with.

    Raises:
        UserError: they do not fit, or the weights cannot be used.
    """
    assert stream.scan.probe is not None
    likeness = check_probe(model, stream.scan.probe, any_probe=any_probe)
    allow_tf32(model.config.precision == "tf32")
    return Prepared(
        model=model,
        stream=stream,
        network=model.load(device, mask_of(stream.scan)),
        scale=stream.input_scale,
        device=device,
        infer_batch_size=infer_batch_size or model.config.infer_batch_size,
        likeness=likeness,
    )


def warm_up(model: TrainedModel, device: torch.device) -> None:
    """Do what takes long at the first time only, as long as nobody waits for it.

    Raises:
        UserError: the weights cannot be used.
    """
    import h5py  # noqa: F401
    import PIL.Image  # noqa: F401

    frames, size = 32, model.config.size
    patterns = Patterns(
        amplitude=np.ones((frames, size, size), np.float32),
        positions=np.zeros((frames, 2), np.float32),
        probe=np.ones((size, size), np.complex64),
    )
    network = model.load(device)
    patches = predict(network, patterns, 1.0, device, frames)
    predicted_amplitude(patches, patterns, frames)
    provenance(device)
