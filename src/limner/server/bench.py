"""What a server costs over the bare runtime, and whether it loses anything: `limner bench --server`.

Bare is the same work without a server: judge and encode a prompt, paint, finish, write a PNG; one by one, or in batches
with a thread for every core around the network. Server and bare take turns in one run, so that the machine's mood
cancels out; every prompt is new, so that no cache helps. The load comes from this process, over loopback.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from statistics import median
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from limner import bundle, images
from limner.errors import LimnerError, UsageError
from limner.runtime.backends import cores
from limner.runtime.generate import Painter, Request
from limner.server.painting import Prepared

LOCAL = "local"
READY_S = 120
BATCH = 32
IDLE_ROUNDS = 10
IDLE_REQUESTS = 20  # a round
ROUNDS = 4
ROUND_S = 2.0
OVERLOAD = 2.0
CONNECTIONS = 600  # of an overload; more than a server's queue holds
TICK_S = 0.01
COLOURS = ("red", "blue", "green", "yellow", "purple", "white", "black", "golden")
THINGS = ("apple", "house", "tree", "dog", "sword", "potion", "cloud", "ship", "fish", "crown")

WARM = b'"warm":true'
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)

_numbers = count(1)
T = TypeVar("T")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Idle(_Frozen):
    """p50 of one request after the other, ms; `added_ms`: median over the rounds of the difference."""

    bare_ms: float
    server_ms: float
    added_ms: float


class Load(_Frozen):
    """Pictures a second; `share`: median over the rounds of server / bare."""

    clients: int
    bare_per_s: float
    server_per_s: float
    share: float


class Soak(_Frozen):
    """`lost`: requests without any answer; `wrong`: answers to another request, or more than one. Memory in MiB."""

    seconds: float
    asked_per_s: float
    painted_per_s: float
    statuses: dict[str, int]
    lost: int
    wrong: int
    memory_first: float
    memory_last: float


class Stop(_Frozen):
    """SIGTERM under load: `answered` after the signal, `lost`: sent on an open connection and never answered."""

    answered: int
    lost: int
    exit_code: int
    seconds: float


class ServerReport(_Frozen):
    """What was measured; None for what was not asked for or cannot be (a server elsewhere)."""

    model: str
    url: str
    idle: Idle | None = None
    load: Load | None = None
    soak: Soak | None = None
    stop: Stop | None = None
    cold_start_s: float | None = None


def bench(
    where: str,
    model: str,
    *,
    clients: int = 64,
    soak: float = 0.0,
    threads: int = 0,
    progress: Callable[[str], None] = lambda step: None,
) -> ServerReport:
    """Measure a server. `where`: "local" starts one, else the URL of one that runs. `model`: a painter, which must be
    here too. `soak`: seconds at twice the capacity, 0 for none. `threads`: CPU threads of both, 0 for all cores.

    Raises UsageError for a URL that is none, LimnerError for a server that does not get ready.
    """
    painter = Painter(bundle.read(model, bundle.PainterManifest), "auto", "int8", threads)
    if where != LOCAL:
        return _run(_measured(_Target(where, painter.manifest.name), painter, clients, soak, progress))
    with _started(model, threads) as local:
        target = _Target(local.url, painter.manifest.name)
        report = _run(_measured(target, painter, clients, soak, progress))
        progress("SIGTERM under load")
        stop = _run(_stopped(target, local.process, clients))
    return report.model_copy(update={"stop": stop, "cold_start_s": local.seconds})


def _run(work: Coroutine[Any, Any, T]) -> T:
    """On the loop that the server has too, so that the load costs as little as it can."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


# ------------------------------------------------------------------------------------------------------------- server


@dataclass(frozen=True)
class _Local:
    process: subprocess.Popen[str]
    url: str
    seconds: float


@contextmanager
def _started(model: str, threads: int) -> Iterator[_Local]:
    """`limner serve` in a process of its own, ready. `seconds`: from the start of the process until then."""
    words = [sys.executable, "-m", "limner.cli", "serve", model, "--port", "0", "--threads", str(threads)]
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise LimnerError(f"limner serve {model} ended with code {process.wait()}; run it to see why.")
        _run(_until_ready(_Target(url, "")))
        yield _Local(process, url, time.perf_counter() - start)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


async def _until_ready(target: _Target, state: bytes = b"") -> None:
    """Until /readyz says so, and its body holds `state`."""
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        with suppress(OSError, asyncio.IncompleteReadError):
            async with target.connection() as each:
                status, body = await each.ask(target.get("/readyz"))
                if status == 200 and state in body:
                    return
        await asyncio.sleep(TICK_S)
    raise LimnerError(f"{target.url}: not ready within {READY_S} s; look at its /readyz.")


