"""`/v1/images/feedback`: over HTTP, with the answers of OpenAI's API for what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from commandline import limner
from server_kit import Running, configured, make_zoo, serving

from limner.config import DataConfig
from limner.data.check import check
from limner.errors import UsageError
from limner.server.app import create_app
from limner.server.ratings import Store

RATING = {"prompt": "a red apple", "seed": 7, "rating": 5, "style": "flat", "milliseconds": 12.5}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def url(zoo: Path) -> str:
    return f"sqlite:///{zoo / 'ratings.db'}"


@pytest.fixture(scope="module")
def running(zoo: Path, url: str) -> Iterator[Running]:
    with serving(configured(zoo, feedback={"url": url})) as server:
        yield server


def rate(running: Running, **changes: Any) -> httpx.Response:
    return running.post("/v1/images/feedback", json={**RATING, **changes})


def test_what_was_painted_can_be_rated_changed_and_taken_back(running: Running, url: str) -> None:
    store = Store(url)
    given = rate(running).json()
    assert (given["object"], given["rating"]) == ("image.feedback", 5)
    assert rate(running, rating=2, id=given["id"]).json()["id"] == given["id"]
    (kept,) = store.ratings()
    assert (kept.rating, kept.prompt, kept.model, kept.size, kept.milliseconds) == (2, "a red apple", "icons", 64, 12.5)
    gone = httpx.delete(f"{running.url}/v1/images/feedback/{given['id']}", trust_env=False)
    assert gone.json()["deleted"] is True
    assert store.count() == 0


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"rating": 6}, 400, "rating"),
        ({"rating": "5"}, 400, "rating"),
        ({"seed": -1}, 400, "seed"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": "porn"}, 400, "prompt"),
        ({"style": "cubist"}, 400, "style"),
        ({"size": "64x65"}, 400, "size"),
        ({"size": "65x65"}, 400, "size"),
        ({"model": "icnos"}, 404, "model"),
        ({"comment": "x" * 2001}, 400, "comment"),
        ({"id": "0" * 32}, 404, "id"),
        ({"id": "1; drop table"}, 400, "id"),
        ({"picture": "x"}, 400, "picture"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_kept(
    running: Running, url: str, changes: dict[str, Any], status: int, param: str
) -> None:
    answer = rate(running, **changes)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert Store(url).count() == 0


def test_a_rating_that_is_not_there_cannot_be_taken_back(running: Running) -> None:
    answer = httpx.delete(f"{running.url}/v1/images/feedback/{'0' * 32}", trust_env=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_without_a_database_there_is_no_feedback(zoo: Path) -> None:
    app = create_app(configured(zoo))
    assert not any("feedback" in str(getattr(route, "path", "")) for route in app.routes)


def test_a_server_with_a_wrong_database_does_not_start(zoo: Path) -> None:
    with pytest.raises(UsageError, match="write it as SQLAlchemy does"):
        create_app(configured(zoo, feedback={"url": "feedback.db"}))


def test_the_command_exports_what_training_reads(
    running: Running, zoo: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        rate(running, seed=seed, rating=1 + 4 * (seed == 2))
    out = tmp_path / "liked"
    assert limner("feedback", "export", url, str(out), "-m", str(zoo / "icons"), "--threads", "1") == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}\n"
    assert "1 picture, 1 rated lower" in printed.err
    found = check(out, DataConfig())
    assert (found.pictures, found.fault) == (1, None)
    for each in Store(url).ratings():
        assert each.prompt == "a red apple"


def test_the_command_refuses_what_holds_no_ratings(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def export(name: str) -> int:
        words = ("feedback", "export", f"sqlite:///{tmp_path / name}", str(tmp_path / "out"))
        return limner(*words, "-m", str(zoo / "icons"), "--threads", "1")

    assert export("misspelt.db") == 1
    assert "misspelt.db: holds no ratings; check the URL." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    Store(f"sqlite:///{tmp_path / 'empty.db'}")
    assert export("empty.db") == 1
    assert "no picture of icons is rated 4 or better, of 0 rated" in capsys.readouterr().err
