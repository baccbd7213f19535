"""Results under URLs: found, expired, out of room, and never by a path of the client's."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from server_kit import Running

from limner import images
from limner.server.config import MIB
from limner.server.config import Results as Settings
from limner.server.errors import ApiError
from limner.server.metrics import Metrics
from limner.server.results import Results


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(Settings(folder=str(tmp_path / "results"), seconds=100, bytes=MIB), Metrics())


def test_what_is_put_is_found(results: Results) -> None:
    name = results.put(b"picture", "png")
    path = results.find(name)
    assert path is not None and path.read_bytes() == b"picture"
    assert name.removesuffix(".png") not in path.name
    assert results.find(name.replace(".png", ".webp")) is None
    assert results.put(b"picture", "png") != name


def test_results_expire_and_are_swept(results: Results) -> None:
    name = results.put(b"picture", "png")
    path = results.find(name)
    assert path is not None
    old = time.time() - 101
    os.utime(path, (old, old))
    assert results.find(name) is None and path.exists()
    results.sweep()
    assert not path.exists()


def test_sweeping_leaves_the_files_of_others_alone(results: Results) -> None:
    stranger = results.folder / "notes.txt"
    stranger.write_text("mine")
    os.utime(stranger, (0, 0))
    results.sweep()
    assert stranger.exists()


@pytest.mark.parametrize("name", ["", "../secret.png", "/etc/passwd", "x" * 32, "x" * 32 + ".exe", "x" * 32 + ".png"])
def test_other_names_find_nothing(name: str, results: Results) -> None:
    assert results.find(name) is None


def test_room_is_limited_and_comes_back(results: Results) -> None:
    name = results.put(b"x" * MIB, "png")
    with pytest.raises(ApiError) as caught:
        results.put(b"x", "png")
    assert (caught.value.status, caught.value.code) == (507, "insufficient_storage")
    path = results.find(name)
    assert path is not None
    os.utime(path, (0, 0))
    assert results.find(results.put(b"x", "png"))


def test_a_temporary_folder_is_removed() -> None:
    results = Results(Settings(), Metrics())
    assert results.folder.is_dir()
    results.close()
    assert not results.folder.exists()


def test_a_full_disk_is_told(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(data: bytes, path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(images, "write_bytes", full)
    answer = running.paint(response_format="url")
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "insufficient_storage")
    assert running.paint().status_code == 200


@pytest.mark.parametrize("name", ["x" * 32 + ".png", "..%2f..%2fetc%2fpasswd", "x" * 200, "%00.png"])
def test_no_such_result(name: str, running: Running) -> None:
    answer = running.get(f"/v1/images/results/{name}")
    assert answer.status_code in (400, 404) and answer.json()["error"]["type"] == "invalid_request_error"
