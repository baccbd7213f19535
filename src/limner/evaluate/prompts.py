"""Tables of prompts to measure a painter with, built from the records of a data set.

Four kinds: concepts that the training pictures show, in new wording; concepts that no training picture shows; and two
combinations that no training picture shows though it shows both parts: colour x object and style x object.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from limner.data.records import Record
from limner.errors import LimnerError
from limner.evaluate.probes import CHROMATIC, COLOURS, colour_words, main_colour

Kind = Literal["seen", "unseen", "colour", "style"]
# Frames that differ from "name, style phrase", which the captions of the data are made of.
_FRAMES = (
    "an icon of {thing}, drawn as {style}",
    "{style}: {thing}",
    "{style} that shows {thing}",
    "please paint {thing} as {style}",
    "{thing} in the manner of {style}",
)


@dataclass(frozen=True)
class Prompt:
    """One line of a table.

    `group`: prompts that share it are versions of one thing and no rivals in retrieval. `style`: the style it asks for.
    `colour`: the basic colour term it asks for, or "". `thing`: what is to be painted, without colour and style.
    `reference`: row of the real picture among the records the table was built from, None for a combination.
    """

    text: str
    kind: Kind
    group: str
    style: str
    thing: str
    colour: str = ""
    reference: int | None = None


def thing_of(record: Record) -> str:
    """What a picture shows: its name without brackets, else its caption up to the first comma."""
    name = str(record.extra.get("name") or record.text.partition(",")[0])
    return re.sub(r"\s+", " ", re.sub(r"\(.*?\)", "", name)).strip()


def style_phrases(records: Iterable[Record]) -> dict[str, str]:
    """How the captions name each style: what most often follows the name, else the style's own name."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        name = str(record.extra.get("name") or "")
        follows = record.text.startswith(f"{name}, ") and name
        counts[record.style][record.text.removeprefix(f"{name}, ") if follows else record.style] += 1
    return {style: count.most_common(1)[0][0] for style, count in counts.items()}


def wordings(record: Record, phrases: Mapping[str, str], shares: NDArray[np.float64]) -> tuple[str, str, str]:
    """Three captions for a judge to learn from: as given, the thing alone, and a prompt that says its main colour.

    `shares`: the palette of the picture, (11,). The frame of the prompt is drawn by the record's name. A judge may know
    the frames that painters are tested with; only painters must not.
    """
    random = np.random.default_rng(list(record.name.encode()))
    thing = thing_of(record)
    colour = main_colour(shares)
    coloured = thing if not colour or colour_words(thing) else f"{colour} {thing}"
    prompt = _frame(random).format(thing=_hinted(coloured, record, random), style=phrases[record.style])
    return record.text or thing, thing, prompt


def _hinted(thing: str, record: Record, random: np.random.Generator) -> str:
    """`thing`, half of the time with a keyword of the record that it does not hold."""
    keywords = record.extra.get("keywords")
    listed = [keywords] if isinstance(keywords, str) else keywords or []
    hints = [str(word) for word in listed if str(word).lower() not in thing.lower()]
    return f"{thing} ({random.choice(hints)})" if hints and random.random() < 0.5 else thing


def concept_prompts(
    records: Sequence[Record],
    kind: Literal["seen", "unseen"],
    count: int,
    seed: int = 0,
    admits: Callable[[Record], bool] = lambda record: True,
) -> list[Prompt]:
    """New wordings for `count` of the records: at most one of each group and style, styles in the records' proportions.

    Give training records for "seen", held-out ones for "unseen". Only what `admits` lets pass is asked for. Fewer come
    back when there are fewer.
    """
    random = np.random.default_rng(seed)
    phrases = style_phrases(records)
    chosen: dict[tuple[str, str], int] = {}
    for row in random.permutation(len(records)):
        if admits(records[row]):
            chosen.setdefault((records[row].group, records[row].style), int(row))
    rows = _in_proportion(records, list(chosen.values()), count)
    return [_concept(records[row], row, kind, phrases, random) for row in rows]


def _in_proportion(records: Sequence[Record], rows: Sequence[int], count: int) -> list[int]:
    """`count` of `rows`, styles mixed as in all `records`."""
    share = Counter(record.style for record in records)
    taken: Counter[str] = Counter()
    kept = []
    for row in rows:
        style = records[row].style
        if taken[style] < round(count * share[style] / len(records)):
            taken[style] += 1
            kept.append(row)
    return kept[:count]


