"""What the runtime opens as `fused`: a graph on our own kernels, or the default engine where they cannot run it."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from limner.errors import LimnerError
from limner.runtime.backends import BACKENDS, Engine, OpenVINOEngine, Session
from limner.runtime.fused import compiler, native
from limner.runtime.fused.plan import Unsupported

log = logging.getLogger(__name__)


class FusedEngine:
    """A graph on the fused kernels. Every size runs at once, without compiling; results do not depend on `threads`.

    Raises Unsupported when the extension is not built, the processor lacks what it needs, or the graph holds what the
    kernels do not run.
    """

    name = "fused"

    def __init__(self, path: Path, threads: int) -> None:
        self.path, self.threads = path, threads
        self.plan = compiler.load(path)
        if self.plan.modulations:
            raise Unsupported("a second input, for FiLM, which only its own interface takes")
        self.network = native.Network(self.plan)

    def session(self, height: int, width: int, streams: int = 1) -> Session:
        """A callable for (1, height, width, colours) uint8. Raises LimnerError for sides that the graph cannot take."""
        multiple, threads = self.plan.unshuffle, max(1, self.threads // streams)
        if height % multiple or width % multiple:
            raise LimnerError(f"{self.path}: takes sides that are multiples of {multiple}, not {width} x {height}.")

        def run(x: NDArray[Any]) -> NDArray[Any]:
            assert x.shape == (1, height, width, self.plan.colours) and x.dtype == np.uint8, (x.shape, x.dtype)
            return self.network.run(x[0], threads)[None]

        return run


def open_fused(path: Path, threads: int) -> Engine:
    """The fused engine, or with a line in the log the default one."""
    try:
        return FusedEngine(path, threads)
    except Unsupported as reason:
        log.warning("%s: the fused engine cannot run it (%s); OpenVINO does.", path, reason)
        return OpenVINOEngine(path, threads)


def refusal(path: Path) -> str:
    """Why the fused engine cannot run a graph, in a few words; "" where it can."""
    try:
        FusedEngine(path, 1)
    except Unsupported as reason:
        return str(reason)
    return ""


class State(NamedTuple):
    """Whether an engine can be used here; `detail`: its version, or why not and what to do."""

    engine: str
    ready: bool
    detail: str


def states() -> list[State]:
    """Of every engine in BACKENDS, without loading any but the fused extension."""
    return [_fused_state() if name == "fused" else _package_state(name) for name in BACKENDS]


def _package_state(name: str) -> State:
    try:
        return State(name, True, version(name))
    except PackageNotFoundError:
        return State(name, False, f"not installed: run `pip install {name}`")


def _fused_state() -> State:
    if reason := native.unavailable():
        return State("fused", False, reason)
    sets = [f"{isa} {'yes' if usable else 'no'}" for isa, usable in native.isas().items()]
    return State("fused", True, f"runs {native.chosen()} (here: {', '.join(sets)})")
