"""What a hostile or clumsy client may do to the server: the documented answer, and it stays up."""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from server_kit import Running, configured, picture_file, serving

from limner.server.painting import Painting

HEAD = "POST /v1/images/generations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
TIGHT = {
    "header_seconds": 0.5,
    "body_seconds": 0.5,
    "header_bytes": 2048,
    "upload_bytes": 65_536,
    "json_bytes": 4096,
    "decoded_pixels": 4096,
    "output_pixels": 65_536,
    "pictures": 3,
    "prompt_characters": 100,
    "connections": 8,
}


@pytest.fixture(scope="module")
def tight(zoo: Path) -> Iterator[Running]:
    with serving(configured(zoo, limits=TIGHT, batching={"queue": 4, "deadline_s": 20})) as each:
        yield each


@pytest.fixture(autouse=True)
def stays_up(tight: Running) -> Iterator[None]:
    yield
    assert tight.paint().status_code == 200


@contextmanager
def connected(running: Running) -> Iterator[socket.socket]:
    with socket.create_connection(running.address, timeout=20) as each:
        yield each


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and error of what comes until the server closes."""
    data = b""
    while chunk := connection.recv(65_536):
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


def png_header(width: int, height: int) -> bytes:
    """A PNG file of few bytes that claims to hold that many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")


# ------------------------------------------------------------------------------------------------------------ bodies


def test_a_body_that_announces_its_size_is_refused_unread(tight: Running) -> None:
    with connected(tight) as connection:
        connection.sendall(f"{HEAD}content-length: {10**9}\r\n\r\n".encode())
        status, error = answer(connection)
    assert (status, error["code"]) == (413, "request_too_large")


def test_an_endless_body_is_cut_off(tight: Running) -> None:
    """A gigabyte in chunks: the server hangs up long before."""
    sent, block = 0, b"10000\r\n" + b"{" * 65_536 + b"\r\n"
    with connected(tight) as connection:
        connection.sendall(f"{HEAD}transfer-encoding: chunked\r\n\r\n".encode())
        try:
            for _ in range(16_384):
                connection.sendall(block)
                sent += len(block)
        except OSError:
            pass
    assert sent < 64 * 2**20
    assert tight.metric("rejections_total", reason="body_too_large") >= 1


def test_an_upload_has_a_limit_of_its_own(tight: Running) -> None:
    assert tight.post("/v1/images/upscale", files={"image": bytes(60_000)}).status_code == 400
    refused = tight.post("/v1/images/upscale", files={"image": bytes(70_000)})
    assert (refused.status_code, refused.headers["connection"]) == (413, "close")
    assert tight.post("/v1/images/generations", json={"prompt": "x" * 5000}).status_code == 413


# ------------------------------------------------------------------------------------------------------- slow clients


@pytest.mark.parametrize("sent", ["", "POST /v1/im", HEAD], ids=["nothing", "half a line", "half the headers"])
def test_slow_headers(sent: str, tight: Running) -> None:
    with connected(tight) as connection:
        connection.sendall(sent.encode())
        start = time.monotonic()
        assert answer(connection)[0] == 408
        assert time.monotonic() - start < 10


def test_a_trickle_of_headers_is_no_progress(tight: Running) -> None:
    with connected(tight) as connection:
        connection.sendall(HEAD.encode())
        try:
            for index in range(100):
                connection.sendall(f"x-{index}: y\r\n".encode())
                time.sleep(0.05)
        except OSError:
            return
    pytest.fail("five seconds of headers were taken")


def test_a_slow_body(tight: Running) -> None:
    with connected(tight) as connection:
        connection.sendall(f'{HEAD}content-length: 50\r\n\r\n{{"prompt"'.encode())
        status, error = answer(connection)
    assert (status, error["code"]) == (408, "request_timeout")


