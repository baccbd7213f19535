"""A painter in service: prompts are judged and encoded one by one, painted together, finished one by one."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from limner import images
from limner.runtime import alpha, resize
from limner.runtime.generate import Painter, Pixels, Prepared, Request
from limner.runtime.safety import Level
from limner.server.batcher import Batcher
from limner.server.config import Batching
from limner.server.errors import ApiError
from limner.server.job import Abandoned, Job
from limner.server.metrics import Metrics
from limner.server.turns import Turns

WHITE = 255


@dataclass(frozen=True)
class Form:
    """How a picture is written. `opaque`: laid over white."""

    format: str = "png"
    quality: int = 90
    opaque: bool = False


@dataclass(frozen=True)
class PaintOrder:
    """A checked request: pictures of one prompt. `partials`: how many coarser pictures go before each."""

    requests: tuple[Request, ...]
    level: Level
    form: Form
    partials: int = 0


@dataclass(frozen=True)
class Painted:
    """One picture as a file."""

    data: bytes
    seed: int

    @property
    def base64(self) -> str:
        return base64.b64encode(self.data).decode("ascii")


@dataclass(eq=False)
class _Item:
    """One picture on its way. `coarse` is done once the network has run, `done` with the file."""

    job: Job
    request: Request
    prepared: Prepared
    finish: Callable[[_Item, list[Pixels]], None]
    coarse: Future[list[bytes]]
    done: Future[Painted]
    since: float = field(default_factory=monotonic)

    @property
    def wanted(self) -> bool:
        return self.job.wanted

    def give(self, result: list[Pixels]) -> None:
        try:
            self.finish(self, result)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        for future in (self.coarse, self.done):
            if not future.done():
                future.set_exception(error)


@dataclass(frozen=True)
class Started:
    """The futures of an order, one of each for every picture. `accepted` is done once the prompt is judged, with its
    vector (width,).
    """

    coarse: tuple[Future[list[bytes]], ...]
    done: tuple[Future[Painted], ...]
    accepted: Future[NDArray[np.float32]]


class Painting:
    """`pool`: where prompts are encoded and pictures finished; the batches run in its threads too."""

    def __init__(self, painter: Painter, batching: Batching, metrics: Metrics, pool: Executor, turns: Turns) -> None:
        self.painter, self.name = painter, painter.manifest.name
        self._metrics, self._pool, self._turns = metrics, pool, turns
        self._unbegun: deque[PaintOrder] = deque()  # orders that wait for a thread
        # Two graphs as far as the engine is concerned: with and without the coarse outputs.
        self._plain = self._batcher(self._run, batching)
        self._levels = self._batcher(self._run_levels, batching)

    def _batcher(
        self, run: Callable[[Sequence[Prepared]], list[list[Pixels]]], batching: Batching
    ) -> Batcher[_Item, list[Pixels]]:
        def batch(items: Sequence[_Item]) -> list[list[Pixels]]:
            start = monotonic()
            with self._turns.small(), self._metrics.stage(self.name, "network"):
                results = run([item.prepared for item in items])
            for item in items:
                self._metrics.queue.labels(self.name).observe(start - item.since)
            self._metrics.batch.labels(self.name).observe(len(items))
            return results

        return Batcher(batch, batching.largest, batching.wait_ms / 1e3, self._pool.submit, self._defer)

    def _defer(self, lead: Callable[[], None]) -> bool:
        """Behind all prompts that wait for a thread."""
        if not self._unbegun:
            return False
        self._pool.submit(lead)
        return True

    def start(self, order: PaintOrder, job: Job) -> Started:
        """Begin; returns at once."""
        count = len(order.requests)
        started = Started(tuple(Future() for _ in range(count)), tuple(Future() for _ in range(count)), Future())
        # Until the graph with the coarse outputs is compiled, streams hold finished pictures only.
        batcher = self._levels if order.partials and self.painter.has_levels else self._plain
        batcher.announce(count)
        self._unbegun.append(order)
        self._pool.submit(self._work, batcher, order, job, started)
        return started

    def _work(self, batcher: Batcher[_Item, list[Pixels]], order: PaintOrder, job: Job, started: Started) -> None:
        must_lead = False
        self._unbegun.popleft()
        try:
            must_lead = batcher.add(self._items(order, job, started))
        except Exception as error:
            for future in (*started.coarse, *started.done, started.accepted):
                if not future.done():
                    future.set_exception(error)
        finally:
            batcher.arrive(len(order.requests))
        if must_lead:
            batcher.lead()

    def _items(self, order: PaintOrder, job: Job, started: Started) -> list[_Item]:
        job.check()
        with self._turns.small(), self._metrics.stage(self.name, "prepare"):
            prepared = [self.painter.prepare(request) for request in order.requests]
            self._judge(order)
            started.accepted.set_result(prepared[0].pooled)

        def finish(item: _Item, levels: list[Pixels]) -> None:
            self._finish(item, levels, order)

        return [
            _Item(job, request, each, finish, coarse, done)
            for request, each, coarse, done in zip(order.requests, prepared, started.coarse, started.done, strict=True)
        ]

    def _judge(self, order: PaintOrder) -> None:
        """Raises ApiError for a prompt that the filter flags."""
        verdict = self.painter.verdict(order.requests[0].prompt, order.level)
        if not verdict.flagged:
            return
        self._metrics.flagged.labels(verdict.categories[0]).inc()
        self._metrics.rejected.labels("moderation").inc()
        raise ApiError(
            400,
            verdict.reason[0].upper() + verdict.reason[1:],
            type="image_generation_user_error",
            param="prompt",
            code="moderation_blocked",
            details={"moderation": verdict.moderation()},
        )

    def _run(self, prepared: Sequence[Prepared]) -> list[list[Pixels]]:
        return [[picture] for picture in self.painter.run_network(prepared)]

    def _run_levels(self, prepared: Sequence[Prepared]) -> list[list[Pixels]]:
        return [list(levels) for levels in zip(*self.painter.run_levels(prepared), strict=True)]

    def _finish(self, item: _Item, levels: list[Pixels], order: PaintOrder) -> None:
        if not item.wanted:
            raise Abandoned
        with self._turns.small():
            size = item.prepared.size
            item.coarse.set_result(
                [self._file(item, enlarged(each, size), order.form) for each in chosen(levels[:-1], order.partials)]
            )
            with self._metrics.stage(self.name, "finish"):
                pixels = self.painter.finish(levels[-1], size)
            with self._metrics.stage(self.name, "encode"):
                painted = Painted(self._file(item, pixels, order.form), item.request.seed)
        # Last of all: the event loop cannot go on while this thread does.
        item.done.set_result(painted)

    def _file(self, item: _Item, pixels: Pixels, form: Form) -> bytes:
        picture = self.painter.picture(item.request, over_white(pixels) if form.opaque else pixels)
        return images.encode(picture, form.format, quality=form.quality)


def chosen(levels: Sequence[Pixels], count: int) -> Sequence[Pixels]:
    """The `count` finest of the coarser pictures, coarse to fine."""
    return levels[max(0, len(levels) - count) :] if count else ()


def enlarged(picture: Pixels, size: int) -> Pixels:
    """A coarse picture with premultiplied alpha at the size of the finished one, bicubic, straight alpha."""
    return alpha.straight(resize.bicubic(picture, size, size))


def over_white(pixels: Pixels) -> Pixels:
    """(H, W, 4) with straight alpha to (H, W, 3)."""
    share = pixels[..., 3:] / np.float32(255)
    return np.rint(pixels[..., :3] * share + WHITE * (1 - share)).astype(np.uint8)
