"""A trained network as ONNX and as a torch.export program, checked against PyTorch's answers."""

from __future__ import annotations

import io
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import IO

import numpy as np
import torch
from torch import Tensor

from fno_runner.apply.card import card
from fno_runner.apply.model import TrainedModel
from fno_runner.apply.portable import Portable
from fno_runner.data import load_dataset
from fno_runner.data.dataset import Patterns
from fno_runner.errors import UserError
from fno_runner.files import write_atomically, write_text_atomically
from fno_runner.reconstruct.weights import WEIGHTS
from fno_runner.reconstructor import Reconstructor, input_scale_factor
from fno_runner.result import RECON, write_result

OPSET = 18
"""Of the ONNX operators."""
AGREEMENT = 1e-4
"""Of the largest modulus of a patch: an export that differs by more is refused."""
PATTERNS = 32
"""So many patterns are compared."""
TIMES = 5
"""Every format is timed so often."""
INPUTS = ("amplitude", "input_scale_factor", "probe", "positions", "mask")
FORMATS = ("onnx", "pt2")

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


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
    mask = None if patterns.mask is None else torch.from_numpy(patterns.mask)
    # float32 throughout: a runtime elsewhere knows no autocast.
    config = model.config.model_copy(update={"precision": "float32"})
    own = TrainedModel(model.record, config, model.weights)
    reference = own.load(torch.device("cpu"), mask).eval()
    portable = Portable(reference, config.size).eval()
    inputs = _inputs(patterns, mask)
    expected, own_rate = _timed(partial(_expected, reference, patterns, inputs))
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
        write_atomically(folder / name, partial(_write, content))
        what = f"ONNX, opset {OPSET}" if kind == "onnx" else f"torch.export, {torch.__version__}"
        told[name] = (
            f"{what}; any number of frames; {apart:.1e} of the largest modulus from PyTorch's "
            f"answers; {rate:.0f} patterns/s on the CPU of the export, PyTorch {own_rate:.0f}"
        )
    write_result(model.record, folder)
    _copy(model.weights, folder / WEIGHTS)
    if (recon := model.weights.with_name(RECON)).is_file():
        _copy(recon, folder / RECON)
    write_text_atomically(folder / "README.md", card(model, told, license_line))
    return told


def _patterns(model: TrainedModel) -> Patterns:
    """Some of the patterns that the network was trained on, evenly.

    Raises:
        UserError: its data are not here any more.
    """
    try:
        dataset = load_dataset(model.config)
    except UserError as error:
        raise UserError(
            f"{model.name}: its training data are needed for a check: {error}"
        ) from None
    count = len(dataset.train)
    return dataset.train.take(np.linspace(0, count - 1, min(PATTERNS, count)).astype(int))


def _inputs(patterns: Patterns, mask: Tensor | None) -> Inputs:
    probe = torch.from_numpy(patterns.probe)
    intensity = np.square(patterns.amplitude).sum((1, 2), dtype=np.float64).mean()
    scale = input_scale_factor(float(intensity), probe, mask)
    modes = probe if probe.ndim == 3 else probe[None]
    size = patterns.amplitude.shape[-1]
    return (
        torch.from_numpy(np.ascontiguousarray(patterns.amplitude))[:, None],
        torch.tensor([scale]),
        torch.stack([modes.real, modes.imag], 1).contiguous(),
        torch.from_numpy(np.ascontiguousarray(patterns.positions)),
        torch.ones(size, size) if mask is None else mask.float(),
    )


def _expected(reference: Reconstructor, patterns: Patterns, inputs: Inputs) -> np.ndarray:
    """What `forward_predict` gives: complex64 (B, N, N)."""
    x, scale, _, positions, _ = inputs
    factor = scale.view(1, 1, 1, 1).expand(len(x), 1, 1, 1)
    probe = torch.from_numpy(patterns.probe)
    patches = reference.forward_predict(x, positions[:, None, :, None], probe, factor)
    return patches[:, 0].numpy()


def _program(portable: Portable, inputs: Inputs) -> torch.export.ExportedProgram:
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


def _load_pt2(content: bytes, inputs: Inputs) -> Callable[[], np.ndarray]:
    module = torch.export.load(io.BytesIO(content)).module()
    return lambda: _complex(module(*inputs).numpy())


def _load_onnx(content: bytes, inputs: Inputs) -> Callable[[], np.ndarray]:
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


def _write(content: bytes, stream: IO[bytes]) -> None:
    stream.write(content)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as stream:
        write_atomically(target, lambda out: shutil.copyfileobj(stream, out))


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
