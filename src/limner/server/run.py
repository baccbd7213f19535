"""uvicorn with what it lacks: time limits on slow clients, a limit on connections, and a drain that loses nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from time import monotonic
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from limner.errors import LimnerError
from limner.server.app import create_app
from limner.server.config import Limits, ServerConfig
from limner.server.errors import ApiError, busy
from limner.server.logs import set_up
from limner.server.metrics import Metrics
from limner.server.service import Service

log = logging.getLogger(__name__)

# Between the last connection taken and the first idle one closed: what is on the wire still arrives.
SETTLE_S = 0.25
BACKLOG = 2048
# Longer than proxies keep theirs, so that it is they who close: a request is never on its way to a closing server.
KEEP_ALIVE_S = 75


class Guard(HttpToolsProtocol):
    """A connection that may not idle in the middle of something. Subclasses set `limits` and `metrics`."""

    limits: Limits
    metrics: Metrics

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._in_headers, self._header_bytes = True, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.metrics.connections.inc()
        if len(self.connections) > self.limits.connections:
            self._refuse(busy("Too many connections are open: come back later.", "too_many_connections"), "connections")
            return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self.metrics.connections.dec()
        self._cancel()
        if self._stalled is not None:
            self._stalled.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > self.limits.header_bytes and not self.transport.is_closing():
            message = f"The headers are larger than the limit of {self.limits.header_bytes:,} bytes: send less."
            self._refuse(ApiError(431, message, code="headers_too_large"), "slow")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        self._in_headers, self._header_bytes = False, 0
        self._cancel()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.limits.stalled_seconds, self._give_up)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """In OpenAI's form, as all other errors."""
        self._refuse(ApiError(400, msg, code="invalid_http"))

    def _await_headers(self) -> None:
        self._in_headers = True
        self._cancel()
        self._timer = self.loop.call_later(self.limits.header_seconds, self._too_slow)

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self._refuse(ApiError(408, "The headers did not arrive in time.", code="request_timeout"), "slow")

    def _give_up(self) -> None:
        """The client takes nothing: what is buffered for it is dropped."""
        self.metrics.rejected.labels("slow").inc()
        self.transport.abort()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, error: ApiError, reason: str | None = None) -> None:
        """Answer without the application, and close."""
        if reason is not None:
            self.metrics.rejected.labels(reason).inc()
        body = json.dumps(error.body()).encode()
        head = [
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
            *(f"{name}: {value}" for name, value in error.headers.items()),
        ]
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.close()


class Server(uvicorn.Server):
    """Drains in steps: not ready and no connection kept alive; no new ones; none that is idle; the end.

    `ready`: called once, with the address, when the server listens.
    """

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self.service, self._announce = service, ready
        self.signal: int | None = None
        self._end: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain. Second: end at once what can be ended."""
        if self.signal is not None:
            self.should_exit = self.force_exit = True
        self.signal = sig

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            name = self.servers[0].sockets[0].getsockname()
            host = f"[{name[0]}]" if ":" in name[0] else name[0]
            self._announce(f"http://{host}:{name[1]}")

    def _protocol(self) -> asyncio.Protocol:
        kind = self.config.http_protocol_class
        return kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[call-arg]

    async def on_tick(self, counter: int) -> bool:
        if self.signal is not None and self._end is None:
            self.service.drain()
            self._end = monotonic() + self.service.config.drain_s
        if self._end is not None and monotonic() >= self._end:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        waiting = [connection for each in sockets or () for connection in _accepted(each)]
        for server in self.servers:
            server.close()
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        await asyncio.sleep(SETTLE_S)
        await super().shutdown(sockets)


def _accepted(listening: socket.socket) -> list[socket.socket]:
    """The connections that the kernel took and nobody fetched yet; closing the listener would reset them."""
    found = []
    listening.setblocking(False)
    with suppress(BlockingIOError, OSError):
        while True:
            connection, _ = listening.accept()
            connection.setblocking(False)
            found.append(connection)
    return found


def server(config: ServerConfig, ready: Callable[[str], None] = lambda address: None) -> Server:
    """A server that is about to run. Raises as `create_app`."""
    app = create_app(config)
    service: Service = app.state.service
    guard = type("BoundGuard", (Guard,), {"limits": config.limits, "metrics": service.metrics})
    settings = uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        http=guard,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=round(config.batching.deadline_s) + 5,
    )
    return Server(settings, service, ready)


def run(config: ServerConfig) -> int:
    """Serve until a signal ends it; the address goes to stdout. Returns the exit code.

    Raises as `create_app`, and LimnerError for an address that is taken.
    """
    set_up(config.logging)
    running = server(config, _print)
    running.run([listening(config.host, config.port)])
    return 0 if running.signal is not None and running.started else 1


def listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections; port 0 takes any free one. Raises LimnerError with the reason."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LimnerError(
            f"{host}:{port}: cannot be listened on ({reason}); choose another --host or --port."
        ) from None


def _print(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
