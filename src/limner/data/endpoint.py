"""Models behind an address that speaks OpenAI's chat completions: `POST <url>/chat/completions`. No torch."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from limner.data.rewrite import Request
from limner.errors import LimnerError, UsageError

_ANSWER_BYTES = 1 << 20
_LONGEST_WAIT = 60.0
_AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504))


@dataclass
class Endpoint:
    """A model behind an OpenAI-compatible address.

    `url`: with or without `/chat/completions`. `key`: sent as a bearer token unless empty. `timeout`: seconds for one
    whole answer. Busy and failing answers are asked for again, `attempts` times in all, after waits that double from
    `first_wait` seconds (a Retry-After of the server wins, up to a minute). Redirects are not followed.
    """

    url: str
    model: str
    sees: bool = False
    key: str = field(default="", repr=False)
    workers: int = 4
    timeout: float = 60.0
    attempts: int = 4
    first_wait: float = 1.0
    batch: int = 1
    _closed: threading.Event = field(default_factory=threading.Event, repr=False)

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise UsageError(f"--endpoint {self.url!r}: give an address such as http://localhost:8000/v1.")

    @property
    def origin(self) -> str:
        """ "endpoint:<model>", or "vision:<model>" when it looks at pictures."""
        return f"{'vision' if self.sees else 'endpoint'}:{self.model}"

    def close(self) -> None:
        """No more tries."""
        self._closed.set()

    def answers(self, requests: Sequence[Request]) -> list[str]:
        """One text for each request. Raises LimnerError when the endpoint is down, slow, refuses or talks nonsense."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> str:
        body = json.dumps(self._body(request)).encode()
        for attempt in range(1, self.attempts + 1):
            try:
                return _content(self._post(body))
            except _Passing as fault:
                wait = max(self.first_wait * 2 ** (attempt - 1) * random.uniform(0.5, 1.0), fault.wait)
                if attempt == self.attempts or self._closed.wait(min(wait, _LONGEST_WAIT)):
                    tries = f"{attempt} times" if attempt > 1 else "once"
                    raise LimnerError(
                        f"{self.url}: {fault} (tried {tries}); see that it runs, then run the same command again."
                    ) from None
            except _Final as fault:
                raise LimnerError(f"{self.url}: {fault}.") from None
        raise AssertionError("attempts is at least 1")

    def _body(self, request: Request) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [
                {"role": "system", "content": request.instruction},
                {"role": "user", "content": _question(request)},
            ],
            "max_tokens": 60 * request.wanted + 100,
            "temperature": 0.7,
        }

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "limner"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        address = self.url.rstrip("/")
        address = address if address.endswith("/chat/completions") else f"{address}/chat/completions"
        deadline = time.monotonic() + self.timeout
        try:
            with _OPENER.open(urllib.request.Request(address, body, headers), timeout=self.timeout) as response:
                return _whole(response, deadline)
        except urllib.error.HTTPError as error:
            raise _refusal(error, self.model) from None
        except TimeoutError:
            raise _Passing(f"no answer within {self.timeout:g} seconds") from None
        except urllib.error.URLError as error:
            slow = isinstance(error.reason, TimeoutError)
            reason = f"no answer within {self.timeout:g} seconds" if slow else f"cannot be reached ({error.reason})"
            raise _Passing(reason) from None
        except (http.client.HTTPException, OSError) as error:
            raise _Passing(f"the connection broke ({error or type(error).__name__})") from None


class _Passing(Exception):
    """A fault that may be gone at the next try. `wait`: seconds the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Final(Exception):
    """A fault that another try would meet again."""


class _Straight(urllib.request.HTTPRedirectHandler):
    """No redirects: they would carry the key to another address."""

    def redirect_request(self, *args: Any, **named: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_Straight)


def _question(request: Request) -> str | list[dict[str, Any]]:
    if request.picture is None:
        return request.facts
    address = f"data:image/png;base64,{base64.b64encode(request.picture).decode()}"
    said = [{"type": "text", "text": request.facts}] if request.facts else []
    return [{"type": "image_url", "image_url": {"url": address}}, *said]


def _whole(response: http.client.HTTPResponse, deadline: float) -> bytes:
    parts: list[bytes] = []
    while part := response.read1(1 << 16):
        parts.append(part)
        if time.monotonic() > deadline:
            raise TimeoutError
        if sum(map(len, parts)) > _ANSWER_BYTES:
            raise _Final("the answer is longer than 1 MiB; is this a chat completions address?")
    return b"".join(parts)


def _refusal(error: urllib.error.HTTPError, model: str) -> _Passing | _Final:
    said = ""
    with contextlib.suppress(OSError, http.client.HTTPException):
        said = _message(error.read(4096))
    if error.code in _AGAIN:
        asked = error.headers.get("Retry-After", "")
        return _Passing(f"answers {error.code}{said}", float(asked) if re.fullmatch(r"\d{1,6}", asked) else 0.0)
    if error.code in (401, 403):
        return _Final(f"refuses the key ({error.code}{said}); put a valid one into the variable that --key-env names")
    if error.code == 404:
        return _Final(f"knows no model {model!r} or no such path (404{said}); check --endpoint and --model")
    return _Final(f"answers {error.code}{said}; check --endpoint and --model")


def _message(body: bytes) -> str:
    """The server's own words, from OpenAI's form of an error."""
    try:
        parsed = json.loads(body)
        words = parsed["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f", {' '.join(str(words).split())[:160].rstrip('.')}"


def _content(body: bytes) -> str:
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise _Passing("does not answer in the form of chat completions") from None
    return content if isinstance(content, str) else ""
