"""Pictures in other colours: so that a painter learns what a colour word does, whatever it stands before.

A set of icons shows most things in one colour; a network that saw only yellow bananas paints a "blue banana" yellow.
Here the main colour of a picture is moved to another in OKLab, its captions say the new word, and only pictures that
`clear_colours` then calls by that word are kept. No torch.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from limner.data.batches import premultiplied
from limner.data.palette import TERMS, clear_colours, from_oklab, oklab
from limner.data.records import Record

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

_SHOWN = {
    "black": "2b2b2b",
    "blue": "2a6fdb",
    "brown": "7a4a2b",
    "green": "4a9e31",
    "grey": "808488",
    "orange": "f4800c",
    "pink": "ff85b5",
    "purple": "8a55c5",
    "red": "dd2e34",
    "white": "f2f2f2",
    "yellow": "ffd033",
}
_WORD = re.compile(rf"\b(?:(?P<article>an?) )?(?P<colour>{'|'.join((*TERMS, 'gray'))})\b", re.IGNORECASE)
_CHROMA, _LIGHTNESS = 0.1, 0.3  # OKLab distances from the main colour at which a pixel follows to 1/e


def recoloured(
    records: Sequence[Record], pictures: Bytes, count: int, seed: int, advance: Callable[[int], object] = int
) -> tuple[list[Record], Bytes]:
    """Up to `count` versions of each of `pictures` (M, S, S, 4; RGBA, premultiplied) in other colours, with records.

    Only pictures whose captions give one measured colour (origin "palette") have any; what else their captions say
    stays. Each depends on the seed and the picture's name alone. The new names end in "#" and the colour.
    """
    made = [
        pair for record, picture in zip(records, pictures, strict=True) for pair in _all(record, picture, count, seed)
    ]
    painted = np.stack([picture for _, picture in made]) if made else np.empty((0, *pictures.shape[1:]), np.uint8)
    return [record for record, _ in made], painted


def _all(record: Record, picture: Bytes, count: int, seed: int) -> list[tuple[Record, Bytes]]:
    own = measured_colour(record)
    if not own:
        return []
    draws = np.random.default_rng([seed, zlib.crc32(record.name.encode())])
    wanted = [str(colour) for colour in draws.permutation([term for term in TERMS if term != own])[:count]]
    found = ((colour, in_colour(picture, own, colour)) for colour in wanted)
    return [(_renamed(record, own, colour), painted) for colour, painted in found if painted is not None]


def measured_colour(record: Record) -> str:
    """The one colour word that the palette gave the captions of a picture, or "" where there is none or several."""
    said = {word for caption in record.captions if caption.origin == "palette" for word in _words(caption.text)}
    return said.pop() if len(said) == 1 else ""


def _words(text: str) -> set[str]:
    return {match["colour"].lower().replace("gray", "grey") for match in _WORD.finditer(text)}


def in_colour(picture: Bytes, own: str, wanted: str) -> Bytes | None:
    """A picture (S, S, 4; RGBA, premultiplied) with its main colour `own` moved to `wanted`; None where that fails."""
    alpha = picture[..., 3:].astype(np.float32)
    straight = np.divide(picture[..., :3] * 255.0, alpha, out=np.zeros((*alpha.shape[:2], 3)), where=alpha > 0)
    lab = oklab(straight.astype(np.float32).reshape(-1, 3)).reshape(straight.shape)
    main = _main(lab, alpha[..., 0], own)
    if main is None:
        return None
    far = ((lab[..., 1:] - main[1:]) ** 2).sum(-1) / _CHROMA**2 + ((lab[..., 0] - main[0]) / _LIGHTNESS) ** 2
    moved = lab + np.exp(-(far**2))[..., None] * (_reference(wanted) - main)
    rgb = from_oklab(moved.reshape(-1, 3)).reshape(straight.shape)
    painted = np.concatenate([rgb, alpha], 2).round().clip(0, 255).astype(np.uint8)
    return premultiplied(painted) if clear_colours(Image.fromarray(painted)) == (wanted,) else None


def _main(lab: Floats, alpha: Floats, own: str) -> Floats | None:
    """The mean of the opaque pixels that are nearer to `own` than to most: None where they are few."""
    distance = ((lab - _reference(own)) ** 2).sum(-1)
    near = (alpha >= 128) & (distance < 0.03)
    return lab[near].mean(0) if near.sum() >= 0.2 * max(1, (alpha >= 128).sum()) else None


def _reference(colour: str) -> Floats:
    return oklab(np.array([list(bytes.fromhex(_SHOWN[colour]))], np.float32))[0]


def _renamed(record: Record, own: str, colour: str) -> Record:
    """The record of a version in another colour: only captions that said the old word are left."""
    said = [caption for caption in record.captions if caption.origin == "palette" and _words(caption.text) == {own}]
    captions = tuple(caption._replace(text=_said_anew(caption.text, colour)) for caption in said)
    return replace(record, name=f"{record.name}#{colour}", text=captions[0].text, captions=captions)


def _said_anew(text: str, colour: str) -> str:
    """`text` with its colour word replaced, and the article before it."""

    def put(match: re.Match[str]) -> str:
        article = "" if not match["article"] else ("an " if colour == "orange" else "a ")
        said = article + colour
        return said[0].upper() + said[1:] if match[0][0].isupper() else said

    return _WORD.sub(put, text)
