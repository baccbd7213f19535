"""From a run to a smaller run: an ordinary run folder that begins with what pruning left, and learns from the whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from limner.compress.finetune import calibration, has_critic, painting_calibration
from limner.compress.prune import (
    Candidate,
    PrunablePainter,
    PrunableUpscaler,
    best_within,
    refuse_unless_it_ships,
    share_kept,
    trainable,
)
from limner.config import PruneConfig, RunConfig
from limner.errors import LimnerError, UsageError
from limner.export.latency import milliseconds
from limner.models.painter import Painter
from limner.models.upscaler import Upscaler
from limner.runtime.backends import AUTO, BACKENDS
from limner.train import checkpoint
from limner.train.runs import derive_run, load_painter, load_run, read_config

RECORD = "pruned.json"


def prune(
    run: Path,
    out: Path,
    *,
    target_ms: float | None = None,
    ratio: float | None = None,
    images: int | None = None,
    engine: str = AUTO,
    repeats: int = 30,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Write the run folder `out`: the network of `run` made smaller, ready to be trained on; returns its record.

    Exactly one of `target_ms`, the time of one picture on `engine` as `latency.milliseconds` takes it, and `ratio`, the
    share of multiply-accumulates to take away; neither: the run's prune.ratio. `images`: length of the training that
    follows, default a quarter of the run's. A folder that the same request made is left as it is. Raises UsageError for
    an impossible request, and LimnerError when `out` holds something else.
    """
    if target_ms is None and ratio is None:
        ratio = read_config(run).prune.ratio or None
    request = {"run": str(run), "target_ms": target_ms, "ratio": ratio, "images": images, "engine": engine}
    if (target_ms is None) == (ratio is None):
        raise UsageError("give one of --target-ms and --ratio, or set prune.ratio when training.")
    if engine not in (AUTO, *BACKENDS):
        raise UsageError(f"unknown engine {engine!r}: choose one of {', '.join((AUTO, *BACKENDS))}.")
    if out.exists():
        return _known(out, request)
    prunable = _prunable(run)
    if ratio is not None:
        limit, cost, unit = share_kept(ratio, _work(prunable.config)), _work, "multiply-accumulates"
    else:
        assert target_ms is not None
        limit, cost, unit = target_ms, _timed(engine, repeats), "ms"
    if limit <= 0:
        raise UsageError(f"target_ms={limit}: must be above 0.")
    found = best_within(prunable, cost, limit, unit, advance)
    record = {**request, "unit": unit, "before": cost(prunable.config), "after": found.cost, "error": found.error}
    _write(run, out, found, record, images)
    return record


def _known(out: Path, request: dict[str, Any]) -> dict[str, Any]:
    path = out / RECORD
    record = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    changed = [key for key, value in request.items() if record.get(key, out) != value]
    if changed:
        what = f"a network pruned with another {changed[0]}" if record else "something else than a pruned run"
        raise LimnerError(f"{out}: holds {what}; choose another --out.")
    return record


def _prunable(run: Path) -> PrunableUpscaler | PrunablePainter:
    config = read_config(run)
    refuse_unless_it_ships(config)
    if config.task == "upscale":
        return PrunableUpscaler(config, load_run(run)[1], calibration(run))
    return PrunablePainter(config, load_painter(run)[1], *painting_calibration(run))


def _timed(engine: str, repeats: int) -> Callable[[RunConfig], float]:
    """Milliseconds of settings, each timed once."""

    @cache
    def timed(settings: str) -> float:
        return milliseconds(RunConfig.model_validate_json(settings), engine, repeats)

    return lambda config: timed(config.model_dump_json())


def _work(config: RunConfig) -> float:
    """Multiply-accumulates: per input pixel of an upscaler, per picture of a painter."""
    if config.task == "upscale":
        return Upscaler(config.model).fold().macs_per_pixel()
    return float(Painter(config.painter, config.text.width).macs(config.text.tokens))


def learning(config: RunConfig, run: Path, images: int | None) -> RunConfig:
    """The training that follows: a quarter as long and as fast as the run's, learning half from the whole network."""
    length = images or max(config.train.images // 4, config.train.batch)
    pace = {"images": length, "lr": config.train.lr / 4, "warmup": min(config.train.warmup, length // 10)}
    change = {"init": None, "teacher": str(run), "seed": config.train.seed + 1}
    start = {"start_share": 0.0, "head_start": 0.0} if has_critic(run) else {}
    return config.model_copy(
        update={
            "train": config.train.model_copy(update=pace | change),
            "loss": config.loss.model_copy(update={"distill": 0.5}),
            "adversarial": config.adversarial.model_copy(update=start),
            "prune": PruneConfig(),
        }
    )


def _write(run: Path, out: Path, found: Candidate, record: dict[str, Any], images: int | None) -> None:
    config = learning(found.config, run, images)
    whole = checkpoint.load(run)
    assert whole is not None
    weights = {name: w.detach() for name, w in trainable(config, found.network).named_parameters()}
    tensors = {f"{part}.{name}": w.clone() for part in ("network", "ema") for name, w in weights.items()}
    tensors |= {name: w for name, w in whole[0].items() if name.startswith(("critic.", "critic_optimizer."))}
    derive_run(run, out, config, tensors, 0, record, RECORD)
