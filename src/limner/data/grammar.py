"""Descriptions from what a data set says of a picture: name, keywords, category, style, and measured colour words.

Nothing is invented: every word of meaning comes from the data, except the wordings of a style in `STYLES`, which say
how all pictures of that set look, and the colours that the caller measured. No torch.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import NamedTuple

from limner.data.palette import TERMS
from limner.data.records import Caption, Record

COLOUR_WORDS = frozenset(TERMS) | {"gray"}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


class Style(NamedTuple):
    """How a set of pictures looks, in words.

    `phrases` follow a subject after a comma, `media` are nouns ("flat icon", of an apple); the first phrase is the
    plainest. `colourless`: its pictures are black on nothing, whatever their names say. `sprite`: its names come from
    file names of a game, noun first.
    """

    phrases: tuple[str, ...]
    media: tuple[str, ...]
    colourless: bool = False
    sprite: bool = False


STYLES: dict[str, Style] = {
    "cdda-ultica": Style(
        ("pixel art", "pixel art game sprite", "ultica style", "small pixel art sprite"),
        ("pixel art sprite", "game sprite", "pixel art icon", "little pixel art sprite"),
        sprite=True,
    ),
    "dcss": Style(
        ("pixel art", "pixel art dungeon tile", "dungeon crawl style", "fantasy pixel art", "roguelike tile"),
        ("pixel art tile", "dungeon tile", "pixel art sprite", "fantasy game sprite"),
        sprite=True,
    ),
    "fluent-3d": Style(
        ("3d style", "3d render", "fluent style, 3d render", "fluent 3d style", "glossy 3d", "rendered in 3d"),
        ("3d icon", "3d render", "3d emoji", "glossy 3d icon"),
    ),
    "fluent-color": Style(
        ("gradient style", "smooth colour gradients", "fluent style, smooth colour gradients", "soft gradients"),
        ("gradient icon", "fluent emoji", "smooth gradient icon", "emoji"),
    ),
    "fluent-flat": Style(
        ("flat style", "flat colours", "fluent style, flat colours", "flat fluent style", "flat design"),
        ("flat icon", "flat-colour icon", "flat fluent emoji", "flat emoji"),
    ),
    "fluent-high-contrast": Style(
        ("high contrast style", "black and white", "black and white, high contrast", "fluent style, high contrast"),
        ("high-contrast icon", "black and white icon", "monochrome fluent icon", "bold black and white icon"),
        colourless=True,
    ),
    "game-icons": Style(
        ("silhouette style", "black silhouette", "black silhouette icon", "game-icons style", "solid black shape"),
        ("silhouette", "silhouette icon", "black glyph", "black game icon"),
        colourless=True,
    ),
    "noto": Style(
        ("noto style", "softly shaded", "soft shaded emoji", "noto style, softly shaded", "soft shading"),
        ("noto emoji", "softly shaded emoji", "emoji", "softly shaded icon"),
    ),
    "openmoji-black": Style(
        ("line drawing", "black line drawing", "line art", "openmoji style, black line drawing", "thin black outlines"),
        ("line drawing", "line icon", "black outline icon", "black line drawing"),
        colourless=True,
    ),
    "openmoji-color": Style(
        ("openmoji style", "flat colours with black outline", "outlined flat style", "black outline, flat colours"),
        ("outlined icon", "openmoji icon", "outlined emoji", "flat icon with black outlines"),
    ),
    "twemoji": Style(
        ("twemoji style", "flat vector", "flat vector without outline", "twemoji style, flat vector", "no outline"),
        ("twemoji", "flat vector emoji", "flat vector icon", "emoji"),
    ),
}

# Words of one part of a category path -> what a picture of it shows. "" says nothing, and ends the search.
_KINDS = {
    "activities": "activity", "algae": "", "alphanum": "symbol", "altars": "altar", "amulet": "amulet",
    "animal-amphibian": "animal", "animal-bird": "bird", "animal-bug": "bug", "animal-mammal": "animal",
    "animal-marine": "sea animal", "animal-reptile": "reptile", "animals": "animal monster",
    "appliances": "appliance", "armour": "armour", "arrow": "arrow", "artefact": "artefact",
    "av-symbol": "media button", "award-medal": "award", "body-parts": "body part", "book": "book",
    "book-paper": "book or paper", "books": "book", "cat-face": "cat face", "character part": "",
    "clothing": "clothing", "computer": "computer", "country-flag": "flag", "currency": "currency", "demons": "demon",
    "dishware": "tableware", "dragons": "dragon", "drink": "drink", "dungeon": "dungeon", "effect": "magic effect",
    "emotion": "emotion", "event": "celebration", "face-costume": "face", "family": "people", "fire": "fire",
    "flags": "flag", "floor": "floor tile", "food": "food", "food-asian": "food", "food-fruit": "fruit",
    "food-prepared": "food", "food-sweet": "dessert", "food-vegetable": "vegetable", "fungi plants": "plant",
    "furniture": "furniture", "game": "game", "game icon": "", "gateways": "gateway", "geometric": "shape",
    "hand-fingers-closed": "hand gesture", "hand-fingers-open": "hand gesture", "hand-fingers-partial": "hand gesture",
    "hand-prop": "hand", "hand-single-finger": "hand gesture", "hands": "hands", "headgear": "headgear",
    "healthcare": "healthcare", "heart": "heart", "household": "household object", "interface icon": "",
    "items": "", "keycap": "key", "layers": "", "light-video": "light and video", "lock": "lock", "mail": "mail",
    "math": "maths symbol", "medical": "medicine", "misc": "", "money": "money", "monkey-face": "monkey face",
    "monster": "monster", "monsters": "monster", "music": "music", "musical-instrument": "musical instrument",
    "objects": "", "office": "office", "other": "", "other-object": "", "other-symbol": "symbol", "overlay": "",
    "person": "person", "person-activity": "person", "person-fantasy": "fantasy person", "person-gesture": "person",
    "person-resting": "person", "person-role": "person", "person-sport": "sport", "phone": "phone",
    "place-building": "building", "place-geographic": "place", "place-map": "map", "place-other": "place",
    "place-religious": "building", "plant-flower": "flower", "plant-other": "plant", "potion": "potion",
    "potions": "potion", "punctuation": "punctuation", "religion": "religious symbol", "ring": "ring", "rings": "ring",
    "rod": "rod", "science": "science", "scroll": "scroll", "shields": "shield", "sky-weather": "weather",
    "smileys-emotion": "face", "sound": "sound", "spell icon": "spell", "sport": "sport", "staff": "staff",
    "statues": "statue", "subdivision-flag": "flag", "symbol-other": "symbol", "symbols": "symbol",
    "technology": "technology", "time": "time", "tool": "tool", "transport-air": "aircraft",
    "transport-ground": "vehicle", "transport-sign": "sign", "transport-water": "boat", "traps": "trap",
    "travel-places": "place", "trees": "tree", "undead": "undead monster", "unique": "unique monster",
    "vehicle": "vehicle part", "wall": "wall tile", "wand": "wand", "warning": "warning sign", "water": "water tile",
    "weapon": "weapon", "weapons": "weapon", "writing": "pen", "zodiac": "zodiac sign",
}  # fmt: skip

# Parts of a category whose names are only attributes ("blinking", of a scroll): this noun must be said.
_NEEDED_NOUNS = {
    "altars": "altar", "amulet": "amulet", "barding": "barding", "bardings": "barding", "book": "book", "books": "book",
    "boots": "boots", "cloak": "cloak", "doors": "door", "floor": "floor", "gateways": "gateway", "gold": "gold",
    "interface icon": "game interface icon", "potion": "potion", "potions": "potion", "ring": "ring", "rings": "ring",
    "rod": "rod", "scroll": "scroll", "shops": "shop", "sigils": "sigil", "skills": "skill icon",
    "spell icon": "spell icon", "spells": "spell icon", "staff": "staff", "statues": "statue", "traps": "trap",
    "trees": "tree", "wall": "wall", "wand": "wand", "water": "water",
}  # fmt: skip

# Spelt out where a name comes from a file name.
_ABBREVIATIONS = {
    "drcwing": "dragon wings", "drchead": "dragon head", "dragonarm": "dragon armour", "dragonsc": "dragon scales",
    "lshield": "large shield", "vgate": "gate", "draco": "draconian", "elec": "electric", "bord": "border",
    "rgt": "right", "lft": "left", "mid": "middle", "res": "resistance", "gal": "gallon", "tshirt": "t-shirt",
    "ybrown": "yellow brown", "lbrown": "light brown", "dbrown": "dark brown",
}  # fmt: skip
_COMPASS = {"n": "north", "e": "east", "s": "south", "w": "west"}
_SIZES = _words("big giant gigantic huge large little medium small tiny")
_MODIFIERS = (COLOUR_WORDS | _SIZES) | _words(
    "bronze cooked copper cyan dark dehydrated dried female fried frozen gold golden indigo iron jade leather light "
    "magenta male pickled raw roasted rotten ruby salted sapphire silver smoked steel teal violet wooden"
)
_HUES = _words("baby brilliant deep hot navy pale pastel royal sky")
_COLOURED = COLOUR_WORDS | _words(
    "amber blond bronze colorful colourful copper crimson cyan emerald gold golden indigo jade magenta platinum "
    "rainbow ruby sapphire scarlet silver tan teal turquoise violet"
)
_NOT_METAL_BEFORE = _words("branding clothes curling flat soldering tire waffle")
_STOP = _words(
    "and away for from her here him his its know low me my not off one our out that the them they us who you"
)

_PEOPLE = _words(
    "adult baby boy boys child children claus couple daughter family father female girl girls grandma guy hand hands "
    "head human kid lady male man men mother mx old people person player prince princess queen santa skin son "
    "superhero supervillain woman women fairy king elf vampire zombie hair face body"
)
_PREPOSITIONS = re.compile(r" (?:of|with|in|on|and|or|for|to|at|from|without|between|under|over|inside|behind|as)\b|,")
_PLURALS = _words("children dice feet geese men mice oxen people skis teeth women")
_NOT_PLURAL = _words(
    "atlas bias bus canvas chaos christmas claus cosmos gas lens pancreas pegasus series species swiss texas"
)
_UNCOUNTABLE = _words(
    "acid air algae alcohol ammo armor armour bacon barding beef blood bread broth butter cash cheese chocolate clay "
    "clothing coal coffee corn cotton dirt dust fire flour fog food fuel fur furniture gasoline gold grass gravel "
    "gravity grease hay headgear honey ice ink iron jam jewellery jewelry juice lava leather lightning love magic mail "
    "meat milk money mud music o'clock oil opium paper pasta poison pork powder rain rice salt sand scotch shrimp "
    "silver slime smoke snow soap soil soup steel stew string sugar sunlight sushi tea thirty time toast tobacco vodka "
    "water weather wheat whiskey wine wood wool yarn"
)
_NO_ARTICLE_KINDS = frozenset(("unique monster", "magic effect", "spell", "zodiac sign", "time", "celebration"))
_PERSONAL = frozenset(("person", "fantasy person", "people", "hand gesture", "hands", "hand", "sport", "body part"))
_ABSTRACT = re.compile(r".{3,}(?:ing|ness|tion|sion|ity|ism|[^e]ed)")
_AN_SOUND = re.compile(
    r"(?!uni(?![dnm])|use|usa|usb|uk\b|ufo|eu|one\b|once|ur[aeiou]|u-)[aeiou]|hour|honest|heir|8|11|18|x-"
)
_LETTERS_AN = re.compile(r"[fhlmnrsx][^aeiouy\s]*\d*\b")
_FILE_NUMBER = re.compile(r"(?:img|image|dsc|dscn|photo|picture|pic|screenshot|untitled|icon|file|frame)?[\s\d]*")


@dataclass(frozen=True)
class Subject:
    """What a picture shows. `names`: its wordings, the best first, lower case without an article.

    `kind`: what it is an instance of ("fruit"), or "". `keywords`: further words of the data, no colours, none of the
    name. `style` is the data's own word for the look. `tail`: a style phrase found in the person's text, or "".
    `paintable`: a colour word may stand before the name (it names no colour yet, and shows no person).
    """

    names: tuple[str, ...]
    kind: str
    keywords: tuple[str, ...]
    style: str
    tail: str
    paintable: bool


def subject(record: Record) -> Subject | None:
    """The subject of a record from its columns, or from a telling file or folder name; None where there is none."""
    style = STYLES.get(record.style)
    category = _string(record.extra.get("category"))
    given = _string(record.extra.get("name")) or (record.text if len(record.text.split()) <= 6 else "")
    sprite = style is not None and style.sprite
    stem = "" if given or record.text else _telling(record.name)
    names = _names(given or stem, category, sprite or not given)
    if not names:
        return None
    words = frozenset(re.findall(r"[\w'-]+", names[0]))
    kind = _kind(category)
    return Subject(
        names=names,
        kind="" if set(kind.split()) & words else kind,
        keywords=tuple(_keywords(record.extra.get("keywords"), words.union(kind.split()), category)),
        style=record.style,
        tail=_tail(record.text, _string(record.extra.get("name"))),
        paintable=not (words & (_COLOURED | _PEOPLE) or kind in _PERSONAL or (style and style.colourless)),
    )


def _string(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _telling(name: str) -> str:
    """The words of a file name, else of its folder's (a class), unless they only count pictures."""
    path = PurePosixPath(name)
    stem = _split_words(path.stem)
    folder = _split_words(path.parent.name) if path.parent.suffix == "" else ""
    split = folder in ("train", "validation", "val", "test", "images", "pictures", "data")
    words = re.sub(r"[\s\d]+$", "", stem)
    if len(re.sub(r"[^a-z]", "", words)) >= 3 and not _FILE_NUMBER.fullmatch(stem) and not _hash_like(stem):
        return words
    return "" if split else folder


