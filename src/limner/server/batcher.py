"""Merging: items that are there at the same time go through a network together.

There is no thread that waits for work. The first thread that brings items while nobody runs becomes the leader: it
runs what waits, batch after batch, until nothing does, and others only leave their items. An idle server thus adds no
hop and no wait; a busy one fills its batches by itself while the last one runs. The leader waits for more, at most
`wait_s`, only when it knows of some: items that were announced by `coming` and are not there yet. And where other
work waits for a thread, the making of items above all, a leader may let it go first: no core idles meanwhile, and the
next batch is fuller.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Generic, Protocol, TypeVar

R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)


class Item(Protocol[R_contra]):
    """`wanted`: False once nobody waits for the result, and the item is dropped. Else one of `give` and `fail` is
    called, once, in any thread.
    """

    @property
    def wanted(self) -> bool: ...

    def give(self, result: R_contra) -> None: ...

    def fail(self, error: Exception) -> None: ...


I = TypeVar("I", bound=Item)  # noqa: E741


class Batcher(Generic[I, R]):
    """`run`: items of one kind to as many results. `hand`: how a result reaches its item when there are several, by
    default in the leader's thread. `defer`: given `lead`, sees to it that it is called later and tells so, or declines.
    A batch that fails is run again one by one, so that each item has its own error.
    """

    def __init__(
        self,
        run: Callable[[Sequence[I]], Sequence[R]],
        largest: int,
        wait_s: float,
        hand: Callable[[Callable[[], None]], object] = lambda call: call(),
        defer: Callable[[Callable[[], None]], bool] = lambda lead: False,
    ) -> None:
        self._run, self._largest, self._wait_s, self._hand, self._defer = run, largest, wait_s, hand, defer
        self._waiting: deque[I] = deque()
        self._coming = 0
        self._led = False
        self._condition = threading.Condition()

    @contextmanager
    def coming(self, count: int) -> Iterator[None]:
        """Around the making of `count` items that `add` is called with inside."""
        self.announce(count)
        try:
            yield
        finally:
            self.arrive(count)

    def announce(self, count: int) -> None:
        """Tell that `count` items will be added soon, or `arrive` without."""
        with self._condition:
            self._coming += count

    def arrive(self, count: int) -> None:
        """Take back an announcement, after `add` or instead of it."""
        with self._condition:
            self._coming -= count
            if not self._coming:
                self._condition.notify_all()

    def add(self, items: Sequence[I]) -> bool:
        """Leave items; returns whether the caller must now `lead`."""
        with self._condition:
            self._waiting.extend(items)
            if len(self._waiting) >= self._largest:
                self._condition.notify_all()
            first, self._led = not self._led, True
            return first

    def lead(self) -> None:
        """Run what waits until nothing does, but let others go first."""
        if not self._defer(self._lead):
            self._lead()

    def _lead(self) -> None:
        while batch := self._next():
            self._paint(batch)
            if self._defer(self._lead):
                return

    def _next(self) -> list[I]:
        with self._condition:
            end = monotonic() + self._wait_s
            while self._coming and len(self._waiting) < self._largest and (rest := end - monotonic()) > 0:
                self._condition.wait(rest)
            batch: list[I] = []
            while self._waiting and len(batch) < self._largest:
                item = self._waiting.popleft()
                if item.wanted:
                    batch.append(item)
            self._led = bool(batch)
            return batch

    def _paint(self, batch: list[I]) -> None:
        try:
            results = self._run(batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0].fail(error)
                return
            for item in batch:
                self._paint([item])
            return
        if len(batch) == 1:
            batch[0].give(results[0])
            return
        for item, result in zip(batch, results, strict=True):
            self._hand(lambda item=item, result=result: item.give(result))