@dataclass(frozen=True)
class _Target:
    """A server and the model to ask it for."""

    url: str
    model: str

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname:
            raise UsageError(f"--server {self.url!r}: give 'local', or a URL such as http://127.0.0.1:8000.")
        return parts.hostname, parts.port or 80

    def get(self, path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nhost: {self.address[0]}\r\n\r\n".encode()

    def paint(self, prompt: str, seed: int) -> bytes:
        body = json.dumps({"model": self.model, "prompt": prompt, "seed": seed})
        head = f"POST /v1/images/generations HTTP/1.1\r\nhost: {self.address[0]}\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[_Connection]:
        reader, writer = await asyncio.open_connection(*self.address, limit=2**24)
        try:
            yield _Connection(reader, writer)
        finally:
            writer.close()


@dataclass
class _Connection:
    """HTTP in its simplest form: a client library would cost more than the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    open: bool = True

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """(status, body). Raises OSError or IncompleteReadError when no answer comes."""
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length = LENGTH.search(head)
        self.open = b"connection: close" not in head
        body = await self.reader.readexactly(int(length[1]) if length else 0)
        return int(head.split(None, 2)[1]), body


# --------------------------------------------------------------------------------------------------------------- work


def _prompt() -> tuple[str, int]:
    """A prompt that was never asked for, of seven words, and a seed as new."""
    number = next(_numbers)
    colour, thing = COLOURS[number % len(COLOURS)], THINGS[number // len(COLOURS) % len(THINGS)]
    return f"a {colour} {thing} number {number}, flat style", number


@dataclass(frozen=True)
class _Bare:
    """The runtime without a server."""

    painter: Painter
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(cores()))

    def one(self) -> None:
        request = Request(*_prompt())
        prepared = self._prepared(request)
        self._file(request, prepared, self.painter.run_network([prepared])[0])

    def batch(self) -> None:
        requests = [Request(*_prompt()) for _ in range(BATCH)]
        prepared = list(self.pool.map(self._prepared, requests))
        list(self.pool.map(self._file, requests, prepared, self.painter.run_network(prepared)))

    def _prepared(self, request: Request) -> Prepared:
        prepared = self.painter.prepare(request)
        self.painter.verdict(request.prompt)
        return prepared

    def _file(self, request: Request, prepared: Prepared, raw: Any) -> bytes:
        return images.encode(self.painter.picture(request, self.painter.finish(raw, prepared.size)), "png")


# ----------------------------------------------------------------------------------------------------------- measuring


async def _measured(
    target: _Target, painter: Painter, clients: int, soak: float, progress: Callable[[str], None]
) -> ServerReport:
    await _until_ready(target, WARM)  # while it still compiles it is not idle
    bare = _Bare(painter)
    painter.warm((1, BATCH))
    progress("one request after the other")
    idle = _idle(target, bare)
    progress(f"{clients} clients")
    load = await _load(target, bare, clients)
    tired = None
    if soak:
        progress(f"{soak:g} s at twice the capacity")
        tired = await _soak(target, soak, OVERLOAD * load.server_per_s)
    return ServerReport(model=target.model, url=target.url, idle=idle, load=load, soak=tired)


def _idle(target: _Target, bare: _Bare) -> Idle:
    pairs: list[tuple[float, float]] = []
    with socket.create_connection(target.address) as connection:
        for _ in range(IDLE_ROUNDS):
            own, served = [], []
            for _ in range(IDLE_REQUESTS + 2):
                start = time.perf_counter()
                bare.one()
                own.append(time.perf_counter() - start)
                start = time.perf_counter()
                status, body = _asked(connection, target.paint(*_prompt()))
                served.append(time.perf_counter() - start)
                _check(status, body)
            pairs.append((1e3 * median(own[2:]), 1e3 * median(served[2:])))
    bares, servers = zip(*pairs, strict=True)
    added = median(served - own for own, served in pairs)
    return Idle(bare_ms=median(bares), server_ms=median(servers), added_ms=added)


def _asked(connection: socket.socket, request: bytes) -> tuple[int, bytes]:
    """(status, body) by the shortest way: what a client library takes is not the server's."""
    connection.sendall(request)
    answer = b""
    while (length := _length(answer)) is None or len(answer) < length:
        part = connection.recv(2**16)
        if not part:
            raise LimnerError("the server closed the connection within an answer; nothing is measured.")
        answer += part
    return int(answer.split(None, 2)[1]), answer.partition(b"\r\n\r\n")[2]


def _length(answer: bytes) -> int | None:
    """Bytes of a whole answer; None until its headers are there."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return None
    found = LENGTH.search(answer[:end])
    return end + 4 + (int(found[1]) if found else 0)


def _check(status: int, body: bytes) -> None:
    if status != 200:
        raise LimnerError(
            f"the server answered {status} ({body[:200].decode('utf-8', 'replace')}); nothing is measured."
        )


async def _load(target: _Target, bare: _Bare, clients: int) -> Load:
    await _served(target, clients, ROUND_S)  # compiles what batches need
    bare.batch()
    pairs = []
    for _ in range(ROUNDS):
        pairs.append((_per_second(bare), await _served(target, clients, ROUND_S)))
    bares, servers = zip(*pairs, strict=True)
    share = median(served / own for own, served in pairs)
    return Load(clients=clients, bare_per_s=median(bares), server_per_s=median(servers), share=share)


def _per_second(bare: _Bare) -> float:
    start, batches = time.perf_counter(), 0
    while (seconds := time.perf_counter() - start) < ROUND_S:
        bare.batch()
        batches += 1
    return batches * BATCH / seconds


async def _served(target: _Target, clients: int, seconds: float) -> float:
    """Pictures a second for clients that ask again as soon as they are answered."""
    end = time.perf_counter() + seconds

    async def client() -> int:
        answers = 0
        async with target.connection() as connection:
            while time.perf_counter() < end:
                _check(*await connection.ask(target.paint(*_prompt())))
                answers += 1
        return answers

    start = time.perf_counter()
    total = sum(await asyncio.gather(*(client() for _ in range(clients))))
    return total / (time.perf_counter() - start)


# ----------------------------------------------------------------------------------------------------------- soaking


class _Overload:
    """Requests at a rate of their own, whatever the server makes of them."""

    def __init__(self, target: _Target) -> None:
        self.target = target
        self.idle: deque[tuple[_Connection, Any]] = deque()
        self.statuses: Counter[str] = Counter()
        self.asked = self.lost = self.wrong = self.open = 0

    async def run(self, seconds: float, rate: float) -> None:
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            while (now := time.perf_counter() - start) < seconds:
                while self.asked < rate * now and self.open < CONNECTIONS:
                    self.asked += 1
                    group.create_task(self._one())
                # A machine too slow to ask at this rate asks what it can.
                await asyncio.sleep(TICK_S)
        while self.idle:
            await self._close(self.idle.pop()[1])

    async def _one(self) -> None:
        prompt, seed = _prompt()
        self.open += 1
        try:
            connection, context = await self._connection()
            status, body = await connection.ask(self.target.paint(prompt, seed))
        except (OSError, asyncio.IncompleteReadError):
            self.lost += 1
            return
        finally:
            self.open -= 1
        self.statuses[str(status)] += 1
        if status == 200 and re.findall(rb'"seed":(\d+)', body) != [str(seed).encode()]:
            self.wrong += 1
        if connection.open and not connection.reader.at_eof():
            self.idle.append((connection, context))
        else:
            await self._close(context)

    async def _connection(self) -> tuple[_Connection, Any]:
        while self.idle:
            connection, context = self.idle.pop()
            if not connection.reader.at_eof():
                return connection, context
            await self._close(context)
        context = self.target.connection()
        return await context.__aenter__(), context

    async def _close(self, context: Any) -> None:
        with suppress(OSError):
            await context.__aexit__(None, None, None)


async def _soak(target: _Target, seconds: float, rate: float) -> Soak:
    overload, memory = _Overload(target), list[float]()
    watching = asyncio.create_task(_watch(target, memory))
    start = time.perf_counter()
    await overload.run(seconds, rate)
    lasted = time.perf_counter() - start
    watching.cancel()
    third = max(1, len(memory) // 3)
    return Soak(
        seconds=lasted,
        asked_per_s=overload.asked / lasted,
        painted_per_s=overload.statuses["200"] / lasted,
        statuses=dict(overload.statuses),
        lost=overload.lost,
        wrong=overload.wrong,
        memory_first=median(memory[:third] or [0]),
        memory_last=median(memory[-third:] or [0]),
    )


async def _watch(target: _Target, memory: list[float]) -> None:
    """Resident MiB of the server, once a second."""
    async with target.connection() as connection:
        while connection.open:
            _, page = await connection.ask(target.get("/metrics"))
            found = re.search(rb"^process_resident_memory_bytes (\S+)", page, re.MULTILINE)
            memory.append(float(found[1]) / 2**20 if found else 0.0)
            await asyncio.sleep(1)


# ---------------------------------------------------------------------------------------------------------- stopping


async def _stopped(target: _Target, process: subprocess.Popen[str], clients: int) -> Stop:
    answered = lost = 0
    signalled = asyncio.Event()

    async def client() -> None:
        nonlocal answered, lost
        while True:
            try:
                connection = target.connection()
                each = await connection.__aenter__()
            except OSError:  # nobody listens any more
                return
            try:
                while each.open:
                    await each.ask(target.paint(*_prompt()))
                    answered += signalled.is_set()
            except (OSError, asyncio.IncompleteReadError):
                lost += 1
            finally:
                await connection.__aexit__(None, None, None)

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    await asyncio.sleep(ROUND_S / 2)
    start = time.perf_counter()
    signalled.set()
    os.kill(process.pid, signal.SIGTERM)
    await asyncio.gather(*tasks)
    code = await asyncio.to_thread(process.wait, 60)
    return Stop(answered=answered, lost=lost, exit_code=code, seconds=time.perf_counter() - start)
