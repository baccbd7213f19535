"""Spans of real requests, caught by the SDK's exporter in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from server_kit import configured, serving

from limner.server import telemetry
from limner.server.config import Tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_request_is_a_span_without_its_prompt(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = InMemorySpanExporter()
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(telemetry, "provider", lambda settings: made)
    with serving(configured(zoo, tracing={"endpoint": "http://127.0.0.1:1/"})) as running:
        asked: dict[str, Any] = {"json": {"prompt": "a secretword cat"}, "headers": {"traceparent": PARENT}}
        answer = running.post("/v1/images/generations", **asked)
        running.get("/nowhere")
        first, second = spans.get_finished_spans()
    assert first.name == "POST /v1/images/generations" and second.name == "GET unknown"
    assert f"{first.context.trace_id:032x}" in PARENT
    told = dict(first.attributes or {})
    assert (told["http.response.status_code"], told["limner.model"]) == (200, "icons")
    assert told["limner.request_id"] == answer.headers["x-request-id"]
    assert "secretword" not in first.to_json()


def test_the_provider_sends_to_the_endpoint() -> None:
    made = telemetry.provider(Tracing(endpoint="http://127.0.0.1:1/v1/traces", sample=0.5))
    assert made.resource.attributes["service.name"] == "limner"
    made.shutdown()
