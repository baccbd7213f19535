"""Garbage of every kind, seeded: every answer is a documented error or none, and the server stays up."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_kit import Running, configured, picture_file, serving

ROUNDS = 100
VALUES = [None, True, 0, -1, 1e308, "", "x", "a red cat", "\x00", "\ud800", "64x64", [], {}, [[]], 2**70, "\u202e" * 9]
KEYS = ("prompt", "model", "n", "size", "seed", "response_format", "output_format", "background", "stream", "style")


def mutated(rng: random.Random, data: bytes) -> bytes:
    """With bytes changed, cut out, repeated or put in."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0:
                changed[at : at + 1] = rng.randbytes(1)
            case 1:
                del changed[at : at + rng.randint(1, 40)]
            case 2:
                changed[at:at] = changed[at : at + rng.randint(1, 40)]
            case _:
                changed[at:at] = rng.randbytes(rng.randint(1, 20))
    return bytes(changed)


def request(rng: random.Random) -> bytes:
    """A request that is nearly right."""
    if rng.random() < 0.5:
        fields = {key: rng.choice(VALUES) for key in rng.sample(KEYS, rng.randint(0, 3))}
        path, kind, body = "generations", "application/json", json.dumps({"prompt": "a cat"} | fields).encode()
    else:
        path, kind = rng.choice(["upscale", "edits"]), "multipart/form-data; boundary=b"
        picture = picture_file(seed=rng.randrange(4), format=rng.choice(["PNG", "JPEG", "WEBP", "GIF"]))
        picture = mutated(rng, picture) if rng.random() < 0.6 else picture
        head = b'--b\r\ncontent-disposition: form-data; name="image"; filename="../../x"\r\n\r\n'
        body = head + picture + b"\r\n--b--\r\n"
    body = mutated(rng, body) if rng.random() < 0.5 else body
    head = f"POST /v1/images/{path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\nconnection: close\r\n".encode()
    head = mutated(rng, head) if rng.random() < 0.3 else head
    return head + f"content-length: {len(body)}\r\n\r\n".encode() + body


def answered(running: Running, data: bytes) -> bytes:
    with socket.create_connection(running.address, timeout=30) as connection:
        received = b""
        try:
            connection.sendall(data)
            while chunk := connection.recv(65_536):
                received += chunk
        except OSError:
            pass
    return received


@pytest.fixture
def running(zoo: Path) -> Iterator[Running]:
    with serving(configured(zoo, limits={"header_seconds": 0.5, "body_seconds": 0.5})) as each:
        yield each


def test_garbage_is_answered_and_the_server_stays_up(running: Running) -> None:
    rng, before = random.Random(5), running.metric("errors_total", kind="internal")
    statuses = set()
    for _ in range(ROUNDS):
        data = request(rng)
        answer = answered(running, data)
        if answer:
            statuses.add(int(answer.split()[1]))
            assert b"Traceback" not in answer, data
    assert statuses <= {200, 400, 404, 405, 408, 413, 431}, statuses
    assert {200, 400} <= statuses
    assert running.metric("errors_total", kind="internal") == before
    assert running.paint().status_code == 200
