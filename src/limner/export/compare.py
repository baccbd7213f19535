"""One run, rounded in four ways: not at all, after training, in training, and in training with the adversary.

Every way is packed as a bundle of its own, without the gates on quality, and what is compared are the bundles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from limner import bundle
from limner.config import DataConfig, RunConfig, override
from limner.errors import LimnerError, UsageError
from limner.evaluate.distribution import load_features, mmd, over_encoders
from limner.evaluate.painting import exhibits
from limner.evaluate.probes import gradient_energy
from limner.evaluate.prompts import concept_prompts
from limner.evaluate.report import evaluate
from limner.evaluate.sets import PictureSet, open_set, pair
from limner.export.pack import pack
from limner.runtime.bench import interleaved, sample_picture, yardstick
from limner.runtime.generate import Painter, Request
from limner.runtime.painters import Upscaler
from limner.train.runs import read_config

Way = Literal["float", "post-training", "in training", "adversarial"]
Paint = Callable[[Sequence[Request]], Sequence[NDArray[np.uint8]]]
Measure = Callable[[Paint], dict[str, float]]

FREELY = [
    "pack.max_drop=1e9",
    "pack.max_gap=1e9",
    "pack.min_gain=-1e9",
    "pack.float_graph=true",
]  # no gates, both graphs
WEIGHT = 0.005  # of the adversary, where the run has none
PROMPTS, BATCH = 300, 32


@dataclass(frozen=True)
class Line:
    """One way of rounding. `ms`: median per picture, one thread; `ratio`: to the yardstick's; `bytes` of the graph.

    `figures`: of upscalers PSNR Y (dB) and sharpness for each set, of painters own-KID x100 and sharpness.
    Sharpness is the gradient energy of the pictures over that of the true ones.
    """

    way: Way
    engine: str
    bytes: int
    ms: float
    ratio: float
    figures: dict[str, float]


@dataclass(frozen=True)
class _Entry:
    way: Way
    engine: str
    bytes: int
    call: Callable[[], Any]
    figures: Callable[[], dict[str, float]]


def knobs(config: RunConfig, images: int, weight: float | None) -> dict[Way, list[str]]:
    """What `pack` is told for each way. Raises UsageError when there is nothing to train on or to be judged by."""
    if images < config.train.batch:
        raise UsageError(
            f"images={images}: training through the rounding needs at least one batch ({config.train.batch})."
        )
    weight = (config.adversarial.weight or WEIGHT) if weight is None else weight
    if weight <= 0:
        raise UsageError(f"adversarial={weight}: must be above 0, or there is no adversary to compare.")
    return {
        "post-training": ["quantize.images=0"],
        "in training": [f"quantize.images={images}", "quantize.adversarial=0.0"],
        "adversarial": [f"quantize.images={images}", f"quantize.adversarial={weight}"],
    }


def compare(
    run: Path,
    out: Path,
    sets: Sequence[Path] = (),
    data: Path | None = None,
    *,
    measure: Measure | None = None,
    images: int = 0,
    weight: float | None = None,
    engine: str = "auto",
    repeats: int = 20,
    overrides: Sequence[str] = (),
    advance: Callable[[str], None] = lambda way: None,
) -> list[Line]:
    """Pack `run` in every way into a folder below `out`, and measure: float first.

    `sets`: test pictures, for upscalers. `measure`: figures of a painter, such as `by_features` gives. `images`: seen
    in training, default quantize.images of the run; `weight`: of the adversary, default that of the run.
    Raises UsageError for impossible settings, and what `pack` raises.
    """
    config = override(read_config(run), list(overrides))
    ways = knobs(config, images or config.quantize.images, weight)
    if config.task == "generate" and measure is None:
        raise UsageError(f"{run}: a painter is measured with --judge FOLDER.")
    entries: list[_Entry] = []
    for way, settings in ways.items():
        advance(way)
        folder = out / way.replace(" ", "-")
        pack(run, folder, sets, data, [*overrides, *settings, *FREELY])
        wanted: list[tuple[Way, str]] = [("float", "float"), (way, "int8")] if not entries else [(way, "int8")]
        entries += [_entry(*each, folder, engine, [open_set(path) for path in sets], measure) for each in wanted]
    return _lines(entries, repeats, advance)


def _entry(
    way: Way, precision: str, folder: Path, engine: str, sets: list[PictureSet], measure: Measure | None
) -> _Entry:
    opened = bundle.read(folder)
    size = opened.graph(precision).stat().st_size  # type: ignore[arg-type]
    if measure is not None:
        painter = Painter.load(folder, engine, precision, threads=1)
        ready = [painter.prepare(Request("a red apple", 1))]
        return _Entry(
            way, painter.engine, size, partial(painter.run_network, ready), partial(measure, painter.paint_batch)
        )
    upscaler = Upscaler.load(folder, engine, precision, threads=1)
    call = partial(upscaler.upscale_picture, sample_picture())
    return _Entry(way, upscaler.engine, size, call, partial(_fidelity, upscaler, sets))


def _fidelity(upscaler: Upscaler, sets: list[PictureSet]) -> dict[str, float]:
    channels = upscaler.manifest.channels
    enlarge = upscaler.upscale if channels == 3 else upscaler.enlarge_premultiplied
    found: dict[str, float] = {}
    for each in sets:
        seen = _Sharpness(enlarge)
        (row,) = evaluate(seen, [each], upscaler.scale, channels=channels)
        truth = [_energy(picture) for picture in _truths(each, upscaler.scale, channels)]
        found |= {f"{each.name} PSNR": row.scores.psnr_y, f"{each.name} sharpness": sum(seen.energies) / sum(truth)}
    return found


class _Sharpness:
    """An upscaler that notes how sharp its pictures are."""

    def __init__(self, enlarge: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> None:
        self.enlarge, self.energies = enlarge, list[float]()

    def __call__(self, low: NDArray[np.uint8]) -> NDArray[np.uint8]:
        painted = self.enlarge(low)
        self.energies.append(_energy(painted))
        return painted


def _truths(pictures: PictureSet, scale: int, channels: int) -> list[NDArray[np.uint8]]:
    return [pair(path, scale, "bicubic", channels)[1] for path in pictures.files]


def _energy(picture: NDArray[np.uint8]) -> float:
    opaque = np.full((*picture.shape[:2], 1), 255, np.uint8)
    return float(gradient_energy(np.concatenate([picture[..., :3], opaque], 2)[None])[0])


def by_features(data: Path, judge: Path, config: DataConfig, prompts: int = PROMPTS) -> Measure:
    """Own-KID x100 and sharpness of painters on concepts that they never saw, against held-out pictures at `data`.

    `judge`: folder of the feature encoder. Raises LimnerError when there are no held-out pictures.
    """
    held, space = exhibits(data, "test", config, judge), load_features(judge)
    table = concept_prompts(held.records, "unseen", prompts)
    if not table:
        raise LimnerError(f"{data}: has no held-out concepts to paint; mark some records as split test.")
    real = space.features(held.pictures)
    usual = gradient_energy(held.pictures[[prompt.reference or 0 for prompt in table]]).sum()

    def measure(paint: Paint) -> dict[str, float]:
        requests = [Request(prompt.text, seed) for seed, prompt in enumerate(table)]
        chunks = [requests[start : start + BATCH] for start in range(0, len(requests), BATCH)]
        pictures = np.concatenate([np.stack(paint(chunk)) for chunk in chunks])
        sharpness = float(gradient_energy(pictures).sum() / usual)
        return {"own-KID x100": 100 * over_encoders(mmd, space.features(pictures), real), "sharpness": sharpness}

    return measure


def _lines(entries: Sequence[_Entry], repeats: int, advance: Callable[[str], None]) -> list[Line]:
    advance("timing")
    calls = [yardstick(), *(entry.call for entry in entries)]
    times = np.median(interleaved(calls, repeats, lambda done, total: None), axis=1)
    return [
        Line(each.way, each.engine, each.bytes, float(ms), float(ms / times[0]), each.figures())
        for each, ms in zip(entries, times[1:], strict=True)
    ]
