"""Logs as JSON lines on stderr, for machines; a request is one line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from limner.server.config import Logging

REQUESTS = logging.getLogger("limner.server.requests")


class JsonLines(logging.Formatter):
    """time, level, logger, message; what is passed as `extra={"fields": {...}}`; the traceback of an error."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class _Stderr(logging.StreamHandler[TextIO]):
    """What stderr is at the moment: whoever captured it at the start may have closed that one."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def set_up(settings: Logging) -> None:
    """Send every log of this process to stderr as JSON lines."""
    handler = _Stderr()
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    # Access lines of our own say more, and uvicorn's hold the query string.
    logging.getLogger("uvicorn.access").disabled = True
    for noisy in ("pyvips", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
