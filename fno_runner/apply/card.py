"""The model card: README.md beside an exported network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fno_runner.apply.adapt import GENTLER
from fno_runner.apply.model import RECOMMENDATION, TrainedModel, read_json
from fno_runner.result import RunResult
from fno_runner.score.quantities import QUANTITIES

LICENSE = "not stated; ask whoever trained the network"
SHOWN = (
    *("val_ssim_phase", "ssim_phase", "psnr_phase", "mae_phase", "ssim_amp"),
    *("r_train", "r_held_out", "r_held_out_from_object", "r_region_from_object"),
)
"""Metrics of the card, where there are any."""
KEYS = (
    *("architecture", "input_transform", "conditioning", "modes", "width", "blocks", "cnn_blocks"),
    *("patch_size", "bin", "epochs", "batch_size", "learning_rate", "rate_scaling", "loss"),
    *("precision", "seed"),
)
"""What the card says of the configuration; all of it is in result.json."""
AGAINST = {
    None: "",
    "truth": ", against the truth",
    "reference": ", of amplitude and phase against another method's object",
}
"""What metrics of an object are against, by a record's `metrics_against`."""

RUN = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
# amplitude (frames, N, N): √counts, zero frequency at [N/2, N/2], of the whole scan, as its mean
# counts set the scale; probe (modes, N, N), complex; mask (N, N): 1 at good pixels, else 0;
# positions (frames, 2): row and column of the patches' centres [px], (N - 1)/2 where a patch begins
# at pixel 0. Coordinates that name the pixel N/2 of a patch, as of object.npz, are 0.5 more.
amplitude = np.where(mask, amplitude, 0)
far = np.fft.fftshift(np.fft.fft2(probe, norm="ortho"), axes=(-2, -1)) * mask
mean_counts = np.square(amplitude).sum(axis=(1, 2)).mean()
scale = np.sqrt(np.square(np.abs(far)).sum() / mean_counts)
inputs = {
    "amplitude": amplitude[:, None].astype(np.float32),
    "input_scale_factor": np.array([scale], np.float32),
    "probe": np.stack([probe.real, probe.imag], axis=1).astype(np.float32),
    "positions": positions.astype(np.float32),
    "mask": mask.astype(np.float32),
}
wanted = {one.name for one in session.get_inputs()}
(patches,) = session.run(None, {name: inputs[name] for name in wanted})
patches = patches[:, 0] + 1j * patches[:, 1]  # (frames, N, N), complex
"""
"""How the ONNX file is used; a test runs it."""


def card(model: TrainedModel, formats: Mapping[str, str], license_line: str) -> str:
    """README.md in Markdown.

    Args:
        formats: a file's name -> what it is, and how near its answers are to PyTorch's.
    """
    config, record = model.config, model.record
    told = config.model_dump()
    trained_on = record.provenance.get("dataset") or "unknown"
    source = "a scan" if config.scan else f"simulated objects ({config.objects})"
    source = "patterns of NPZ files" if config.train_npz else source
    probe = model.training_probe()
    modes = "unknown" if probe is None else str(len(probe))
    lines = [
        f"# {config.architecture}: object patches from diffraction amplitudes",
        "",
        f"{_made(record)} `{record.run_id}` (seed {config.seed}) on {source}; "
        f"fingerprint of the training data `{trained_on}`.",
        "",
        f"**Licence:** {license_line}",
        "",
        "| file | what it is |",
        "| --- | --- |",
        *(f"| `{name}` | {what} |" for name, what in formats.items()),
        "| `model.safetensors` | the weights, and the input scale factor of the training |",
        "| `result.json` | the run's whole record: configuration, metrics, history, machine |",
        "| `recon.npz` | the object that the run reconstructed, and the training's `probe` |",
        "",
        "## Configuration",
        "",
        "| key | value |",
        "| --- | --- |",
        *(f"| {key} | {told[key]} |" for key in KEYS if told[key] is not None),
        f"| parameters | {record.model_params} |",
        "",
        f"## Quality{AGAINST[record.metrics_against]}",
        "",
        *_quality(model),
        "",
        "## Limits",
        "",
        f"- Patterns of {config.size} × {config.size} px, in far field, with a known probe.",
        f"- Trained with {modes} incoherent mode(s) of the probe. "
        + (
            "It sees amplitudes only, and is good for that probe."
            if config.conditioning == "amplitude"
            else "It is told the probe, and may be used with another one; it was trained with one."
        ),
        "- Patches overlap: an object is their mean, weighted by the probe's intensity.",
        "- It answers float32, whatever the training's precision; a global phase is free.",
        "- On samples, photon numbers and overlaps that it was not trained on nothing is known.",
        "",
    ]
    if "model.onnx" in formats:
        lines += ["## Use", "", "```python", RUN.rstrip("\n"), "```", ""]
    if "model.pt2" in formats:
        lines += [
            '`torch.export.load("model.pt2").module()` takes the same five tensors, in the order',
            "amplitude, input_scale_factor, probe, positions, mask.",
            "",
        ]
    return "\n".join(lines)


def _made(record: RunResult) -> str:
    """How the network came to be: one that was adapted had learnt elsewhere before."""
    if (before := record.provenance.get("adapted_from")) is None:
        return "Trained without labels by run"
    layers = record.provenance.get("adapted_layers")
    return (
        f"Begun as the network of run `{before}`, and trained on without labels ({layers} layers, "
        f"at {GENTLER} of the learning rate below; the held-out frames chose the epoch) as"
    )


def _quality(model: TrainedModel) -> list[str]:
    """A table of metrics: this network's, and the mean over seeds, where the study tells it."""
    own = _columns(model)
    over_seeds = _over_seeds(model)
    lines = ["| metric | this network | mean of the configuration's seeds, 95 % interval |",
             "| --- | --- | --- |"]  # fmt: skip
    for name in SHOWN:
        value, several = own.get(name), over_seeds.get(name, {})
        if value is None:
            continue
        mean, low, high = (several.get(key) for key in ("mean", "low", "high"))
        quantity = QUANTITIES[name]
        words = "–" if mean is None else quantity.shown(mean)
        if low is not None and high is not None:
            words += f" [{quantity.shown(low)}, {quantity.shown(high)}]"
        lines.append(f"| {quantity.heading} | {quantity.shown(value)} | {words} |")
    if not over_seeds:
        lines += ["", "One seed: how far another one would differ is not known."]
    return lines


def _columns(model: TrainedModel) -> dict[str, float | None]:
    """The run's metrics by the names of tables."""
    record = model.record
    columns: dict[str, float | None] = {}
    for prefix, pairs in (("", record.metrics.pairs), ("val_", record.validation)):
        for name, (amplitude, phase) in pairs.items():
            columns |= {f"{prefix}{name}_amp": amplitude, f"{prefix}{name}_phase": phase}
    for name, value in record.metrics.scan.get("r_factor", {}).items():
        columns[f"r_{name}"] = value
    return columns


def _over_seeds(model: TrainedModel) -> dict[str, dict[str, float | None]]:
    """What the study's recommendation.json says of the configuration, if it names this run."""
    study = model.weights.parent.parent.parent
    try:
        content: Any = read_json(study / RECOMMENDATION)
        for series in content["series"]:
            for role in ("recommended", "best", "runner_up", "next_better"):
                configuration = series.get(role)
                if configuration and model.record.run_id in configuration["run_ids"]:
                    if len(configuration["seeds"]) < 2:
                        return {}
                    return {
                        name: {key: _number(of.get(key)) for key in ("mean", "low", "high")}
                        for name, of in configuration["metrics"].items()
                    }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
