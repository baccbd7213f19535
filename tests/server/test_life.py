"""Loading, readiness, batching under load, the drain at the end, metrics and logs."""

from __future__ import annotations

import json
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from painter_kit import make_painter
from server_kit import Running, configured, opened, picture_file, serving

from limner.errors import UsageError
from limner.runtime.painters import Upscaler
from limner.server import service as services
from limner.server.app import create_app
from limner.server.logs import REQUESTS, JsonLines
from limner.server.run import _accepted, listening


class Lines(logging.Handler):
    """What was logged, parsed."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    handler, level = Lines(), REQUESTS.level
    REQUESTS.addHandler(handler)
    REQUESTS.setLevel(logging.INFO)
    yield handler.lines
    REQUESTS.removeHandler(handler)
    REQUESTS.setLevel(level)


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    assert holds()


# ----------------------------------------------------------------------------------------------------------- loading


def test_not_ready_until_loaded(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, load = threading.Event(), services.Service._open

    def slowly(self: services.Service, *what: Any) -> None:
        assert go.wait(30)
        load(self, *what)

    monkeypatch.setattr(services.Service, "_open", slowly)
    with serving(configured(zoo, models=(str(zoo / "photo-x2"),)), wait=False) as running:
        assert running.get("/livez").json() == {"status": "alive"}
        early = running.get("/readyz")
        assert (early.status_code, early.json()["models"]) == (503, {"photo-x2": False})
        refused = running.post("/v1/images/upscale", files={"image": picture_file()})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_loading")
        assert running.paint().json()["error"]["code"] == "model_not_found"
        go.set()
        while not running.service.ready:
            time.sleep(0.01)
        assert running.get("/readyz").status_code == 200
        assert running.metric("model_up", model="photo-x2") == 1


def test_what_is_ready_waits_for_no_compiler(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pictures, larger ones and a stream are answered before anything but single pictures is compiled."""
    go, warm = threading.Event(), services.Service._warm_batches

    def later(self: services.Service) -> None:
        assert go.wait(60)
        warm(self)

    monkeypatch.setattr(services.Service, "_warm_batches", later)
    with serving(configured(zoo)) as running:
        graph = running.service.painters["icons"]._network._graph
        compiled = set(graph._sessions)  # type: ignore[attr-defined]
        assert running.get("/readyz").json()["warm"] is False
        several = running.paint(seed=7, n=4).json()["data"]
        assert running.paint(size="128x128").status_code == 200
        stream = running.paint(seed=7, stream=True, partial_images=2).text
        assert "image_generation.completed" in stream and "partial_image" not in stream
        assert set(graph._sessions) == compiled  # type: ignore[attr-defined]
        go.set()
        running.until_warm()
        assert running.get("/readyz").json()["warm"] is True
        assert running.paint(seed=7, n=4).json()["data"] == several
        assert "partial_image" in running.paint(seed=7, stream=True, partial_images=2).text


def test_a_model_that_fails_to_load_leaves_the_others(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*what: Any) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(services, "Painter", broken)
    with serving(configured(zoo)) as running:
        assert running.metric("model_up", model="icons") == 0 and running.metric("errors_total", kind="load") == 1
        assert running.paint().json()["error"]["code"] == "model_unavailable"
        assert running.post("/v1/images/upscale", files={"image": picture_file()}).status_code == 200


def test_models_of_one_name(zoo: Path, tmp_path: Path) -> None:
    twin = make_painter(tmp_path / "icons")
    with pytest.raises(UsageError, match="icons: two models"):
        create_app(configured(zoo, models=(str(zoo / "icons"), str(twin))))


def test_an_address_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ValueError, match="cannot be listened on"):
        listening("127.0.0.1", taken.getsockname()[1])


# ---------------------------------------------------------------------------------------------------------- batching


def test_requests_merge_and_stay_what_they_are(running: Running) -> None:
    alone = {seed: running.paint(seed=seed).json()["data"] for seed in range(3)}
    before = running.service.metrics.registry.get_sample_value("limner_batch_pictures_count", {"model": "icons"})
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda index: running.paint(seed=index % 3).json()["data"], range(48)))
    assert all(each == alone[index % 3] for index, each in enumerate(answers))
    after = running.service.metrics.registry.get_sample_value("limner_batch_pictures_count", {"model": "icons"})
    assert after is not None and before is not None and after - before < 48


