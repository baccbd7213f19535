"""A request's work in threads, seen from the event loop: waited for, given up, counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from time import monotonic
from typing import Any, TypeVar

from starlette.requests import Request

from limner.server.errors import ApiError, busy
from limner.server.metrics import Metrics

T = TypeVar("T")

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
    works = [asyncio.wrap_future(future) for future in futures]
    work = works[0] if len(works) == 1 else asyncio.gather(*works)
    try:
        await asyncio.wait({work}, timeout=UNWATCHED_S)
        left = False if work.done() else await _waited(work, job, request)
        with suppress(Abandoned):  # the deadline passed in a thread before it passed here
            if work.done():
                work.result()
                return [each.result() for each in works]
        raise _given_up(left, job, metrics)
    finally:
        if not work.done():
            job.abandon()
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work


async def _waited(work: asyncio.Future[Any], job: Job, request: Request) -> bool:
    """Until the work is done, the deadline passes or the client leaves; returns whether it has."""
    leaving = asyncio.ensure_future(_left(request))
    try:
        rest = job.created + job.seconds - monotonic()
        await asyncio.wait({work, leaving}, timeout=max(0, rest), return_when=asyncio.FIRST_COMPLETED)
        return leaving.done()
    finally:
        leaving.cancel()


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
