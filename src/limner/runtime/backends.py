"""Inference engines behind one small interface. Precision and threads are explicit, never left to the engine.

An engine opens one ONNX file; for a fixed input size it gives a session, a callable from (1, H, W, C) to
(1, H*s, W*s, C), C = 3 or 4. Engines and sessions hold no state of a call: any number of threads may use them at once.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from limner.errors import LimnerError, UsageError, one_of

CACHED_SHAPES = 8

Session = Callable[[NDArray[Any]], NDArray[Any]]


class Engine(Protocol):
    """An open graph. `name`: the key of BACKENDS that computes. `threads`: how many all its sessions share."""

    name: str
    threads: int

    def session(self, height: int, width: int, streams: int = 1) -> Session:
        """A callable for inputs of exactly (1, height, width, C), contiguous, of the graph's dtype.

        `streams` calls run side by side on threads/streams threads each. The result belongs to the caller.
        Raises LimnerError when the graph cannot be compiled or run.
        """
        ...


class OpenVINOEngine:
    """OpenVINO on the CPU, in float32 arithmetic where the graph is not quantized.

    Every size is compiled by itself (about 0.1 s, kept for the last CACHED_SHAPES sizes): on graphs of dynamic size
    OpenVINO runs 1.2 to 2 times slower.
    """

    name = "openvino"

    def __init__(self, path: Path, threads: int) -> None:
        self.path, self.threads = path, threads
        self._core = openvino_core()
        with explained(path, "OpenVINO cannot read the graph"):
            self._model = self._core.read_model(path)
        self._sessions: OrderedDict[tuple[int, int, int], _OpenVINOSession] = OrderedDict()
        self._lock = threading.Lock()

    def session(self, height: int, width: int, streams: int = 1) -> Session:
        key = (height, width, streams)
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = self._compile(height, width, streams)
            self._sessions.move_to_end(key)
            while len(self._sessions) > CACHED_SHAPES:
                self._sessions.popitem(last=False)
            return self._sessions[key]

    def _compile(self, height: int, width: int, streams: int) -> _OpenVINOSession:
        options = openvino_options(max(self.threads, streams), streams)
        with explained(self.path, f"OpenVINO cannot compile the graph for {width} x {height} input"):
            model = self._model.clone()
            channels = model.input(0).get_partial_shape()[3]
            model.reshape([1, height, width, channels.get_length() if channels.is_static else 3])
            return _OpenVINOSession(self.path, self._core.compile_model(model, "CPU", options))


class _OpenVINOSession:
    """One infer request for every call in flight; idle ones are kept for the next call."""

    def __init__(self, path: Path, compiled: Any) -> None:
        self._path, self._compiled = path, compiled
        self._idle: deque[Any] = deque()

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        with explained(self._path, "OpenVINO cannot run the graph"):
            result = request.infer({0: x}, share_inputs=True, share_outputs=False)[0]
        self._idle.append(request)
        return result


class OnnxRuntimeEngine:
    """ONNX Runtime's CPU provider. One session serves every size, so pictures of many sizes start at once."""

    name = "onnxruntime"

    def __init__(self, path: Path, threads: int) -> None:
        self.path, self.threads = path, threads
        self._runtime = package("onnxruntime")
        self._lock = threading.Lock()
        self._open: dict[int, Any] = {}
        self._inference(threads)

    def session(self, height: int, width: int, streams: int = 1) -> Session:
        inference = self._inference(max(1, self.threads // streams))

        def run(x: NDArray[Any]) -> NDArray[Any]:
            assert x.shape[:3] == (1, height, width), x.shape
            with explained(self.path, "ONNX Runtime cannot run the graph"):
                return inference.run(None, {"x": x})[0]

        return run

    def _inference(self, threads: int) -> Any:
        with self._lock:
            if threads not in self._open:
                self._open[threads] = self._load(threads)
            return self._open[threads]

    def _load(self, threads: int) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # Spinning workers take the cores from decoding, encoding and other sessions.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with explained(self.path, "ONNX Runtime cannot open the graph"):
            return self._runtime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])


def _open_fused(path: Path, threads: int) -> Engine:
    from limner.runtime.fused.engine import open_fused  # that module imports this one

    return open_fused(path, threads)


BACKENDS: dict[str, Callable[[Path, int], Engine]] = {
    "openvino": OpenVINOEngine,
    "onnxruntime": OnnxRuntimeEngine,
    "fused": _open_fused,
}

AUTO = "auto"  # the fastest engine that runs the graph here: fused where it can, else OpenVINO


def _open_auto(path: Path, threads: int) -> Engine:
    from limner.runtime.fused.engine import FusedEngine
    from limner.runtime.fused.plan import Unsupported

    try:
        return FusedEngine(path, threads)
    except Unsupported:
        return OpenVINOEngine(path, threads)


def open_engine(name: str, graph: Path, threads: int = 0) -> Engine:
    """Open an ONNX file. `name`: a key of BACKENDS or "auto". `threads`: CPU threads, 0 for all this process may use.

    Raises UsageError for an unknown engine or negative threads, LimnerError when the engine is not installed or
    cannot read the graph.
    """
    if name not in (AUTO, *BACKENDS):
        raise one_of("engine", name, (AUTO, *BACKENDS))
    if threads < 0:
        raise UsageError(f"threads={threads} is impossible: give a number of CPU threads, or 0 for all cores.")
    return (_open_auto if name == AUTO else BACKENDS[name])(graph, threads or cores())


def cores() -> int:
    """CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def package(name: str) -> Any:
    """An engine's Python package. Raises LimnerError with what to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        others = " or ".join(engine for engine in BACKENDS if engine != name)
        reason = f"engine {name!r} cannot be loaded ({error})"
        raise LimnerError(f"{reason}: run `pip install {name}` or choose engine {others}.") from None


def openvino_core() -> Any:
    """The process's only openvino.Core: each one loads the CPU plugin anew. Raises LimnerError without the package."""
    with _OPENING:
        return _core()


_OPENING = threading.Lock()


@cache
def _core() -> Any:
    # Without this package, which comes with it, OpenVINO does not report to its makers that it was imported. The report
    # forks a process that would have to reach the network.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    openvino = package("openvino")
    # The bindings (2026.4) fill their tables of types when the first tensor is made. Two threads that do so at once
    # wait for each other for ever, one for the table, one for Python's lock.
    openvino.Type.f32.to_dtype()
    openvino.Tensor(np.zeros(1, np.float32)).data.dtype  # noqa: B018
    return openvino.Core()


def openvino_options(threads: int, streams: int = 1) -> dict[str, Any]:
    """How every graph is compiled for the CPU: float32 and thread counts explicit."""
    return {
        # Left to itself OpenVINO computes in bfloat16 on some CPUs.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        # Pinned threads of two graphs, or of two processes, would queue for the same core.
        "ENABLE_CPU_PINNING": False,
    }


@contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turn whatever an engine raises over the graph at `path` into a LimnerError that begins with `what`."""
    # Neither engine has a base class for its errors; all of them are faults of the graph or of its input.
    try:
        yield
    except MemoryError:
        raise LimnerError(f"{path}: {what}: out of memory; use smaller tiles or fewer threads.") from None
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise LimnerError(f"{path}: {what} ({reason:.200}); try the other engine or pack the bundle again.") from error
