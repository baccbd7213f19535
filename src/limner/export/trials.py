"""One trial of a search: time the network untrained, train it on a budget, and pack it for its quality as integers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import torch
from torch import Tensor, nn

from limner.compress import search
from limner.compress.search import Figures
from limner.config import RunConfig
from limner.data.records import load_split
from limner.errors import UsageError
from limner.export.latency import random_upscaler
from limner.export.pack import pack_upscaler
from limner.export.pruned import prune
from limner.models.upscaler import Upscaler
from limner.recipes import tuned
from limner.runtime.backends import open_engine
from limner.runtime.bench import interleaved, yardstick
from limner.train.loop import fit, launch, train, upscaling
from limner.train.objectives.base import Made
from limner.train.objectives.upscale import Upscale
from limner.train.runs import open_run, read_config

Seen = Callable[[int, float], None]


class Speed(NamedTuple):
    """Of an untrained int8 network at the yardstick's size: p50 in ms, the ratio of its best time to the yardstick's
    best, bytes of the graph, parameters, and the engine that ran.

    Best times, because on a busy machine long runs are interrupted and short ones are not.
    """

    ms: float
    ratio: float
    bytes: int
    parameters: int
    engine: str


@dataclass(frozen=True)
class Search:
    """What all trials share. `images`: crops each learns from; `checks`: how often its quality is looked at on the way.
    `most_ratio`: slower networks are not trained.
    """

    base: RunConfig
    space: dict[str, tuple[Any, ...]]
    data: Path
    sets: tuple[Path, ...]
    out: Path
    images: int
    checks: int = 4
    engine: str = "auto"
    repeats: int = 30
    most_ratio: float | None = None

    def facts(self) -> dict[str, Any]:
        """What must agree for two trials to be compared, by the words of an error message."""
        base = self.base.model_dump(mode="json", exclude={"name"})
        searched = {key: list(values) for key, values in sorted(self.space.items())}
        pictures = {"data": self.data.name, "sets": [path.name for path in self.sets]}
        return {"space": searched, "budget": self.images, "engine": self.engine, "base": base, **pictures}


def measure(config: RunConfig, engine: str, repeats: int) -> Speed:
    """Time random weights, in turns with the yardstick: what a network costs does not depend on what it learned."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        picture = random_upscaler(config, path)
        opened = open_engine(engine, path, threads=1)
        calls = [yardstick(), partial(opened.session(*picture.shape[1:3]), picture)]
        times = interleaved(calls, repeats, lambda done, total: None)
        return Speed(
            float(np.median(times[1])),
            float(times[1].min() / times[0].min()),
            path.stat().st_size,
            Upscaler(config.model).fold().parameters_shipped(),
            opened.name,
        )


class _Watched(Upscale):
    """The upscaling objective, telling `seen` the quality at every look; what `seen` raises ends the training."""

    def __init__(self, inner: Upscale, seen: Seen) -> None:
        self.inner, self.seen = inner, seen
        self.config = inner.config

    def batch(self, step: int, rank: int, world: int) -> Any:
        return self.inner.batch(step, rank, world)

    def made(self, network: nn.Module, batch: Any, share: float) -> Made:
        return self.inner.made(network, batch, share)

    def criticism(self, critic: nn.Module, made: Made) -> dict[str, Tensor]:
        return self.inner.criticism(critic, made)

    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        scores = self.inner.validate(network, sheet)
        self.seen(int(sheet.stem), scores["psnr_y"])
        return scores


def train_watched(config: RunConfig, data: Path, out: Path, seen: Seen) -> None:
    """`train.loop.train` of an upscaler, telling seen(images, dB) at every validation; resumes like it."""
    fabric = launch(config.train)
    records = load_split(data, "train", config.data, config.data.captions)
    open_run(config, records, data, out)
    objective = _Watched(upscaling(config, records, data, out, fabric), seen)
    torch.manual_seed(config.train.seed)
    fit(fabric, config, Upscaler(config.model), objective, out)