def test_endless_headers(tight: Running) -> None:
    with connected(tight) as connection:
        connection.sendall(f"{HEAD}x-long: {'y' * 4000}".encode())
        status, error = answer(connection)
    assert (status, error["code"]) == (431, "headers_too_large")


def test_what_is_not_http(tight: Running) -> None:
    with connected(tight) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert answer(connection)[0] == 400


def test_too_many_connections(tight: Running) -> None:
    held = [socket.create_connection(tight.address, timeout=20) for _ in range(8)]
    try:
        time.sleep(0.1)
        with connected(tight) as connection:
            assert answer(connection)[0] == 503
    finally:
        for each in held:
            each.close()
    time.sleep(0.2)


# ------------------------------------------------------------------------------------------------------------- bombs


def test_a_bomb_is_known_by_its_header(tight: Running) -> None:
    refused = tight.post("/v1/images/upscale", files={"image": png_header(60_000, 60_000)})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "image_too_large")
    assert "--max-pixels" not in refused.text


def test_a_damaged_picture(tight: Running) -> None:
    refused = tight.post("/v1/images/upscale", files={"image": png_header(60, 60)})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_image")


def test_an_animation(tight: Running) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (0, 255)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    refused = tight.post("/v1/images/upscale", files={"image": file.getvalue()})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "image")


def test_a_result_has_a_limit(tight: Running) -> None:
    asked = {"image": picture_file()}
    refused = tight.post("/v1/images/upscale", files=asked, data={"size": "300x300"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "size")
    assert tight.post("/v1/images/upscale", files=asked, data={"size": "200x200"}).status_code == 200


def test_limits_of_the_operator(tight: Running) -> None:
    assert tight.paint(n=4).json()["error"]["param"] == "n"
    assert tight.paint("cat " * 26).json()["error"]["code"] == "string_too_long"


# ------------------------------------------------------------------------------------------------------------- queue


@contextmanager
def stuck(painting: Painting) -> Iterator[None]:
    """Every batch waits until the end of the block."""
    free, run = threading.Event(), painting._plain._run

    def waiting(items: Any) -> Any:
        assert free.wait(20)
        return run(items)

    painting._plain._run = waiting
    try:
        yield
    finally:
        free.set()
        painting._plain._run = run


def test_a_full_queue_and_a_client_that_leaves(tight: Running) -> None:
    before = tight.metric("cancelled_total")
    with stuck(tight.service.paintings["icons"]):
        with connected(tight) as leaving:
            body = json.dumps({"prompt": "a red cat", "n": 3})
            leaving.sendall(f"{HEAD}content-length: {len(body)}\r\n\r\n{body}".encode())
            while tight.metric("queue_pictures", task="generate") < 3:
                time.sleep(0.01)
            refused = tight.paint(n=2)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
            assert int(refused.headers["retry-after"]) >= 1
        while tight.metric("queue_pictures", task="generate"):
            time.sleep(0.01)
    assert tight.metric("cancelled_total") == before + 1


def test_a_deadline(tight: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = tight.service.config.batching.model_copy(update={"deadline_s": 0.3})
    with stuck(tight.service.paintings["icons"]), monkeypatch.context() as patched:
        patched.setattr(tight.service, "config", tight.service.config.model_copy(update={"batching": shorter}))
        late = tight.paint()
    assert (late.status_code, late.json()["error"]["code"]) == (503, "deadline_exceeded")
    assert "retry-after" in late.headers


def test_one_broken_item_hurts_nobody_else(tight: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    painting = tight.service.paintings["icons"]
    encode = painting._file

    def poisoned(item: Any, pixels: Any, form: Any) -> bytes:
        if item.request.seed == 666:
            raise MemoryError("no more")
        return encode(item, pixels, form)

    monkeypatch.setattr(painting, "_file", poisoned)
    answers: dict[int, int] = {}

    def ask(seed: int) -> None:
        answers[seed] = tight.paint(seed=seed).status_code

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in (1, 666, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == {1: 200, 666: 500, 2: 200}
