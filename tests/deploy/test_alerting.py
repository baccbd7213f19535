"""A real Prometheus and Alertmanager: the alert for overload reaches its receiver when a server is overloaded."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from deploy_kit import free_port
from server_kit import Running, configured, make_zoo, serving

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = shutil.which("prometheus")
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
FASTER = 20  # minutes of the rules take seconds here
PATIENCE = 180
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed"),
    pytest.mark.skipif(ALERTMANAGER is None, reason="prometheus-alertmanager is not installed"),
]


def quickened(text: str) -> str:
    """Every duration in minutes, FASTER times shorter."""
    text = re.sub(r"\[(\d+)m\]", lambda found: f"[{max(4, int(found[1]) * 60 // FASTER)}s]", text)
    return re.sub(r"for: (\d+)m", lambda found: f"for: {int(found[1]) * 60 // FASTER}s", text)


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(URL, alerts that were sent there)."""
    heard: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.extend(json.loads(self.rfile.read(int(self.headers["content-length"])))["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/limner", heard
    server.shutdown()


@contextmanager
def process(log: Path, *words: object) -> Iterator[None]:
    with log.open("wb") as output:
        running = subprocess.Popen([str(word) for word in words], stdout=output, stderr=output)
        try:
            yield
        finally:
            running.terminate()
            running.wait(30)


@contextmanager
def watched(folder: Path, running: Running, hook: str) -> Iterator[str]:
    """Prometheus and Alertmanager as they ship, but for addresses and patience. Gives the address of Prometheus."""
    ports = [free_port() for _ in range(2)]
    rules = quickened((DEPLOY / "prometheus/limner.rules.yml").read_text("utf-8"))
    (folder / "limner.rules.yml").write_text(rules, "utf-8")
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [f"127.0.0.1:{ports[1]}"]}]}]
    config["scrape_configs"] = [
        {"job_name": "limner", "static_configs": [{"targets": [running.url.removeprefix("http://")]}]}
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    alerts = (DEPLOY / "alertmanager/alertmanager.yml").read_text("utf-8")
    alerts = re.sub(r"group_wait: \d+s", "group_wait: 1s", alerts).replace("http://pager.example/limner", hook)
    (folder / "alertmanager.yml").write_text(alerts, "utf-8")
    listen = [f"--web.listen-address=127.0.0.1:{port}" for port in ports]
    with ExitStack() as stack:
        manager = f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/am", "--cluster.listen-address="
        stack.enter_context(process(folder / "am.log", ALERTMANAGER, *manager, listen[1]))
        prometheus = f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"
        stack.enter_context(process(folder / "prometheus.log", PROMETHEUS, *prometheus, listen[0]))
        yield f"http://127.0.0.1:{ports[0]}"


def until(found: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < end, what
        time.sleep(0.25)


def firing(prometheus: str) -> set[str]:
    try:
        answer = httpx.get(f"{prometheus}/api/v1/alerts", timeout=10, trust_env=False).json()
    except httpx.HTTPError:
        return set()
    return {each["labels"]["alertname"] for each in answer["data"]["alerts"] if each["state"] == "firing"}


def scraped(prometheus: str) -> bool:
    try:
        answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": "limner_ready"}, timeout=10, trust_env=False)
    except httpx.HTTPError:
        return False
    return bool(answer.json()["data"]["result"])


def hammer(running: Running, stop: threading.Event) -> None:
    with httpx.Client(timeout=60, trust_env=False) as client:
        while not stop.is_set():
            client.post(f"{running.url}/v1/images/generations", json={"prompt": "a red cat", "n": 4})


def test_overload_is_heard(tmp_path: Path) -> None:
    config = configured(make_zoo(tmp_path / "zoo"), batching={"queue": 4})
    with serving(config) as running, receiver() as (hook, heard), watched(tmp_path, running, hook) as prometheus:
        until(lambda: scraped(prometheus), "Prometheus does not read the server's metrics")
        assert firing(prometheus) == set()
        stop = threading.Event()
        threads = [threading.Thread(target=hammer, args=(running, stop)) for _ in range(6)]
        for each in threads:
            each.start()
        try:
            until(
                lambda: any(each["labels"]["alertname"] == "LimnerOverloaded" for each in heard),
                f"no alert came; firing: {firing(prometheus)}",
            )
        finally:
            stop.set()
            for each in threads:
                each.join()
        assert "LimnerErrors" not in firing(prometheus), "to turn callers away is no fault"
        assert running.get("/readyz").status_code == 200