def _split_words(name: str) -> str:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.sub(r"[\s_.\-]+", " ", apart).strip().lower()


def _hash_like(stem: str) -> bool:
    return any(len(word) >= 6 and re.search(r"\d[a-z]+\d|[a-z]\d+[a-z]", word) for word in stem.split())


def _names(name: str, category: str, from_file: bool) -> tuple[str, ...]:
    """Wordings of a name: as English has it, then in the data's own order where that differs."""
    clean = _clean(name)
    clean = _without_category(clean, category)
    if not from_file:
        spoken = _spoken(clean)
        return (spoken,) if spoken else ()
    parts = category.lower().split("/")
    own = _spelt(_distinct(_without_prefix(clean.split(), parts[0])), parts)
    own = own if re.search("[a-z]", own) else ""
    noun = next((_NEEDED_NOUNS[part] for part in reversed(parts) if part in _NEEDED_NOUNS), "")
    best = _with_noun(_reordered(own), noun)
    plain = own if len(own.split()) > 1 or best == own else ""
    return tuple(dict.fromkeys(wording for wording in (best, plain) if wording))


def _clean(name: str) -> str:
    text = unicodedata.normalize("NFC", name).replace("\ufffd", "").lower()
    for typed, plain in (("’", "'"), ("‘", "'"), ("“", '"'), ("”", '"'), ("&", " and "), ("_", " ")):
        text = text.replace(typed, plain)
    text = "".join(character if character.isprintable() else " " for character in text)
    return re.sub(r"\s+", " ", text).strip(" .,;")