def _concept(record: Record, row: int, kind: Kind, phrases: Mapping[str, str], random: np.random.Generator) -> Prompt:
    thing, style = thing_of(record), phrases[record.style]
    text = _frame(random).format(thing=_hinted(thing, record, random), style=style)
    colours = colour_words(thing)
    return Prompt(text, kind, record.group, record.style, thing, colours[0] if len(colours) == 1 else "", row)


def _frame(random: np.random.Generator) -> str:
    return _FRAMES[int(random.integers(len(_FRAMES)))]


def colour_prompts(records: Sequence[Record], palettes: NDArray[np.float64], count: int, seed: int = 0) -> list[Prompt]:
    """Colour x object that no training picture shows. `palettes`: (N, 11) shares of the records' pictures.

    Objects are short names that say no colour, shown in colour by at least two pictures; a colour is free for an object
    when it takes under a twentieth of each of its pictures and none of them is captioned with it. Styles are those in
    which the object is shown in colour. Raises LimnerError when the records allow no such prompt.
    """
    random = np.random.default_rng(seed)
    coloured = _coloured(palettes)
    phrases = style_phrases(records)
    prompts = []
    for thing, rows in _things(records, lambda row: bool(coloured[row])).items():
        if len(rows) < 2 or colour_words(thing):
            continue
        for colour in _free_colours(records, rows, palettes):
            style = records[random.choice(rows)].style
            text = _frame(random).format(thing=f"{_article(colour)} {colour} {thing}", style=phrases[style])
            prompts.append(Prompt(text, "colour", f"{colour} {thing}", style, thing, colour))
    return _some(prompts, count, "colour x object", random)


def _coloured(palettes: NDArray[np.float64]) -> NDArray[np.bool_]:
    return palettes[:, : len(CHROMATIC)].sum(1) > 0.3


def _things(records: Sequence[Record], admits: Callable[[int], bool]) -> dict[str, list[int]]:
    """Rows that show each short name, one or two words; skin tones and numbered variants left out."""
    found: dict[str, list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        thing = thing_of(record).lower()
        plain = re.fullmatch(r"[a-z-]{3,}( [a-z-]{3,})?", thing) and not record.extra.get("skin_tone")
        if plain and admits(row):
            found[thing].append(row)
    return found


def _free_colours(records: Sequence[Record], rows: Sequence[int], palettes: NDArray[np.float64]) -> list[str]:
    named = {word for row in rows for word in colour_words(records[row].text)}
    most = palettes[list(rows)].max(0)
    return [colour for colour in CHROMATIC if most[COLOURS.index(colour)] < 0.05 and colour not in named]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def style_prompts(records: Sequence[Record], count: int, seed: int = 0) -> list[Prompt]:
    """Style x object that no training picture shows: the object has pictures, but none in that style.

    An object counts as shown in a style also when another group of that style has its name or one that holds it.
    Raises LimnerError when the records allow no such prompt.
    """
    random = np.random.default_rng(seed)
    phrases = style_phrases(records)
    shown = _Shown(records)
    things = {thing: rows for thing, rows in _things(records, lambda _: True).items() if not colour_words(thing)}
    pairs = [(thing, style) for thing in things for style in phrases]
    shuffled = (pairs[i] for i in random.permutation(len(pairs)))
    free = ((thing, style) for thing, style in shuffled if not shown.in_style(thing, things[thing], style))
    prompts = []
    for thing, style in islice(free, count):
        text = _frame(random).format(thing=thing, style=phrases[style])
        prompts.append(Prompt(text, "style", f"{style} {thing}", style, thing))
    return _some(prompts, count, "style x object", random)


class _Shown:
    """What each style shows: its groups and its names."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.groups: dict[str, set[str]] = defaultdict(set)
        names: dict[str, list[str]] = defaultdict(list)
        for record in records:
            self.groups[record.style].add(record.group)
            names[record.style].append(thing_of(record).lower())
        self.names = {style: " | ".join(each) for style, each in names.items()}

    def in_style(self, thing: str, rows: Sequence[int], style: str) -> bool:
        """Whether a picture of `style` shows `thing`, which is what `rows` show in theirs."""
        return thing in self.names[style] or any(self.records[row].group in self.groups[style] for row in rows)


def _some(prompts: list[Prompt], count: int, what: str, random: np.random.Generator) -> list[Prompt]:
    if not prompts:
        raise LimnerError(f"no combination {what} is free: every one has a training picture; add things or styles.")
    order = random.permutation(len(prompts))
    return [prompts[row] for row in order[:count]]
