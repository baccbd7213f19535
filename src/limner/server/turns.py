"""Who computes when: small requests at once, tiles of large pictures in between.

Small work never waits here. A tile waits while small work is under way, but not longer than PATIENCE times what the
last tile took: so large pictures keep a share of the machine, 1 / (1 + PATIENCE), under any load of small requests.
Tiles go in the order in which they ask, and a picture asks anew for every tile, so large pictures take turns.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

PATIENCE = 3.0
FIRST_TILE_S = 0.05  # what a tile is taken to last before one was measured


class Turns:
    """Any number of threads; `slots`: tiles computed at the same time."""

    def __init__(self, slots: int) -> None:
        self._free, self._small = slots, 0
        self._queue: deque[object] = deque()
        self._condition = threading.Condition()
        self._tile_s = FIRST_TILE_S

    @contextmanager
    def small(self) -> Iterator[None]:
        """Around small work: tiles step back meanwhile."""
        with self._condition:
            self._small += 1
        try:
            yield
        finally:
            with self._condition:
                self._small -= 1
                if not self._small:
                    self._condition.notify_all()

    @contextmanager
    def tile(self) -> Iterator[None]:
        """Around one tile of a large picture: waits for its turn."""
        self._enter()
        start = monotonic()
        try:
            yield
        finally:
            self._leave(monotonic() - start)

    def _enter(self) -> None:
        ticket = object()
        with self._condition:
            self._queue.append(ticket)
            asked = monotonic()
            while not self._may(ticket, asked):
                self._condition.wait(self._rest(ticket, asked))
            self._queue.popleft()
            self._free -= 1
            self._condition.notify_all()

    def _may(self, ticket: object, asked: float) -> bool:
        first = self._free > 0 and self._queue[0] is ticket
        return first and (not self._small or monotonic() - asked >= PATIENCE * self._tile_s)

    def _rest(self, ticket: object, asked: float) -> float | None:
        """Seconds to wait: until patience ends for the first in the queue, else until somebody notifies."""
        if self._free > 0 and self._queue[0] is ticket:
            return max(0.001, asked + PATIENCE * self._tile_s - monotonic())
        return None

    def _leave(self, seconds: float) -> None:
        with self._condition:
            self._free += 1
            self._tile_s = seconds
            self._condition.notify_all()
