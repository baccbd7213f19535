"""Small work goes first, tiles take turns, and none starves."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from limner.server import turns
from limner.server.turns import Turns


def test_tiles_share_the_slots() -> None:
    shared, running, most = Turns(2), [0], [0]
    lock = threading.Lock()

    def tile(_: int) -> None:
        with shared.tile():
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            time.sleep(0.005)
            with lock:
                running[0] -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(tile, range(12)))
    assert most[0] == 2


def test_a_tile_steps_back_for_small_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "FIRST_TILE_S", 10)
    shared, entered = Turns(1), threading.Event()

    def tile() -> None:
        with shared.tile():
            entered.set()

    thread = threading.Thread(target=tile)
    with shared.small():
        thread.start()
        assert not entered.wait(0.1)
    assert entered.wait(5)
    thread.join()


def test_a_tile_waits_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "FIRST_TILE_S", 0.02)
    shared = Turns(1)
    start = time.monotonic()
    with shared.small(), shared.tile():
        waited = time.monotonic() - start
    assert turns.PATIENCE * 0.02 <= waited < 5


def test_an_error_gives_the_slot_back() -> None:
    shared = Turns(1)
    with pytest.raises(KeyError), shared.tile():
        raise KeyError
    with shared.tile():
        pass
