"""How fast bundles run here, beside a yardstick measured in the same rounds, so that the machine's mood cancels out.

The yardstick: the plain network 3 -> 32, 4 x (32 -> 32), 32 -> 48 of 3x3 convolutions with ReLU between them, then
pixel shuffle by 4; random weights, OpenVINO in float32, one thread, input float planar 160x90.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from limner.errors import LimnerError, UsageError
from limner.images import Picture
from limner.runtime.backends import OpenVINOEngine, cores
from limner.runtime.painters import Upscaler

YARDSTICK_SIZE = (160, 90)
# Medians of two runs of one build differ by less than this on a busy machine when taken as ratios to the yardstick.
NOISE = 0.07


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(_Frozen):
    """One bundle on one engine. Times in ms per picture of `width` x `height` input pixels, decoding excluded.

    `ratio`: p50 to that of the yardstick; comparable between machines only at 160x90 and one thread.
    `load_ms`: opening the bundle and painting the first picture. `peak_mb`: peak resident memory (MiB) of a fresh
    process that paints two pictures, None when it was not asked for. `megapixels_per_s`: of output.
    """

    bundle: str
    engine: str
    precision: str
    threads: int
    width: int
    height: int
    scale: int
    repeats: int
    p50_ms: float
    p95_ms: float
    pictures_per_s: float
    megapixels_per_s: float
    load_ms: float
    peak_mb: float | None
    yardstick_ms: float
    ratio: float

    @property
    def key(self) -> tuple[str, str, str, int, int, int]:
        """What must agree for two rows to be compared."""
        return self.bundle, self.engine, self.precision, self.threads, self.width, self.height


class Report(_Frozen):
    """Rows and where they were measured."""

    machine: dict[str, str]
    rows: tuple[Row, ...]


class Change(_Frozen):
    """One configuration in two reports: `ratio` = new / old time, each in units of its own yardstick."""

    row: Row
    ratio: float
    verdict: str


class _Case(NamedTuple):
    bundle: str
    engine: str
    precision: str
    threads: int


class _Candidate(NamedTuple):
    case: _Case
    painter: Upscaler
    load_ms: float
    peak_mb: float | None


def bench(
    bundles: Sequence[str | os.PathLike[str]],
    engines: Sequence[str] = ("openvino",),
    precisions: Sequence[str] = ("int8",),
    threads: Sequence[int] = (1,),
    *,
    size: tuple[int, int] = YARDSTICK_SIZE,
    repeats: int = 30,
    memory: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Time every bundle x engine x precision x threads, one picture each per round, round after round.

    `size`: (width, height) of the input in pixels. `memory`: also start a process per configuration for its peak.
    Raises UsageError for impossible sizes or repeats and whatever `Upscaler.load` raises.
    """
    if repeats < 1 or min(size) < 1:
        raise UsageError(f"repeats={repeats}, size={size[0]}x{size[1]}: both must be at least 1.")
    cases = [_Case(str(name), *how) for name, *how in product(bundles, engines, precisions, threads)]
    picture = _noise(*size)
    candidates = [_prepared(case, picture, memory) for case in cases]
    runs: list[Callable[[], Any]] = [yardstick()]
    runs += [lambda painter=candidate.painter: painter.upscale_picture(picture) for candidate in candidates]
    times = _interleaved(runs, repeats, progress)
    return [_row(candidate, picture, *pair) for candidate, pair in zip(candidates, _paired(times), strict=True)]


def _paired(times: np.ndarray) -> list[tuple[np.ndarray, float]]:
    return [(own, float(np.median(times[0]))) for own in times[1:]]


def _interleaved(runs: list[Callable[[], Any]], repeats: int, progress: Callable[[int, int], None]) -> np.ndarray:
    """(len(runs), repeats) in ms: all runs take turns; one round to warm up is not counted."""
    times = np.empty((len(runs), repeats + 1))
    for repeat in range(repeats + 1):
        for index, run in enumerate(runs):
            times[index, repeat] = _milliseconds(run)
        progress(repeat, repeats)
    return times[:, 1:]


def _milliseconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def _noise(width: int, height: int) -> Picture:
    return Picture(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _prepared(case: _Case, picture: Picture, memory: bool) -> _Candidate:
    start = time.perf_counter()
    painter = Upscaler.load(*case)
    painter.upscale_picture(picture)
    load_ms = (time.perf_counter() - start) * 1e3
    return _Candidate(case, painter, load_ms, _peak_mb(case, picture) if memory else None)


def _row(candidate: _Candidate, picture: Picture, times: np.ndarray, yardstick_ms: float) -> Row:
    scale, p50 = candidate.painter.scale, float(np.median(times))
    per_second = 1e3 / float(np.mean(times))
    return Row(
        bundle=candidate.painter.manifest.name,
        engine=candidate.case.engine,
        precision=candidate.case.precision,
        threads=candidate.case.threads or cores(),
        width=picture.width,
        height=picture.height,
        scale=scale,
        repeats=len(times),
        p50_ms=p50,
        p95_ms=float(np.percentile(times, 95)),
        pictures_per_s=per_second,
        megapixels_per_s=per_second * picture.width * picture.height * scale**2 / 1e6,
        load_ms=candidate.load_ms,
        peak_mb=candidate.peak_mb,
        yardstick_ms=yardstick_ms,
        ratio=p50 / yardstick_ms,
    )
