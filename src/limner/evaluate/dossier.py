"""What a page about a bundle says, measured now: pictures, speed by engine, profile, quality, and its neighbours."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from limner import bundle, images
from limner.bundle import Bundle, Manifest, PainterManifest, UpscalerManifest
from limner.errors import LimnerError, UsageError
from limner.evaluate import page
from limner.evaluate.fidelity import luma, psnr
from limner.evaluate.page import Bytes, Content, Dot, Grid, Pair
from limner.evaluate.report import Row, evaluate
from limner.evaluate.sets import PictureSet, pair
from limner.runtime import bench, paint_bench, resize
from limner.runtime.fused.engine import states
from limner.runtime.generate import Painter, Request
from limner.runtime.painters import Upscaler

MOST_PAIRS = 4
MOST_SIDE = 320  # of a picture given without its truth, before it is enlarged
FRONT = "front.json"
Name = str | os.PathLike[str]
Advance = Callable[[int, int], None]


def engines() -> list[str]:
    """The engines that can be used here."""
    return [each.engine for each in states() if each.ready]


def of_bundle(
    name: Name,
    pictures: Sequence[Path] = (),
    sets: Sequence[PictureSet] = (),
    prompts: Sequence[str] = (),
    repeats: int = 20,
    advance: Advance = lambda done, total: None,
) -> str:
    """The page of a bundle. Upscalers show `pictures` and some of `sets`; painters paint `prompts`.

    Raises UsageError when there is nothing to show, or for a bundle that makes no pictures.
    """
    opened = bundle.read(name)
    if isinstance(opened.manifest, UpscalerManifest):
        return page.html(_upscaler(opened.folder, opened.manifest, pictures, sets, repeats, advance))
    if isinstance(opened.manifest, PainterManifest):
        return page.html(_painter(opened, opened.manifest, prompts, repeats, advance))
    raise UsageError(f"{name}: a bundle for {opened.manifest.task!r} makes no pictures; report an upscaler or painter.")


def of_search(folder: Path, pictures: Sequence[Path] = ()) -> str:
    """The page of what `limner search` left in `folder`; on `pictures` the fastest and the best of the front."""
    path = folder / FRONT
    try:
        points = json.loads(path.read_text("utf-8"))
        front = [point for point in points if point["front"]]
        ends = min(front, key=lambda p: p["ratio"]), max(front, key=lambda p: p["quality"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LimnerError(f"{path}: is not what limner search writes ({error}); run it with --trials 0.") from None
    return page.of_search(folder.name, points, [_contest(folder, ends, picture) for picture in pictures])


def _contest(folder: Path, ends: Sequence[Mapping[str, Any]], picture: Path) -> Pair:
    low = _small(picture)
    trials = [folder / "trials" / f"{each['trial']:04d}" / "bundle" for each in ends]
    fast, best = (Upscaler.load(each).upscale(low) for each in trials)
    labels = f"fastest, trial {ends[0]['trial']}", f"best, trial {ends[1]['trial']}"
    return Pair(picture.name, fast, best, labels)


def _upscaler(
    folder: Path,
    manifest: UpscalerManifest,
    pictures: Sequence[Path],
    sets: Sequence[PictureSet],
    repeats: int,
    advance: Advance,
) -> Content:
    painter = Upscaler.load(folder)
    pairs = [_enlarged(painter, each) for each in pictures]
    pairs += [_truthful(painter, each.files[0], each.name) for each in sets]
    if not pairs:
        raise UsageError("there is nothing to show: name a picture with --picture or test pictures with --eval.")
    speed = bench.bench([folder], engines(), ("int8", "float"), repeats=repeats, profile=True, progress=advance)
    scores = {kind: _scored(Upscaler.load(folder, precision=kind), sets) for kind in _KINDS}
    others = [name for name in bundle.zoo() if _is_rival(name, manifest)]
    grids = [_speed(speed), *_profile(speed), *_quality(scores), _about(manifest)]
    figures = _headline(folder, manifest, speed, scores)
    dots = _neighbours(folder, manifest, others, repeats)
    axes = "p50 in ms, int8, one thread, 160x90 input, logarithmic; area: bytes", "mean PSNR that pack measured, dB"
    lead = manifest.description or f"Enlarges pictures by {manifest.scale}."
    return Content(manifest.name, lead, figures, pairs[:MOST_PAIRS], dots, axes, grids, page.FOOTER)


_KINDS = ("float", "int8")


def _scored(painter: Upscaler, sets: Sequence[PictureSet]) -> list[Row]:
    channels = painter.manifest.channels
    enlarge = painter.upscale if channels == 3 else painter.enlarge_premultiplied
    return evaluate(enlarge, sets, painter.scale, channels=channels)


def _small(path: Path) -> Bytes:
    pixels = images.decode(path).pixels
    pixels = pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8)
    height, width = (min(side, MOST_SIDE) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def _enlarged(painter: Upscaler, path: Path) -> Pair:
    low = _small(path)
    painted = painter.upscale(low)
    return Pair(path.name, resize.bicubic(low, *painted.shape[:2]), painted, ("bicubic", painter.manifest.name))


def _truthful(painter: Upscaler, path: Path, set: str) -> Pair:
    """A test picture, shrunk and enlarged again, with the PSNR of both."""
    low, truth = pair(path, painter.scale, "bicubic")
    pictures = resize.bicubic(low, *truth.shape[:2]), painter.upscale(low)
    inner = (slice(painter.scale, -painter.scale),) * 2
    scores = [psnr(luma(each[inner]), luma(truth[inner])) for each in pictures]
    labels = f"bicubic {scores[0]:.2f} dB", f"{painter.manifest.name} {scores[1]:.2f} dB"
    return Pair(f"{path.name} of {set}, shrunk by {painter.scale} and enlarged again", *pictures, labels)


def _speed(rows: Sequence[bench.Row]) -> Grid:
    heads = ["engine", "precision", "of", "p50 ms", "p95 ms", "of the yardstick", "load ms"]
    cells = [
        [
            row.engine,
            row.precision,
            row.stage or f"{row.width}x{row.height} in",
            f"{row.p50_ms:.2f}",
            f"{row.p95_ms:.2f}",
            f"{row.ratio:.3f}",
            f"{row.load_ms:.0f}",
        ]
        for row in rows
        if row.ran == row.engine  # where an engine fell back, the other one has a row of its own
    ]
    machine = bench.report(rows).machine
    return Grid("Latency by engine", heads, cells, f"One thread, {machine['cpu']}.")


def _profile(rows: Sequence[bench.Row]) -> list[Grid]:
    stages = next((row.stages for row in rows if row.stages), ())
    cells = [[s.name, f"{s.ms:.3f}", f"{100 * s.time_share:.1f}%", f"{100 * s.peak_share:.1f}%"] for s in stages]
    heads = ["stage", "ms", "of the time", "of the int8 peak"]
    note = f"The best of all pictures of each stage; together {sum(stage.ms for stage in stages):.2f} ms."
    return [Grid("Per-layer profile, fused engine", heads, cells, note)] if cells else []


def _quality(scores: Mapping[str, Sequence[Row]]) -> list[Grid]:
    heads = ["set", "graph", "PSNR Y", "SSIM Y", "PSNR RGB", "SSIM RGB"]
    cells: list[list[str]] = []
    for exact, integer in zip(scores["float"], scores["int8"], strict=True):
        for label, each in (("bicubic", exact.bicubic), ("float", exact.scores), ("int8", integer.scores)):
            shown = f"{each.psnr_y:.2f}", f"{each.ssim_y:.4f}", f"{each.psnr_rgb:.2f}", f"{each.ssim_rgb:.4f}"
            cells.append([exact.set, label, *shown])
    return [Grid("Quality", heads, cells)] if cells else []


def _about(manifest: Manifest) -> Grid:
    rows = [
        ["licence", manifest.license],
        *(["learned from", f"{each.pictures} pictures of {each.source} ({each.license})"] for each in manifest.sources),
        ["made", f"{manifest.created} by limner {manifest.limner}".strip()],
    ]
    return Grid("Origin", ["", ""], rows)


def _headline(
    folder: Path, manifest: UpscalerManifest, speed: Sequence[bench.Row], scores: Mapping[str, Sequence[Row]]
) -> dict[str, str]:
    fast = min((row for row in speed if row.precision == "int8" and row.ran == row.engine), key=lambda row: row.p50_ms)
    found = {
        "KB, int8 graph": f"{(folder / manifest.graphs['int8'].file).stat().st_size / 1000:.0f}",
        "thousand parameters": f"{manifest.parameters / 1000:.1f}",
        "thousand multiply-adds per input pixel": f"{manifest.macs_per_pixel / 1000:.1f}",
        f"ms, {fast.width}x{fast.height} in, {fast.ran or fast.engine}": f"{fast.p50_ms:.1f}",
    }
    for row in scores["int8"][:2]:
        found[f"dB over bicubic on {row.set}"] = f"{row.scores.psnr_y - row.bicubic.psnr_y:+.2f}"
    return found


def _is_rival(name: str, manifest: UpscalerManifest) -> bool:
    """Whether `name` ships for the same scale, with scores on the same test pictures."""
    other = bundle.read(name).manifest
    alike = isinstance(other, UpscalerManifest) and other.scale == manifest.scale and other.name != manifest.name
    return alike and _packed_sets(other) == _packed_sets(manifest)


def _neighbours(folder: Path, manifest: UpscalerManifest, others: Sequence[str], repeats: int) -> list[Dot]:
    """The bundle and those that ship for its scale, by the scores in their manifests, which `pack` measured."""
    names: list[Name] = [folder, *others]
    manifests = [bundle.read(name, UpscalerManifest) for name in names]
    scored = [(each, _packed_psnr(each.manifest)) for each in manifests]
    shown = [(each, quality) for each, quality in scored if quality is not None]
    if not shown:
        return []
    rows = bench.bench([each.folder for each, _ in shown], repeats=repeats)
    return [
        Dot(row.bundle, row.p50_ms, quality, each.bytes, row.bundle == manifest.name)
        for row, (each, quality) in zip(rows, shown, strict=True)
    ]


def _packed_sets(manifest: Manifest) -> list[str]:
    try:
        return [row["set"] for row in manifest.scores["fidelity"]["int8"]]
    except (KeyError, TypeError):
        return []


def _packed_psnr(manifest: Manifest) -> float | None:
    try:
        return float(np.mean([row["scores"]["psnr_y"] for row in manifest.scores["fidelity"]["int8"]]))
    except (KeyError, TypeError, ValueError):
        return None


def _painter(
    opened: Bundle[Manifest], manifest: PainterManifest, prompts: Sequence[str], repeats: int, advance: Advance
) -> Content:
    if not prompts:
        raise UsageError("there is nothing to show: name something to paint with --prompt.")
    pairs = [_painted(opened.folder, manifest, prompt) for prompt in prompts[:MOST_PAIRS]]
    kinds = [kind for kind in _KINDS if kind in manifest.graphs]
    speed = paint_bench.bench([opened.folder], engines(), kinds, batches=(1,), repeats=repeats, progress=advance)
    figures = {
        "KB": f"{opened.bytes / 1000:.0f}",
        "thousand parameters": f"{manifest.parameters / 1000:.0f}",
        "million multiply-adds per picture": f"{manifest.macs / 1e6:.0f}",
        "ms from prompt to picture": f"{min(r.p50_ms for r in speed if r.stage == 'prompt'):.1f}",
    }
    scores = [[key, f"{value:.4g}"] for key, value in manifest.scores.items() if isinstance(value, int | float)]
    measured = [Grid("Scores that pack measured", ["", ""], scores)] if scores else []
    grids = [_speed(speed), *measured, _about(manifest)]
    lead = manifest.description or f"Paints pictures of {manifest.size} pixels from words."
    return Content(manifest.name, lead, figures, pairs, (), ("", ""), grids, page.FOOTER)


def _painted(folder: Path, manifest: PainterManifest, prompt: str) -> Pair:
    """Before and after rounding; of a bundle that carries integers alone, two seeds."""
    zoom, both = max(1, 256 // manifest.size), all(kind in manifest.graphs for kind in _KINDS)
    if both:
        painted = [Painter.load(folder, precision=kind).paint_batch([Request(prompt, seed=1)])[0] for kind in _KINDS]
    else:
        painted = Painter.load(folder).paint_batch([Request(prompt, seed=seed) for seed in (1, 2)])
    larger = [each.repeat(zoom, 0).repeat(zoom, 1) for each in painted]
    names = ("float", "int8") if both else ("seed 1", "seed 2")
    return Pair(f"{prompt}, seed 1" if both else prompt, larger[0], larger[1], names)
