"""What a server may be told: frozen sections from a TOML or JSON file, overlaid by the command line."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from limner.config import Section, explain
from limner.errors import LimnerError, UsageError

MIB = 2**20
# A request may name ten pictures of OpenAI's API; the page and batch clients are told to send several requests.
MOST_PICTURES = 10


class Limits(Section):
    """What one request may ask for. Beyond it the answer is an error that names the limit."""

    prompt_characters: int = Field(default=4000, ge=1, le=10_000, description="of a prompt")
    pictures: int = Field(default=MOST_PICTURES, ge=1, le=1000, description="largest n")
    json_bytes: int = Field(default=MIB, ge=1024, description="of a JSON body")
    upload_bytes: int = Field(default=64 * MIB, ge=1024, description="of a multipart body")
    decoded_pixels: int = Field(default=50_000_000, ge=1, description="of an uploaded picture, told by its header")
    output_pixels: int = Field(default=200_000_000, ge=1, description="of an enlarged picture")
    header_bytes: int = Field(default=32_768, ge=1024, description="of the request line and headers")
    header_seconds: float = Field(default=10, gt=0, description="until a request's headers are complete")
    body_seconds: float = Field(default=120, gt=0, description="until a request's body is complete")
    stalled_seconds: float = Field(default=30, gt=0, description="that a client may neither send nor take any byte")
    connections: int = Field(default=1024, ge=1, description="open at once")


class Batching(Section):
    """How requests wait for each other. A picture never depends on what it was batched with."""

    largest: int = Field(default=32, ge=1, le=256, description="pictures painted together")
    wait_ms: float = Field(default=3.0, ge=0, le=1000, description="for others that are under way; never when idle")
    queue: int = Field(default=256, ge=1, description="pictures that may wait; more are refused with 503")
    uploads: int = Field(default=16, ge=1, description="pictures to enlarge that may wait; more are refused with 503")
    deadline_s: float = Field(default=60, gt=0, description="after which a request is given up with 503")
    warm_batches: tuple[int, ...] = Field(default=(1,), description="batches compiled before the server is ready")


class Key(Section):
    """An API key: its SHA-256, never the key. `limner serve --new-key NAME` prints one. 0 means no limit."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.@-]+$", description="in logs, never in metrics")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    revoked: bool = False
    requests_per_minute: int = Field(default=0, ge=0)
    pixels_per_minute: int = Field(default=0, ge=0, description="of painted and enlarged pictures")


class Results(Section):
    """Pictures that are answered with a URL. Replicas that share a folder serve each other's."""

    folder: str | None = Field(default=None, description="None: a temporary one, removed at the end")
    seconds: float = Field(default=3600, gt=0, description="that a URL lives")
    bytes: int = Field(default=1024 * MIB, ge=MIB, description="of all results together")
    public_url: str | None = Field(default=None, description="what URLs begin with; None: what the client called")


class Logging(Section):
    """JSON lines on stderr, one for each request."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    prompts: bool = Field(default=False, description="also write prompts; leave it off unless users were told")


class Tracing(Section):
    """OpenTelemetry spans of requests and their stages (extra `telemetry`)."""

    endpoint: str | None = Field(default=None, description="OTLP over HTTP, as in http://localhost:4318/v1/traces")
    sample: float = Field(default=1.0, ge=0, le=1, description="share of requests")


class Feedback(Section):
    """Ratings of painted pictures, to tune a painter again."""

    url: str | None = Field(default=None, description="SQLAlchemy URL, as in sqlite:///feedback.db; None: no feedback")


class ServerConfig(Section):
    """One server, whole. `models`: zoo names or bundle folders; empty: every painter and upscaler of the zoo."""

    models: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    engine: str = "auto"
    precision: Literal["int8", "float"] = "int8"
    threads: int = Field(default=0, ge=0, description="CPU threads, 0 for all cores")
    moderation: Literal["auto", "low", "off"] = Field(default="auto", description="what a client's `auto` means")
    page: bool = Field(default=True, description="serve the page at /")
    metrics: bool = Field(default=True, description="serve /metrics; where the port is public, keep it off the proxy")
    drain_s: float = Field(default=1.0, ge=0, description="after SIGTERM: still accept, but say not ready")
    limits: Limits = Limits()
    batching: Batching = Batching()
    keys: tuple[Key, ...] = Field(default=(), description="empty: anybody may ask")
    results: Results = Results()
    logging: Logging = Logging()
    tracing: Tracing = Tracing()
    feedback: Feedback = Feedback()

    @field_validator("keys")
    @classmethod
    def _distinct(cls, keys: tuple[Key, ...]) -> tuple[Key, ...]:
        for what in ("name", "sha256"):
            if len({getattr(key, what) for key in keys}) != len(keys):
                raise ValueError(f"two keys have the same {what}")
        return keys


def load(path: Path | None = None, **flags: Any) -> ServerConfig:
    """The configuration in a .toml or .json file; `flags` that are not None replace its first-level keys.

    Raises UsageError that names the file and the key for anything unknown or out of range, LimnerError for a file that
    cannot be read.
    """
    table = {} if path is None else _table(path)
    try:
        parsed = ServerConfig.model_validate(table)
    except ValidationError as error:
        raise explain(error, str(path)) from None
    return replaced(parsed, **flags)


def replaced(config: ServerConfig, **flags: Any) -> ServerConfig:
    """With other values for first-level keys; None leaves a key as it is."""
    given = {key: value for key, value in flags.items() if value is not None}
    try:
        return ServerConfig.model_validate({**config.model_dump(), **given})
    except ValidationError as error:
        raise explain(error, "command line") from None


def _table(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text("utf-8")
        table = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise LimnerError(f"{path}: cannot be read ({error.strerror}); check its name.") from None
    except (UnicodeDecodeError, json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise LimnerError(f"{path}: is neither TOML nor, if it ends in .json, JSON ({error}); correct it.") from None
    if not isinstance(table, dict):
        raise UsageError(f"{path}: must hold keys and values; see docs/server.md.")
    return table
