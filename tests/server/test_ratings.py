"""Ratings: kept, revised, forgotten, and painted again into a data set that training accepts."""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from painter_kit import corrupted, make_painter

from limner import images
from limner.config import DataConfig
from limner.data.check import check
from limner.data.records import open_records
from limner.errors import LimnerError, UsageError
from limner.runtime.generate import Painter, Request
from limner.server.ratings import Rating, Store, export, graph_hash


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Painter:
    return Painter.load(make_painter(tmp_path_factory.mktemp("bundles") / "kit"), threads=1)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ratings.db'}"


def rated(painter: Painter, prompt: str = "a red apple", seed: int = 7, rating: int = 5, **more: object) -> Rating:
    plain = Rating(painter.manifest.name, graph_hash(painter.manifest), prompt, seed, painter.size, rating)
    return replace(plain, **more)  # pyright: ignore[reportArgumentType]


def test_a_rating_comes_back_as_it_was_given(url: str, painter: Painter) -> None:
    given = rated(painter, "红苹果 🍎", 2**63 - 1, 2, style="flat", negative="leaf", milliseconds=12.5, comment="ok")
    Store(url).add(given)
    assert list(Store(url).ratings()) == [given]


def test_ratings_come_in_order_and_can_be_chosen(url: str, painter: Painter) -> None:
    store = Store(url)
    for seed in range(5):
        store.add(rated(painter, seed=seed))
    store.add(rated(painter, model="other"))
    assert [each.seed for each in store.ratings(painter.manifest.name)] == [0, 1, 2, 3, 4]
    assert store.count() == 6
    assert list(store.ratings(since=datetime.now(UTC).replace(tzinfo=None) + timedelta(minutes=1))) == []


def test_only_who_holds_the_id_revises_or_forgets(url: str, painter: Painter) -> None:
    store = Store(url)
    id = store.add(rated(painter, rating=5))
    assert store.replace(id, rated(painter, rating=1))
    assert [each.rating for each in store.ratings()] == [1]
    assert not store.replace("0" * 32, rated(painter))
    assert not store.remove("0" * 32)
    assert store.remove(id)
    assert store.count() == 0


def test_no_picture_and_nothing_about_the_sender_is_stored(url: str, painter: Painter, tmp_path: Path) -> None:
    Store(url).add(rated(painter))
    with sqlite3.connect(tmp_path / "ratings.db") as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(limner_feedback)")}
    assert columns == {*Rating.__dataclass_fields__, "id", "created"}


@pytest.mark.parametrize(("field", "value"), [("rating", 0), ("rating", 6), ("seed", -1), ("seed", 2**63)])
def test_impossible_ratings_are_refused(painter: Painter, field: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{field} {value} is impossible"):
        replace(rated(painter), **{field: value})  # pyright: ignore[reportArgumentType]


def test_two_replicas_write_into_one_file(url: str, painter: Painter) -> None:
    stores = [Store(url), Store(url)]

    def send(store: Store) -> None:
        for seed in range(20):
            store.add(rated(painter, seed=seed))

    threads = [threading.Thread(target=send, args=(store,)) for store in stores]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert stores[0].count() == 40


@pytest.mark.parametrize("bad", ["feedback.db", "", "nosuch://host/db", "my sql://user:secret@host/db"])
def test_a_url_that_names_no_database(bad: str) -> None:
    with pytest.raises(UsageError, match="write it as SQLAlchemy does") as caught:
        Store(bad)
    assert "secret" not in str(caught.value)


def test_a_database_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match="cannot be opened"):
        Store(f"sqlite:///{tmp_path}/missing/ratings.db")


def test_a_database_that_is_damaged_later(url: str, tmp_path: Path, painter: Painter) -> None:
    store = Store(url)
    store.close()
    for each in tmp_path.glob("ratings.db*"):
        each.unlink()
    with pytest.raises(LimnerError, match="cannot be written"):
        store.add(rated(painter))


# ------------------------------------------------------------------------------------------------------------- export


def test_what_people_liked_becomes_a_data_set(url: str, painter: Painter, tmp_path: Path) -> None:
    store, out = Store(url), tmp_path / "liked"
    for seed in range(40):  # more than are painted together
        store.add(rated(painter, seed=seed, rating=5 if seed % 2 else 2, style="flat"))
    done = export(store, painter, out, license="CC0-1.0")
    assert (done.pictures, done.low, done.other_bundle, done.refused) == (20, 20, 0, 0)
    found = check(out, DataConfig())
    assert found.fault is None
    assert (found.pictures, found.without_caption, found.splits["train"]) == (20, 0, 20)
    record = open_records(out, DataConfig())[3]
    assert (record.text, record.style, record.extra["seed"]) == ("a red apple, flat style", "flat", 7)


def test_an_exported_picture_is_the_one_that_was_rated(url: str, painter: Painter, tmp_path: Path) -> None:
    store = Store(url)
    store.add(rated(painter, "a blue cat", 3, style="pixel", negative="house"))
    export(store, painter, tmp_path / "liked")
    (expected,) = painter.paint_batch([Request("a blue cat", 3, "house", "pixel")])
    written = images.decode(tmp_path / "liked/000000.png")
    assert written.alpha is not None
    assert np.array_equal(np.dstack([written.pixels, written.alpha]), expected)


def test_several_ratings_of_one_picture_count_as_their_mean(url: str, painter: Painter, tmp_path: Path) -> None:
    store = Store(url)
    for rating in (5, 5, 2):
        store.add(rated(painter, rating=rating))
    with pytest.raises(LimnerError, match=r"no picture of kit is rated 4\.5 or better, of 1 rated"):
        export(store, painter, tmp_path / "liked", least=4.5)
    assert not (tmp_path / "liked").exists()
    export(store, painter, tmp_path / "liked", least=4)
    assert json.loads((tmp_path / "liked/metadata.jsonl").read_text("utf-8"))["rating"] == 4


def test_what_cannot_be_painted_again_is_left_out(url: str, painter: Painter, tmp_path: Path) -> None:
    store = Store(url)
    store.add(rated(painter))
    store.add(rated(painter, bundle="0" * 64))
    store.add(rated(painter, style="gone"))
    store.add(rated(painter, "porn"))
    done = export(store, painter, tmp_path / "liked")
    assert (done.pictures, done.other_bundle, done.refused) == (1, 1, 2)


def test_an_export_never_mixes_with_what_is_there(url: str, painter: Painter, tmp_path: Path) -> None:
    store = Store(url)
    store.add(rated(painter))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/own.txt").touch()
    with pytest.raises(UsageError, match="not an empty folder"):
        export(store, painter, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["own.txt"]


def test_a_renamed_graph_is_another_painter(painter: Painter, tmp_path: Path) -> None:
    other = make_painter(tmp_path / "kit", seed=1)
    assert graph_hash(Painter.load(other, threads=1).manifest) != graph_hash(painter.manifest)
    described = corrupted(other, tmp_path / "kit-2", description="the same graphs, other words")
    assert graph_hash(Painter.load(described, threads=1).manifest) == graph_hash(
        Painter.load(other, threads=1).manifest
    )
