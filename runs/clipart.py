"""Pastes public domain drawings over each other: thousands of things with sharp edges, no two pictures alike.

    apt-get download openclipart-svg && dpkg-deb -x openclipart-svg_*.deb PACKAGES/openclipart-svg
    pip install pyvips pyvips-binary   # renders SVG
    python runs/clipart.py PACKAGES OUT [COUNT] [SEED]

OUT becomes a data folder of COUNT (default 600) PNG pictures of 512 x 512. What ships learned from the 7,407 drawings
of up to 400 kB, some under two names, of openclipart-svg 0.18+dfsg-19 (Debian bookworm), which the package's notice
puts in the public domain. The same SEED (default 21) makes the same pictures.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyvips
from graphics import SIDE, Draw, described_in, inks, paper
from PIL import Image

SOURCE, LICENCE = "openclipart-svg 0.18, authors of the Open Clip Art Library", "public domain"
LARGEST_FILE, SMALLEST, LARGEST = 400_000, 60, 480


def drawing(file: Path, side: int) -> Image.Image:
    """One drawing with its alpha, its longer side `side` pixels; raises pyvips.Error for what is no picture."""
    rendered = pyvips.Image.thumbnail(str(file), side, height=side).colourspace("srgb")
    pixels = rendered.numpy()
    if pixels.shape[-1] != 4:
        raise pyvips.Error(f"{file} has no alpha")
    return Image.fromarray(np.ascontiguousarray(pixels))


def shown(files: list[Path], draw: Draw) -> Iterator[Image.Image]:
    """Drawings of any size and angle, without end; rendered up to twice as large and reduced by any filter."""
    while True:
        side, finer = SMALLEST * (LARGEST / SMALLEST) ** draw.random(), draw.uniform(1, 2)
        with contextlib.suppress(pyvips.Error):
            whole = drawing(files[draw.integers(len(files))], int(side * finer))
            if draw.random() < 0.5:
                whole = whole.rotate(draw.uniform(-180, 180), Image.Resampling.BICUBIC, expand=True)
            size = (max(1, int(whole.width / finer)), max(1, int(whole.height / finer)))
            yield whole.resize(size, Image.Resampling(int(draw.choice([1, 3, 4]))))


def picture(files: list[Path], draw: Draw) -> Image.Image:
    """Paper, and 8 to 30 drawings on it."""
    canvas = paper(draw, inks(draw)[0]).reduce(4)
    for _, each in zip(range(int(draw.integers(8, 31))), shown(files, draw), strict=False):
        corner = [int(draw.uniform(-length / 2, SIDE - length / 2)) for length in each.size]
        canvas.paste(each, (corner[0], corner[1]), each)
    return canvas


def write(files: list[Path], out: Path, seed: int, number: int) -> dict[str, str]:
    name = f"clipart_{seed}_{number:04d}.png"
    picture(files, np.random.default_rng([seed, number])).save(out / name, compress_level=1)
    return {"file_name": name, "group": name, "license": LICENCE, "source": SOURCE}


def main(packages: Path, out: Path, count: int = 600, seed: int = 21) -> None:
    found = sorted(packages.glob("openclipart-svg/usr/share/openclipart/svg/**/*.svg"))
    files = [file for file in found if file.stat().st_size < LARGEST_FILE]
    if not files:
        raise SystemExit(f"{packages} has no openclipart-svg: unpack the package there (see this file's head)")
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2) as pool:
        rows = [*pool.map(partial(write, files, out, seed), range(count))]
    described_in(out, rows)
    print(f"{count} pictures of {len(files)} files in {out}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
