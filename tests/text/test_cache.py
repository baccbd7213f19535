"""The cache on disk: same numbers, encoded once, whatever stops or shares it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from text_kit import make_text_bundle, save_model

from limner.errors import LimnerError, UsageError
from limner.runtime.text import TextEncoder, TextStates
from limner.text import cache
from limner.text.cache import cached_states, open_encoder
from limner.text.encoder import FrozenEncoder

CAPTIONS = ["a red apple", "a small green house with a dog", "pear"]


class Counting:
    """An encoder of width 4 whose vectors are a function of the caption; counts what it is asked."""

    def __init__(self, name: str = "counting", pause: float = 0.0) -> None:
        self.hash, self.pause, self.asked = name, pause, []

    @property
    def width(self) -> int:
        return 4

    def encode(self, prompts: Sequence[str], /) -> TextStates:
        time.sleep(self.pause)
        self.asked += prompts
        lengths = np.array([len(prompt.split()) for prompt in prompts])
        mask = np.arange(lengths.max()) < lengths[:, None]
        values = np.array([len(prompt) for prompt in prompts], np.float32)[:, None, None]
        states = np.float32(np.arange(1, 5) + values) * mask[..., None]
        return TextStates(states, mask, states[:, 0] / 8)


def test_vectors_are_those_of_the_encoder_in_half_precision(tmp_path: Path) -> None:
    encoder = TextEncoder.load(make_text_bundle(tmp_path / "tiny"))
    true = encoder.encode(CAPTIONS).fitted(16)
    found = cached_states(tmp_path / "tiny", CAPTIONS, tmp_path / "cache.sqlite", tokens=16)
    assert (found.states.dtype, found.pooled.dtype, found.hash) == (np.float16, np.float16, encoder.hash)
    assert (found.mask == true.mask).all()
    np.testing.assert_allclose(found.states, true.states, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.pooled, true.pooled, rtol=1e-3, atol=1e-6)


def test_a_caption_is_encoded_once(tmp_path: Path) -> None:
    encoder, file = Counting(), tmp_path / "deep" / "cache.sqlite"
    first = cached_states(encoder, [*CAPTIONS, CAPTIONS[0]], file)
    again = cached_states(encoder, [*CAPTIONS, "new one"], file)
    assert encoder.asked == [*CAPTIONS, "new one"]
    assert (first.states[3] == first.states[0]).all()
    assert (again.states[:3] == first.states[:3]).all()


def test_states_are_cut_or_padded_and_the_rest_stays_in_the_file(tmp_path: Path) -> None:
    encoder, file = Counting(), tmp_path / "cache.sqlite"
    short = cached_states(encoder, ["one two three four"], file, tokens=2)
    long = cached_states(encoder, ["one two three four"], file, tokens=6)
    assert (short.mask.sum(), long.mask.sum(), long.states.shape) == (2, 4, (1, 6, 4))
    assert (short.states == long.states[:, :2]).all()
    assert (long.states[0, 4:] == 0).all()
    assert len(encoder.asked) == 1


def test_encoders_do_not_mix(tmp_path: Path) -> None:
    file, other = tmp_path / "cache.sqlite", Counting("other")
    cached_states(Counting(), CAPTIONS, file)
    cached_states(other, CAPTIONS, file)
    assert other.asked == CAPTIONS


def test_progress_counts_new_captions(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    cached_states(Counting(), ["old"], tmp_path / "c")
    cached_states(
        Counting(), ["old", *map(str, range(300))], tmp_path / "c", progress=lambda *counts: seen.append(counts)
    )
    assert seen == [(256, 300), (300, 300)]


def _fill(file: Path, captions: list[str], pause: float) -> None:
    cached_states(Counting(pause=pause), captions, file)


def test_what_was_written_survives_kill_9(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CHUNK", 4)
    file, captions = tmp_path / "cache.sqlite", [f"caption {number}" for number in range(200)]
    process = multiprocessing.get_context("fork").Process(target=_fill, args=(file, captions, 0.01))
    process.start()
    while _rows(file) < 8:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    kept, encoder = _rows(file), Counting()
    assert 8 <= kept < 200
    assert kept % 4 == 0
    found = cached_states(encoder, captions, file)
    assert len(encoder.asked) == 200 - kept
    assert (found.states == cached_states(Counting(), captions, tmp_path / "fresh.sqlite").states).all()


def _rows(file: Path) -> int:
    try:
        with sqlite3.connect(file, timeout=5) as database:
            return database.execute("SELECT count(*) FROM vectors").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def test_two_processes_fill_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CHUNK", 8)
    file, captions = tmp_path / "cache.sqlite", [f"caption {number}" for number in range(120)]
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_fill, args=(file, part, 0.001)) for part in (captions[:80], captions[::-1][:80])]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    encoder = Counting()
    cached_states(encoder, captions, file)
    assert encoder.asked == []
    assert _rows(file) == 120


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a database, but long enough to be looked at " * 20)
    with pytest.raises(LimnerError, match=r"cannot be used as a cache of text vectors .*; remove it"):
        cached_states(Counting(), CAPTIONS, tmp_path / "cache")


def test_no_captions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no captions to encode"):
        cached_states(Counting(), [], tmp_path / "cache")


def test_a_bad_caption_is_named_and_the_rest_can_go_on(tmp_path: Path) -> None:
    make_text_bundle(tmp_path / "tiny")
    with pytest.raises(UsageError, match="prompt is empty"):
        cached_states(tmp_path / "tiny", ["apple", ""], tmp_path / "cache")
    assert cached_states(tmp_path / "tiny", ["apple"], tmp_path / "cache").mask.sum() == 3


def test_bundles_open_with_the_runtime_and_folders_with_transformers(tmp_path: Path) -> None:
    assert isinstance(open_encoder(make_text_bundle(tmp_path / "tiny")), TextEncoder)
    assert isinstance(open_encoder(save_model(tmp_path / "bert", "bert")), FrozenEncoder)
