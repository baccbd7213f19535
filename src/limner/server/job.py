"""A request's work in threads, seen from the event loop: waited for, given up, counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from time import monotonic
from typing import Any, Literal, TypeVar

from starlette.requests import Request

from limner.server.errors import ApiError, busy
from limner.server.metrics import Metrics

T = TypeVar("T")
Outcome = Literal["done", "left", "late"]

# Most requests are done before a client could leave; to watch for it costs a task.
UNWATCHED_S = 0.02
CLIENT_LEFT = 499  # nginx's status for it; only logs and metrics ever see it


class Abandoned(Exception):
    """Raised inside the work of a job that nobody waits for any more."""


class Job:
    """`seconds`: until it is given up. Threads look at `wanted`; the event loop calls `abandon`."""

    def __init__(self, seconds: float) -> None:
        self.created, self.seconds = monotonic(), seconds
        self._abandoned = False

    @property
    def wanted(self) -> bool:
        return not self._abandoned and monotonic() - self.created < self.seconds

    def abandon(self) -> None:
        self._abandoned = True

    def check(self) -> None:
        """Raises Abandoned when nobody waits for the result."""
        if not self.wanted:
            raise Abandoned


async def finished(futures: Sequence[Future[T]], job: Job, request: Request, metrics: Metrics) -> list[T]:
    """The results, once all are there; whatever the first failed one raised.

    Raises ApiError when the deadline passes (503) or the client leaves; the job is abandoned then.
    """
    outcome: Outcome = "late"
    try:
        outcome = await _Wait(futures, job, request).outcome()
        with suppress(Abandoned):  # the deadline passed in a thread before it passed here
            if outcome == "done":
                return _results(futures)
        raise _given_up(outcome == "left", job, metrics)
    finally:
        if outcome != "done":
            job.abandon()


class _Wait:
    """For all futures or the first that fails, for the deadline, and for the client to leave: one hop to the event
    loop for whichever comes first.
    """

    def __init__(self, futures: Sequence[Future[Any]], job: Job, request: Request) -> None:
        self._loop = asyncio.get_running_loop()
        self._first: asyncio.Future[Outcome] = self._loop.create_future()
        self._open, self._request = len(futures), request
        self._leaving: asyncio.Task[None] | None = None
        rest = max(0.0, job.created + job.seconds - monotonic())
        self._timers = [self._loop.call_later(UNWATCHED_S, self._watch), self._loop.call_later(rest, self._end, "late")]
        for each in futures:
            each.add_done_callback(self._from_thread)

    async def outcome(self) -> Outcome:
        try:
            return await self._first
        finally:
            for timer in self._timers:
                timer.cancel()
            if self._leaving is not None:
                self._leaving.cancel()

    def _from_thread(self, future: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(self._count, future)

    def _count(self, future: Future[Any]) -> None:
        self._open -= 1
        if not self._open or future.exception() is not None:
            self._end("done")

    def _watch(self) -> None:
        self._leaving = self._loop.create_task(_left(self._request))
        self._leaving.add_done_callback(lambda task: task.cancelled() or self._end("left"))

    def _end(self, outcome: Outcome) -> None:
        if not self._first.done():
            self._first.set_result(outcome)


def _results(futures: Sequence[Future[T]]) -> list[T]:
    """Of futures that are all done, or of which one has failed."""
    for each in futures:
        if each.done():
            each.result()
    return [each.result() for each in futures]


def _given_up(left: bool, job: Job, metrics: Metrics) -> ApiError:
    if left:
        metrics.cancelled.inc()
        return ApiError(CLIENT_LEFT, "The client left.", code="client_left")
    metrics.rejected.labels("deadline").inc()
    return busy(f"The request was not done within {job.seconds:g} s: the server is busy.", "deadline_exceeded")


async def _left(request: Request) -> None:
    """Returns when the client has closed the connection; its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
