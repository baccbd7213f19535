"""Probes: single questions a picture can answer. Colour words, sharpness, diversity over seeds, nearest neighbours.

Pictures are RGBA (N, H, W, 4) uint8 with straight alpha. numpy only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from limner.errors import LimnerError
from limner.evaluate.fidelity import luma
from limner.evaluate.judges import Pixels, on_white

# The eleven basic colour terms (Berlin and Kay 1969).
CHROMATIC = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
COLOURS = (*CHROMATIC, "black", "white", "gray")
_SYNONYMS = {"grey": "gray", "golden": "yellow", "violet": "purple", "crimson": "red", "scarlet": "red"}
# Where a hue, in degrees, starts to bear a name; red closes the circle.
_HUES = ((0, "red"), (14, "orange"), (39, "yellow"), (68, "green"), (170, "blue"), (255, "purple"), (306, "pink"))
_RED_AGAIN = 343
_THUMB = 16  # side of the pictures that a neighbour is looked up in
_SHORTLIST = 24


def colour_words(text: str) -> list[str]:
    """The basic colour terms that `text` names, each once, in order."""
    words = (_SYNONYMS.get(word, word) for word in re.findall(r"[a-z]+", text.lower()))
    return list(dict.fromkeys(word for word in words if word in COLOURS))


def palette(pictures: Pixels) -> NDArray[np.float64]:
    """Shares of the visible pixels that bear each of COLOURS: (N, 11), rows sum to at most 1.

    A pixel is visible when its alpha is above one half. Beige and skin bear no name. An empty picture gives zeros.
    """
    return np.array([_shares(picture) for picture in pictures]).reshape(-1, len(COLOURS))


def _shares(picture: Pixels) -> NDArray[np.float64]:
    visible = picture[picture[..., 3] > 127][:, :3]
    red, green, blue = (visible >> 2).astype(np.intp).T
    counts = np.bincount(_names()[red, green, blue], minlength=len(COLOURS) + 1)[: len(COLOURS)]
    return counts / max(1, len(visible))


@cache
def _names() -> NDArray[np.intp]:
    """The name of every colour with 6 bits a channel, (64, 64, 64): naming each pixel anew would take seconds."""
    levels = (np.arange(64) * 255 / 63).round().astype(np.uint8)
    every = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)
    return _named(every.reshape(-1, 3)).reshape(64, 64, 64)


def _named(rgb: Pixels) -> NDArray[np.intp]:
    """(N, 3) uint8 -> index into COLOURS, len(COLOURS) for none of them."""
    hue, saturation, value = _hsv(rgb)
    starts = np.array([start for start, _ in _HUES])
    hues = np.array([COLOURS.index(name) for _, name in _HUES])
    index = hues[np.searchsorted(starts, hue, "right") - 1]
    index[hue >= _RED_AGAIN] = COLOURS.index("red")
    warm = (hue >= 8) & (hue < 46)
    pale_red = ((hue >= _RED_AGAIN) | (hue < 8)) & (saturation < 0.65) & (value > 0.75)
    dull = (value < 0.66) | ((saturation < 0.65) & (value < 0.8))
    index[pale_red] = COLOURS.index("pink")
    index[(hue >= 306) & (hue < _RED_AGAIN) & (value < 0.55)] = COLOURS.index("purple")
    index[warm & dull] = COLOURS.index("brown")
    index[saturation < 0.21] = COLOURS.index("gray")
    index[warm & (saturation < 0.5) & (value >= 0.8)] = len(COLOURS)
    index[(saturation < 0.12) & (value > 0.85)] = COLOURS.index("white")
    index[(value < 0.2) | ((value < 0.3) & (saturation < 0.3))] = COLOURS.index("black")
    return index


def _hsv(rgb: Pixels) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Hue in degrees, saturation and value in 0..1 of (N, 3) uint8."""
    red, green, blue = (rgb / 255.0).T
    value, spread = rgb.max(1, initial=0) / 255.0, np.ptp(rgb, axis=1) / 255.0
    safe = np.where(spread, spread, 1)
    hue = np.select(
        [value == red, value == green],
        [(green - blue) / safe % 6, (blue - red) / safe + 2],
        (red - green) / safe + 4,
    )
    return hue * 60, spread / np.where(value, value, 1), value


def obeys(shares: NDArray[np.float64], colour: str) -> bool:
    """Whether a picture with these palette shares (11,) may be called `colour`.

    Black, white and gray: a third of what is visible. Others: at least a tenth, and the largest chromatic share or
    a third of the chromatic ones; outlines, eyes and highlights then do not count against a red apple.
    """
    own = shares[COLOURS.index(colour)]
    chromatic = shares[: len(CHROMATIC)]
    if colour not in CHROMATIC:
        return bool(own >= 1 / 3)
    return bool(own >= 0.1 and (own >= chromatic.max() or own >= chromatic.sum() / 3))


