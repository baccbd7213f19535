"""Cuts training pictures from freely licensed photographs in Debian packages.

    apt-get download budgie-backgrounds lomiri-wallpapers-16.04 \
      wordpress-theme-twentytwentyfour wordpress-theme-twentytwentyfive
    for each in *.deb; do dpkg-deb -x "$each" PACKAGES; done
    pip install pillow-jxl-plugin   # newer budgie-backgrounds are JPEG XL
    python runs/photographs.py PACKAGES OUT

What ships learned from the packages of Debian unstable, 2026-11-30 (budgie-backgrounds 4.2-1, lomiri-wallpapers
20.04.0-5, wordpress 7.1.4+dfsg1-1). Only pictures named below are read: those that the packages' own notices put under
CC0 or CC-BY-4.0, and of these the ones with something to learn from. Every picture is reduced until compression no
longer shows, to two sizes, and cut into squares of 512 pixels; squares with next to nothing in them are left out.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
from graphics import SIDE, described_in
from PIL import Image

with contextlib.suppress(ImportError):
    import pillow_jxl  # noqa: F401  registers JPEG XL with Pillow

LONGEST, LEAST_DETAIL = (1920, 1080), 3.0
BACKGROUNDS = "usr/share/backgrounds"
THEMES = "usr/share/wordpress/wp-content/themes"
CC0, BY = "CC0-1.0", "CC-BY-4.0"
# folder, names without their ending, licence, who is to be named
PHOTOGRAPHS = (
    (
        f"{BACKGROUNDS}/budgie",
        "abstract-spiral beacon-street-sunset blue-periwinkle canyon-wren casa-mila high-trestle-trail lake-sherburne "
        "oakland-zoo-otters ocean-waves perched-osprey perched-shrike piazza-gae-aulenti pondering-heron "
        "roman-colosseum singaporean-cityscape sunning-anhinga tea-gardens the-spices-of-life",
        CC0,
        "budgie-backgrounds, Budgie Desktop Developers",
    ),
    (
        BACKGROUNDS,
        "aitzgorri_by_Aitzol_Berasategi friends_by_Aitzol_Berasategi life_by_Aitzol_Berasategi "
        "picosdeeuropa_by_Aitzol_Berasategi sunset_by_Aitzol_Berasategi",
        BY,
        "lomiri-wallpapers, Aitzol Berasategi",
    ),
    (BACKGROUNDS, "Picture_0B_by_freespace Picture_1A_by_freespace", BY, "lomiri-wallpapers, Trevor Freespace"),
    (BACKGROUNDS, "Wine_by_Jakkub_Mede", BY, "lomiri-wallpapers, Jakub Mede"),
    (BACKGROUNDS, "seeding_by_Clements_Engelhardt", CC0, "lomiri-wallpapers, Clemens Engelhardt"),
    (
        f"{THEMES}/twentytwentyfour/assets/images",
        "abstract-geometric-art angular-roof art-gallery building-exterior green-staircase museum tourist-and-building "
        "windows",
        CC0,
        "wordpress-theme-twentytwentyfour, rawpixel",
    ),
    (
        f"{THEMES}/twentytwentyfive/assets/images",
        "botany-flowers coming-soon-bg-image coral-square grid-flower-2 location northern-buttercups-flowers "
        "poster-image-background red-hibiscus-closeup",
        CC0,
        "wordpress-theme-twentytwentyfive, rawpixel",
    ),
)


def found(packages: Path, folder: str, stem: str) -> Path:
    """The picture of that name, in whatever format this version of the package has it."""
    files = [path for path in packages.glob(f"**/{folder}/{stem}.*") if path.suffix in {".jpg", ".jxl", ".webp"}]
    if not files:
        raise SystemExit(f"{packages} has no {folder}/{stem}.*: unpack the four packages there (see this file's head)")
    return files[0]


def reduced(picture: Image.Image) -> list[Image.Image]:
    """The picture on at most LONGEST pixels, and on at most four fifths of what the file has."""
    factors = sorted({max(max(picture.size) / longest, 1.25) for longest in LONGEST})
    sizes = [(int(picture.width / factor), int(picture.height / factor)) for factor in factors]
    return [picture.resize(size, Image.Resampling.LANCZOS) for size in sizes]


def squares(picture: Image.Image) -> list[Image.Image]:
    """As many squares as fit beside each other, around the middle."""
    across, down = picture.width // SIDE, picture.height // SIDE
    left, top = (picture.width - across * SIDE) // 2, (picture.height - down * SIDE) // 2
    corners = [(left + x * SIDE, top + y * SIDE) for y in range(down) for x in range(across)]
    return [picture.crop((x, y, x + SIDE, y + SIDE)) for x, y in corners]


def detail(square: Image.Image) -> float:
    """Mean step from a pixel to its neighbour, of 255."""
    grey = np.asarray(square.convert("L"), np.float32)
    return float(np.abs(np.diff(grey)).mean() + np.abs(np.diff(grey, axis=0)).mean())


def cut(packages: Path, out: Path) -> list[dict[str, str]]:
    """Writes the squares; their metadata. One group is one photograph."""
    rows = []
    for folder, stems, licence, credit in PHOTOGRAPHS:
        for stem in stems.split():
            picture = Image.open(found(packages, folder, stem)).convert("RGB")
            for number, square in enumerate(square for size in reduced(picture) for square in squares(size)):
                if detail(square) >= LEAST_DETAIL:
                    name = f"{stem}_{number}.png"
                    square.save(out / name)
                    rows.append({"file_name": name, "group": stem, "license": licence, "source": credit})
    return rows


def main(packages: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = cut(packages, out)
    described_in(out, rows)
    print(f"{len(rows)} pictures of {len({row['group'] for row in rows})} photographs in {out}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
