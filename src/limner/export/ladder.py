"""The ladder of a bundle: float -> folded -> (pruned) -> int8 on every engine, and what each step gains and costs.

Where the bundle itself is not pruned, a pruned one can be measured beside it: its steps are `pruned`, `pruned int8`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import nn

from limner import bundle
from limner.bundle import Bundle, PainterManifest, UpscalerManifest
from limner.config import DataConfig
from limner.errors import LimnerError, UsageError
from limner.evaluate import report
from limner.evaluate.sets import PictureSet
from limner.export.compare import Paint, by_features
from limner.export.parity import TorchPainter
from limner.runtime.bench import interleaved, sample_picture, yardstick
from limner.runtime.fused.engine import states
from limner.runtime.generate import Painter, Request
from limner.runtime.painters import Upscaler, network_input
from limner.train.runs import load_run

StepName = Literal["float", "folded", "pruned", "int8", "pruned int8"]
ORDER: tuple[StepName, ...] = ("float", "folded", "pruned", "int8", "pruned int8")
PRECISIONS: tuple[Literal["float", "int8"], ...] = ("float", "int8")
PSNR, KID = "PSNR Y, dB", "own-KID x100"
Made = TypeVar("Made", UpscalerManifest, PainterManifest)
Advance = Callable[[str], None]


@dataclass(frozen=True)
class Rung:
    """One network on one engine. `ms`: median per picture, one thread; `ratio`: to the yardstick's.

    `faster`, `smaller`, `change` are against the fastest rung of the step before: times, times, and units of
    `measure`, where more is better for PSNR and worse for own-KID; None on the first step.
    """

    bundle: str
    step: StepName
    engine: str
    parameters: int
    bytes: int
    ms: float
    ratio: float
    quality: float
    measure: str
    faster: float | None = None
    smaller: float | None = None
    change: float | None = None


@dataclass(frozen=True)
class _Candidate:
    """What a rung is measured on. `call` paints one picture; `score` gives its quality."""

    step: StepName
    engine: str
    parameters: int
    bytes: int
    call: Callable[[], Any]
    score: Callable[[], float]


def ready_engines() -> list[str]:
    """The engines that can be used here."""
    return [state.engine for state in states() if state.ready]


def upscaler_ladder(
    name: str,
    sets: Sequence[PictureSet],
    run: Path | None = None,
    repeats: int = 20,
    advance: Advance = lambda _: None,
    pruned: Path | None = None,
) -> list[Rung]:
    """The rungs of an upscaler; quality is the mean Y-PSNR over the sets. `run`: its run folder, for the first steps;
    `pruned`: bundle of a pruned run, measured beside it.

    Raises UsageError without a set, LimnerError for a run or a pruned bundle that is not the bundle's.
    """
    if not sets:
        raise UsageError(f"{name}: no test set to measure quality on: name one with --eval DIR.")
    opened = bundle.read(name, UpscalerManifest)
    torch.set_num_threads(1)
    score = partial(_psnr, sets=sets, scale=opened.manifest.scale, channels=opened.manifest.channels)
    candidates = [*(_trained(opened, run, score) if run else []), *_shipped(opened, run, score)]
    if pruned:
        candidates += _beside(_upscalers(_smaller(opened, bundle.read(pruned, UpscalerManifest)), score))
    return _climbed(opened.manifest.name, candidates, PSNR, repeats, advance)


def _psnr(upscale: report.Upscale, sets: Sequence[PictureSet], scale: int, channels: int) -> float:
    return float(np.mean([row.scores.psnr_y for row in report.evaluate(upscale, sets, scale, channels=channels)]))


def _trained(opened: Bundle[UpscalerManifest], run: Path, score: Callable[[report.Upscale], float]) -> list[_Candidate]:
    """The network as it trains, with its branches, and folded; both in torch."""
    network = load_run(run)[1]
    if network.config.scale != opened.manifest.scale:
        raise LimnerError(f"{run}: is a run of x{network.config.scale}, not of {opened.manifest.name}; name its own.")
    branched, folded = TorchPainter(network), TorchPainter(load_run(run)[1].fold().eval())
    trunk = nn.ModuleList([network.head, network.trunk, network.tail])
    weights, shipped = sum(w.numel() for w in trunk.parameters()), folded.network.parameters_shipped()
    low = network_input(sample_picture(), opened.manifest.channels)
    return [
        _Candidate("float", "torch", weights, 4 * weights, partial(branched, low), partial(score, branched)),
        _Candidate("folded", "torch", shipped, 4 * shipped, partial(folded, low), partial(score, folded)),
    ]


def _shipped(
    opened: Bundle[UpscalerManifest], run: Path | None, score: Callable[[report.Upscale], float]
) -> list[_Candidate]:
    whole = load_run(run)[1].fold().parameters_shipped() if run else opened.manifest.parameters
    first: StepName = "pruned" if opened.manifest.parameters < whole else "folded"
    return [replace(each, step=first if each.step == "float" else each.step) for each in _upscalers(opened, score)]


def _upscalers(opened: Bundle[UpscalerManifest], score: Callable[[report.Upscale], float]) -> list[_Candidate]:
    """Both graphs of a bundle on every engine that runs them, as steps `float` and `int8`."""
    manifest, found = opened.manifest, list[_Candidate]()
    for precision in PRECISIONS:
        for engine in ready_engines():
            if (precision, engine) == ("float", "fused"):  # its kernels are for integers
                continue
            painter = Upscaler.load(opened.folder, engine, precision, threads=1)
            if painter.engine != engine:  # it fell back, and that engine has a rung of its own
                continue
            size = opened.graph(precision).stat().st_size
            call = partial(painter.upscale_picture, sample_picture())
            enlarge = painter.upscale if manifest.channels == 3 else painter.enlarge_premultiplied
            found.append(_Candidate(precision, engine, manifest.parameters, size, call, partial(score, enlarge)))
    return found


_BESIDE: dict[StepName, StepName] = {"float": "pruned", "int8": "pruned int8"}


def _beside(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    return [replace(each, step=_BESIDE[each.step]) for each in candidates]


def _smaller(opened: Bundle[Made], pruned: Bundle[Made]) -> Bundle[Made]:
    """The pruned bundle. Raises LimnerError where it is no smaller version of the other."""
    if pruned.manifest.parameters >= opened.manifest.parameters:
        raise LimnerError(
            f"{pruned.folder}: has {pruned.manifest.parameters} parameters, no fewer than {opened.manifest.name} "
            f"({opened.manifest.parameters}); name a bundle packed from a run of limner prune."
        )
    return pruned


def painter_ladder(
    name: str,
    data: Path,
    judge: Path,
    prompts: int = 300,
    repeats: int = 20,
    advance: Advance = lambda _: None,
    pruned: Path | None = None,
) -> list[Rung]:
    """The rungs of a painter: float, then int8. Quality is own-KID x100 of unseen concepts against held-out pictures of
    the styles and licences that it learned from.

    `data`: captioned pictures; `judge`: folder of the feature encoder; `pruned`: as for `upscaler_ladder`.
    """
    opened = bundle.read(name, PainterManifest)
    torch.set_num_threads(1)
    config = DataConfig.model_validate(opened.manifest.recipe.get("data", {}) | {"captions": None})
    measure = by_features(data, judge, config, prompts)

    def score(paint: Paint) -> float:
        return measure(paint)[KID]

    candidates = _painters(opened, score)
    if pruned:
        candidates += _beside(_painters(_smaller(opened, bundle.read(pruned, PainterManifest)), score))
    return _climbed(opened.manifest.name, candidates, KID, repeats, advance)


def _painters(opened: Bundle[PainterManifest], score: Callable[[Paint], float]) -> list[_Candidate]:
    manifest, found = opened.manifest, list[_Candidate]()
    # attention: OpenVINO runs painters where fused is asked for, and has a rung of its own
    for precision, engine in product(PRECISIONS, (each for each in ready_engines() if each != "fused")):
        if precision not in manifest.graphs:
            continue
        painter = Painter.load(opened.folder, engine, precision, threads=1)
        ready = [painter.prepare(Request("a red apple", 1))]
        call, size = partial(painter.run_network, ready), opened.graph(precision).stat().st_size
        scored = partial(score, painter.paint_batch)
        found.append(_Candidate(precision, engine, manifest.parameters, size, call, scored))
    return found


def _climbed(name: str, candidates: Sequence[_Candidate], measure: str, repeats: int, advance: Advance) -> list[Rung]:
    """Times in turns, then qualities one by one, then every step against the one before."""
    advance(f"{name}: timing")
    calls = [yardstick(), *(each.call for each in candidates)]
    times = np.median(interleaved(calls, repeats, lambda done, total: None), axis=1)
    rungs: list[Rung] = []
    for each, ms in zip(candidates, times[1:], strict=True):
        advance(f"{name}: {each.step} on {each.engine}")
        ratio = float(ms / times[0])
        size = each.parameters, each.bytes
        rungs.append(Rung(name, each.step, each.engine, *size, float(ms), ratio, each.score(), measure))
    return compared(rungs)


def compared(rungs: Sequence[Rung]) -> list[Rung]:
    """Every rung against the fastest of the step before."""
    rungs = sorted(rungs, key=lambda rung: ORDER.index(rung.step))
    steps: list[StepName] = [step for step in ORDER if any(rung.step == step for rung in rungs)]
    fastest: dict[StepName | None, Rung] = {
        step: min((r for r in rungs if r.step == step), key=lambda rung: rung.ms) for step in steps
    }
    return [_against(rung, fastest.get(_before(rung.step, steps))) for rung in rungs]


def _before(step: StepName, steps: Sequence[StepName]) -> StepName | None:
    """The step that `step` was made from. Integers come from the pruned network only where it is the bundle's own."""
    earlier = list(steps[: steps.index(step)])
    if step == "int8" and "pruned int8" in steps and "pruned" in earlier:
        earlier.remove("pruned")
    if step == "pruned int8":
        return "pruned"
    return earlier[-1] if earlier else None


def _against(rung: Rung, earlier: Rung | None) -> Rung:
    if earlier is None:
        return rung
    gains = {"faster": earlier.ms / rung.ms, "smaller": earlier.bytes / rung.bytes}
    return Rung(**{**asdict(rung), **gains, "change": rung.quality - earlier.quality})
