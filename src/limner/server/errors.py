"""Errors in OpenAI's form: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request

from limner.errors import LimnerError

INVALID, SERVER = "invalid_request_error", "server_error"
RETRY_S = 1  # a queue of these short jobs has moved on by then

_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
}


class ApiError(Exception):
    """An answer other than the one asked for. `details`: further keys of the error's object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.type, self.param, self.code = status, message, type, param, code
        self.headers, self.details = dict(headers or {}), dict(details or {})

    def body(self) -> dict[str, Any]:
        fields = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": fields | self.details}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers)


def refused(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """400 for one parameter."""
    return ApiError(400, message, param=param, code=code)


def unknown_model(name: str, known: Sequence[str]) -> ApiError:
    choices = ", ".join(known) or "none is loaded"
    message = f"The model {name[:80]!r} does not exist here; choose one of: {choices}."
    return ApiError(404, message, param="model", code="model_not_found")


def busy(message: str, code: str, seconds: float = RETRY_S) -> ApiError:
    """503 that tells when to come back."""
    return ApiError(503, message, type=SERVER, code=code, headers={"retry-after": str(max(1, round(seconds)))})


def internal() -> ApiError:
    """500 that says nothing of the cause, which is in the log under the same request id."""
    message = "The server failed at this request; the log tells why under the x-request-id of this answer."
    return ApiError(500, message, type=SERVER, code="internal_error")


def no_space() -> ApiError:
    message = "The server's disk is full: ask for response_format b64_json, or come back later."
    return ApiError(507, message, type=SERVER, code="insufficient_storage", headers={"retry-after": "60"})


def of(error: Exception) -> ApiError | None:
    """The answer for what a handler raised; None for what nobody foresaw."""
    match error:
        case ApiError():
            return error
        case RequestValidationError():
            return _invalid(error)
        case HTTPException():
            return _of_http(error)
        case LimnerError():
            return ApiError(400, str(error), code="invalid_value")
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return no_space()
    return None


def _of_http(error: HTTPException) -> ApiError:
    """What FastAPI and Starlette raise themselves."""
    if isinstance(error.__cause__, UnicodeDecodeError | RecursionError):
        return ApiError(400, "The body is not JSON in UTF-8: send one flat object.", code="invalid_json")
    code = _CODES.get(error.status_code, "invalid_request")
    return ApiError(error.status_code, str(error.detail), code=code, headers=error.headers)


def _invalid(error: RequestValidationError) -> ApiError:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"][1:]]  # the first is body, path, query or header
    kind, reason = first["type"], str(first["msg"]).removeprefix("Value error, ")
    if kind == "json_invalid":
        return ApiError(400, "The body is not JSON: send one object in UTF-8.", code="invalid_json")
    param = ".".join(path)[:80] or None
    if kind == "missing":
        named = param or "body"
        return ApiError(400, f"{named!r} is missing.", param=param, code="missing_required_parameter")
    if kind == "extra_forbidden":
        return ApiError(400, f"Unknown parameter: {param!r}.", param=param, code="unknown_parameter")
    return ApiError(400, f"{param or 'body'}: {reason}.", param=param, code="invalid_value")


async def answer(request: Request, error: Exception) -> JSONResponse:
    """Handler for what `of` knows."""
    known = of(error)
    if known is None:
        raise error
    return known.response()
