"""Colour words measured from a picture: only those that a person would say without looking twice.

The words are the eleven basic colour terms of English (Berlin and Kay, *Basic Color Terms*, 1969). A pixel takes the
word of the nearest of some hundred sample colours in OKLab (B. Ottosson, 2020, bottosson.github.io/posts/oklab). Skin,
beige, teal and other colours that people argue about have samples too, under no word, so that they are not called by
the nearest one. Thin dark lines are left out: an outlined lemon is yellow, not black and yellow. No torch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TERMS = ("black", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red", "white", "yellow")
_UNNAMED = len(TERMS)

_SAMPLES = {
    "black": "000000 101010 1c1c1c 262626 31373d 3f3f3f",
    "blue": "0000ff 1e50a0 0074ba 2a6fdb 5dadec 61b2e4 92d3f5 4fc3f7 00a6ed 226699 0d47a1 a9d4f2 1a237e 00bcd4 "
    "3f51b5 0b2a6b 4060a0 3498db 0000a0 5566c8 66d9f0",
    "brown": "8b4513 6d4c41 5d4037 a57939 6a462f 7d4533 bf6952 a9592e 795548 8d6e63 a0522d 4e342e 6b4a1b 8a6a3a "
    "503010 b07040",
    "green": "008000 00d26a 5c9e31 b1cc33 77b255 4caf50 1b5e20 8bc34a 9ccc65 3e721d 86d72f 00ff00 a5d6a7 2e8b57 "
    "708a30 004d20 c5e86c 30a060 3a5a28",
    "grey": "808080 9b9b9b 636363 4c4c4c 90a4ae 78909c 9aa5ad 707a85 555e66 a4a09a 585450 99aab5",
    "orange": "ff6723 ff8000 f4900c e27022 ff822d f57c00 fb8c00 ff9a1f e67e22 ff6d00 d9782b ffa64d ee7a1a",
    "pink": "ffc0cb ff69b4 f48fb1 ffa7c0 f8bbd0 f70a8d ff6dc6 ec407a f4abba e91e8c ff8fb5 ff00ff d858a8 f48ab0",
    "purple": "800080 8d65c5 9c27b0 aa8dd8 7b1fa2 b399c8 8967aa 6a1b9a 9b4dff 5e35b1 ba68c8 4a148c c5a3e8 582a72 "
    "a020f0 7050a0",
    "red": "f92f60 ff0000 d00000 f8312f dd2e44 ea5a47 d22f27 8b0000 b3261e be1931 ca0b4a ef5350 f44336 a01020 "
    "600808 c62828 781414",
    "white": "ffffff f4f4f4 e6e6e6 eceff1 f5f0ff e1e8ed",
    "yellow": "c8c800 ffff00 fcea2b ffcc4d fdd835 fcc21b f1b31c fff176 e6c229 ffb02e ffca28 ffe066 d8c020 f9c23c "
    "ffd54f",
    "": "f5deb3 fff3d6 ffe0b2 d2b48c f3d2a2 debb90 e6c8a0 c68642 d79e84 e0ac69 c1896b 008080 009688 4db6ac "
    "26a69a 80cbc4 c8b89a 9e8f70 66615a 6a93a3 8aa0c0 a4b4d8 9a9a00 b8b8b8 c4c4c4 d0d2d4 8a8a20 aaaa38 "
    "4a4a4a 2a2018 102810 300810 101838 40382c d9d4c8 b8a0a0 48484c 4f5f57 283c48 6c5b78 402848 54406a "
    "8a9a8a bfa58a",
}
_SIDE = 64

# One of these beside the other is shade or light on the same thing, not a second colour.
_SHADES = {
    "black": ("grey",),
    "blue": ("purple", "grey"),
    "brown": ("orange", "red", "yellow"),
    "green": ("yellow",),
    "grey": ("black", "white", "blue"),
    "orange": ("brown", "yellow", "red", "pink"),
    "pink": ("red", "purple", "orange"),
    "purple": ("blue", "pink"),
    "red": ("brown", "pink", "orange"),
    "white": ("grey",),
    "yellow": ("orange", "brown", "green"),
}


def clear_colours(picture: Image.Image) -> tuple[str, ...]:
    """The colour words that plainly hold for `picture`: one, two (the larger first), or none.

    Counted over opaque pixels without thin dark lines. One word: it covers 60 % of them, or 45 % and with its own
    shades (orange beside yellow, brown beside red) 80 %. Two: each covers 25 %, together they cover 80 %, and neither
    is the other's shade. A picture with fewer than 1 % opaque pixels has no colour.
    """
    pixels = np.asarray(_small(picture))
    red, green, blue = (pixels[..., i].astype(np.uint16) >> 3 for i in range(3))
    codes = (red << 10) + (green << 5) + blue
    opaque = pixels[..., 3] >= 128
    dark = opaque & ((red < 9) & (green < 9) & (blue < 9))
    counted = opaque & ~_thin(dark)
    total = int(counted.sum())
    if total < opaque.size / 100:
        return ()
    return _called(np.bincount(_table()[codes[counted]], minlength=_UNNAMED + 1) / total)


def _called(shares: NDArray[np.float64]) -> tuple[str, ...]:
    first, second = (int(i) for i in np.argsort(-shares[:_UNNAMED], kind="stable")[:2])
    shades = [TERMS.index(shade) for shade in _SHADES[TERMS[first]]]
    if shares[first] >= 0.6 or (shares[first] >= 0.45 and shares[first] + shares[shades].sum() >= 0.8):
        return (TERMS[first],)
    both = shares[first] + shares[second]
    return (TERMS[first], TERMS[second]) if shares[second] >= 0.25 and both >= 0.8 and second not in shades else ()


def _small(picture: Image.Image) -> Image.Image:
    """RGBA of at most 64 px a side; shrinking by whole pixels keeps the colours as they are."""
    if max(picture.size) > _SIDE:
        scale = _SIDE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.convert("RGBA").resize(size, Image.Resampling.NEAREST)
    return picture.convert("RGBA")


def _thin(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of `mask` narrower than five pixels: what an opening with a 5 x 5 square takes away."""
    if not mask.any():
        return mask
    eroded = ~_spread(~mask)
    return mask & ~_spread(eroded)