def test_large_pictures_go_tile_by_tile(running: Running, zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limner.server.enlarging.SMALL_PIXELS", 100)
    tiles, turn = [0], running.service.turns.tile

    def counted() -> Any:
        tiles[0] += 1
        return turn()

    monkeypatch.setattr(running.service.turns, "tile", counted)
    data = picture_file(520, 60)
    asked = {"response_format": "binary"}
    answer = running.post("/v1/images/upscale", files={"image": data}, data=asked)
    np.testing.assert_array_equal(opened(answer.content), np.asarray(Upscaler.load(zoo / "photo-x2").upscale(data)))
    assert tiles[0] >= 2


# ------------------------------------------------------------------------------------------------------------- drain


def test_a_signal_loses_nothing_that_was_accepted(zoo: Path) -> None:
    """Clients with kept connections until the server hangs up: every request has one answer, or no connection."""
    answered: list[int] = []
    lost: list[Exception] = []

    def ask(url: str, seed: int) -> None:
        with httpx.Client(trust_env=False, timeout=60) as client:
            while True:
                try:
                    answered.append(client.post(f"{url}/v1/images/generations", json={"prompt": "a cat"}).status_code)
                except httpx.ConnectError:
                    return
                except httpx.HTTPError as error:
                    lost.append(error)
                    return

    with serving(configured(zoo, drain_s=0.3)) as running:
        threads = [threading.Thread(target=ask, args=(running.url, seed)) for seed in range(6)]
        for thread in threads:
            thread.start()
        while len(answered) < 12:
            time.sleep(0.01)
        running.server.handle_exit(signal.SIGTERM, None)
        for thread in threads:
            thread.join(60)
        labels = {"route": "/v1/images/generations", "method": "POST", "status": "200"}
        until(lambda: running.metric("requests_total", **labels) == len(answered))  # counted just after it left
    assert not lost
    assert set(answered) == {200}
    assert running.service.state == "draining" and running.metric("ready") == 0


# -------------------------------------------------------------------------------------------------- metrics and logs


def test_metrics_count_and_know_no_prompt(running: Running) -> None:
    labels = {"model": "icons", "task": "generate"}
    before = running.metric("pictures_total", **labels)
    running.paint("a secretword cat", n=2)
    assert running.metric("pictures_total", **labels) == before + 2
    page = running.get("/metrics").text
    assert "secretword" not in page
    for name in ("queue_seconds_bucket", "stage_seconds_bucket", "request_seconds_bucket", "prompt_drift"):
        assert f"limner_{name}" in page
    assert "process_resident_memory_bytes" in page


def test_unknown_paths_make_no_new_series(running: Running) -> None:
    for index in range(3):
        running.get(f"/made-up/{index}")
    assert "made-up" not in running.get("/metrics").text


def test_drift_grows_with_another_kind_of_prompt(running: Running) -> None:
    metrics = running.service.metrics
    for _ in range(300):
        metrics.saw_prompt("test", "x", np.array([1, 0], np.float32), False)
    same = running.metric("prompt_drift", model="test")
    for _ in range(100):
        metrics.saw_prompt("test", "x", np.array([0, 1], np.float32), False)
    assert same < 1e-6 and running.metric("prompt_drift", model="test") > 0.1


def test_a_request_is_one_line_without_its_prompt(running: Running, lines: list[dict[str, Any]]) -> None:
    answer = running.paint("a secretword cat", n=2)
    until(lambda: lines)  # written once the answer is on its way
    (line,) = lines
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["route"], line["status"], line["model"], line["n"]) == ("/v1/images/generations", 200, "icons", 2)
    assert line["ms"] > 0 and line["bytes_out"] == len(answer.content)
    assert "secretword" not in json.dumps(lines)


def test_prompts_are_logged_when_turned_on(zoo: Path, lines: list[dict[str, Any]]) -> None:
    with serving(configured(zoo, logging={"prompts": True}, metrics=False)) as running:
        running.paint("a secretword cat")
        until(lambda: lines)
        assert lines[-1]["prompt"] == "a secretword cat"
        assert running.get("/metrics").status_code == 404


def test_an_unforeseen_fault_says_nothing_of_its_cause(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*what: Any) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(running.service, "painting", failing)
    answer = running.paint()
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text and answer.headers["x-request-id"]
    assert running.metric("errors_total", kind="internal") >= 1


def test_connections_that_nobody_fetched_yet_are_not_lost() -> None:
    listener = listening("127.0.0.1", 0)
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    for client in clients:
        client.sendall(b"hello")
    fetched = _accepted(listener)
    listener.close()
    assert [connection.recv(5) for connection in fetched] == [b"hello"] * 3
    for each in (*clients, *fetched):
        each.close()
