"""Pictures that wait under a URL until they expire. Names are drawn here; none comes from a client."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from limner import images
from limner.server.config import Results as Settings
from limner.server.errors import no_space
from limner.server.metrics import Metrics

TOKEN_BYTES = 24
NAME = re.compile(r"([\w-]{32})\.(png|jpeg|webp|tiff|avif)")
_FILE = re.compile(r"[0-9a-f]{64}\.\w+")


class Results:
    """`folder`: where they lie, a file each, named by the hash of the URL's token, so that listing the folder gives no
    URL away. The file's time of change is when it was made: replicas that share the folder agree on what has expired.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._own = settings.folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="limner-results-") if settings.folder is None else settings.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._bytes = 0
        self.sweep()

    def put(self, data: bytes, format: str) -> str:
        """Keep a file; returns its name in the URL. Raises ApiError (507) when there is no room, OSError as open."""
        self._reserve(len(data))
        token = secrets.token_urlsafe(TOKEN_BYTES)
        name = f"{token}.{format}"
        try:
            images.write_bytes(data, self._path(token, format))
        except Exception as error:
            self._release(len(data))
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise
        return name

    def find(self, name: str) -> Path | None:
        """The file of a name, None for one that was never drawn or has expired."""
        parts = NAME.fullmatch(name)
        if parts is None:
            return None
        path = self._path(parts[1], parts[2])
        with suppress(OSError):
            return path if self._age(path) < self._settings.seconds else None
        return None

    def sweep(self) -> None:
        """Remove what has expired, and count what is there."""
        total = 0
        for path in self.folder.iterdir():
            with suppress(OSError):
                if not _FILE.fullmatch(path.name):
                    continue
                if self._age(path) >= self._settings.seconds:
                    path.unlink()
                else:
                    total += path.stat().st_size
        with self._lock:
            self._bytes = total
        self._metrics.results.set(total)

    def close(self) -> None:
        """Remove the folder if it was a temporary one."""
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, token: str, format: str) -> Path:
        return self.folder / f"{hashlib.sha256(token.encode()).hexdigest()}.{format}"

    def _age(self, path: Path) -> float:
        return time.time() - path.stat().st_mtime

    def _reserve(self, size: int) -> None:
        if self._bytes + size > self._settings.bytes:
            self.sweep()
        with self._lock:
            if self._bytes + size > self._settings.bytes:
                raise no_space()
            self._bytes += size
            self._metrics.results.set(self._bytes)

    def _release(self, size: int) -> None:
        with self._lock:
            self._bytes -= size
            self._metrics.results.set(self._bytes)