def _spread(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Grown by two pixels in every direction."""
    for _ in range(2):  # down the rows, then once more down the columns
        padded = np.pad(mask, ((2, 2), (0, 0)))
        two = padded[:-1] | padded[1:]
        mask = (two[:-3] | two[2:-1] | padded[4:]).T
    return mask


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint8]:
    """Index of the term of every colour, by the five high bits of red, green and blue."""
    named = [(term, code) for term, codes in _SAMPLES.items() for code in codes.split()]
    samples = oklab(np.array([list(bytes.fromhex(code)) for _, code in named], np.float32))
    words = np.array([TERMS.index(term) if term else _UNNAMED for term, _ in named], np.uint8)
    codes = np.arange(2**15).reshape(64, -1)  # in parts, so that the distances stay small
    colours = np.stack([codes >> 10, codes >> 5 & 31, codes & 31], -1).astype(np.float32) * 8 + 4
    return words[np.concatenate([_nearest(oklab(part), samples) for part in colours])]


def _nearest(colours: NDArray[np.float32], samples: NDArray[np.float32]) -> NDArray[np.intp]:
    return ((colours[:, None] - samples) ** 2).sum(2).argmin(1)


def oklab(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """sRGB 0..255 to OKLab, (N, 3). Ottosson 2020."""
    encoded = rgb / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(linear @ _TO_CONES.T)
    return (cones @ _TO_LAB.T).astype(np.float32)


_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def from_oklab(lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """OKLab to sRGB 0..255, (N, 3); what lies outside sRGB is clipped. Ottosson 2020."""
    linear = ((lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_CONES).T).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (encoded * 255).astype(np.float32)
