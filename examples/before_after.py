"""docs/before-after.png: a photograph reduced by four, then enlarged by bicubic and by each x4 bundle of the zoo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import limner
from limner.resample import resize_uint8

HERE = Path(__file__).parent
CROP = (slice(240, 496), slice(16, 272))  # of the enlarged picture: rows, columns
BAR = 20


def main() -> None:
    true = np.asarray(Image.open(HERE / "strawberries-true.jpg"))
    low = resize_uint8(true, true.shape[0] // 4, true.shape[1] // 4)
    panels = {"bicubic": resize_uint8(low, *true.shape[:2])}
    for name in ("photo-x4", "photo-x4-hq"):
        panels[name] = limner.load(name).upscale(low)
    panels["true"] = true
    sheet = np.concatenate([labelled(name, picture[CROP]) for name, picture in panels.items()], 1)
    Image.fromarray(sheet).save(HERE.parent / "docs" / "before-after.png")


def labelled(name: str, picture: np.ndarray) -> np.ndarray:
    """`picture` with its name in a white bar above it."""
    canvas = Image.new("RGB", (picture.shape[1] + 4, picture.shape[0] + BAR), "white")
    canvas.paste(Image.fromarray(picture), (2, BAR))
    ImageDraw.Draw(canvas).text((6, 4), name, fill="black")
    return np.asarray(canvas)


if __name__ == "__main__":
    main()
