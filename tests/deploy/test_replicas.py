"""Two replicas behind a real nginx with the configuration that ships: shared load, and a replica may leave."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from deploy_kit import free_port
from server_kit import Running, configured, make_zoo, picture_file, serving

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONFIG = Path(__file__).parents[2] / "deploy/nginx/limner.conf"
MAIN = """
{user} daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/limner.conf;
}}
"""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]


@contextmanager
def proxied(folder: Path, replicas: list[Running]) -> Iterator[str]:
    """nginx in front of the replicas; gives its address."""
    port, text = free_port(), CONFIG.read_text("utf-8")
    lines = "".join(f"    server 127.0.0.1:{each.address[1]} max_fails=2 fail_timeout=5s;\n" for each in replicas)
    text, found = re.subn(r"^ +server limner:8000 [^\n]+\n", lines, text, flags=re.MULTILINE)
    assert found == 1
    text, found = re.subn(r"listen 80;", f"listen 127.0.0.1:{port};", text)
    assert found == 1
    (folder / "limner.conf").write_text(text, "utf-8")
    # A master that is root gives its workers another user, who could not write into the test's folder.
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user), "utf-8")
    words = [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    running = subprocess.Popen(words)
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(20)


def _wait_for(port: int) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < end, "nginx does not listen"
            time.sleep(0.05)


def paint(url: str, seed: int) -> tuple[int, str]:
    """(status, picture) of one request."""
    body = {"prompt": "a red cat", "seed": seed}
    answer = httpx.post(f"{url}/v1/images/generations", json=body, timeout=60, trust_env=False)
    return answer.status_code, answer.json()["data"][0]["b64_json"] if answer.status_code == 200 else answer.text


def test_replicas_share_the_load_and_one_may_leave(tmp_path: Path) -> None:
    zoo = make_zoo(tmp_path / "zoo")
    with ExitStack() as stack:
        config = configured(zoo, results={"folder": str(tmp_path / "results")}, drain_s=0.5)
        one, two = (stack.enter_context(serving(config)) for _ in range(2))
        url = stack.enter_context(proxied(tmp_path, [one, two]))
        painted = [paint(url, seed) for seed in range(12)]
        assert {status for status, _ in painted} == {200}
        shares = [each.metric("pictures_total", model="icons", task="generate") for each in (one, two)]
        assert sum(shares) == 12
        assert min(shares) >= 3
        _check_routes(url)
        with ThreadPoolExecutor(4) as pool:
            under_way = [pool.submit(paint, url, seed % 12) for seed in range(60)]
            time.sleep(0.2)
            one.server.handle_exit(signal.SIGTERM, None)
            answers = [each.result() for each in under_way]
        assert {status for status, _ in answers} == {200}, "a replica that leaves loses nothing"
        assert answers == [painted[seed % 12] for seed in range(60)], "replicas paint the same pictures"
        two.server.handle_exit(signal.SIGTERM, None)
        two.thread.join(60)
        answer = httpx.get(f"{url}/v1/models", timeout=60, trust_env=False)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"] == "2"


def _check_routes(url: str) -> None:
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        assert client.get("/metrics").status_code == 404
        assert client.get("/readyz").status_code == 200
        files = {"image": picture_file()}
        made = client.post("/v1/images/upscale", files=files, data={"response_format": "url"}).json()["data"][0]["url"]
        assert made.startswith(url)
        assert [client.get(made).status_code for _ in range(4)] == [200] * 4, "replicas share their results"
        refused = client.post("/v1/images/upscale", files={"image": b"x" * (65 << 20)})
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")
        stream = {"prompt": "a red cat", "stream": True, "partial_images": 2}
        events = client.post("/v1/images/generations", json=stream).text
        assert events.count("event: image_generation.partial_image") == 2
        assert events.count("event: image_generation.completed") == 1