def _without_category(name: str, category: str) -> str:
    """Without a last "(hand1 misc)" that only repeats the category."""
    match = re.fullmatch(r"(.*\S)\s*\(([^()]*)\)", name)
    if match and set(match[2].split()) <= set(re.split(r"[/\s]", category.lower())):
        return match[1]
    return name


def _spoken(name: str) -> str:
    """Unicode's "thing: attribute" as one would say it."""
    head, colon, rest = (part.strip() for part in name.partition(":"))
    if not colon or not head or not rest:
        return name.strip(": ")
    if head == "flag":
        return f"flag of {rest}"
    if head == "keycap":
        return f"keycap {rest}"
    if head in ("family", "kiss", "couple with heart"):
        return f"{head}, {_listed(rest.split(', '))}"
    first, _, more = rest.partition(", ")
    joint = "," if " with " in head or first in ("bald", "facing right", "facing left") else " with"
    return f"{head}{joint} {first}" + (f", {more}" if more else "")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _without_prefix(words: list[str], category: str) -> list[str]:
    """Without a first word that only abbreviates the category, as "mon" does "monsters"."""
    short = len(words) > 1 and len(words[0]) <= 3 and category.startswith(words[0])
    return words[1:] if short and len(category) >= len(words[0]) + 3 else words


