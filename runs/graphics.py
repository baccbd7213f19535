"""Draws pictures with the edges that photographs are short of: lettering, line drawings, stripes and icons.

    python runs/graphics.py DATA OUT [COUNT]

DATA: the folder that holds sr/train and icons256 (train splits; share-alike sets are not among them). OUT becomes a
data folder: photos, those of sr/train, and graphics, COUNT (default 120) PNG pictures of 512 x 512, each with icons of
one style and therefore one source and one licence. The same numbers draw the same pictures. Letters are drawn with the
DejaVu, STIX and Computer Modern fonts that matplotlib brings, and shapes four times as large as they end up.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from limner.config import DataConfig
from limner.data.records import Record, open_records

SIDE, FINER = 512, 4
STYLES = ("fluent-3d", "fluent-color", "fluent-flat", "noto", "twemoji", "game-icons")
FONTS = [
    path
    for kind in ("DejaVuS*[!y]", "STIXGeneral*", "cm[brst]?*10")
    for path in sorted((Path(matplotlib.get_data_path()) / "fonts/ttf").glob(f"{kind}.ttf"))
    if path.stem != "cmsy10"
]
Draw = np.random.Generator
Colour = tuple[int, int, int]


def colour(draw: Draw, light: float | None = None) -> Colour:
    """A random colour; `light` in 0..1 pulls it towards black or white."""
    rgb = draw.random(3)
    rgb = rgb if light is None else 0.35 * rgb + 0.65 * light
    return tuple(int(255 * each) for each in rgb)  # type: ignore[return-value]


def inks(draw: Draw) -> tuple[Colour, Colour]:
    """Paper and ink that can be told apart."""
    light = float(draw.random() < 0.7)
    return colour(draw, light), colour(draw, 1 - light)


def lettering(canvas: Image.Image, draw: Draw, ink: Colour, words: list[str]) -> None:
    """Lines of words in one font, of 9 to 60 pixels."""
    size = int(FINER * 9 * 6.5 ** draw.random() ** 1.5)
    font = ImageFont.truetype(str(draw.choice(FONTS)), size)  # type: ignore[arg-type]
    pen, left = ImageDraw.Draw(canvas), int(draw.integers(0, SIDE * FINER // 2))
    top, lines = int(draw.integers(0, SIDE * FINER)), int(draw.integers(2, 9))
    for line in range(lines):
        pen.text((left, top + line * size * 1.25), " ".join(draw.choice(words, 7)), ink, font)


def stripes(canvas: Image.Image, draw: Draw, ink: Colour, words: list[str]) -> None:
    """Bent stripes that change their width, as of a zebra."""
    pen, steps = ImageDraw.Draw(canvas), np.linspace(0, SIDE * FINER, 60)
    period, bend = FINER * draw.uniform(8, 40), FINER * draw.uniform(0, 60)
    wave, slope = draw.uniform(0.001, 0.006), draw.uniform(-1, 1)
    first, count = draw.uniform(0, SIDE * FINER), int(draw.integers(4, 14))
    for k in range(count):
        along = first + k * period + bend * np.sin(wave * steps + k * 0.1) + slope * steps
        thick = period * (0.25 + 0.2 * np.sin(3 * wave * steps + k))
        edge = [*zip(along, steps, strict=True), *zip((along + thick)[::-1], steps[::-1], strict=True)]
        pen.polygon(edge, ink)


def shapes(canvas: Image.Image, draw: Draw, ink: Colour, words: list[str]) -> None:
    """Polygons, rings and boxes with outlines, as of a drawing."""
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(draw.integers(3, 12))):
        x, y, reach = *draw.uniform(0, SIDE * FINER, 2), FINER * draw.uniform(6, 110)
        line, fill = int(FINER * draw.uniform(1, 6)), colour(draw) if draw.random() < 0.6 else None
        kind = draw.integers(3)
        if kind == 0:
            pen.ellipse((x - reach, y - reach * 0.8, x + reach, y + reach * 0.8), fill, ink, line)
        elif kind == 1:
            pen.regular_polygon((x, y, reach), int(draw.integers(3, 8)), draw.uniform(0, 360), fill, ink, line)
        else:
            pen.rounded_rectangle((x, y, x + 2 * reach, y + reach), reach / 6, fill, ink, line)


def strokes(canvas: Image.Image, draw: Draw, ink: Colour, words: list[str]) -> None:
    """Curves of one pen, in bundles, as hatching, hair or feelers."""
    pen, along = ImageDraw.Draw(canvas), np.linspace(0, 1, 40)
    start, turn = draw.uniform(0, SIDE * FINER, 2), draw.uniform(0, 2 * math.pi)
    length, curl, gap = FINER * draw.uniform(60, 400), draw.uniform(-2, 2), FINER * draw.uniform(4, 16)
    width = int(FINER * draw.uniform(1, 4))
    for k in range(int(draw.integers(3, 20))):
        angle = turn + curl * along + 0.02 * k
        x = start[0] + k * gap * math.sin(turn) + np.cumsum(np.cos(angle)) * length / 40
        y = start[1] - k * gap * math.cos(turn) + np.cumsum(np.sin(angle)) * length / 40
        pen.line([*zip(x, y, strict=True)], ink, width, "curve")


LAYERS: tuple[Callable[[Image.Image, Draw, Colour, list[str]], None], ...] = (lettering, stripes, shapes, strokes)


def paper(draw: Draw, tint: Colour) -> Image.Image:
    """One colour, or a gradient between two of its kind, four times as large as the picture."""
    ramp = np.linspace(0, 1, SIDE)[:, None, None] * (draw.random() < 0.5) * draw.uniform(0.2, 0.6)
    plane = np.broadcast_to((1 - ramp) * tint + ramp * colour(draw), (SIDE, SIDE, 3))
    sheet = Image.fromarray(plane.round().astype(np.uint8)).rotate(90 * int(draw.integers(4)))
    return sheet.resize((SIDE * FINER, SIDE * FINER), Image.Resampling.BILINEAR)


def picture(draw: Draw, icons: list[Record], words: list[str]) -> Image.Image:
    """Paper, three to seven layers, and one to seven icons."""
    ground, ink = inks(draw)
    canvas = paper(draw, ground)
    for layer in draw.choice(len(LAYERS), int(draw.integers(3, 8))):
        LAYERS[layer](canvas, draw, ink if draw.random() < 0.6 else colour(draw), words)
    canvas = canvas.rotate(draw.uniform(-30, 30) * (draw.random() < 0.4), Image.Resampling.BICUBIC, fillcolor=ground)
    small = canvas.resize((SIDE, SIDE), Image.Resampling(int(draw.choice([1, 3, 4]))))
    for record in draw.choice(len(icons), int(draw.integers(1, 8))):
        paste(small, draw, icons[record])
    return small


def paste(canvas: Image.Image, draw: Draw, record: Record) -> None:
    icon = Image.open(io.BytesIO(record.read())).convert("RGBA").rotate(draw.uniform(-20, 20), Image.Resampling.BICUBIC)
    side = int(draw.uniform(60, 256))
    icon = icon.resize((side, side), Image.Resampling.LANCZOS)
    canvas.paste(icon, tuple(draw.integers(-side // 4, SIDE - side // 2, 2).tolist()), icon)


def drawn(data: Path, out: Path, count: int) -> None:
    """`count` pictures and their metadata."""
    sets = {style: open_records(data / "icons256" / style / "train.zip", DataConfig()) for style in STYLES}
    words = sorted({word for records in sets.values() for record in records for word in record.text.split()})
    rows = []
    for number in range(count):
        draw, icons = np.random.default_rng([7, number]), sets[STYLES[number % len(STYLES)]]
        name = f"graphic_{number:04d}.png"
        picture(draw, icons, words).save(out / name, optimize=True)
        rows.append(described(name, name, icons[0]))
    described_in(out, rows)


def copied(photographs: list[Record], out: Path) -> None:
    """The photographs as they are, with their licences beside them."""
    for record in photographs:
        (out / record.name).write_bytes(record.read())
    described_in(out, [described(record.name, record.group, record) for record in photographs])


def described(name: str, group: str, record: Record) -> dict[str, str]:
    return {"file_name": name, "group": group, "license": record.license, "source": record.source}


def described_in(out: Path, rows: list[dict[str, str]]) -> None:
    (out / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def main(data: Path, out: Path, count: int = 120) -> None:
    for name in ("photos", "graphics"):
        (out / name).mkdir(parents=True, exist_ok=True)
    copied(open_records(data / "sr/train", DataConfig()), out / "photos")
    drawn(data, out / "graphics", count)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
