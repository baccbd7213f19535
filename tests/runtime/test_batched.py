"""Cuts of batches, and runs that must not wait for the compiler."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painter_kit import make_painter

from limner import bundle
from limner.runtime import batched
from limner.runtime.batched import Feeds, Network, OpenVINOGraph, Outputs, Run
from limner.runtime.generate import Painter, Request

Key = tuple[int, bool]


class Doubling:
    """A graph that doubles x, and notes what it was asked to compile and in which pieces it ran."""

    def __init__(self, path: Path, threads: int) -> None:
        self.done: set[Key] = set()
        self.ran: list[Key] = []

    def session(self, batch: int, alone: bool, outputs: Outputs) -> Run:
        self.done.add((batch, alone))

        def run(feeds: Feeds) -> list[Any]:
            assert len(feeds["x"]) == batch
            self.ran.append((batch, alone))
            return [2 * feeds["x"]]

        return run

    def compile(self, batch: int, alone: bool, outputs: Outputs) -> None:
        self.done.add((batch, alone))

    def compiled(self, batch: int, alone: bool, outputs: Outputs) -> bool:
        return (batch, alone) in self.done


@pytest.fixture
def doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(batched.GRAPHS, "doubling", Doubling)


def run(network: Network, count: int) -> list[Key]:
    """Sizes of the pieces that ran, and on all threads or one."""
    graph: Any = network._graph
    graph.ran.clear()
    items = np.arange(count, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(network.run({"x": items}, ("y",))[0], 2 * items)
    return sorted(graph.ran)


@pytest.mark.usefixtures("doubling")
@pytest.mark.parametrize(
    ("compiled", "count", "expected"),
    [
        ([1], 4, [(1, True)] * 4),
        ([1, 2], 4, [(1, False)] * 4),
        ([1, 2, 8], 4, [(4, False)]),
        ([1, 2, 4], 4, [(2, False)] * 2),
        ([1, 4], 7, [(2, False)] * 4),
        ([], 4, [(2, False)] * 2),
        ([1, 2, 4, 8, 16], 32, [(8, False)] * 4),
    ],
)
def test_without_patience_batches_are_cut_into_what_is_compiled(
    compiled: list[int], count: int, expected: list[Key]
) -> None:
    network = Network("doubling", Path("graph"), threads=2)
    for each in compiled:
        network.compile(each, ("y",))
    network.patient = False
    assert run(network, count) == expected


@pytest.mark.usefixtures("doubling")
@pytest.mark.parametrize(("threads", "expected"), [(1, [(1, True), (2, True)]), (2, [(1, False), (2, False)])])
def test_one_thread_runs_piece_after_piece(threads: int, expected: list[Key]) -> None:
    assert run(Network("doubling", Path("graph"), threads), 3) == expected


def test_a_run_does_not_wait_for_a_compilation_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painter = Painter(bundle.read(make_painter(tmp_path / "kit"), bundle.PainterManifest), "openvino", "int8", 2)
    painter.warm((1,), levels=True)
    painter.make_do()
    compiling, finish, make = threading.Event(), threading.Event(), OpenVINOGraph._network

    def slow(self: OpenVINOGraph, *args: Any) -> Run:
        with self._lock:
            compiling.set()
            assert finish.wait(60)
            return make(self, *args)

    monkeypatch.setattr(OpenVINOGraph, "_network", slow)
    thread = threading.Thread(target=painter.warm, args=((8,),), kwargs={"levels": True})
    thread.start()
    assert compiling.wait(60)
    prepared = [painter.prepare(Request("a red cat", seed)) for seed in range(4)]
    meanwhile = painter.run_levels(prepared)[-1]
    assert not finish.is_set()
    finish.set()
    thread.join()
    np.testing.assert_array_equal(painter.run_levels(prepared)[-1], meanwhile)
