"""The web application: one FastAPI object for one configuration."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

from fastapi import FastAPI

from limner import __version__
from limner.server.config import ServerConfig

OPTIONAL = ("page", "feedback")


def create_app(config: ServerConfig) -> FastAPI:
    """The server for `config`."""
    app = FastAPI(title="limner", version=__version__)
    app.state.config = config
    for name in OPTIONAL:
        _mount(app, name)
    return app


def _mount(app: FastAPI, name: str) -> None:
    """Add `limner.server.NAME`: its `mount(app)`, or else its `router`."""
    if find_spec(f"limner.server.{name}") is None:
        return
    module = importlib.import_module(f"limner.server.{name}")
    if hasattr(module, "mount"):
        module.mount(app)
    elif hasattr(module, "router"):
        app.include_router(module.router)
