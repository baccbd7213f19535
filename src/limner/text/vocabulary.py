"""A smaller vocabulary for a WordPiece tokenizer: the pieces that prompts need, the letters, and nothing else."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from limner.errors import LimnerError

PREFIX = "##"


def trimmed(tokenizer: Path, captions: Sequence[str], texts: Sequence[str], size: int) -> tuple[str, list[int]]:
    """(tokenizer.json with `size` pieces, the old number of each piece).

    Kept are special tokens and every Latin letter, digit and mark (so that any English word can still be spelled), the
    pieces of `captions`, then those that are common in `texts` or stand early in the vocabulary (which lists the
    commonest first). Raises LimnerError for a tokenizer of another kind than WordPiece.
    """
    raw = json.loads(tokenizer.read_text("utf-8"))
    if raw["model"]["type"] != "WordPiece":
        raise LimnerError(
            f"{tokenizer}: is of type {raw['model']['type']}; only a WordPiece vocabulary can be trimmed."
        )
    vocabulary: dict[str, int] = raw["model"]["vocab"]
    plain = Tokenizer.from_str(json.dumps(raw | {"truncation": None, "padding": None}))
    special = {token["content"] for token in raw["added_tokens"]}
    needed, common = _counts(plain, captions), _counts(plain, texts)
    english = [piece for piece in vocabulary if common[piece] or _plain(piece)]
    early = {piece: place for place, piece in enumerate(sorted(english, key=vocabulary.__getitem__))}
    often = {piece: place for place, (piece, _) in enumerate(common.most_common())}

    def rank(piece: str) -> tuple[bool, bool, int]:
        wanted = piece in special or _letter(piece)
        last = len(vocabulary)
        return not wanted, not needed[piece], min(early.get(piece, last), often.get(piece, last))

    kept = sorted(sorted(vocabulary, key=rank)[:size], key=vocabulary.__getitem__)
    return json.dumps(_renumbered(raw, kept), ensure_ascii=False), [vocabulary[piece] for piece in kept]


def _counts(tokenizer: Tokenizer, texts: Sequence[str]) -> Counter[str]:
    return Counter(piece for found in tokenizer.encode_batch(list(texts)) for piece in found.tokens)


def _plain(piece: str) -> bool:
    """A piece of an English word; not a number, a mark or a placeholder of the vocabulary."""
    return piece.removeprefix(PREFIX).isascii() and piece.removeprefix(PREFIX).isalpha()


def _letter(piece: str) -> bool:
    """A single character that English text may hold."""
    character = piece.removeprefix(PREFIX)
    return len(character) == 1 and (character.isascii() or unicodedata.name(character, "").startswith("LATIN"))


def _renumbered(raw: dict[str, Any], kept: list[str]) -> dict[str, Any]:
    numbers = {piece: number for number, piece in enumerate(kept)}
    added = [token | {"id": numbers[token["content"]]} for token in raw["added_tokens"]]
    template = raw["post_processor"]
    special = {
        name: token | {"ids": [numbers[each] for each in token["tokens"]]}
        for name, token in template["special_tokens"].items()
    }
    return raw | {
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "post_processor": template | {"special_tokens": special},
        "model": raw["model"] | {"vocab": numbers},
    }
