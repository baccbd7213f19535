"""From a painter's run to its bundle: graphs, parity with torch on every engine, and what the integers cost."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from limner import bundle
from limner.bundle import Bundle, Graph, PainterManifest, TextLink
from limner.compress.finetune import finetune_painter, painting_calibration, trained_on
from limner.compress.quantize import quantize_painter
from limner.config import RunConfig
from limner.errors import LimnerError
from limner.export.painter_graph import build_painter
from limner.export.provenance import provenance
from limner.models.painter import Painter, Text
from limner.runtime.batched import GRAPHS, Network
from limner.train.runs import SOURCES, TEXT, load_painter

PARITY_PICTURES = 8

Feeds = dict[str, NDArray[np.float32]]


def pack_painter(config: RunConfig, run: Path, out: Path, data: Path | None = None) -> PainterManifest:
    """Write the bundle `out` from the run folder `run` of a one-step painter; returns its manifest.

    `data`: training pictures, needed when quantize.images > 0 (default: where the run found them). Raises LimnerError,
    with the figures, when an engine differs from torch by more than the tolerance, or the integer painter from the
    float one by more than pack.max_gap; and for a flow, which needs a student first.
    """
    if config.objective not in ("direct", "student"):
        raise LimnerError(f"{run}: a run of {config.objective!r} does not ship; train a student or `icons-direct`.")
    network = load_painter(run)[1].fold()
    noise, text = painting_calibration(run)
    rounded = quantize_painter(copy.deepcopy(network), noise, text, config.quantize).eval()
    integer = rounded
    if config.quantize.images:
        integer = finetune_painter(config, copy.deepcopy(network), run, data or trained_on(run))
    feeds = _feeds(noise[:PARITY_PICTURES], text)
    with tempfile.TemporaryDirectory() as draft:
        files = {f"{kind}.onnx": Path(draft) / f"{kind}.onnx" for kind in ("float", "int8")}
        for path, painter in zip(files.values(), (network, integer), strict=True):
            onnx.save(build_painter(painter, config.name, config.text.tokens), path)
        manifest = _manifest(config, network, run)
        trial = bundle.write(Path(draft) / "trial", manifest, files)
        scores = {
            "parity": _parity(config, network, integer, trial, feeds),
            "int8_gap": _within_gap(config, network, integer, noise, text),
            "int8_gap_untrained": round(_gap(network, rounded, noise, text), 3),
        }
        kept = ("float", "int8") if config.pack.float_graph else ("int8",)
        shipped = {"scores": scores, "graphs": {kind: manifest.graphs[kind] for kind in kept}}
        carried = {name: path for name, path in files.items() if path.stem in kept}
        return bundle.write(out, manifest.model_copy(update=shipped), carried).manifest


def _feeds(noise: Tensor, text: Text) -> Feeds:
    feeds = {"noise": noise.permute(0, 2, 3, 1), **{k: v[: len(noise)] for k, v in text._asdict().items()}}
    return {name: np.ascontiguousarray(feed.numpy()) for name, feed in feeds.items()}


def _manifest(config: RunConfig, network: Painter, run: Path) -> PainterManifest:
    shape = config.painter
    text = json.loads((run / TEXT).read_text("utf-8"))
    return PainterManifest(
        name=config.name,
        size=shape.size,
        levels=shape.sides[:-1],
        noise=(shape.grids[0], shape.grids[0], shape.noise),
        text=TextLink(bundle=Path(text["bundle"]).name, sha256=text["sha256"]),
        text_tokens=config.text.tokens,
        styles=text["styles"],
        alpha_gain=config.pack.alpha_gain,
        variety=config.pack.variety,
        graphs={
            "float": Graph(file="float.onnx", dtype="float32"),
            "int8": Graph(file="int8.onnx", dtype="uint8"),
        },
        parameters=network.parameters_shipped(),
        macs=network.macs(config.text.tokens),
        **provenance(config, json.loads((run / SOURCES).read_text("utf-8"))["sources"]),
    )


@torch.no_grad()
def _pictures(painter: Painter, feeds: Feeds) -> list[NDArray[np.float32]]:
    """Every level of the painter, (N, side, side, 4), coarse to fine."""
    noise = torch.from_numpy(feeds["noise"]).permute(0, 3, 1, 2)
    text = Text(*(torch.from_numpy(feeds[name]) for name in Text._fields))
    return [picture.permute(0, 2, 3, 1).numpy() for picture in painter.levels(noise, text)]


def _parity(
    config: RunConfig, network: Painter, integer: Painter, trial: Bundle[PainterManifest], feeds: Feeds
) -> dict[str, dict[str, float]]:
    """Largest float error and mean int8 error (last bits) of every engine over all levels, within the tolerances."""
    outputs = (*(f"y{side}" for side in trial.manifest.levels), "y")
    true = _pictures(network, feeds)
    bytes_ = [np.floor(picture * 255 + 0.5).clip(0, 255) for picture in _pictures(integer, feeds)]
    found: dict[str, dict[str, float]] = {}
    for engine in GRAPHS:
        exact = Network(engine, trial.graph("float"), 1).run(feeds, outputs)
        rounded = Network(engine, trial.graph("int8"), 1).run(feeds, outputs)
        errors = {
            "float": max(float(np.abs(ours - theirs).max()) for ours, theirs in zip(exact, true, strict=True)),
            "int8": float(np.mean([np.abs(o - t).mean() for o, t in zip(rounded, bytes_, strict=True)])),
        }
        found[engine] = {kind: round(error, 7) for kind, error in errors.items()}
        _within(config, engine, errors)
    return found


def _within(config: RunConfig, engine: str, errors: dict[str, float]) -> None:
    limits = {"float": config.pack.tolerance, "int8": config.pack.int8_tolerance}
    for kind, error in errors.items():
        if not error <= limits[kind]:
            raise LimnerError(
                f"{config.name}: the {kind} graph on {engine} differs from torch by {error:.3g}, more than "
                f"{limits[kind]:.3g}: look for an operator the engine rounds differently, or raise the tolerance."
            )


def _within_gap(config: RunConfig, network: Painter, integer: Painter, noise: Tensor, text: Text) -> float:
    gap = _gap(network, integer, noise, text)
    if not gap <= config.pack.max_gap:
        raise LimnerError(
            f"{config.name}: int8 pictures differ by {gap:.3g} last bits from float ones, more than max_gap "
            f"{config.pack.max_gap}: train through the rounding (quantize.images, quantize.distill), or raise "
            "pack.max_gap."
        )
    return round(gap, 3)


@torch.no_grad()
def _gap(network: Painter, integer: Painter, noise: Tensor, text: Text) -> float:
    """Mean difference of the integer painter's pictures from the float one's, last bits."""
    exact, rounded = (painter(noise, text).clamp(0, 1) for painter in (network, integer))
    return float((exact - rounded).abs().mean()) * 255
