"""The outermost layer: request ids, limits on bodies, metrics, one line of log, and an answer whatever happens."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from limner.server import errors
from limner.server.config import ServerConfig
from limner.server.logs import REQUESTS
from limner.server.metrics import Metrics

log = logging.getLogger(__name__)

REQUEST_ID = b"x-request-id"
GIVEN_ID = re.compile(rb"[\w.-]{8,128}")
UNKNOWN_ROUTE = "unknown"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass
class Exchange:
    """One request and its answer. Handlers find it as `scope["limner"]`: what they put into `log` is logged, what
    they put into `headers` is answered, what they put into `later` is called once the answer is on its way.
    """

    request_id: bytes
    log: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    later: list[Callable[[], None]] = field(default_factory=list)
    start: float = field(default_factory=perf_counter)
    status: int = 0
    received: int = 0
    sent: int = 0


class Edge:
    """ASGI middleware. `draining` tells whether connections are to be closed after their answers; `shortcuts`: routes
    by method and path that are asked without the application around them.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: ServerConfig,
        metrics: Metrics,
        draining: Callable[[], bool],
        shortcuts: Mapping[tuple[str, str], ASGIApp],
    ) -> None:
        self.app, self.limits, self.metrics, self.draining = app, config.limits, metrics, draining
        self.shortcuts = shortcuts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = scope["limner"] = Exchange(_request_id(scope))
        self.metrics.in_flight.inc()
        try:
            await self._answer(exchange, scope, receive, send)
        finally:
            self.metrics.in_flight.dec()
            # The answer leaves when this turn of the event loop ends: what is noted about it can wait until then.
            asyncio.get_running_loop().call_soon(self._record, exchange, scope, perf_counter() - exchange.start)

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(exchange, scope, receive, self.limits.body_seconds, self._most(scope))

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message["headers"], *self._headers(exchange, body.unread)]
            else:
                exchange.sent += len(message.get("body", b""))
            await send(message)

        try:
            body.check_length()
            app = self.shortcuts.get((scope["method"], scope["path"]), self.app)
            await app(scope, body.receive, sending)
        except Exception as error:
            if exchange.status:  # too late for another answer: uvicorn closes the connection
                raise
            await self._fault(error)(scope, receive, sending)

    def _fault(self, error: Exception) -> ASGIApp:
        known = errors.of(error)
        if known is None:
            log.error("unforeseen %s", type(error).__name__, exc_info=error)
            self.metrics.errors.labels("internal").inc()
        return (known or errors.internal()).response()

    def _most(self, scope: Scope) -> int:
        kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        return self.limits.upload_bytes if kind.startswith(b"multipart/") else self.limits.json_bytes

    def _headers(self, exchange: Exchange, unread: bool) -> list[tuple[bytes, bytes]]:
        added = [(REQUEST_ID, exchange.request_id)]
        added += [(name.encode(), value.encode()) for name, value in exchange.headers.items()]
        if unread or self.draining():
            added.append((b"connection", b"close"))
        return added

    def _record(self, exchange: Exchange, scope: Scope, seconds: float) -> None:
        for call in exchange.later:
            call()
        path = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.metrics.requests.labels(path, method, exchange.status).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        if exchange.status == 413:
            self.metrics.rejected.labels("body_too_large").inc()
        if REQUESTS.isEnabledFor(logging.INFO):
            fields = {
                "request_id": exchange.request_id.decode(),
                "method": method,
                "route": path,
                "status": exchange.status,
                "ms": round(1e3 * seconds, 2),
                "bytes_in": exchange.received,
                "bytes_out": exchange.sent,
            }
            REQUESTS.info("request", extra={"fields": fields | exchange.log})


class _Body:
    """The request's body, counted while it is read."""

    def __init__(self, exchange: Exchange, scope: Scope, receive: Receive, seconds: float, most: int) -> None:
        self._exchange, self._receive, self._most = exchange, receive, most
        self._end = asyncio.get_running_loop().time() + seconds
        length = next((value for name, value in scope["headers"] if name == b"content-length"), None)
        self._length = int(length) if length and length.isdigit() else None
        chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
        # What is not read would be taken for the next request.
        self.unread = bool(self._length) or chunked

    def check_length(self) -> None:
        """Refuse before a byte is read, where the length is told."""
        if self._length is not None and self._length > self._most:
            raise self._too_large()

    async def receive(self) -> Message:
        if not self.unread:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "The body did not arrive in time: send it faster, or less.") from None
        self._exchange.received += len(message.get("body", b""))
        if self._exchange.received > self._most:
            raise self._too_large()
        self.unread = message.get("more_body", False)
        return message

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"The body is larger than the limit of {self._most:,} bytes: send less.")


def _request_id(scope: Scope) -> bytes:
    """The client's own where it is a decent one, so that its log and ours can be joined."""
    given = next((value for name, value in scope["headers"] if name == REQUEST_ID), None)
    if given is not None and GIVEN_ID.fullmatch(given):
        return given
    return b"req_" + secrets.token_hex(12).encode()
