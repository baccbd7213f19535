"""The prompt filter: lists of terms, then a linear probe on the sentence embedding. It advises; the caller decides.

The list stage needs only the text. The probe needs the prompt's pooled embedding, which the painter computes anyway,
and works only with the text encoder it was trained on. Lists and probe lie in `safety_data`; `runs/safety/probe.py`
trains the probe and prints how good the filter is.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from limner.errors import LimnerError, one_of

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
"""The categories of OpenAI's moderation endpoint. limner's own stages never score the /threatening, /intent and
/instructions ones: they stand at 0, so that clients find every key they expect."""

Level = Literal["off", "low", "auto"]
Stage = Literal["", "list", "probe"]

DATA = Path(__file__).parent / "safety_data"
# `auto` stops nudity, slurs, gore; `low` only what is explicit. Anything sexual about children is stopped by both.
THRESHOLDS: dict[Level, float] = {"low": 0.9, "auto": 0.5}
_LOWEST = min(THRESHOLDS.values())
_SCORES = {"strong": 1.0, "mild": 0.6, "": 0.0}
_NEVER = frozenset({"sexual/minors"})
_AIDS = ("minor", "suggestive")  # lists that matter only together with others
_NO_SCORES: Mapping[str, float] = MappingProxyType(dict.fromkeys(CATEGORIES, 0.0))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the filter thinks of a prompt.

    `scores`: 0..1 for every one of CATEGORIES. `categories`: those that reach the level's threshold, highest first;
    `flagged`: there is one. `stage`: which stage flagged it, "list" before "probe". `terms`: what matched in the lists,
    for the eyes of whoever wrote the prompt: keep them out of logs.
    """

    flagged: bool = False
    categories: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=lambda: _NO_SCORES)
    stage: Stage = ""
    terms: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """One sentence for the user, without the prompt; empty for a prompt that passes."""
        if not self.flagged:
            return ""
        kinds = " and ".join(self.categories[:2])
        return f"the prompt was flagged as {kinds}; word it differently, or choose another moderation level."

    def moderation(self) -> dict[str, object]:
        """A result in the shape that OpenAI's moderation endpoint gives."""
        return {
            "flagged": self.flagged,
            "categories": {category: category in self.categories for category in CATEGORIES},
            "category_scores": dict(self.scores),
        }


_CLEAN = Verdict()


class PromptFilter:
    """Judges prompts; may be used by several threads.

    `level`: "off" passes everything unread, "low" flags only what is explicit, "auto" more. `encoder`: the hash of the
    text encoder whose embeddings `check` will be given (`TextEncoder.hash`), None for lists alone. `probe`: a file of
    `runs/safety/probe.py` in place of the one that ships. `note`: a sentence that tells why the probe stays out, empty
    if it does not. Raises UsageError for an unknown level, LimnerError for a damaged probe file.
    """

    def __init__(self, level: Level = "auto", *, encoder: str | None = None, probe: Path | None = None) -> None:
        if level not in get_args(Level):
            raise one_of("moderation level", level, get_args(Level))
        self.level: Level = level
        self.note = ""
        self._lists, self._probe = _lists(), None
        if encoder is not None and level != "off":
            self._probe, self.note = _matching(probe or DATA / "probe.npz", encoder)

    def check(self, prompt: str, embedding: NDArray[np.float32] | None = None) -> Verdict:
        """Judge one prompt. `embedding`: its pooled state, (d,) or (1, d), of any length (norm).

        Never raises for what a prompt says, only LimnerError for an embedding of the wrong shape.
        """
        if self.level == "off":
            return _CLEAN
        found = self._lists.search(prompt)
        guessed = {} if self._probe is None or embedding is None else self._probe.scores(embedding)
        if not found and not guessed:
            return _CLEAN
        if guessed.get("sexual", 0) >= THRESHOLDS["auto"] and self._lists.names_minor(prompt):
            guessed["sexual/minors"] = guessed["sexual"]
        return self._verdict(found, guessed)

    def _verdict(self, found: dict[str, _Hit], guessed: dict[str, float]) -> Verdict:
        scores = {**_NO_SCORES, **guessed}
        for category, hit in found.items():
            scores[category] = max(scores[category], hit.score)
        flagged = [category for category, score in scores.items() if score >= _LOWEST and self._stops(category, score)]
        terms = tuple(dict.fromkeys(term for hit in found.values() for term in hit.terms))
        if not flagged:
            return Verdict(scores=scores, terms=terms)
        by_list = any(self._stops(category, hit.score) for category, hit in found.items())
        flagged.sort(key=lambda category: -scores[category])
        return Verdict(True, tuple(flagged), scores, "list" if by_list else "probe", terms)

    def _stops(self, category: str, score: float) -> bool:
        level: Level = "auto" if category in _NEVER else self.level
        return score >= THRESHOLDS[level]


