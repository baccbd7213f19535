"""Routes whose JSON body is read and checked in one step.

FastAPI's general way of reading a body and solving dependencies takes as long as everything else that the event loop
does for a request. These routes are documented as all others are; only their arguments come by a shorter way.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from functools import cached_property
from typing import Any, TypeVar, cast

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from limner.server.access import allowed
from limner.server.errors import ApiError

B = TypeVar("B", bound=BaseModel)


class DirectRoute(APIRoute):
    """For an endpoint `(body, request, caller)`, where `body` is a pydantic model and `caller` an `Allowed`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self._handle

    async def _handle(self, request: Request) -> Response:
        body = await request.body()
        caller = await allowed(request)
        return await self.endpoint(parsed(self._model, body, request.headers.get("content-type", "")), request, caller)

    @cached_property
    def _model(self) -> type[BaseModel]:
        assert self.body_field is not None
        return cast(type[BaseModel], self.body_field.field_info.annotation)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application, for whoever has already found the route; faults are raised."""
        scope["route"] = self
        response = await self._handle(Request(scope, receive, send))
        await response(scope, receive, send)


def shortcuts(routes: Iterable[BaseRoute]) -> dict[tuple[str, str], ASGIApp]:
    """The direct routes among `routes`, by method and path."""
    direct = [route for route in routes if isinstance(route, DirectRoute)]
    return {(method, route.path): route.answer for route in direct for method in route.methods or ()}


def parsed(model: type[B], body: bytes, content_type: str) -> B:
    """Raises ApiError for what is not called JSON, RequestValidationError for what the model refuses."""
    if not body:
        raise RequestValidationError([{"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}])
    if not _is_json(content_type):
        raise ApiError(400, "The body is not JSON: send it with content-type application/json.", code="invalid_json")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in faults]) from None


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
