"""The models of one server, and what its requests share: threads, turns, limits, results, metrics."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np

from limner import bundle
from limner.errors import LimnerError, UsageError
from limner.images import Picture
from limner.runtime.backends import cores
from limner.runtime.generate import Painter
from limner.runtime.painters import Upscaler
from limner.server.access import Access
from limner.server.config import ServerConfig
from limner.server.enlarging import Enlarging
from limner.server.errors import busy, refused, unknown_model
from limner.server.metrics import Metrics
from limner.server.painting import Painting
from limner.server.results import Results
from limner.server.turns import Turns

log = logging.getLogger(__name__)

Task = Literal["generate", "upscale"]
State = Literal["loading", "ready", "draining"]

TASKS: tuple[Task, ...] = ("generate", "upscale")
SWEEP_S = 30.0
# Every size of piece that `runtime.batched` cuts batches into, on every thread.
LATER_BATCHES = (2, 4, 8, 16, 32)
LARGE_AT_ONCE = 2  # large pictures in memory


class Service:
    """`bundles`: what the configuration names, by name, painters first. Raises UsageError and LimnerError for models
    that are missing, damaged or named alike; loading comes later, in `load`.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config, self.metrics = config, Metrics()
        self.bundles = _bundles(config.models)
        self.access = Access(config.keys, self.metrics)
        self.results = Results(config.results, self.metrics)
        self.state: State = "loading"
        self.warm = False  # whether the compiler has nothing left to do
        self.paintings: dict[str, Painting] = {}
        self.enlargings: dict[str, Enlarging] = {}
        threads = config.threads or cores()
        self.turns = Turns(threads)
        # One more than there are cores: the leader of a batch mostly waits for the engine's own threads.
        self.pool = ThreadPoolExecutor(threads + 1, "limner-small")
        self.large = ThreadPoolExecutor(LARGE_AT_ONCE, "limner-large")
        self._pending: dict[Task, int] = dict.fromkeys(TASKS, 0)
        self._closed = threading.Event()
        for name in self.bundles:
            self.metrics.up.labels(name).set(0)

    @property
    def painters(self) -> dict[str, Painter]:
        """The painters that are loaded."""
        return {name: each.painter for name, each in self.paintings.items()}

    @property
    def upscalers(self) -> dict[str, Upscaler]:
        """The upscalers that are loaded."""
        return {name: each.upscaler for name, each in self.enlargings.items()}

    # ------------------------------------------------------------------------------------------------------- loading

    def load(self) -> None:
        """Open and warm every model; one that fails is logged, counted and left out. Then ready, if any is there."""
        for name, opened in self.bundles.items():
            if self._closed.is_set():
                return
            start = perf_counter()
            try:
                self._open(name, opened)
            except Exception:
                log.exception("%s: cannot be loaded", name)
                self.metrics.errors.labels("load").inc()
                continue
            self.metrics.load.labels(name).set(perf_counter() - start)
            self.metrics.up.labels(name).set(1)
        if self.state == "loading" and (self.paintings or self.enlargings):
            self._set("ready")
        self._warm_batches()

    def _warm_batches(self) -> None:
        """What only batches need, compiled while single requests are already answered."""
        for painter in self.painters.values():
            counts = [count for count in LATER_BATCHES if count <= self.config.batching.largest]
            for levels, count in (
                (True, 1),
                *((False, count) for count in counts),
                *((True, count) for count in counts),
            ):
                if not self._closed.is_set():
                    painter.warm((count,), levels=levels)
        self.warm = not self._closed.is_set()
        # What is there now stays: the collector need not look through it again and again.
        gc.freeze()

    def _open(self, name: str, opened: bundle.Bundle[Any]) -> None:
        how = self.config.engine, self.config.precision, self.config.threads
        if isinstance(opened.manifest, bundle.PainterManifest):
            painter = Painter(opened, *how)
            sizes = [size for size in painter.sizes if painter.enlarges(size)]
            painter.warm(self.config.batching.warm_batches, sizes)
            painter.make_do()
            painter.verdict("icon")
            self.paintings[name] = Painting(painter, self.config.batching, self.metrics, self.pool, self.turns)
        else:
            upscaler = Upscaler(opened, *how)
            upscaler.upscale_picture(Picture(np.zeros((64, 64, 3), np.uint8)))
            pools = self.pool, self.large
            self.enlargings[name] = Enlarging(upscaler, self.config.limits, self.metrics, *pools, self.turns)

    # -------------------------------------------------------------------------------------------------------- asking

    def painting(self, name: str | None) -> Painting:
        """The painter of a request. Raises ApiError for an unknown model, another task's, and one not loaded."""
        return self.paintings[self._model(name, "generate", self.paintings)]

    def enlarging(self, name: str | None) -> Enlarging:
        """The upscaler of a request. Raises as `painting`."""
        return self.enlargings[self._model(name, "upscale", self.enlargings)]

    def _model(self, name: str | None, task: Task, loaded: dict[str, Any]) -> str:
        fitting = [each for each, opened in self.bundles.items() if opened.manifest.task == task]
        if name is not None and name in self.bundles and name not in fitting:
            other = self.bundles[name].manifest.task
            raise refused("model", f"{name} is for {other!r}, not for {task!r}; choose one of: {', '.join(fitting)}.")
        if not fitting or (name is not None and name not in fitting):
            raise unknown_model(name or "default", fitting)
        wanted = name or next((each for each in fitting if each in loaded), fitting[0])
        if wanted not in loaded:
            code = "model_loading" if self.state == "loading" else "model_unavailable"
            raise busy(f"The model {wanted!r} is not loaded: come back later.", code, seconds=2)
        return wanted

    @contextmanager
    def admitted(self, task: Task, pictures: int) -> Iterator[None]:
        """Around the work for some pictures. Raises ApiError (503) when too many wait already."""
        batching = self.config.batching
        most = batching.queue if task == "generate" else batching.uploads
        if self._pending[task] and self._pending[task] + pictures > most:
            self.metrics.rejected.labels("queue_full").inc()
            raise busy("Too many requests wait already: come back later.", "queue_full")
        self._count(task, pictures)
        try:
            yield
        finally:
            self._count(task, -pictures)

    def _count(self, task: Task, change: int) -> None:
        """Only the event loop's thread calls it."""
        self._pending[task] += change
        self.metrics.waiting.labels(task).set(self._pending[task])

    # ---------------------------------------------------------------------------------------------------------- life

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    @property
    def draining(self) -> bool:
        return self.state == "draining"

    def drain(self) -> None:
        """Say not ready from now on; what was accepted is finished."""
        self._set("draining")

    async def run(self) -> None:
        """Load, then look after the results until cancelled."""
        await asyncio.to_thread(self.load)
        while True:
            await asyncio.sleep(SWEEP_S)
            with suppress(OSError):
                await asyncio.to_thread(self.results.sweep)

    def close(self) -> None:
        """Let go of threads and temporary files."""
        self._closed.set()
        for pool in (self.pool, self.large):
            pool.shutdown(wait=False, cancel_futures=True)
        self.results.close()

    def _set(self, state: State) -> None:
        self.state = state
        self.metrics.ready.set(state == "ready")
        log.info("%s", state)


def _bundles(names: tuple[str, ...]) -> dict[str, bundle.Bundle[Any]]:
    """Name -> bundle, painters first, else as configured. Without names, all of the zoo that paints or enlarges."""
    opened = [bundle.read(name) for name in names or bundle.zoo()]
    usable = [each for each in opened if each.manifest.task in TASKS]
    if names and len(usable) < len(opened):
        odd = next(each for each in opened if each not in usable)
        raise UsageError(f"{odd.manifest.name}: is a bundle for {odd.manifest.task!r}; serve painters and upscalers.")
    if not usable:
        raise LimnerError("there is no model to serve: name a painter or an upscaler.")
    found: dict[str, bundle.Bundle[Any]] = {}
    for each in sorted(usable, key=lambda each: TASKS.index(each.manifest.task)):
        if each.manifest.name in found:
            raise UsageError(f"{each.manifest.name}: two models have this name; serve one of them.")
        found[each.manifest.name] = each
    return found


def created(opened: bundle.Bundle[Any]) -> int:
    """Seconds since 1970 of a bundle's making, by its file."""
    return int((Path(opened.folder) / bundle.MANIFEST).stat().st_mtime)