# -------------------------------------------------------------------------------------------------------- normalizing

# Letters of other scripts that look like Latin ones, after NFKD and case folding.
_LOOKALIKES = str.maketrans(
    dict(
        zip(
            "аеорсухіѕјԁһԛԝьгпмтвнкԍ" + "αορτυικεηχνβѵաոսօցհզ" + "ɴɪʀʟʏɢʙʜᴀᴄᴅᴇᴊᴋᴍᴏᴘꜱᴛᴜᴠᴡᴢɑɡıłøđħꞓ",
            "aeopcyxisjdhqwbrnmtbhkg" + "aoptuikenxvbvanuoghq" + "nirlygbhacdejkmopstuvwzagilodhc",
            strict=True,
        )
    )
    | {"_": " ", "€": "e", "£": "l", "æ": "ae", "œ": "oe"}
)
_LEET = [str.maketrans("0134578@$!|+9", f"o{one}eastbas{one}{one}tg") for one in "il"]
_WORD = re.compile(r"[\w@$!|+*]+")
_SPACED = re.compile(r"(?<!\w)[\w@$!](?:[^\w@$!]{1,3}[\w@$!])+(?!\w)")
_INNER = re.compile(r"\w[^\w\s]\w")
_TRIPLE = re.compile(r"([a-z])\1\1+")
_LONGEST_TEXT = 10_000
_CACHED_WORDS = 8192
_SHORT_PHRASE = 9  # characters; shorter phrases make ordinary words when run together
_LONGEST_RUN = 64  # letters of a spaced-out word that are searched for terms
_AGE = re.compile(r"\b(\d{1,2})[\s-]*(?:yo|y\.o|yrs?|years?|anos|jahre)\b")


def normalized(text: str) -> str:
    """`text` in lower case, without accents, invisible characters and look-alikes of other scripts; the first 10,000
    characters, since text encoders refuse longer prompts.
    """
    text = text[:_LONGEST_TEXT].casefold()
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        text = "".join(sign for sign in text if unicodedata.category(sign) not in ("Mn", "Me", "Cf"))
        text = text.casefold()
    return text.translate(_LOOKALIKES)


def _words(text: str) -> list[str]:
    """Words of a normalized text; signs that can stand for letters stay in them."""
    return [word for each in _WORD.findall(text) if (word := each.rstrip("!|+*").lstrip("*+|"))]


# -------------------------------------------------------------------------------------------------------------- lists


class _Term(NamedTuple):
    text: str
    category: str
    score: float


class _Hit(NamedTuple):
    score: float
    terms: tuple[str, ...]