def budgeted(config: RunConfig, images: int, checks: int) -> RunConfig:
    """The trial's own run: `images` crops, looked at and saved `checks` times, packed without gates.

    Where it is pruned afterwards, that training has the last quarter of the crops and is not looked at.
    """
    if config.prune.ratio:  # the last quarter is for what pruning leaves
        images, checks = images * 3 // 4, checks - 1
    every = max(config.train.batch, images // max(checks, 1))
    pace: dict[str, object] = {"images": images, "warmup": min(config.train.warmup, images // 10)}
    return tuned(
        config,
        train=pace | {"sample_every": every, "checkpoint_every": every},
        quantize={"images": config.quantize.images * images // max(config.train.images, 1)},
        pack={"max_drop": 99.0, "min_gain": -99.0},
    )


def objective(plan: Search, study: optuna.Study, trial: optuna.Trial) -> Figures:
    """Everything one trial does. Ends with optuna.TrialPruned where settings exclude each other, the network is too
    slow, or the median rule gives it up.
    """
    chosen = search.suggest(trial, plan.space)
    config = _new(plan, study, trial, chosen)
    speed = _measured(plan, trial, config)
    expected = speed.ratio * (1 - config.prune.ratio)
    if plan.most_ratio is not None and expected > plan.most_ratio:
        raise optuna.TrialPruned(f"takes {expected:.2f} yardsticks, more than {plan.most_ratio}")
    folder = plan.out / "trials" / f"{search.first_number(trial):04d}"

    def seen(images: int, quality: float) -> None:
        search.note(trial, expected, images, quality)
        if search.hopeless(study.get_trials(deepcopy=False), trial.number, expected, images, quality):
            raise optuna.TrialPruned(f"{quality:.2f} dB after {images} crops is below the median")

    run = folder / "run"
    train_watched(config, plan.data, run, seen)
    if config.prune.ratio:
        run = _pruned(config, plan, folder, trial)
        config = read_config(run)
        speed = _measured(plan, trial, config)
    quality = _packed(config, run, folder / "bundle", plan)
    return Figures(quality, speed.ratio, speed.bytes)


def _new(plan: Search, study: optuna.Study, trial: optuna.Trial, chosen: dict[str, Any]) -> RunConfig:
    """The trial's settings. Those that were tried before or exclude each other are left out, and others are next."""
    known = search.twin(study, chosen)
    try:
        if known is not None:
            raise UsageError(f"the same as trial {known.number}")
        return budgeted(search.settings_of(plan.base, chosen), plan.images, plan.checks)
    except UsageError as error:
        trial.set_user_attr("reason", str(error))
        trial.set_user_attr(search.SKIPPED, True)
        search.vary(study, chosen, plan.space)
        raise search.Skipped(str(error)) from None


def _measured(plan: Search, trial: optuna.Trial, config: RunConfig) -> Speed:
    speed = measure(config, plan.engine, plan.repeats)
    for key, value in speed._asdict().items():
        trial.set_user_attr(key, value)
    return speed


def _pruned(config: RunConfig, plan: Search, folder: Path, trial: optuna.Trial) -> Path:
    """The run that pruning makes of the trained one, trained for the rest of the budget."""
    out = folder / "pruned"
    try:
        prune(folder / "run", out, images=max(plan.images - config.train.images, config.train.batch))
    except UsageError as error:
        trial.set_user_attr("reason", str(error))
        raise optuna.TrialPruned(str(error)) from None
    train(read_config(out), plan.data, out)
    return out


def _packed(config: RunConfig, run: Path, out: Path, plan: Search) -> float:
    """Mean Y-PSNR of the int8 graph over the sets; the bundle stays in `out`."""
    manifest = pack_upscaler(config, run, out, plan.sets, plan.data)
    rows = manifest.scores["fidelity"]["int8"]
    return float(np.mean([row["scores"]["psnr_y"] for row in rows]))
