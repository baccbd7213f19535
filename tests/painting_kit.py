"""Captioned icons and painter runs so small that a test can afford them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from painter_kit import TEXT_WIDTH, TOKENS, make_text_bundle
from PIL import Image

from limner.config import RunConfig
from limner.recipes import icons, icons_direct, icons_gan, icons_match, icons_pairs, icons_teacher, tuned

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (30, 60, 220)}
THINGS = ("apple", "cat", "house", "tree", "dog", "sword")
RECIPES = {
    "direct": icons_direct,
    "flow": icons_teacher,
    "gan": icons_gan,
    "match": icons_match,
    "pairs": icons_pairs,
    "student": icons,
}
TRAIN = {"images": 32, "batch": 8, "warmup": 8, "checkpoint_every": 16, "sample_every": 64, "log_every": 8}
PAINTER = {"widths": (16, 16, 32), "down": (0, 1), "middle": 1, "up": (1, 1), "condition": 16, "memory": 8, "heads": 2}


def make_icons(folder: Path) -> Path:
    """18 icons of 64 px, a place for a thing, in three colours, and a text bundle beside them. Returns `folder`."""
    folder.mkdir(parents=True)
    rows = []
    for place, thing in enumerate(THINGS):
        for colour, rgb in COLOURS.items():
            name = f"{colour}-{thing}.png"
            Image.fromarray(_icon(place, rgb)).save(folder / name)
            what = {"file_name": name, "text": f"{colour} {thing}, flat style", "name": f"{colour} {thing}"}
            split = "validation" if (thing, colour) in (("cat", "red"), ("dog", "blue")) else "train"
            rows.append({**what, "group": thing + colour, "style": "flat", "split": split, "license": "CC0-1.0"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    make_text_bundle(folder.with_name("text-kit"))
    return folder


def _icon(place: int, rgb: tuple[int, int, int]) -> np.ndarray:
    pixels = np.zeros((64, 64, 4), np.uint8)
    top, left = place // 3 * 32, place % 3 * 20
    pixels[top : top + 28, left : left + 20] = (*rgb, 255)
    return pixels


def tiny_painting(kind: str, data: Path, **changes: dict[str, object]) -> RunConfig:
    """A small run of that kind on the icons of `make_icons`."""
    sections: dict[str, dict[str, object]] = {
        "train": {**TRAIN, "accelerator": "cpu", "threads": 1},
        "painter": dict(PAINTER),
        "adversarial": {"width": 8},
        "text": {"bundle": str(data.with_name("text-kit")), "width": TEXT_WIDTH, "tokens": TOKENS},
        "flow": {"steps": 2},
        "quantize": {"calibration_crops": 8},
        "pairs": {"count": 12, "shard": 8},
    }
    for key, change in changes.items():
        sections[key] = sections.get(key, {}) | change
    return tuned(RECIPES[kind](), None, **sections)
