"""A real server on loopback inside the test process, with tiny models of random weights."""

from __future__ import annotations

import io
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import numpy as np
from kit import make_bundle, photo
from painter_kit import make_icon_upscaler, make_painter
from PIL import Image

from limner.server import run
from limner.server.config import ServerConfig
from limner.server.service import Service

READY_S = 120


@dataclass(frozen=True)
class Running:
    """`url` without a slash at its end."""

    url: str
    server: run.Server
    thread: threading.Thread

    @property
    def service(self) -> Service:
        return self.server.service

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def post(self, path: str, **what: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", timeout=60, trust_env=False, **what)

    def get(self, path: str, **what: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=60, trust_env=False, **what)

    def paint(self, prompt: str = "a red cat", **fields: Any) -> httpx.Response:
        return self.post("/v1/images/generations", json={"prompt": prompt, **fields})

    def metric(self, name: str, **labels: str) -> float:
        """A sample of /metrics; 0 where there is none yet."""
        return self.service.metrics.registry.get_sample_value(f"limner_{name}", labels) or 0.0

    def until_warm(self) -> None:
        """Until every batch is compiled, and streams hold partial pictures."""
        end = time.monotonic() + READY_S
        while not self.service.warm:
            assert time.monotonic() < end
            time.sleep(0.01)


def make_zoo(folder: Path) -> Path:
    """A painter `icons` with its 128 px upscaler and text bundle, and an upscaler `photo-x2`. Returns `folder`."""
    make_painter(folder / "icons")
    make_icon_upscaler(folder / "icons-x2", scale=2)
    make_bundle(folder / "photo-x2")
    return folder


def configured(zoo: Path, **keys: Any) -> ServerConfig:
    """A configuration for `zoo`; sections as dicts."""
    models = (str(zoo / "icons"), str(zoo / "photo-x2"))
    defaults: dict[str, Any] = {"models": models, "threads": 2, "port": 0, "drain_s": 0, "page": False}
    return ServerConfig.model_validate(defaults | keys)


@contextmanager
def serving(config: ServerConfig, wait: bool = True) -> Iterator[Running]:
    """A server in a thread, with its models loaded unless `wait` is False."""
    addresses: Queue[str] = Queue()
    server = run.server(config, addresses.put)
    thread = threading.Thread(target=server.run, args=([run.listening(config.host, config.port)],), daemon=True)
    thread.start()
    running = Running(addresses.get(timeout=READY_S), server, thread)
    end = time.monotonic() + READY_S
    while wait and not server.service.ready:
        assert thread.is_alive() and time.monotonic() < end
        time.sleep(0.01)
    try:
        yield running
    finally:
        server.handle_exit(signal.SIGTERM, None)
        thread.join(60)
        assert not thread.is_alive(), "the server did not end"


def picture_file(width: int = 24, height: int = 16, format: str = "PNG", alpha: bool = False, seed: int = 0) -> bytes:
    """A random picture as a file; with `alpha`, its left half transparent."""
    pixels = photo(height, width, seed)
    if alpha:
        cover = np.full((height, width, 1), 255, np.uint8)
        cover[:, : width // 2] = 0
        pixels = np.concatenate([pixels, cover], 2)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def opened(data: bytes) -> np.ndarray:
    """The samples of a picture file."""
    return np.asarray(Image.open(io.BytesIO(data)))
