"""Vectors of captions, kept in one SQLite file: encoded once, whoever asks, and never half written."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from limner.bundle import MANIFEST, zoo
from limner.errors import LimnerError, UsageError
from limner.runtime.text import TextEncoder, TextStates

CHUNK = 256
PATIENCE = 60.0  # seconds to wait for another process that writes
SCHEMA = """CREATE TABLE IF NOT EXISTS vectors (
    encoder TEXT NOT NULL, caption TEXT NOT NULL, states BLOB NOT NULL, UNIQUE (encoder, caption))"""

Progress = Callable[[int, int], None]


class Encoder(Protocol):
    """What the cache needs of an encoder: `hash` names everything that decides its vectors."""

    hash: str

    @property
    def width(self) -> int: ...

    def encode(self, prompts: Sequence[str], /) -> TextStates: ...


@dataclass(frozen=True)
class CachedStates:
    """`states` (N, tokens, width) float16, zero where `mask` (N, tokens) is False; `pooled` (N, width) float16, of the
    whole caption, also where it has more than `tokens` tokens.
    """

    states: NDArray[np.float16]
    mask: NDArray[np.bool_]
    pooled: NDArray[np.float16]
    hash: str


def cached_states(
    model: str | os.PathLike[str] | Encoder,
    captions: Sequence[str],
    cache: Path,
    tokens: int = 16,
    progress: Progress | None = None,
) -> CachedStates:
    """Vectors of the captions, from the file `cache` where it has them, else encoded and added to it.

    `model`: a text bundle (zoo name or folder), a Hugging Face model (folder or id), or an open encoder. Any number of
    processes may use one file; what was written survives a crash. `progress(done, total)` counts new captions.
    Raises LimnerError for a damaged or unwritable file, an unknown model or a caption that cannot be encoded.
    """
    if not captions:
        raise UsageError("no captions to encode: give a list of one text or more.")
    encoder = open_encoder(model) if isinstance(model, str | os.PathLike) else model
    with _database(cache) as database:
        _add(database, encoder, _missing(database, encoder.hash, captions), progress)
        return _gather(database, encoder, captions, tokens)


def open_encoder(model: str | os.PathLike[str]) -> Encoder:
    """The runtime's encoder for a text bundle, so that training sees the numbers that serving will, but for rounded
    prompts of painters in int8; else a frozen language model.
    """
    if str(model) in zoo() or (Path(model) / MANIFEST).is_file():
        return TextEncoder.load(model)
    from limner.text.encoder import FrozenEncoder

    return FrozenEncoder.load(model)


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as database:
            database.execute(SCHEMA)
            yield database
    except (sqlite3.Error, OSError) as error:
        raise LimnerError(f"{path}: cannot be used as a cache of text vectors ({error}); remove it.") from None


def _missing(database: sqlite3.Connection, encoder: str, captions: Sequence[str]) -> list[str]:
    found = database.execute("SELECT caption FROM vectors WHERE encoder = ?", (encoder,))
    known = {caption for (caption,) in found}
    return [caption for caption in dict.fromkeys(captions) if caption not in known]


def _add(database: sqlite3.Connection, encoder: Encoder, captions: list[str], progress: Progress | None) -> None:
    for start in range(0, len(captions), CHUNK):
        chunk = captions[start : start + CHUNK]
        rows = zip(chunk, _blobs(encoder.encode(chunk)), strict=True)
        with database:  # one transaction: all of the chunk or nothing of it
            database.executemany(
                "INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", ((encoder.hash, *row) for row in rows)
            )
        if progress is not None:
            progress(min(start + CHUNK, len(captions)), len(captions))


def _blobs(found: TextStates) -> Iterator[bytes]:
    """The pooled vector, then the states of the tokens that are there, as float16."""
    for states, mask, pooled in zip(found.states, found.mask, found.pooled, strict=True):
        yield np.concatenate([pooled[None], states[mask]]).astype("<f2").tobytes()


def _gather(database: sqlite3.Connection, encoder: Encoder, captions: Sequence[str], tokens: int) -> CachedStates:
    states = np.zeros((len(captions), tokens, encoder.width), np.float16)
    mask = np.zeros((len(captions), tokens), bool)
    pooled = np.zeros((len(captions), encoder.width), np.float16)
    query = "SELECT states FROM vectors WHERE encoder = ? AND caption = ?"
    for row, caption in enumerate(captions):
        (blob,) = database.execute(query, (encoder.hash, caption)).fetchone()
        vectors = np.frombuffer(blob, "<f2").reshape(-1, encoder.width)
        kept = min(tokens, len(vectors) - 1)
        pooled[row], states[row, :kept], mask[row, :kept] = vectors[0], vectors[1 : kept + 1], True
    return CachedStates(states, mask, pooled, encoder.hash)
