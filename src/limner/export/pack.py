"""From a run to a bundle: graph -> quantize -> parity -> evaluate -> gate. What misses its gate is not written."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch

from limner import bundle
from limner.bundle import Bundle, Graph, Manifest, UpscalerManifest
from limner.compress.finetune import calibration, finetune, trained_on
from limner.compress.quantize import quantize
from limner.config import RunConfig, override
from limner.errors import LimnerError
from limner.evaluate.report import Row, evaluate, to_json
from limner.evaluate.sets import PictureSet, open_set
from limner.export.graph import build
from limner.export.pack_painter import pack_painter
from limner.export.parity import float_error, int8_error
from limner.export.provenance import provenance
from limner.models.upscaler import Upscaler
from limner.runtime.backends import BACKENDS
from limner.runtime.painters import Upscaler as Painter
from limner.train.runs import SOURCES, load_run, read_config

PARITY_CROPS = 8


@dataclass(frozen=True)
class Networks:
    """The two forms that ship: folded float, and fake-quantized for the integer graph."""

    float: Upscaler
    int8: Upscaler


def pack(
    run: Path, out: Path, sets: Sequence[Path], data: Path | None = None, overrides: Sequence[str] = ()
) -> Manifest:
    """Write the bundle `out` from the run folder `run` of an upscaler or a painter; returns its manifest."""
    config = override(read_config(run), list(overrides))
    if config.task == "generate":
        return pack_painter(config, run, out, data)
    return pack_upscaler(config, run, out, sets, data)


def pack_upscaler(
    config: RunConfig, run: Path, out: Path, sets: Sequence[Path], data: Path | None = None
) -> UpscalerManifest:
    """Write the bundle `out` from the run folder `run`; returns its manifest.

    `sets`: folders of test pictures for the gate. `data`: training pictures, needed when quantize.images > 0 (default:
    where the run found them). Raises LimnerError, with the figures, when an engine differs from torch by more than
    the tolerance, int8 loses more than pack.max_drop, or gains less than pack.min_gain over bicubic.
    """
    if not sets:
        raise LimnerError("no test set to gate the bundle with: name one with --eval DIR.")
    network = load_run(run)[1]
    pictures = [open_set(folder) for folder in sets]
    origin = json.loads((run / SOURCES).read_text("utf-8"))
    networks = _compress(config, network, run, data or trained_on(run))
    with tempfile.TemporaryDirectory() as draft:
        files = _graphs(networks, config.name, Path(draft))
        manifest = _manifest(config, networks.float, origin["sources"])
        trial = bundle.write(Path(draft) / "trial", manifest, files)
        scores = {"parity": _parity(config, networks, trial, run), "fidelity": _fidelity(config, trial, pictures)}
        return bundle.write(out, manifest.model_copy(update={"scores": scores}), files).manifest


def _compress(config: RunConfig, network: Upscaler, run: Path, data: Path) -> Networks:
    folded = copy.deepcopy(network).fold().eval()
    if config.quantize.images:
        return Networks(folded, finetune(config, network, run, data))
    return Networks(folded, quantize(network, calibration(run), config.quantize).eval())


def _graphs(networks: Networks, name: str, folder: Path) -> dict[str, Path]:
    files = {}
    for kind, network in (("float", networks.float), ("int8", networks.int8)):
        files[f"{kind}.onnx"] = folder / f"{kind}.onnx"
        onnx.save(build(network, name), files[f"{kind}.onnx"])
    return files


def _manifest(config: RunConfig, network: Upscaler, sources: list[dict[str, Any]]) -> UpscalerManifest:
    return UpscalerManifest(
        name=config.name,
        scale=config.model.scale,
        channels=config.model.channels,
        multiple=config.model.unshuffle,
        radius=network.radius,
        graphs={
            "float": Graph(file="float.onnx", dtype="float32"),
            "int8": Graph(file="int8.onnx", dtype="uint8"),
        },
        parameters=network.parameters_shipped(),
        macs_per_pixel=network.macs_per_pixel(),
        **provenance(config, sources),
    )


def _parity(
    config: RunConfig, networks: Networks, trial: Bundle[UpscalerManifest], run: Path
) -> dict[str, dict[str, float]]:
    """Largest float error and mean int8 error (LSB) of every engine; raises LimnerError beyond the tolerances."""
    crops = calibration(run)[:PARITY_CROPS].permute(0, 2, 3, 1).contiguous()
    low, levels = crops.numpy(), crops.mul(255).round().to(torch.uint8).numpy()
    found: dict[str, dict[str, float]] = {}
    for engine in BACKENDS:
        errors = {
            "float": float_error(trial, networks.float, low, engine),
            "int8": int8_error(trial, networks.int8, levels, engine),
        }
        found[engine] = {kind: round(error, 7) for kind, error in errors.items()}
        limits = {"float": config.pack.tolerance, "int8": config.pack.int8_tolerance}
        for kind, error in errors.items():
            if not error <= limits[kind]:
                raise LimnerError(
                    f"{config.name}: the {kind} graph on {engine} differs from torch by {error:.3g}, more than "
                    f"{limits[kind]:.3g}: look for an operator the engine rounds differently, or raise the tolerance."
                )
    return found


def _fidelity(config: RunConfig, trial: Bundle[UpscalerManifest], sets: list[PictureSet]) -> dict[str, Any]:
    """Scores of both precisions on every set, on the default engine; raises LimnerError when the gate fails."""
    rows: dict[str, list[Row]] = {}
    for precision in ("float", "int8"):
        painter = Painter.load(trial.folder, precision=precision)
        enlarge = painter.upscale if config.model.channels == 3 else painter.enlarge_premultiplied
        rows[precision] = evaluate(enlarge, sets, config.model.scale, channels=config.model.channels)
    for exact, integer in zip(rows["float"], rows["int8"], strict=True):
        _gate(config, exact, integer)
    return {precision: to_json(found) for precision, found in rows.items()}


def _gate(config: RunConfig, exact: Row, integer: Row) -> None:
    drop = exact.scores.psnr_y - integer.scores.psnr_y
    gain = integer.scores.psnr_y - integer.bicubic.psnr_y
    figures = f"{integer.set}: float {exact.scores.psnr_y:.3f} dB, int8 {integer.scores.psnr_y:.3f} dB"
    if not drop <= config.pack.max_drop:
        raise LimnerError(
            f"{config.name}: int8 loses {drop:.3f} dB, more than max_drop {config.pack.max_drop} ({figures}): "
            "set quantize.images to fine-tune through the rounding, or raise pack.max_drop."
        )
    if not gain >= config.pack.min_gain:
        raise LimnerError(
            f"{config.name}: int8 gains {gain:.3f} dB over bicubic, less than min_gain {config.pack.min_gain} "
            f"({figures}): train longer, or lower pack.min_gain."
        )
