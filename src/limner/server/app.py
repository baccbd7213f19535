"""The web application: one FastAPI object for one configuration."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from limner import __version__
from limner.errors import LimnerError
from limner.server import api, direct, errors, health, telemetry
from limner.server.config import ServerConfig
from limner.server.edge import Edge
from limner.server.service import Service

DESCRIPTION = "Pictures from prompts, and larger pictures from pictures. Speaks the OpenAI Images API."
HANDLED: tuple[type[Exception], ...] = (errors.ApiError, RequestValidationError, HTTPException, LimnerError, OSError)


def create_app(config: ServerConfig) -> FastAPI:
    """The server for `config`. Models are loaded once it runs; /readyz tells when they are.

    Raises UsageError and LimnerError for models that are not there or damaged.
    """
    service = Service(config)
    app = FastAPI(
        title="limner",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.config, app.state.service = config, service
    for kind in HANDLED:
        app.add_exception_handler(kind, errors.answer)
    ways: dict[str, Any] = {"draining": lambda: service.draining, "shortcuts": direct.shortcuts(api.router.routes)}
    app.add_middleware(Edge, config=config, metrics=service.metrics, **ways)
    if config.tracing.endpoint is not None:
        app.state.tracing = telemetry.provider(config.tracing)
        app.add_middleware(telemetry.Tracing, provider=app.state.tracing)
    app.include_router(api.router)  # first: routes are tried in order
    app.include_router(health.router)
    if config.metrics:
        app.include_router(health.metrics_router)
    for name, wanted in (("feedback", config.feedback.url is not None), ("page", config.page)):
        if wanted:
            _mount(app, name)
    app.openapi = _corrected(app.openapi, bool(config.keys))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    running = asyncio.create_task(service.run())
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        service.close()
        if app.state.config.tracing.endpoint is not None:
            await asyncio.to_thread(app.state.tracing.shutdown)


def _mount(app: FastAPI, name: str) -> None:
    """Add `limner.server.NAME`, if there is one: its `mount(app)`, or else its `router`."""
    if find_spec(f"limner.server.{name}") is None:
        return
    module = importlib.import_module(f"limner.server.{name}")
    if hasattr(module, "mount"):
        module.mount(app)
    elif hasattr(module, "router"):
        app.include_router(module.router)


def _corrected(openapi: Callable[[], dict[str, Any]], keyed: bool) -> Callable[[], dict[str, Any]]:
    """FastAPI documents its own answer for what does not validate, here a 400 in OpenAI's form, and a key where the
    server asks for none (`keyed` False).
    """

    def corrected() -> dict[str, Any]:
        document = openapi()
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
                if not keyed:
                    operation.pop("security", None)
        components = document.get("components", {})
        for name in ("HTTPValidationError", "ValidationError"):
            components.get("schemas", {}).pop(name, None)
        if not keyed:
            components.pop("securitySchemes", None)
        return document

    return corrected
