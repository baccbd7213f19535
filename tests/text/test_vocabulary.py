"""A trimmed vocabulary: what captions need and what common words need, and every letter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from text_kit import SPECIAL, wordpiece
from tokenizers import Tokenizer, models

from limner.errors import LimnerError
from limner.text.vocabulary import trimmed


@pytest.fixture
def file(tmp_path: Path) -> Path:
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_texts_of_kept_words_come_out_the_same(file: Path) -> None:
    captions = ["a red apple", "the green house, flat style"]
    text, kept = trimmed(file, captions, ["dogs with cats"], 100)
    small, full = Tokenizer.from_str(text), Tokenizer.from_file(str(file))
    assert small.get_vocab_size() == len(kept) == 100 < full.get_vocab_size()
    for caption in captions:
        new, old = small.encode(caption), full.encode(caption)
        assert new.tokens == old.tokens
        assert [kept[number] for number in new.ids] == old.ids


def test_any_latin_word_can_still_be_spelled(file: Path) -> None:
    text, _ = trimmed(file, ["a red apple"], [], 87)
    found = Tokenizer.from_str(text).encode("quixotic zebras 42, pear!")
    assert "[UNK]" not in found.tokens
    assert "pear" not in found.tokens


def test_special_tokens_keep_their_place_around_the_text(file: Path) -> None:
    text, kept = trimmed(file, ["apple"], [], 96)
    small = Tokenizer.from_str(text)
    assert small.encode("apple").tokens == ["[CLS]", "apple", "[SEP]"]
    assert [small.token_to_id(token) for token in SPECIAL] == list(range(5))
    assert sorted(kept) == kept


def test_common_words_of_general_text_stay_before_rare_ones(file: Path) -> None:
    text, _ = trimmed(file, ["a red apple"], ["in in on on in of", "style"], 98)
    assert {"in", "on"} <= set(json.loads(text)["model"]["vocab"])


def test_another_kind_of_tokenizer(tmp_path: Path) -> None:
    Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(LimnerError, match="is of type BPE; only a WordPiece vocabulary can be trimmed"):
        trimmed(tmp_path / "tokenizer.json", ["a"], [], 10)
