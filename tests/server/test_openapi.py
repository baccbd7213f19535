"""The OpenAPI document against the server: schemathesis asks what it allows, and what it forbids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from server_kit import Running, configured

from limner.server.app import create_app

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
POSTS = ("/v1/images/generations", "/v1/images/edits", "/v1/images/upscale")
NAMED = ("/v1/models/{model}", "/v1/images/results/{name}")
PLAIN = ("/v1/models", "/livez", "/readyz", "/metrics")
CASES = [
    *((path, "POST", mode) for path in POSTS for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)),
    *((path, "GET", GenerationMode.POSITIVE) for path in (*NAMED, *PLAIN)),
]
EXAMPLES = 12
LIMITS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def schema(running: Running) -> Any:
    return schemathesis.openapi.from_url(f"{running.url}/openapi.json")


@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_the_document_is_true(path: str, method: str, mode: GenerationMode, schema: Any) -> None:
    strategy = schema[path][method].as_strategy(generation_mode=mode)

    @given(case=strategy)
    @LIMITS
    def holds(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS, timeout=60)

    holds()


def test_the_document_names_what_there_is(zoo: Path) -> None:
    keys = ({"name": "shop", "sha256": "0" * 64},)
    document = create_app(configured(zoo, keys=keys)).openapi()
    assert {*POSTS, *NAMED, *PLAIN} <= set(document["paths"])
    generate = document["paths"]["/v1/images/generations"]["post"]
    assert set(generate["responses"]) == {"200", "400", "401", "404", "408", "413", "429", "500", "503", "507"}
    assert "text/event-stream" in generate["responses"]["200"]["content"]
    assert generate["security"] and "422" not in generate["responses"]
    upscale = document["paths"]["/v1/images/upscale"]["post"]["requestBody"]["content"]
    assert list(upscale) == ["multipart/form-data"]


def test_no_key_is_asked_for_where_there_is_none(running: Running) -> None:
    assert "security" not in running.get("/openapi.json").text.lower()
