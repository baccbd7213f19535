"""Cuts many views of each photograph: turned, reduced, lighter or darker, some with a piece of another view on them.

    python runs/views.py PACKAGES DATA OUT [EACH] [SEED]

PACKAGES: as in photographs.py; DATA: the folder that holds sr/train. Even a network of 330,000 weights learns a few
hundred pictures by heart (docs/log.md, 2026-11-30), so it sees many sides of each: EACH (default 12) views of every
photograph, and half as many of every square of sr/train whose terms allow it. The same SEED (default 11) cuts the same
views. They are 512 x 512, of small photographs 256 x 256: each is reduced by a fifth or more, so that neither
compression nor turning shows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from graphics import SIDE, Draw, described_in
from photographs import LEAST_DETAIL, Photograph, about, detail, photographs
from PIL import Image, ImageChops, ImageDraw

from limner.config import DataConfig
from limner.data.records import open_records, select
from limner.recipes import NOT_SHIPPABLE

LONGEST, REDUCED, FINER, PASTED = 2400, 1.25, 4, 0.25
WHOLE = 2**0.5 * REDUCED * SIDE  # the shortest side of which any turn of a reduced window is a part


def turned(picture: Image.Image, side: int, draw: Draw) -> Image.Image:
    """A square window of any angle and size, reduced to `side` pixels."""
    shortest = min(picture.size)
    angle = draw.uniform(0, 90) if draw.random() < 0.7 else 0.0
    reach = abs(np.cos(np.radians(angle))) + abs(np.sin(np.radians(angle)))
    most = max(REDUCED, min(shortest / side / reach, 3 * REDUCED))
    window = min(side * REDUCED * (most / REDUCED) ** draw.random(), shortest / reach)
    room = window * reach / 2
    x, y = (draw.uniform(room, max(room, length - room)) for length in picture.size)
    around = picture.crop((int(x - room), int(y - room), int(x + room), int(y + room)))
    flat = around.rotate(angle, Image.Resampling.BICUBIC) if angle else around
    margin = max(0.0, (flat.width - window) / 2)
    inner = (margin, margin, flat.width - margin, flat.height - margin)
    return flat.resize((side, side), Image.Resampling.LANCZOS, inner)


def relit(view: Image.Image, draw: Draw) -> Image.Image:
    """Another gamma and gain of each colour; now and then the colours change places."""
    colours = draw.permutation(3) if draw.random() < 0.25 else np.arange(3)
    gamma, gain = draw.uniform(0.75, 1.33), draw.uniform(0.8, 1.2) * draw.uniform(0.9, 1.1, 3)
    levels = np.linspace(0, 1, 256)[:, None] ** gamma * gain
    table = (255 * levels.clip(0, 1)).round().astype(np.uint8)
    pixels = np.asarray(view)[..., colours]
    return Image.fromarray(np.stack([table[pixels[..., c], c] for c in range(3)], -1))


def outline(side: int, draw: Draw) -> Image.Image:
    """A mask with a sharp edge: blobs, stars and bars, drawn larger and reduced."""
    mask = Image.new("L", (side * FINER, side * FINER))
    pen = ImageDraw.Draw(mask)
    for _ in range(int(draw.integers(1, 7))):
        corners, reach = int(draw.integers(3, 14)), side * FINER * draw.uniform(0.03, 0.35)
        turns = np.sort(draw.uniform(0, 2 * np.pi, corners))
        away = reach * draw.uniform(0.3, 1, corners)
        x, y = draw.uniform(0, side * FINER, 2)
        pen.polygon([*zip(x + away * np.cos(turns), y + draw.uniform(0.2, 1) * away * np.sin(turns), strict=True)], 255)
    return mask.resize((side, side), Image.Resampling(int(draw.choice([1, 3, 4]))))


def pasted(view: Image.Image, other: Image.Image, draw: Draw) -> Image.Image:
    """The view with pieces of the other in front of it."""
    mask = outline(view.width, draw)
    return Image.composite(other, view, ImageChops.invert(mask) if draw.random() < 0.3 else mask)


def views(picture: Image.Image, count: int, seed: tuple[int, int]) -> Iterator[Image.Image]:
    """`count` views with something in them, or fewer where ten times as many do not have it; the picture shrinks."""
    picture.thumbnail((REDUCED * LONGEST,) * 2, Image.Resampling.LANCZOS)
    side, made = SIDE if min(picture.size) >= WHOLE else SIDE // 2, 0
    for number in range(10 * count):
        draw = np.random.default_rng([*seed, number])
        view = relit(turned(picture, side, draw), draw)
        if draw.random() < PASTED:
            view = pasted(view, relit(turned(picture, side, draw), draw), draw)
        if detail(view) >= LEAST_DETAIL:
            yield view
            made += 1
        if made == count:
            return


def write(photograph: Photograph, count: int, seed: tuple[int, int], out: Path) -> list[dict[str, str]]:
    """The views as files; their metadata."""
    rows = []
    for number, view in enumerate(views(photograph.opened(), count, seed)):
        name = f"{Path(photograph.group).stem}_{seed[1]:04d}_{number:02d}.png"
        view.save(out / name, compress_level=1)
        rows.append({"file_name": name} | about(photograph))
    return rows


def squares_known(data: Path) -> list[Photograph]:
    """The squares of sr/train whose terms allow it."""
    allowed = DataConfig(exclude_licenses=NOT_SHIPPABLE)
    records = select(open_records(data / "sr/train", allowed), allowed)
    return [Photograph(record.read(), record.group, record.license, record.source) for record in records]


def main(packages: Path, data: Path, out: Path, each: int = 12, seed: int = 11) -> None:
    out.mkdir(parents=True, exist_ok=True)
    whole, squares = [*photographs(packages)], squares_known(data)
    known, counts = whole + squares, [each] * len(whole) + [each // 2] * len(squares)
    seeds = [(seed, number) for number in range(len(known))]
    with ProcessPoolExecutor(2) as pool:
        rows = [row for part in pool.map(write, known, counts, seeds, [out] * len(known)) for row in part]
    described_in(out, rows)
    print(f"{len(rows)} views of {len(known)} pictures in {out}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:]))