class _Lists:
    """Terms by first word: a prompt costs a few dictionary look-ups per word, however long the lists are."""

    def __init__(self, terms: Iterable[_Term], allowed: Iterable[str]) -> None:
        self.words: dict[str, list[_Term]] = {}
        self.stems: dict[str, list[_Term]] = {}
        self.phrases: dict[str, list[tuple[tuple[str, ...], _Term]]] = {}
        self.scripts: list[tuple[str, _Term]] = []
        self.allowed: dict[str, list[tuple[str, ...]]] = {}
        for term in terms:
            self._add(term)
        for phrase in allowed:
            words = tuple(_words(normalized(phrase)))
            self.allowed.setdefault(words[0], []).append(words)
        self.lengths = sorted({len(stem) for stem in self.stems})
        self.single = lru_cache(_CACHED_WORDS)(self._look_up)

    def _add(self, term: _Term) -> None:
        text = normalized(term.text.removesuffix("*"))
        words = tuple(_words(text))
        if len(words) > 1:
            last = words[-1] + "*" if term.text.endswith("*") else words[-1]
            self.phrases.setdefault(words[0], []).append(((*words[:-1], last), term))
            if len(text) > _SHORT_PHRASE and not term.text.endswith("*"):
                self.words.setdefault("".join(words), []).append(term)  # killmyself, k i l l m y s e l f
        elif not text.isascii():
            # Chinese and Japanese put no spaces between words.
            self.scripts.append((text, term))
        else:
            table = self.stems if term.text.endswith("*") else self.words
            table.setdefault(text, []).append(term)

    def search(self, prompt: str) -> dict[str, _Hit]:
        """Hits by category."""
        text = normalized(prompt)
        terms = self._matches(text)
        if not terms:
            return {}
        found = _best(term for term in terms if term.category not in _AIDS)
        aids = {term.category for term in terms} & set(_AIDS)
        if ("sexual" in found or "suggestive" in aids) and ("minor" in aids or _young(text)):
            found["sexual/minors"] = _Hit(1.0, tuple(term.text for term in terms))
        return found

    def names_minor(self, prompt: str) -> bool:
        text = normalized(prompt)
        return _young(text) or any(term.category == "minor" for term in self._matches(text))

    def _matches(self, text: str) -> list[_Term]:
        words = [word if word.isalpha() and "*" not in word else self._plain(word) for word in _words(text)]
        if _TRIPLE.search(text):
            words = [self._collapsed(word) for word in words]
        words += self._hidden(text, words)
        terms = [term for at, word in self._open(words) for term in self._at(words, at, word)]
        if not text.isascii():
            terms += [term for script, term in self.scripts if script in text]
        return terms

    def _open(self, words: list[str]) -> Iterator[tuple[int, str]]:
        """Positions that no allowed phrase covers."""
        covered: set[int] = set()
        for at, word in enumerate(words):
            for phrase in self.allowed.get(word, ()):
                if tuple(words[at : at + len(phrase)]) == phrase:
                    covered.update(range(at, at + len(phrase)))
            if at not in covered:
                yield at, word

    def _at(self, words: list[str], at: int, word: str) -> Iterator[_Term]:
        yield from self.single(word)
        for phrase, term in self.phrases.get(word, ()):
            if _begins(words[at : at + len(phrase)], phrase):
                yield term

    def _look_up(self, word: str) -> tuple[_Term, ...]:
        found = self.words.get(word)
        if found is None and word.endswith("s"):
            found = self.words.get(word[:-1]) or (self.words.get(word[:-2]) if word.endswith("es") else None)
        heads = (word[:length] for length in self.lengths if length <= len(word))
        return *(found or ()), *(term for head in heads for term in self.stems.get(head, ()))

    def _known(self, word: str) -> bool:
        return bool(self.single(word)) or word in self.phrases

    def _plain(self, word: str) -> str:
        """A word with digits or signs for letters as it would be spelt, if that is a term: pr0n, $ex, n*de."""
        if "*" in word:
            return self._unmasked(word)
        if word.isdigit():
            return word
        spellings = (word, *(word.translate(table) for table in _LEET))
        return next((spelling for spelling in spellings if self._known(spelling)), word)

    def _unmasked(self, word: str) -> str:
        if len(word) > 24:
            return word
        letters = "".join(re.escape(sign) if sign != "*" else "[a-z]{1,3}" for sign in re.sub(r"\*+", "*", word))
        pattern = re.compile(letters)
        masked = (term for term, entries in self.words.items() if len(term) > 2 and entries[0].score == 1)
        stems = (stem for stem in self.stems if self.stems[stem][0].score == 1)
        return next((term for each in (masked, stems) for term in each if pattern.fullmatch(term)), word)

    def _collapsed(self, word: str) -> str:
        """nuuude: runs of three and more letters count as one or as two."""
        if not _TRIPLE.search(word) or self._known(word):
            return word
        spellings = (_TRIPLE.sub(r"\1", word), _TRIPLE.sub(r"\1\1", word))
        return next((spelling for spelling in spellings if self._known(spelling)), word)

    def _hidden(self, text: str, words: list[str]) -> list[str]:
        """Terms written with spaces or signs between their letters: n u d e, p.o.r.n, po-rn."""
        found: list[str] = []
        if sum(len(word) == 1 for word in words) > 2:
            runs = (re.sub(r"[^\w@$!]", "", run) for run in _SPACED.findall(text))
            found += [term for run in runs if (term := self._inside(run[:_LONGEST_RUN]))]
        if _INNER.search(text):
            joined = (re.sub(r"[^\w@$!]", "", each) for each in text.split() if _INNER.search(each))
            found += [each for each in joined if self._grave(each)]
        return ["", *found] if found else []

    def _inside(self, run: str) -> str:
        """The longest term in a run of letters, which may begin with an article: a n u d e."""
        plain = run.translate(_LEET[0])
        parts = (plain[at : at + size] for size in range(len(plain), 2, -1) for at in range(len(plain) - size + 1))
        return next((part for part in parts if part in self.words or part in self.stems), "")

    def _grave(self, word: str) -> bool:
        return any(term.score == 1 for term in self.single(word))


