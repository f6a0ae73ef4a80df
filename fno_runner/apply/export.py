"""A trained network as ONNX and as a torch.export program, checked against PyTorch's answers."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from fno_runner.apply.card import card
from fno_runner.apply.model import TrainedModel
from fno_runner.apply.portable import Portable
from fno_runner.batches import Inputs, mask_of
from fno_runner.data import load_dataset
from fno_runner.data.dataset import Patterns
from fno_runner.data.formats import read_scan
from fno_runner.data.scan import patterns_of
from fno_runner.data.source import Hints
from fno_runner.errors import UserError
from fno_runner.files import write_bytes_atomically, write_text_atomically
from fno_runner.reconstruct.inference import CPU
from fno_runner.reconstructor import input_scale_factor
from fno_runner.result import RECON, WEIGHTS, write_result

OPSET = 18
"""Of the ONNX operators."""
AGREEMENT = 1e-4
"""Of the largest modulus of a patch: an export that differs by more is refused."""
PATTERNS = 32
"""So many patterns are compared."""
TIMES = 5
"""Every format is timed so often."""
FORMATS = ("onnx", "pt2")
INPUTS = ("amplitude", "input_scale_factor", "probe", "positions", "mask")
Tensors = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""What goes into `INPUTS`, in this order."""


def export_model(
    model: TrainedModel, folder: Path, formats: tuple[str, ...], license_line: str
) -> dict[str, str]:
    """Write a network in these formats into a folder, with its card, weights and record.

    Returns:
        a file's name -> what it is, how far its answers are from PyTorch's on patterns of the data
        that it was trained on, and how fast both are on this machine's CPU.

    Raises:
        UserError: onnx is not installed, the training's data cannot be read, or answers differ by
            more than `AGREEMENT`.
        MachineError: the disk refuses.
    """
    patterns = _patterns(model)
    mask = mask_of(patterns)
    # float32 throughout: a runtime elsewhere knows no autocast.
    config = model.config.model_copy(update={"precision": "float32"})
    reference = replace(model, config=config).load(CPU, mask).eval()
    portable = Portable(reference, config.size).eval()
    probe = torch.from_numpy(patterns.probe)
    scale = input_scale_factor(float(patterns.intensity.mean()), probe, mask)
    batch = Inputs.of(patterns, scale, CPU).batch(slice(None))
    expected, own_rate = _timed(lambda: reference.forward_predict(*batch)[:, 0].numpy())
    inputs = _real(*batch, mask)
    with _quietly():
        program = _program(portable, inputs)
    told = {}
    for kind in formats:
        name = f"model.{kind}"
        content = _as_onnx(program) if kind == "onnx" else _as_pt2(program)
        load = _load_onnx if kind == "onnx" else _load_pt2
        answers, rate = _timed(load(content, inputs))
        apart = float(np.abs(answers - expected).max() / np.abs(expected).max())
        if not apart <= AGREEMENT:
            raise UserError(
                f"{name}: answers differ from PyTorch's by {apart:.2g}; allowed is {AGREEMENT}"
            )
        write_bytes_atomically(folder / name, content)
        what = f"ONNX, opset {OPSET}" if kind == "onnx" else f"torch.export, {torch.__version__}"
        told[name] = (
            f"{what}; any number of frames; {apart:.1e} of the largest modulus from PyTorch's "
            f"answers; {rate:.0f} patterns/s on the CPU of the export, PyTorch {own_rate:.0f}"
        )
    write_result(model.record, folder)
    write_bytes_atomically(folder / WEIGHTS, model.weights.read_bytes())
    if (recon := model.weights.with_name(RECON)).is_file():
        write_bytes_atomically(folder / RECON, recon.read_bytes())
    write_text_atomically(folder / "README.md", card(model, told, license_line))
    return told


def _patterns(model: TrainedModel) -> Patterns:
    """Some patterns of the data that the network was trained on, evenly.

    Raises:
        UserError: its data are not here any more.
    """
    try:
        there = _of_scan(model) if model.config.scan else load_dataset(model.config).train
    except UserError as error:
        raise UserError(
            f"{model.name}: its training data are needed for a check: {error}"
        ) from None
    count = len(there)
    return there.take(np.linspace(0, count - 1, min(PATTERNS, count)).astype(int))


def _of_scan(model: TrainedModel) -> Patterns:
    """A scan's frames under the training's probe, which may have been another file's.

    Raises:
        UserError: the scan cannot be read, or neither it nor the run has a probe.
    """
    config = model.config
    path = Path(str(config.scan))
    scan = read_scan(path, Hints.of(config), config.patch_size, config.bin)
    probe = model.training_probe()
    probe = scan.probe if probe is None else probe
    if probe is None:
        raise UserError(f"{path}: has no probe, and the run kept none")
    return patterns_of(replace(scan, probe=probe))


def _real(
    x: Tensor, positions: Tensor, probe: Tensor, scale: Tensor, mask: Tensor | None
) -> Tensors:
    """What `Portable.forward` takes, of what `Reconstructor.forward_predict` does."""
    modes = probe if probe.ndim == 3 else probe[None]
    return (
        x,
        scale[0, 0, 0],
        torch.stack([modes.real, modes.imag], 1).contiguous(),
        positions[:, 0, :, 0],
        torch.ones(x.shape[-2:]) if mask is None else mask.float(),
    )


def _program(portable: Portable, inputs: Tensors) -> torch.export.ExportedProgram:
    frames, modes = torch.export.Dim("frames", min=1), torch.export.Dim("modes", min=1)
    # A size of 1 would be taken for a constant.
    x, scale, probe, positions, mask = inputs
    example = (x[:3], scale, torch.cat([probe, probe])[:2], positions[:3], mask)
    shapes = {
        "amplitude": {0: frames},
        "input_scale_factor": None,
        "probe": {0: modes},
        "positions": {0: frames},
        "mask": None,
    }
    return torch.export.export(portable, example, dynamic_shapes=shapes)


def _as_pt2(program: torch.export.ExportedProgram) -> bytes:
    memory = io.BytesIO()
    with _quietly():
        torch.export.save(program, memory)
    return memory.getvalue()


def _as_onnx(program: torch.export.ExportedProgram) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error}: pip install 'fno-study[export]' brings it") from None
    with _quietly():
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=["patches"],
            verbose=False,
        )
    assert made is not None
    return made.model_proto.SerializeToString()


def _load_pt2(content: bytes, inputs: Tensors) -> Callable[[], np.ndarray]:
    module = torch.export.load(io.BytesIO(content)).module()
    return lambda: _complex(module(*inputs).numpy())


def _load_onnx(content: bytes, inputs: Tensors) -> Callable[[], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    wanted = {wanted.name for wanted in session.get_inputs()}
    given = {n: v.numpy() for n, v in zip(INPUTS, inputs, strict=True) if n in wanted}
    return lambda: _complex(session.run(None, given)[0])


@torch.inference_mode()
def _timed(run: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """The answers, and how many a second: the fastest of `TIMES`."""
    answers = run()
    seconds = []
    for _ in range(TIMES):
        start = perf_counter()
        run()
        seconds.append(perf_counter() - start)
    return answers, len(answers) / min(seconds)


def _complex(answer: np.ndarray) -> np.ndarray:
    complex_: np.ndarray = answer[:, 0] + 1j * answer[:, 1]
    return complex_


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's remarks on packages that it does without."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
