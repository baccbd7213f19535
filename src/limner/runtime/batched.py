"""Networks with several inputs, run on any number of items at once. What an item becomes does not depend on the others.

A batch is cut into pieces whose sizes are powers of two, one thread to a piece; a lone piece takes all threads.
Measured with separable painters: the work per picture falls by a third to a half from pieces of 1 to pieces of 8, and
hardly beyond.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from limner.errors import UsageError, one_of
from limner.runtime.backends import cores, explained, openvino_core, openvino_options, package

LARGEST_PIECE = 8

Feeds = Mapping[str, NDArray[np.float32]]
Outputs = tuple[str, ...]
Run = Callable[[Feeds], list[NDArray[Any]]]


class Graph(Protocol):
    """An open ONNX file with named inputs and outputs whose first axis counts items."""

    def session(self, batch: int, alone: bool, outputs: Outputs) -> Run:
        """A callable for exactly `batch` items, any number of threads at once.

        `alone`: every call takes all threads of the graph; else one, and calls run side by side. The results belong to
        the caller. Raises LimnerError when the graph cannot be compiled or run.
        """
        ...

    def compile(self, batch: int, alone: bool, outputs: Outputs) -> None:
        """All that such sessions will ever need, now. Raises as `session`."""
        ...

    def compiled(self, batch: int, alone: bool, outputs: Outputs) -> bool:
        """Whether `compile` has nothing to do."""
        ...


class OpenVINOGraph:
    """OpenVINO on the CPU. Every combination of batch, threads and outputs is compiled when it is first needed."""

    def __init__(self, path: Path, threads: int) -> None:
        self.path, self.threads = path, threads
        with explained(path, "OpenVINO cannot read the graph"):
            self._model = openvino_core().read_model(path)
        self._sessions: dict[tuple[int, bool, Outputs], Run] = {}
        self._lock = threading.RLock()

    def session(self, batch: int, alone: bool, outputs: Outputs) -> Run:
        key = (batch, alone, outputs)
        # No lock for what is there: another thread may hold it for as long as the compiler takes.
        return self._sessions.get(key) or self._made(key)

    def compile(self, batch: int, alone: bool, outputs: Outputs) -> None:
        session = self.session(batch, alone, outputs)
        if isinstance(session, _Crew):
            session.fill(self.threads)

    def compiled(self, batch: int, alone: bool, outputs: Outputs) -> bool:
        session = self._sessions.get((batch, alone, outputs))
        return session is not None and (not isinstance(session, _Crew) or session.members >= self.threads)

    def _made(self, key: tuple[int, bool, Outputs]) -> Run:
        batch, alone, outputs = key
        with self._lock:
            if key not in self._sessions:
                make = partial(self._network, batch, self.threads if alone else 1, outputs)
                self._sessions[key] = make() if alone else _Crew(make)
            return self._sessions[key]

    def _network(self, batch: int, threads: int, outputs: Outputs) -> Run:
        from openvino import Model

        with self._lock, explained(self.path, f"OpenVINO cannot compile the graph for a batch of {batch}"):
            source = self._model.clone()
            # Outputs that nobody wants would keep the branches that lead to them alive.
            make: Any = Model
            model = make([source.output(name) for name in outputs], source.get_parameters())
            model.reshape({each.any_name: [batch, *list(each.get_partial_shape())[1:]] for each in model.inputs})
            return _Requests(self.path, openvino_core().compile_model(model, "CPU", openvino_options(threads)), outputs)


class _Crew:
    """As many compilations on one thread each as calls are in flight.

    One compilation with that many streams would do, but OpenVINO 2026.4 now and then compiles an integer graph with
    attention wrongly for some stream: 5 of 78 compilations for two streams painted another picture, none for one.
    """

    def __init__(self, make: Callable[[], Run]) -> None:
        self._make, self._idle, self.members = make, deque[Run](), 0
        self._growing = threading.Lock()

    def fill(self, members: int) -> None:
        """Compile until there are so many."""
        with self._growing:
            while self.members < members:
                self._idle.append(self._make())
                self.members += 1

    def __call__(self, feeds: Feeds) -> list[NDArray[Any]]:
        try:
            run = self._idle.pop()
        except IndexError:
            with self._growing:
                run = self._make()
                self.members += 1
        result = run(feeds)
        self._idle.append(run)
        return result


class _Requests:
    """One infer request for every call in flight; idle ones are kept for the next call."""

    def __init__(self, path: Path, compiled: Any, outputs: Outputs) -> None:
        self._path, self._compiled, self._outputs = path, compiled, outputs
        self._idle: deque[Any] = deque()

    def __call__(self, feeds: Feeds) -> list[NDArray[Any]]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        with explained(self._path, "OpenVINO cannot run the graph"):
            request.infer(dict(feeds), share_inputs=True, share_outputs=True)
            results = [request.get_tensor(name).data.copy() for name in self._outputs]
        self._idle.append(request)
        return results


class OnnxRuntimeGraph:
    """ONNX Runtime's CPU provider. One session serves every batch."""

    def __init__(self, path: Path, threads: int) -> None:
        self.path, self.threads = path, threads
        self._runtime = package("onnxruntime")
        self._open: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._inference(threads)

    def session(self, batch: int, alone: bool, outputs: Outputs) -> Run:
        inference = self._inference(self.threads if alone else 1)

        def run(feeds: Feeds) -> list[NDArray[Any]]:
            with explained(self.path, "ONNX Runtime cannot run the graph"):
                return inference.run(list(outputs), dict(feeds))

        return run

    def compile(self, batch: int, alone: bool, outputs: Outputs) -> None:
        self._inference(self.threads if alone else 1)

    def compiled(self, batch: int, alone: bool, outputs: Outputs) -> bool:
        return (self.threads if alone else 1) in self._open

    def _inference(self, threads: int) -> Any:
        with self._lock:
            if threads not in self._open:
                options = self._runtime.SessionOptions()
                options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
                options.log_severity_level = 3
                options.add_session_config_entry("session.intra_op.allow_spinning", "0")
                with explained(self.path, "ONNX Runtime cannot open the graph"):
                    session = self._runtime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
                self._open[threads] = session
            return self._open[threads]


