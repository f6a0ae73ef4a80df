"""Other ways to do the same training step on a GPU, each in a process of its own.

python -m benchmarks.ways fno-32-12 hybrid-64-24

What wins here is to be built in. The last column is the loss after the same steps: a way that
computes something else is seen there. Each way has its own process, because cuDNN keeps what it
once chose for a convolution.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import linear, pad
from torch.utils._pytree import tree_leaves

from benchmarks.plan import Network, burn_in, network_named, noise
from benchmarks.training import leaving
from fno_runner.device import pick_device
from fno_runner.models import fused
from fno_runner.models.blocks import FirstConv
from fno_runner.train.progress import Epoch
from fno_runner.train.training import train

STEPS, EPOCHS = 100, 8
"""Steps of an epoch, and epochs that are timed."""
AS_IT_IS = "as it is"


@contextmanager
def searched() -> Iterator[None]:
    """cuDNN tries its algorithms for each convolution, and keeps the fastest, as it then is."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def two_streams() -> Iterator[None]:
    """A block's convolution runs beside its spectral layer, forward and backward.

    What one stream's memory holds and the other reads is not given away before both are done
    (`record_stream`).
    """
    beside = torch.cuda.Stream()

    def needed_later(work: Callable[..., Any], *tensors: Tensor) -> Callable[[], Any]:
        here = torch.cuda.current_stream()
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            made = work(*tensors)
        for read in tensors:
            read.record_stream(beside)

        def wait() -> Any:
            here.wait_stream(beside)
            for tensor in tree_leaves(made):
                tensor.record_stream(here)
            return made

        return wait

    with patch.object(fused, "needed_later", needed_later):
        yield


@contextmanager
def sixteen_taps() -> Iterator[None]:
    """The first convolution reads 4×4 pixels, seven of which count nothing.

    Its product's rows, forward and for the weight's gradient, then begin at multiples of 16 bytes,
    which those of nine numbers do not; and there are more bytes of them.
    """

    def as_product(layer: FirstConv, x: Tensor) -> Tensor:
        padded = pad(x.permute(0, 2, 3, 1), (0, 0, 1, 2, 1, 2))  # (B, H+3, W+3, I)
        taps = padded.unfold(1, 4, 1).unfold(2, 4, 1)  # (B, H, W, I, 4, 4), a view
        taps = taps.permute(0, 1, 2, 4, 5, 3).flatten(3)  # (B, H, W, 4·4·I)
        weight = pad(layer.weight.permute(0, 2, 3, 1), (0, 0, 0, 1, 0, 1)).flatten(1)
        return linear(taps, weight, layer.bias).permute(0, 3, 1, 2)

    with patch.object(FirstConv, "as_product", as_product):
        yield


@contextmanager
def both() -> Iterator[None]:
    """The algorithms searched, and two streams."""
    with ExitStack() as stack:
        stack.enter_context(searched())
        stack.enter_context(two_streams())
        yield


WAYS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    AS_IT_IS: nullcontext,
    "cuDNN's algorithms searched": searched,
    "two streams in a block": two_streams,
    "both": both,
    "sixteen taps": sixteen_taps,
}


def measure(way: str, network: Network, device: torch.device) -> dict[str, float]:
    """`step_s`: a step in this way [s], the median over epochs; `loss` after them."""
    entries: list[Epoch] = []
    epochs = burn_in(device) + EPOCHS
    config = network.config("bf16", epochs=epochs)
    data = noise(leaving(STEPS * network.batch), 1)
    with WAYS[way]():
        train(config, data, device, compiled=False, on_epoch=entries.append)
    times = [entry["epoch_time_s"] or 0.0 for entry in entries[-EPOCHS:]]
    return {"step_s": median(times) / STEPS, "loss": entries[-1]["train_loss"] or 0.0}


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table; or, with a way named, what it measured, as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ways",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("networks", nargs="+", type=network_named, metavar="NETWORK")
    parser.add_argument("--way", choices=list(WAYS))
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    args = parser.parse_args(argv)
    if args.way is not None:
        print(json.dumps(measure(args.way, args.networks[0], pick_device(args.device))))
        return
    print("| bf16 | way | a step | of what it is | loss |\n| --- | --- | --- | --- | --- |")
    for network in args.networks:
        first = None
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.ways", "--way", way]
            word = network.label.replace(" ", "-").replace("/", "-")
            done = subprocess.run(
                [*command, word, "--device", args.device],
                stdout=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                print(f"| {network.label} | {way} | failed | | |", flush=True)
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            first = first or found["step_s"]
            print(
                f"| {network.label} | {way} | {found['step_s'] * 1e3:.3g} ms "
                f"| {found['step_s'] / first:.2f}× | {found['loss']:.5f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
