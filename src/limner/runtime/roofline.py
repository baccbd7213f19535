"""How far an engine is from what the machine can do, and where the fused engine's time goes.

Roofline (Williams et al. 2009): a picture cannot take less time than its multiply-accumulates at the cores' integer
peak, nor less than its compulsory traffic (picture in, picture out, weights once) at the memory's speed. Both limits
are measured, on one core; a second core doubles the first, and leaves the second as it is. Limits and times are the
best of several, because whatever else the machine does can only make them worse.
"""

from __future__ import annotations

import os
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from limner import bundle
from limner.bundle import UpscalerManifest
from limner.errors import LimnerError
from limner.runtime.backends import cores
from limner.runtime.fused import native
from limner.runtime.fused.engine import FusedEngine
from limner.runtime.fused.plan import Convolution, Unsupported

MEASURED_SECONDS = 0.2
# Several times the last-level cache of common machines.
MEMORY_BYTES = 2**27


class Limits(NamedTuple):
    """Of one core: int8 multiply-accumulates per second, and bytes per second read from memory."""

    macs: float
    bytes: float


class Stage(BaseModel):
    """One stage of the fused engine. `ms` per picture, all threads added up; `peak_share` of one core's peak."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    ms: float
    time_share: float
    peak_share: float


@cache
def limits() -> Limits | None:
    """Measured once a process, in about a second; None where the fused extension is not there to do it.

    The integer peak is that of the instruction set the fused engine uses, for weights of any size: weights of seven
    bits let AVX2 do a little more, so that a share just above 1 is possible there.
    """
    if native.unavailable():
        return None
    return Limits(native.peak_macs(MEASURED_SECONDS), native.peak_read(MEMORY_BYTES, MEASURED_SECONDS))


def shares(manifest: UpscalerManifest, width: int, height: int, threads: int, ms: float) -> tuple[float, float] | None:
    """Achieved share of the integer peak and of the memory's speed, each 0..1, by a picture that took `ms`."""
    found = limits()
    if found is None:
        return None
    pixels, seconds = width * height, ms / 1e3
    macs = manifest.macs_per_pixel * pixels / (found.macs * min(threads, cores()))
    moved = pixels * manifest.channels * (1 + manifest.scale**2) + manifest.parameters
    return macs / seconds, moved / found.bytes / seconds


def profile(name: str | os.PathLike[str], picture: NDArray[np.uint8], threads: int, repeats: int) -> list[Stage]:
    """Where the fused engine's time goes for `picture` (H, W, 3); each stage's best of `repeats` runs after a first.

    Raises LimnerError where the fused engine cannot run the bundle.
    """
    path = bundle.read(name).graph("int8")
    try:
        engine = FusedEngine(path, threads or cores())
    except Unsupported as reason:
        raise LimnerError(f"{path}: no profile, because the fused engine cannot run it ({reason}).") from None
    paint = engine.session(*picture.shape[:2])
    runs = []
    for _ in range(repeats + 1):
        engine.network.profile(True)
        paint(picture[None])
        runs.append(engine.network.profile_seconds())
    seconds = [min(times) for times in zip(*runs[1:], strict=True)]
    places = picture.shape[0] * picture.shape[1] / engine.plan.unshuffle**2
    return _stages(engine.plan.stages, seconds, places)


def _stages(stages: tuple[Convolution, ...], seconds: list[float], places: float) -> list[Stage]:
    found, total = limits(), sum(seconds) or 1.0
    assert found is not None
    return [
        Stage(
            name=f"{number} {stage.kind} {stage.kernel}x{stage.kernel}, {stage.inputs} -> {stage.outputs}",
            ms=taken * 1e3,
            time_share=taken / total,
            peak_share=stage.macs * places / found.macs / taken if taken else 0.0,
        )
        for number, (stage, taken) in enumerate(zip(stages, seconds, strict=True))
    ]