def _distinct(words: list[str]) -> list[str]:
    """Of a word said twice ("pants pants blue"), the last."""
    return [word for i, word in enumerate(words) if len(word) < 3 or word not in words[i + 1 :]]


def _spelt(words: list[str], category: Sequence[str]) -> str:
    words = [part for word in words for part in _spelt_word(word.replace(".", " ")).split()]
    while len(words) > 1 and re.fullmatch("[a-z]", words[-1]) and words[-1] not in _COMPASS:
        last = words.pop()
        sex = {"m": "male", "f": "female"}.get(last)
        if sex and {"base", "monsters"} & set(category):
            words.append(sex)
    tail = len(words)
    while tail > 1 and re.fullmatch("[ns]?[ew]?", words[tail - 1]):
        tail -= 1
    return " ".join(words[:tail] + ["-".join(_COMPASS[letter] for letter in word) for word in words[tail:]])


def _spelt_word(word: str) -> str:
    shade = re.fullmatch(rf"(light|dark)({'|'.join(_MODIFIERS)})", word)
    return f"{shade[1]} {shade[2]}" if shade else _ABBREVIATIONS.get(word, word)


def _reordered(name: str) -> str:
    """ "robe green" as "green robe": last words that can only be modifiers go to the front."""
    words = name.split()
    cut = len(words)
    while cut > 0 and (words[cut - 1] in _MODIFIERS or (words[cut - 1] in _HUES and words[cut:])):
        cut -= 1
    metal = cut and words[-1] in ("iron", "gold", "silver") and words[cut - 1] in _NOT_METAL_BEFORE
    return name if cut == 0 or metal else " ".join(words[cut:] + words[:cut])


