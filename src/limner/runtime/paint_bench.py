"""How fast painters run here: rows of `runtime.bench`, beside the same yardstick.

Stages: "prompt" is everything from a prompt that was not seen before to the finished array; "prompt to 256 px" the same
through an upscaler; "network" the image network alone. Times are per call.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, product
from typing import Any

import numpy as np

from limner.errors import UsageError
from limner.runtime.bench import Row, turns, yardstick
from limner.runtime.generate import Painter, Request

BATCHES = (1, 2, 4, 8, 16, 32)
THINGS = ("apple", "house", "tree", "dog", "sword", "potion", "cloud", "ship", "fish", "crown")
COLOURS = ("red", "blue", "green", "yellow", "purple", "white", "black", "golden")


@dataclass(frozen=True)
class _Case:
    """One row to measure."""

    painter: Painter
    engine: str
    precision: str
    load_ms: float
    stage: str
    batch: int
    size: int
    run: Callable[[], Any]


def bench(
    bundles: Sequence[str | os.PathLike[str]],
    engines: Sequence[str] = ("openvino",),
    precisions: Sequence[str] = ("int8",),
    threads: Sequence[int] = (1,),
    *,
    batches: Sequence[int] = BATCHES,
    repeats: int = 30,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Time every painter x engine x precision x threads: prompts one by one, then the network in every batch.

    Raises UsageError for batches or repeats below 1 and whatever `Painter.load` raises.
    """
    if repeats < 1 or min(batches, default=0) < 1:
        raise UsageError(f"repeats={repeats}, batches={list(batches)}: all must be at least 1.")
    cases = [
        case
        for name in bundles
        for how in product(engines, precisions, threads)
        for case in _cases(name, *how, batches)
    ]
    times = turns([yardstick(), *(case.run for case in cases)], repeats, progress)
    standard = float(np.median(times[1, 0]))
    return [_row(case, times[:, index], standard) for index, case in enumerate(cases, 1)]


def _cases(
    name: str | os.PathLike[str], engine: str, precision: str, threads: int, batches: Sequence[int]
) -> list[_Case]:
    start = time.perf_counter()
    painter = Painter.load(name, engine, precision, threads)
    painter.warm()
    load_ms = (time.perf_counter() - start) * 1e3
    prompts = count()

    def from_prompt(size: int) -> None:
        painter.paint_batch([Request(_prompt(next(prompts)), 0, size=size)])

    def case(stage: str, batch: int, size: int, run: Callable[[], Any]) -> _Case:
        return _Case(painter, engine, precision, load_ms, stage, batch, size, run)

    own, largest = painter.size, painter.sizes[-1]
    cases = [case("prompt", 1, own, lambda: from_prompt(own))]
    if painter.enlarges(largest):
        cases.append(case(f"prompt to {largest} px", 1, largest, lambda: from_prompt(largest)))
    for batch in batches:
        prepared = [painter.prepare(Request(_prompt(index), index)) for index in range(batch)]
        cases.append(case("network", batch, own, lambda prepared=prepared: painter.run_network(prepared)))
    return cases


def _prompt(index: int) -> str:
    """A new prompt for every index: seven words, so that all take about the same time."""
    number, thing = divmod(index, len(THINGS))
    return f"a {COLOURS[number % len(COLOURS)]} {THINGS[thing]} number {index}, flat style"


def _row(case: _Case, turns: np.ndarray, yardstick_ms: float) -> Row:
    cold, times = turns
    p50, per_second = float(np.median(times)), 1e3 * case.batch / float(np.mean(times))
    return Row(
        bundle=case.painter.manifest.name,
        engine=case.engine,
        precision=case.precision,
        threads=case.painter.threads,
        width=case.size,
        height=case.size,
        scale=1,
        repeats=len(times),
        p50_ms=p50,
        p95_ms=float(np.percentile(times, 95)),
        pictures_per_s=per_second,
        megapixels_per_s=per_second * case.size**2 / 1e6,
        load_ms=case.load_ms,
        peak_mb=None,
        yardstick_ms=yardstick_ms,
        ratio=p50 / yardstick_ms,
        ran=case.painter.engine,
        batch=case.batch,
        stage=case.stage,
        cold_ms=float(np.median(cold)),
    )
