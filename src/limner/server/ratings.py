"""Ratings of painted pictures, kept to tune a painter again. Off unless the operator names a database.

No picture is stored: a painter paints the same one again from (bundle, prompt, seed, style, size), which is what
`export` does. A row says what a person chose to send, nothing about who sent it.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from limner import bundle, images
from limner.errors import LimnerError, UsageError
from limner.runtime.generate import MAX_SEED, Painter, Request

RATINGS = range(1, 6)
CHUNK = 32  # pictures painted together by an export
ID_BYTES = 16
WAIT_MS = 5_000  # for another process that writes into the same SQLite file

_schema = sql.MetaData()
_ratings = sql.Table(
    "limner_feedback",
    _schema,
    sql.Column("id", sql.String(2 * ID_BYTES), primary_key=True),
    sql.Column("created", sql.DateTime, nullable=False, index=True),
    sql.Column("model", sql.String(200), nullable=False, index=True),
    sql.Column("bundle", sql.String(64), nullable=False),
    sql.Column("prompt", sql.Text, nullable=False),
    sql.Column("negative", sql.Text),
    sql.Column("style", sql.String(200)),
    sql.Column("size", sql.Integer, nullable=False),
    sql.Column("seed", sql.BigInteger, nullable=False),
    sql.Column("milliseconds", sql.Float),
    sql.Column("rating", sql.SmallInteger, nullable=False),
    sql.Column("comment", sql.Text),
)


@dataclass(frozen=True)
class Rating:
    """What a person thinks of one picture: `rating` 1 (bad) to 5 (good).

    `bundle`: the sha256 of the painter's graph. `size`: side in pixels. `milliseconds`: how long the person waited.
    """

    model: str
    bundle: str
    prompt: str
    seed: int
    size: int
    rating: int
    style: str | None = None
    negative: str | None = None
    milliseconds: float | None = None
    comment: str | None = None

    def __post_init__(self) -> None:
        if self.rating not in RATINGS:
            raise UsageError(f"rating {self.rating} is impossible: give 1 (bad) to {RATINGS[-1]} (good).")
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"seed {self.seed} is impossible: give a whole number from 0 to {MAX_SEED}.")


_FIELDS = tuple(each.name for each in fields(Rating))


class Store:
    """Ratings in the database at a SQLAlchemy URL; any number of threads and processes may use it at once.

    The table is made where it is missing; `existing`: it must be there. Raises UsageError for a URL that names no
    database, LimnerError for one that does not answer.
    """

    def __init__(self, url: str, *, existing: bool = False) -> None:
        self.name, self._engine = _opened(url)
        if existing:
            self._check()
            return
        with self._explained("opened"):
            _make(self._engine)

    def add(self, rating: Rating) -> str:
        """Keep a rating. Returns its id, which only the sender knows and which `replace` and `remove` take."""
        id, now = secrets.token_hex(ID_BYTES), datetime.now(UTC).replace(tzinfo=None)
        with self._explained("written"), self._engine.begin() as connection:
            connection.execute(_ratings.insert().values(id=id, created=now, **_columns(rating)))
        return id

    def replace(self, id: str, rating: Rating) -> bool:
        """Put another rating in the place of that one. Returns whether there was one."""
        with self._explained("written"), self._engine.begin() as connection:
            change = _ratings.update().where(_ratings.c.id == id).values(**_columns(rating))
            return connection.execute(change).rowcount > 0

    def remove(self, id: str) -> bool:
        """Forget a rating. Returns whether there was one."""
        with self._explained("written"), self._engine.begin() as connection:
            return connection.execute(_ratings.delete().where(_ratings.c.id == id)).rowcount > 0

    def ratings(self, model: str | None = None, since: datetime | None = None) -> Iterator[Rating]:
        """All ratings in the order in which they came; `model` and `since` (UTC) leave others out."""
        wanted = [_ratings.c[name] for name in _FIELDS]
        query = sql.select(*wanted).order_by(_ratings.c.created, _ratings.c.id)
        if model is not None:
            query = query.where(_ratings.c.model == model)
        if since is not None:
            query = query.where(_ratings.c.created >= since)
        with self._explained("read"), self._engine.connect() as connection:
            for row in connection.execution_options(yield_per=1000).execute(query):
                yield Rating(**row._asdict())

    def count(self) -> int:
        """How many ratings there are."""
        with self._explained("read"), self._engine.connect() as connection:
            return connection.execute(sql.select(sql.func.count()).select_from(_ratings)).scalar_one()

    def close(self) -> None:
        self._engine.dispose()

    def _check(self) -> None:
        file = self._engine.url.database if self._engine.url.get_backend_name() == "sqlite" else None
        there = file is None or Path(file).is_file()  # SQLite would make the file
        with self._explained("opened"):
            if there and sql.inspect(self._engine).has_table(_ratings.name):
                return
        raise LimnerError(f"feedback database {self.name}: holds no ratings; check the URL.")

    def _explained(self, verb: str) -> _Explained:
        return _Explained(self.name, verb)


class _Explained:
    """Turns a database's faults into a sentence without the URL's password."""

    def __init__(self, name: str, verb: str) -> None:
        self.name, self.verb = name, verb

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, SQLAlchemyError):
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            raise LimnerError(
                f"feedback database {self.name} cannot be {self.verb} ({reason:.160}); check that it is there."
            ) from None


def _opened(url: str) -> tuple[str, sql.Engine]:
    try:
        parsed = sql.make_url(url)
        engine = sql.create_engine(parsed, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise UsageError(
            f"feedback URL {_masked(url)!r}: write it as SQLAlchemy does, such as sqlite:///feedback.db."
        ) from None
    except ModuleNotFoundError as error:
        raise UsageError(f"feedback URL {_masked(url)!r} needs the package {error.name!r}: pip install it.") from None
    if parsed.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _prepared)
    return parsed.render_as_string(hide_password=True), engine


def _masked(url: str) -> str:
    """A URL that could not be parsed may still hold a password."""
    scheme, at, rest = url.rpartition("@")
    return f"{scheme.partition('://')[0]}://***@{rest}" if at else url


def _prepared(connection: Any, record: Any) -> None:
    """Readers do not wait for writers, and writers wait for each other instead of failing."""
    connection.execute(f"PRAGMA busy_timeout = {WAIT_MS}")
    connection.execute("PRAGMA journal_mode = WAL")


def _make(engine: sql.Engine) -> None:
    try:
        _schema.create_all(engine)
    except SQLAlchemyError:
        # Another replica may have made the table between the look and the making.
        if not sql.inspect(engine).has_table(_ratings.name):
            raise


def _columns(rating: Rating) -> dict[str, Any]:
    return {name: getattr(rating, name) for name in _FIELDS}


# ------------------------------------------------------------------------------------------------------------- export

Key = tuple[str, str | None, str | None, int, int]


@dataclass(frozen=True)
class Exported:
    """What an export wrote: `pictures`; and which ratings it left out, and why."""

    pictures: int
    low: int = 0
    other_bundle: int = 0
    refused: int = 0


def export(
    store: Store,
    painter: Painter,
    folder: Path,
    *,
    least: float = 4,
    license: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Paint what people liked again, into a folder with `metadata.jsonl`, the form that training reads.

    Pictures of `painter` whose mean rating is at least `least`. All of them are of the split `train`: what people
    rated is for learning, and a test set must stay independent of it. Ratings of another bundle of the same name are
    left out, since the picture they speak of cannot be painted again.

    Raises LimnerError for a folder that is not empty or cannot be written, and when nothing is left to write.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists and is not an empty folder; choose another.")
    means, other = _means(store, painter)
    liked = {key: mean for key, mean in means.items() if mean >= least}
    requests, refused = _requests(painter, liked)
    if not requests:
        raise LimnerError(
            f"{store.name}: no picture of {painter.manifest.name} is rated {least:g} or better, of "
            f"{len(means) + other} rated; lower --min-rating, or wait for more."
        )
    _write(painter, requests, folder, license, progress)
    return Exported(len(requests), len(means) - len(liked), other, refused)


def graph_hash(manifest: bundle.Manifest) -> str:
    """sha256 of the graph, which tells whether a bundle of that name would paint the same picture."""
    graphs = manifest.graphs
    return manifest.files[(graphs.get("int8") or graphs["float"]).file]


def _means(store: Store, painter: Painter) -> tuple[dict[Key, float], int]:
    """Mean rating of every picture of this painter, and how many ratings are of another bundle."""
    sums: dict[Key, tuple[int, int]] = {}
    own, other = graph_hash(painter.manifest), 0
    for each in store.ratings(painter.manifest.name):
        if each.bundle != own:
            other += 1
            continue
        key = (each.prompt, each.negative, each.style, each.size, each.seed)
        total, count = sums.get(key, (0, 0))
        sums[key] = total + each.rating, count + 1
    return {key: total / count for key, (total, count) in sums.items()}, other


def _requests(painter: Painter, liked: dict[Key, float]) -> tuple[list[tuple[Request, float]], int]:
    """Requests with their ratings, less those that the painter or its prompt filter refuses today."""
    kept = []
    for (prompt, negative, style, size, seed), mean in liked.items():
        request = Request(prompt, seed, negative, style, size)
        try:
            painter.check(request)
            painter.refuse_unsafe(prompt)
        except LimnerError:
            continue
        kept.append((request, mean))
    return kept, len(liked) - len(kept)


def _write(
    painter: Painter,
    requests: Sequence[tuple[Request, float]],
    folder: Path,
    license: str,
    progress: Callable[[int, int], None],
) -> None:
    draft = folder.with_name(f".{folder.name}-{secrets.token_hex(6)}.part")
    try:
        draft.mkdir(parents=True)
        with (draft / "metadata.jsonl").open("w", encoding="utf-8") as table:
            for at in range(0, len(requests), CHUNK):
                chunk = requests[at : at + CHUNK]
                painted = painter.paint_batch([request for request, _ in chunk])
                for index, ((request, mean), pixels) in enumerate(zip(chunk, painted, strict=True), at):
                    name = f"{index:06d}.png"
                    images.write(painter.picture(request, pixels), draft / name)
                    row = _row(painter, name, request, mean, license)
                    table.write(json.dumps(row, ensure_ascii=False) + "\n")
                progress(at + len(chunk), len(requests))
        draft.replace(folder)
    except OSError as error:
        raise LimnerError(f"{folder}: cannot be written ({error.strerror}); choose another folder.") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _row(painter: Painter, name: str, request: Request, mean: float, license: str) -> dict[str, Any]:
    """A line of metadata; pictures of one prompt are one group."""
    return {
        "file_name": name,
        "text": painter.styled(request),
        "group": " ".join(request.prompt.lower().split()),
        "style": request.style or "",
        "license": license,
        "source": f"limner feedback: {painter.manifest.name}",
        "split": "train",
        "seed": request.seed,
        "rating": round(mean, 3),
    }