def _with_noun(name: str, noun: str) -> str:
    said = {_singular(word) for word in name.split()}
    if not noun or set(map(_singular, noun.split())) & said:
        return name
    return f"{name} {noun}".strip()


def _singular(word: str) -> str:
    return word[:-1] if is_plural(word) and word not in _PLURALS else word


def _kind(category: str) -> str:
    """What the pictures of a category are instances of; an unknown category of one part speaks for itself."""
    parts = [part.strip() for part in category.lower().split("/")]
    for part in reversed(parts):
        if part in _KINDS:
            return _KINDS[part]
        if part.startswith("face-"):
            return "face"
    known = len(parts) > 1 or not re.fullmatch(r"[a-z][a-z _-]{2,30}", parts[0])
    return "" if known else _singular(re.sub("[_-]", " ", parts[0]))


def _keywords(given: object, words: Iterable[str], category: str) -> Iterator[str]:
    listed = given if isinstance(given, list) else re.split("[,;]", _string(given))
    taken = {_singular(word) for word in words} | set(re.split(r"[/\s]", category.lower()))
    for keyword in map(_clean, filter(None, map(_string, listed))):
        parts = keyword.split()
        fits = 0 < len(parts) <= 2 and re.fullmatch(r"[a-z][a-z' -]{2,}", keyword) is not None
        if fits and not any(part in _COLOURED | _STOP or _told(part, taken) for part in parts):
            yield keyword


def _told(word: str, taken: Iterable[str]) -> bool:
    """Whether the name says a form of `word` already: raise, raising."""
    stem = word[: max(4, len(word) - 3)]
    return any(other.startswith(stem) or word.startswith(other) for other in taken if len(other) > 2)


def _tail(text: str, name: str) -> str:
    """What a person's text adds after the name: the style, in the data sets that we know."""
    rest = text[len(name) :].strip(" ,.") if name and text.lower().startswith(name.lower()) else ""
    return rest if 0 < len(rest.split()) <= 8 else ""


def is_plural(word: str) -> bool:
    """Whether an English noun looks plural."""
    if word in _PLURALS:
        return True
    return len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) and word not in _NOT_PLURAL


def with_article(name: str, kind: str = "", colour: str = "") -> str:
    """`name`, with its colour, after "a" or "an", or bare where it takes none: plurals, stuff, names, no things."""
    painted = coloured(name, colour)
    if name.startswith("flag of "):
        return f"the {painted}"
    core = _PREPOSITIONS.split(name)[0].split()
    head = next((core[i] for i, word in enumerate(core[1:]) if _ABSTRACT.fullmatch(word)), core[-1] if core else "")
    bare = is_plural(head) or head in _UNCOUNTABLE or kind in _NO_ARTICLE_KINDS
    if (
        bare
        or (len(core) == 1 and _ABSTRACT.fullmatch(head))
        or name.startswith(("mrs.", "mx ", "santa ", "the ", '"'))
    ):
        return painted
    return f"{article(painted)} {painted}"


def coloured(name: str, colour: str) -> str:
    """`name` with a colour before it, after a size: "small green mantis"."""
    size, _, rest = name.partition(" ")
    parts = (size, colour, rest) if size in _SIZES and rest else (colour, name)
    return " ".join(part for part in parts if part)


def article(name: str) -> str:
    """ "a" or "an", by the sound of the first word."""
    letters = _LETTERS_AN.match(name)
    return "an" if _AN_SOUND.match(name) or (letters and len(letters[0]) > 1) else "a"


