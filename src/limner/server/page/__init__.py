"""The page at /: hand-written HTML, CSS and JavaScript that uses the same API as any other client.

Nothing is fetched from elsewhere and nothing inline is run, so that the page works without a network and under a strict
content security policy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from limner import __version__
from limner.server.config import ServerConfig

TYPES = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "words.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)


@dataclass(frozen=True)
class _File:
    data: bytes
    type: str
    tag: str

    def answer(self, request: Request) -> Response:
        headers = {"etag": self.tag, "cache-control": "no-cache", "content-security-policy": POLICY}
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=headers)
        return Response(self.data, media_type=self.type, headers=headers)


def mount(app: FastAPI) -> None:
    """Add the page's files, which stay in memory, and what its script must know of the configuration."""
    router, read = APIRouter(include_in_schema=False), _read()
    for name in TYPES:
        router.add_api_route("/" if name == "index.html" else f"/page/{name}", _answer(read[name]), methods=["GET"])
    told = settings(app.state.config)
    router.add_api_route("/page/settings.json", lambda: JSONResponse(told), methods=["GET"])
    app.include_router(router)


def settings(config: ServerConfig) -> dict[str, object]:
    """What the page may offer."""
    return {
        "version": __version__,
        "feedback": config.feedback.url is not None,
        "keys": bool(config.keys),
        "pictures": config.limits.pictures,
        "promptCharacters": config.limits.prompt_characters,
        "uploadBytes": config.limits.upload_bytes,
    }


def _read() -> dict[str, _File]:
    found = {name: files(__name__).joinpath(name).read_bytes() for name in TYPES}
    return {
        name: _File(data, TYPES[name], f'"{hashlib.sha256(data).hexdigest()[:16]}"') for name, data in found.items()
    }


def _answer(file: _File) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return file.answer(request)

    return answer
