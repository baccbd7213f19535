"""Toy icons with captions, and an embedding of them, so that judges can be trained inside a test."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from limner.data.records import Record, Split

PAINTS = {
    "red": (214, 30, 40),
    "yellow": (250, 210, 40),
    "green": (40, 160, 60),
    "blue": (40, 90, 220),
    "purple": (130, 50, 180),
    "black": (10, 10, 10),
}
SHAPES = ("disc", "square", "wedge", "ring", "cross", "bar", "frame", "diamond")
STYLES = ("solid", "dotted")


def embed(captions: Sequence[str]) -> NDArray[np.float32]:
    """Bags of words and of pairs of words: each a fixed random direction. (N, 64) unit vectors."""
    total = np.array([np.sum([_direction(part) for part in _parts(text)], axis=0) for text in captions])
    return (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32)


def _parts(text: str) -> list[str]:
    words = re.findall(r"[a-z]+", text)
    return words + [f"{a} {b}" for a, b in itertools.pairwise(words)]


@cache
def _direction(part: str) -> NDArray[np.float64]:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(part.encode()).digest()[:8], "big")).normal(size=64)


def icon(shape: str, colour: str, dot: str, style: str, random: np.random.Generator) -> NDArray[np.uint8]:
    """A shape with a dot in the lower right corner: (64, 64, 4) RGBA, a little moved and resized each time."""
    y, x = np.mgrid[0:64, 0:64] - 28 - random.integers(-3, 4, (2, 1, 1))
    radius = random.integers(17, 23)
    inside = _inside(shape, x / radius, y / radius)
    if style == "dotted":
        inside &= (x // 3 + y // 3) % 2 == 0
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[inside] = (*PAINTS[colour], 255)
    picture[46:60, 46:60] = (*PAINTS[dot], 255)
    return picture


def _inside(shape: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    distance, box = np.hypot(x, y), np.maximum(abs(x), abs(y))
    return {
        "disc": distance < 1,
        "square": box < 0.9,
        "wedge": (abs(x) < (y + 1) / 2) & (abs(y) < 1),
        "ring": (distance < 1) & (distance > 0.6),
        "cross": (np.minimum(abs(x), abs(y)) < 0.3) & (box < 1),
        "bar": (abs(y) < 0.3) & (abs(x) < 1),
        "frame": (box < 0.9) & (box > 0.55),
        "diamond": abs(x) + abs(y) < 1,
    }[shape]


def toys(split: Split, share: int, seed: int = 0) -> tuple[list[Record], NDArray[np.uint8]]:
    """Records and pictures of every third of the combinations, `share` says which third; groups are the names."""
    random = np.random.default_rng(seed)
    combinations = list(itertools.product(SHAPES, PAINTS, PAINTS, STYLES))
    chosen = [each for i, each in enumerate(combinations) if (i * 7 // 2) % 3 == share]
    pictures = np.array([icon(*each, random) for each in chosen])
    return [_record(*each, split) for each in chosen], pictures


def _record(shape: str, colour: str, dot: str, style: str, split: Split) -> Record:
    name = f"{colour} {shape} with {dot} dot"
    extra = {"name": name, "keywords": [shape, colour], "skin_tone": ""}
    return Record(f"{name} {style}", f"{name}, {style} toy", name, "CC0-1.0", "toys", style, split, extra, bytes)