@lru_cache(maxsize=1024)
def look(style: str, tail: str) -> Style:
    """The wordings of a style; its own name is among the phrases. An unknown style speaks for itself."""
    own = f"{_style_name(style)} style"
    phrases = tuple(phrase for phrase in ((own,) if style else ()) + (tail,) if phrase)
    known = STYLES.get(style)
    if known is None:
        return Style(phrases, (f"{_style_name(style)} picture",) if style else ("picture", "small picture"))
    return known._replace(phrases=tuple(dict.fromkeys(known.phrases + phrases)))


def _style_name(style: str) -> str:
    return style.lower().replace("_", " ")


def describe(what: Subject, colours: Sequence[str], variants: int, key: str) -> tuple[Caption, ...]:
    """At most `variants` different captions; the same arguments give the same ones. `key`: seed and picture.

    The first four, where there is something to say: in the style, with the measured `colours`, with the style's own
    name, and the bare name. Origin "palette" marks captions with a colour that nobody wrote.
    """
    writer = _Writer(what, colours, random.Random(key))
    plan = [(writer.styled, False), (writer.styled, True), (writer.own_style, False), (writer.plain, False)]
    found: dict[str, Caption] = {}
    for _ in range(8 * variants):
        way, painted = plan.pop(0) if plan else writer.any()
        caption = writer.caption(way, painted)
        found.setdefault(caption.text.casefold(), caption)
        if len(found) == variants:
            break
    return tuple(found.values())


class _Writer:
    """Draws phrases for one subject. A way of saying it takes the thing ("a red apple") and returns the caption."""

    def __init__(self, what: Subject, colours: Sequence[str], draw: random.Random) -> None:
        self.what, self.draw = what, draw
        self.colour = " and ".join(colours) if what.paintable else ""
        self.look = look(what.style, what.tail)

    def any(self) -> tuple[Callable[[str], str], bool]:
        ways = (self.styled, self.styled, self.medium, self.medium, self.kindred, self.plain)
        return self.draw.choice(ways), self._chance(0.45)

    def caption(self, way: Callable[[str], str], painted: bool) -> Caption:
        """With its origin; one in four in American spelling."""
        painted = painted and bool(self.colour)
        text = way(self._painted() if painted else self._thing())
        if self._chance(0.25):
            text = text.replace("colour", "color").replace("grey", "gray")
        return Caption(text, "palette" if painted else "template")

    def plain(self, thing: str) -> str:
        return thing

    def styled(self, thing: str) -> str:
        return self._in_style(thing, self.draw.choice(self.look.phrases)) if self.look.phrases else thing

    def own_style(self, thing: str) -> str:
        return self._in_style(thing, f"{_style_name(self.what.style)} style") if self.what.style else thing

    def medium(self, thing: str) -> str:
        """ "flat icon of an apple" or "apple flat icon"."""
        medium, way = self.draw.choice(self.look.media), self.draw.random()
        if way < 0.2 and not _PREPOSITIONS.search(self.what.names[0]):
            return f"{re.sub('^(an?|the) ', '', thing)} {medium}" if " in " not in thing else f"{thing}, {medium}"
        if way < 0.3:
            return f"{thing}, {medium}"
        return f"{article(medium)} {medium} of {thing}" if way < 0.55 else f"{medium} of {thing}"

    def kindred(self, thing: str) -> str:
        """With what it is an instance of, or with words that go with it."""
        base = self.medium(thing) if self._chance(0.3) else thing
        more = [self.what.kind] if self.what.kind and self._chance(0.6) else []
        more += self.draw.sample(self.what.keywords, min(len(self.what.keywords), self.draw.choice((1, 1, 2))))
        text = ", ".join([base, *more[:2]])
        return self.styled(text) if base is thing and self._chance(0.5) else text

    def _thing(self) -> str:
        """A name, the best one mostly, with or without its article."""
        names = self.what.names
        name = self.draw.choices(names, weights=(3, 1)[: len(names)])[0]
        return with_article(name, self.what.kind) if name == names[0] and self._chance(0.6) else name

    def _painted(self) -> str:
        name, way = self.what.names[0], self.draw.random()
        if way < 0.2:
            return f"{name} in {self.colour}" if " in " not in name else f"{name}, {self.colour}"
        return with_article(name, self.what.kind, self.colour) if way < 0.7 else coloured(name, self.colour)

    def _in_style(self, text: str, phrase: str) -> str:
        if phrase.endswith(" style") and "," not in phrase and self._chance(0.4):
            return f"{text} in {'the ' if self._chance(0.5) else ''}{phrase}"
        return f"{text}, {phrase}"

    def _chance(self, share: float) -> bool:
        return self.draw.random() < share