GRAPHS: dict[str, Callable[[Path, int], Graph]] = {"openvino": OpenVINOGraph, "onnxruntime": OnnxRuntimeGraph}


def pieces(count: int, threads: int) -> list[int]:
    """Sizes, powers of two up to LARGEST_PIECE, that cover `count` items; all but the last are full and equal.

    With as many pieces as threads, or more, wherever there are items enough.
    """
    share = min(-(-count // threads), LARGEST_PIECE)
    size = 1 << (share.bit_length() - 1)
    full, rest = divmod(count, size)
    return [size] * full + ([1 << (rest - 1).bit_length()] if rest else [])


_OTHER_CUTS = [(size, alone) for size in (8, 4, 2, 1) for alone in (False, True)]


class Network:
    """An open graph and its threads; any number of callers may run it at once.

    `engine`: a key of GRAPHS. `threads`: CPU threads, 0 for all cores. `patient`: whether `run` may wait for the
    compiler; if not, it cuts batches into pieces that are compiled already, while there are any.

    Raises UsageError for an unknown engine or negative threads, LimnerError when the engine is not installed or cannot
    read the graph.
    """

    def __init__(self, engine: str, path: Path, threads: int) -> None:
        if engine not in GRAPHS:
            raise one_of("engine", engine, tuple(GRAPHS))
        if threads < 0:
            raise UsageError(f"threads={threads} is impossible: give a number of CPU threads, or 0 for all cores.")
        self.threads = threads or cores()
        self.patient = True
        self._graph = GRAPHS[engine](path, self.threads)
        self._pool = ThreadPoolExecutor(self.threads, "limner-paint")

    def run(self, feeds: Feeds, outputs: Outputs) -> list[NDArray[Any]]:
        """The outputs for N >= 1 items; every feed is (N, ...), contiguous float32."""
        count = len(next(iter(feeds.values())))
        sizes, alone = self._cut(count, outputs)
        spans = list(zip(range(0, len(sizes) * sizes[0], sizes[0]), sizes, strict=True))

        def piece(span: tuple[int, int]) -> list[NDArray[Any]]:
            return self._piece(feeds, *span, alone=alone, outputs=outputs)

        parts = list(map(piece, spans) if alone else self._pool.map(piece, spans))
        return [
            part[0][:count] if len(part) == 1 else np.concatenate(part)[:count] for part in zip(*parts, strict=True)
        ]

    def compile(self, count: int, outputs: Outputs) -> None:
        """What `run` needs for `count` items. Raises as `run`."""
        sizes, alone = self._usual(count)
        for size in set(sizes):
            self._graph.compile(size, alone, outputs)

    def compiled(self, count: int, outputs: Outputs) -> bool:
        """Whether `compile` has nothing to do."""
        sizes, alone = self._usual(count)
        return all(self._graph.compiled(size, alone, outputs) for size in set(sizes))

    def _usual(self, count: int) -> tuple[list[int], bool]:
        """Sizes of pieces, and whether they run one after the other on all threads."""
        sizes = pieces(count, self.threads)
        return sizes, len(sizes) == 1 or self.threads == 1

    def _cut(self, count: int, outputs: Outputs) -> tuple[list[int], bool]:
        sizes, alone = self._usual(count)
        if self.patient or self.compiled(count, outputs):
            return sizes, alone
        for size, in_turn in _OTHER_CUTS:
            if size <= count and self._graph.compiled(size, in_turn, outputs):
                return [size] * -(-count // size), in_turn
        return sizes, alone

    def _piece(self, feeds: Feeds, start: int, size: int, *, alone: bool, outputs: Outputs) -> list[NDArray[Any]]:
        session = self._graph.session(size, alone, outputs)
        return session({name: _filled(feed[start : start + size], size) for name, feed in feeds.items()})


def _filled(feed: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Padded with its last item to `size` items."""
    missing = size - len(feed)
    return feed if not missing else np.concatenate([feed, np.repeat(feed[-1:], missing, 0)])