def main_colour(shares: NDArray[np.float64]) -> str:
    """The one colour that a picture with these shares (11,) would be called by, or "" when several compete."""
    chromatic = shares[: len(CHROMATIC)]
    if chromatic.max() >= 0.3 and chromatic.max() >= 0.6 * chromatic.sum():
        return COLOURS[int(chromatic.argmax())]
    return COLOURS[int(shares.argmax())] if shares.max() >= 0.7 else ""


def gradient_energy(pictures: Pixels) -> NDArray[np.float64]:
    """Mean squared difference of neighbouring pixels' luma (0..255), on white: (N,)."""
    planes = luma(on_white(pictures))
    across, down = np.diff(planes, axis=2), np.diff(planes, axis=1)
    return np.square(across).mean((1, 2), np.float64) + np.square(down).mean((1, 2), np.float64)


def spread(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean Euclidean distance between the K versions of each thing: (K, N, D) -> (N,). Needs K of at least 2."""
    if len(vectors) < 2:
        raise LimnerError("diversity over seeds needs at least 2 seeds.")
    pairs = [(i, j) for i in range(len(vectors)) for j in range(i)]
    return np.mean([np.linalg.norm(vectors[i] - vectors[j], axis=1) for i, j in pairs], axis=0)


def pixels(pictures: Pixels) -> NDArray[np.float32]:
    """Vectors (N, D) whose Euclidean distance is the root mean square pixel difference, on white, in 0..1."""
    return _flat(on_white(pictures))


def _flat(white: Pixels) -> NDArray[np.float32]:
    flat = white.reshape(len(white), -1).astype(np.float32)
    return flat / np.float32(255 * np.sqrt(flat.shape[1]))


@dataclass(frozen=True)
class Neighbours:
    """The nearest of the pictures looked through, for each picture: its `row` and `distance`, both (N,)."""

    row: NDArray[np.intp]
    distance: NDArray[np.float64]


def nearest(ours: NDArray[np.float32], theirs: NDArray[np.float32], chunk: int = 256) -> Neighbours:
    """Nearest of `theirs` (M, D) for every row of `ours` (N, D), Euclidean."""
    rows, distances = [], []
    squares = np.square(theirs).sum(1)
    for part in np.array_split(ours, max(1, -(-len(ours) // chunk))):
        row = (squares - 2 * part @ theirs.T).argmin(1)
        rows.append(row)
        distances.append(np.linalg.norm(part - theirs[row], axis=1))
    return Neighbours(np.concatenate(rows), np.concatenate(distances).astype(np.float64))


class PixelIndex:
    """Finds the nearest of `pictures` (M, H, W, 4) in root mean square pixel difference (0..1), on white.

    Looked up among 16 x 16 reductions first; the best 24 of those are compared in full. H, W: multiples of 16.
    """

    def __init__(self, pictures: Pixels) -> None:
        self._white = on_white(pictures)
        self._small = _reduced(self._white)
        self._squares = np.square(self._small).sum(1)

    def nearest(self, ours: Pixels) -> Neighbours:
        """For every picture of `ours` (N, H, W, 4)."""
        rows, distances = [], []
        white = on_white(ours)
        for vector, full in zip(_reduced(white), _flat(white), strict=True):
            scores = self._squares - 2 * self._small @ vector
            short = np.argpartition(scores, min(_SHORTLIST, len(scores) - 1))[:_SHORTLIST]
            exact = np.linalg.norm(_flat(self._white[short]) - full, axis=1)
            rows.append(short[exact.argmin()])
            distances.append(exact.min())
        return Neighbours(np.array(rows), np.array(distances, np.float64))


def _reduced(white: Pixels) -> NDArray[np.float32]:
    """(N, H, W, 3) uint8 -> (N, 768) means in 0..1; in parts, as floats of all would need gigabytes."""
    return np.concatenate([_thumbs(part) for part in np.array_split(white, max(1, len(white) // 1024))])


def _thumbs(white: Pixels) -> NDArray[np.float32]:
    count, height, width, _ = white.shape
    tiles = white.reshape(count, _THUMB, height // _THUMB, _THUMB, width // _THUMB, 3)
    return tiles.mean((2, 4), np.float32).reshape(count, -1) / np.float32(255)


def copies(ours: NDArray[np.floating], held_out: NDArray[np.floating], share: float = 0.05) -> NDArray[np.bool_]:
    """Which pictures lie nearer to a training picture than all but `share` of real held-out pictures do: (N,).

    Both arguments are distances to the nearest training picture. Real held-out pictures give a rate of `share`.
    """
    return ours < np.quantile(held_out, share)