def _begins(words: list[str], phrase: tuple[str, ...]) -> bool:
    """Whether `words` are the phrase, whose last word may be a stem that ends in *."""
    if len(words) < len(phrase) or tuple(words[:-1]) != phrase[:-1]:
        return False
    last = phrase[-1]
    return words[-1].startswith(last[:-1]) if last.endswith("*") else words[-1] == last


def _best(terms: Iterable[_Term]) -> dict[str, _Hit]:
    found: dict[str, _Hit] = {}
    for term in terms:
        hit = found.get(term.category, _Hit(0.0, ()))
        found[term.category] = _Hit(max(hit.score, term.score), (*hit.terms, term.text))
    return found


def _young(text: str) -> bool:
    return any(int(age) < 18 for age in _AGE.findall(text))


@cache
def _lists() -> _Lists:
    rows = (line.split("\t") for line in (DATA / "terms.tsv").read_text("utf-8").splitlines()[1:])
    terms = (_Term(text, row[0], _SCORES[row[1]]) for row in rows for text in row[2].split(", "))
    return _Lists(terms, (DATA / "allowed.txt").read_text("utf-8").splitlines())


# -------------------------------------------------------------------------------------------------------------- probe


class Probe:
    """Logistic regression on L2-normalized embeddings: score = sigmoid(W e + b), one row of W per category.

    Scaled so that 0.5 is the threshold of level auto and 0.9 that of low. `encoder`: hash of the text encoder.
    """

    def __init__(self, categories: tuple[str, ...], weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        self.categories, self.weight, self.bias = categories, weight, bias

    def scores(self, embedding: NDArray[np.float32]) -> dict[str, float]:
        """Score by category for one embedding, (d,) or (1, d)."""
        state = np.asarray(embedding, np.float32).reshape(-1)
        if state.size != self.weight.shape[1]:
            raise LimnerError(
                f"the embedding has {state.size} numbers, the safety probe takes {self.weight.shape[1]}; "
                "give the pooled state of one prompt."
            )
        logits = self.weight @ state / max(math.sqrt(state @ state), 1e-12) + self.bias
        # The logistic function, written so that it cannot overflow.
        return {name: 0.5 + 0.5 * math.tanh(z / 2) for name, z in zip(self.categories, logits.tolist(), strict=True)}


def save_probe(path: Path, probe: Probe, encoder: str) -> None:
    """Write a probe file: plain arrays, no pickle."""
    arrays = {"weight": probe.weight.astype(np.float16), "bias": probe.bias.astype(np.float32)}
    np.savez(path, categories=np.array(probe.categories), encoder=np.array(encoder), **arrays)


def _matching(path: Path, encoder: str) -> tuple[Probe | None, str]:
    """The probe if it was trained on `encoder`; else None and the sentence that says so."""
    try:
        with np.load(path, allow_pickle=False) as file:
            trained = str(file["encoder"])
            categories = tuple(str(category) for category in file["categories"])
            probe = Probe(categories, file["weight"].astype(np.float32), file["bias"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise LimnerError(f"{path}: is no safety probe ({error}); copy it again, or train it anew.") from None
    if trained == encoder:
        return probe, ""
    return None, (
        f"the safety probe was trained on text encoder {trained[:12]}, not on {encoder[:12]}: "
        "only the word lists filter prompts; train a probe for this encoder with runs/safety/probe.py."
    )
