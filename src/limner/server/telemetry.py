"""OpenTelemetry spans (extra `telemetry`): one for a request, joined to the caller's trace. Never a prompt in them."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from limner import __version__
from limner.errors import UsageError
from limner.server.config import Tracing as Settings


class Tracing:
    """ASGI middleware around everything else. `provider`: the SDK's TracerProvider."""

    def __init__(self, app: ASGIApp, provider: Any) -> None:
        from opentelemetry import propagate, trace

        self.app, self._trace, self._propagate = app, trace, propagate
        self._tracer = provider.get_tracer("limner.server", __version__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        kind = self._trace.SpanKind.SERVER
        context = self._propagate.extract(carrier)
        with self._tracer.start_as_current_span("request", context, kind) as span:
            await self.app(scope, receive, self._sending(send, scope, span))

    def _sending(self, send: Send, scope: Scope, span: Any) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._tell(span, scope, message["status"])
            await send(message)

        return sending

    def _tell(self, span: Any, scope: Scope, status: int) -> None:
        """Names of the semantic conventions for HTTP servers."""
        route = getattr(scope.get("route"), "path", None)
        span.update_name(f"{scope['method']} {route or 'unknown'}")
        span.set_attribute("http.request.method", scope["method"])
        span.set_attribute("http.response.status_code", status)
        if route:
            span.set_attribute("http.route", route)
        exchange = scope.get("limner")
        if exchange is not None:
            span.set_attribute("limner.request_id", exchange.request_id.decode())
            span.set_attributes({f"limner.{key}": exchange.log[key] for key in ("model", "n") if key in exchange.log})
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)


def provider(settings: Settings) -> Any:
    """A TracerProvider that sends spans in batches. Raises UsageError without the packages."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise UsageError(f"tracing needs the package {error.name!r}: pip install 'limner[telemetry]'.") from None
    resource = Resource.create({"service.name": "limner", "service.version": __version__})
    made = TracerProvider(sampler=ParentBased(TraceIdRatioBased(settings.sample)), resource=resource)
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.endpoint)))
    return made
