"""Who may ask, and how much: API keys by their hash, and buckets that refill."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import threading
from collections.abc import Callable
from time import monotonic
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from limner.server.config import Key
from limner.server.errors import ApiError
from limner.server.metrics import Metrics

MINUTE = 60.0
PREFIX = "lim-"


def new_key() -> tuple[str, str]:
    """A random API key, and the SHA-256 that goes into the configuration."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, digest(key)


def digest(key: str) -> str:
    """SHA-256 in hexadecimal. A key has 256 random bits, which no slow hash needs to protect."""
    return hashlib.sha256(key.encode()).hexdigest()


class Bucket:
    """`limit` units a minute, all of them at once if they were saved up; 0 means no limit. Thread safe.

    A request for more than is left is served while anything is left, and the debt is waited for: so a limit on pixels
    never refuses a single large picture for good.
    """

    def __init__(self, limit: int, now: Callable[[], float] = monotonic) -> None:
        self.limit, self._now = limit, now
        self._level, self._at = float(limit), now()
        self._lock = threading.Lock()

    def take(self, units: int) -> float:
        """0 when they may be taken, else the seconds until asking again makes sense."""
        if not self.limit:
            return 0.0
        with self._lock:
            self._refill()
            if self._level < min(1.0, units):
                return max(1.0, (min(1.0, units) - self._level) * MINUTE / self.limit)
            self._level -= units
            return 0.0

    def left(self) -> tuple[int, float]:
        """Units that are left, and the seconds until all are back."""
        with self._lock:
            self._refill()
            return max(0, int(self._level)), (self.limit - self._level) * MINUTE / self.limit

    def _refill(self) -> None:
        now = self._now()
        self._level = min(self.limit, self._level + (now - self._at) * self.limit / MINUTE)
        self._at = now


class Caller:
    """Who asks: a key of the configuration, or anybody (`key` None) where there are none."""

    def __init__(self, key: Key | None, metrics: Metrics) -> None:
        self.key, self._metrics = key, metrics
        self.requests = Bucket(key.requests_per_minute if key else 0)
        self.pixels = Bucket(key.pixels_per_minute if key else 0)

    @property
    def name(self) -> str | None:
        return self.key.name if self.key else None

    def charge_request(self) -> None:
        """Raises ApiError (429) when the key has no request left."""
        self._charge(self.requests, 1, "requests")

    def charge_pixels(self, pixels: int) -> None:
        """Raises ApiError (429) when the key has no pixels left."""
        self._charge(self.pixels, pixels, "pixels")

    def headers(self) -> dict[str, str]:
        """OpenAI's x-ratelimit headers."""
        if not self.requests.limit:
            return {}
        left, seconds = self.requests.left()
        return {
            "x-ratelimit-limit-requests": str(self.requests.limit),
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": f"{seconds:.3f}s",
        }

    def _charge(self, bucket: Bucket, units: int, what: str) -> None:
        wait = bucket.take(units)
        if not wait:
            return
        self._metrics.rejected.labels("rate_limit").inc()
        raise ApiError(
            429,
            f"Rate limit reached: {bucket.limit:,} {what} a minute; try again in {math.ceil(wait)} s.",
            type=what,
            code="rate_limit_exceeded",
            headers={"retry-after": str(math.ceil(wait)), **self.headers()},
        )


class Access:
    """The keys of one server."""

    def __init__(self, keys: tuple[Key, ...], metrics: Metrics) -> None:
        self._metrics = metrics
        self._callers = [Caller(key, metrics) for key in keys]
        self._anybody = None if keys else Caller(None, metrics)

    def caller(self, key: str | None) -> Caller:
        """Raises ApiError (401) for a missing, unknown or revoked key."""
        if self._anybody is not None:
            return self._anybody
        if not key:
            raise self._unauthorized("Send your API key in the header Authorization: Bearer KEY.", "missing_api_key")
        found = self._find(digest(key))
        if found is None:
            raise self._unauthorized("The API key is not known here: check it.", "invalid_api_key")
        assert found.key is not None
        if found.key.revoked:
            raise self._unauthorized("The API key was revoked: ask for a new one.", "revoked_api_key")
        return found

    def _find(self, hashed: str) -> Caller | None:
        """Every key is compared, each in constant time, so that the time tells nothing."""
        found = None
        for caller in self._callers:
            assert caller.key is not None
            if hmac.compare_digest(caller.key.sha256, hashed):
                found = caller
        return found

    def _unauthorized(self, message: str, code: str) -> ApiError:
        self._metrics.rejected.labels("unauthorized").inc()
        return ApiError(401, message, code=code, headers={"www-authenticate": "Bearer"})


class KeyAuth(HTTPBearer):
    """The dependency of everything under /v1: who asks. Raises ApiError for a bad key (401) and too many requests."""

    def __init__(self) -> None:
        super().__init__(auto_error=False, description="An API key; not needed where the server has none.")

    async def __call__(self, request: Request) -> Caller:  # pyright: ignore[reportIncompatibleMethodOverride]
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        caller = request.app.state.service.access.caller(key.strip() if scheme.lower() == "bearer" else None)
        exchange = request.scope["limner"]
        exchange.log["key"] = caller.name
        caller.charge_request()
        exchange.headers.update(caller.headers())
        return caller


allowed = KeyAuth()
Allowed = Annotated[Caller, Depends(allowed)]
