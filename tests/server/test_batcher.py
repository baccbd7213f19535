"""Merging: who leads, who waits, and whose error is whose."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from limner.server.batcher import Batcher


class Number:
    """An item whose result is its square."""

    def __init__(self, value: int) -> None:
        self.value, self.wanted, self.future = value, True, Future[int]()

    def give(self, result: int) -> None:
        self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        self.future.set_exception(error)


class Squares:
    """`batches`: what ran together. Negative numbers fail; 0 holds the run up until `free` is set."""

    def __init__(self, largest: int = 4, wait_s: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.free = threading.Event()
        self.batcher = Batcher[Number, int](self.run, largest, wait_s)

    def run(self, items: Sequence[Number]) -> list[int]:
        values = [item.value for item in items]
        self.batches.append(values)
        if 0 in values:
            assert self.free.wait(10)
        if min(values) < 0:
            raise ValueError(f"negative: {values}")
        return [value**2 for value in values]

    def put(self, *values: int) -> list[Number]:
        items = [Number(value) for value in values]
        if self.batcher.add(items):
            self.batcher.lead()
        return items


def test_a_lone_item_runs_at_once_in_the_callers_thread() -> None:
    squares = Squares(wait_s=10)
    start = time.monotonic()
    (item,) = squares.put(3)
    assert item.future.done() and item.future.result() == 9
    assert time.monotonic() - start < 5


def test_items_merge_while_a_batch_runs_up_to_the_largest() -> None:
    squares = Squares(largest=4)
    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(squares.put, 0)
        while not squares.batches:
            time.sleep(0.001)
        followers = squares.put(1, 2, 3) + squares.put(4, 5)
        assert not any(item.future.done() for item in followers)
        squares.free.set()
        leading.result(10)
    assert squares.batches == [[0], [1, 2, 3, 4], [5]]
    assert [item.future.result(1) for item in followers] == [1, 4, 9, 16, 25]


def test_a_batch_waits_for_what_is_announced_but_not_for_ever() -> None:
    squares = Squares(wait_s=5)
    squares.batcher.announce(1)
    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(squares.put, 1)
        time.sleep(0.05)
        assert not squares.batches
        squares.put(2)
        squares.batcher.arrive(1)
        leading.result(4)
    assert squares.batches == [[1, 2]]
    hasty = Squares(wait_s=0.02)
    hasty.batcher.announce(1)
    hasty.put(3)
    assert hasty.batches == [[3]]


def test_a_failed_batch_runs_again_one_by_one() -> None:
    squares = Squares()
    good, bad, other = squares.put(1, -2, 3)
    assert (good.future.result(), other.future.result()) == (1, 9)
    with pytest.raises(ValueError, match="-2"):
        bad.future.result()
    assert squares.batches == [[1, -2, 3], [1], [-2], [3]]


def test_what_nobody_wants_is_dropped() -> None:
    squares = Squares()
    items = [Number(1), Number(2)]
    items[0].wanted = False
    assert squares.batcher.add(items)
    squares.batcher.lead()
    assert squares.batches == [[2]] and not items[0].future.done()
    assert squares.put(5)[0].future.result() == 25


def test_many_threads_lose_and_repeat_nothing() -> None:
    squares = Squares(largest=8, wait_s=0.001)

    def one(value: int) -> int:
        with squares.batcher.coming(1):
            item = Number(value)
            must_lead = squares.batcher.add([item])
        if must_lead:
            squares.batcher.lead()
        return item.future.result(10)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(1, 401))) == [value**2 for value in range(1, 401)]
    assert sorted(value for batch in squares.batches for value in batch) == list(range(1, 401))
    assert max(map(len, squares.batches)) <= 8


def test_a_leader_lets_others_go_first() -> None:
    """What is deferred is led once, later, with all that came meanwhile; and again after a full batch."""
    squares, later = Squares(), deque[Callable[[], None]]()
    busy = [True]

    def defer(lead: Callable[[], None]) -> bool:
        if busy[0]:
            later.append(lead)
        return busy[0]

    squares.batcher = Batcher[Number, int](squares.run, 4, 0.0, defer=defer)
    items = [*squares.put(1), *squares.put(2, 3), *squares.put(4, 5, 6)]
    assert not squares.batches and len(later) == 1
    later.popleft()()
    assert squares.batches == [[1, 2, 3, 4]] and len(later) == 1
    busy[0] = False
    later.popleft()()
    assert squares.batches == [[1, 2, 3, 4], [5, 6]] and not later
    assert [item.future.result() for item in items] == [1, 4, 9, 16, 25, 36]
