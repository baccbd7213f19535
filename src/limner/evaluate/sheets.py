"""Contact sheets: many pictures with labels in one PNG, for the eye that no figure replaces."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from limner.errors import LimnerError
from limner.evaluate.judges import Pixels

_INK, _PAPER, _FAINT = (24, 24, 24), (255, 255, 255), (110, 110, 110)
_GAP = 6
_FONT_SIZE = 12
_LINE = 15  # pixels between base lines


@dataclass(frozen=True)
class Cell:
    """A picture (H, W, 4) uint8 RGBA, or None for a gap, with a label below it."""

    picture: Pixels | None
    label: str = ""


def prompts_by_seeds(prompts: Sequence[str], pictures: Pixels, seeds: Sequence[int], zoom: int = 1) -> Image.Image:
    """A row for each prompt, written at its left, a column for each seed. `pictures`: (K, N, H, W, 4) for K seeds."""
    rows = [[Cell(picture) for picture in pictures[:, i]] for i in range(len(prompts))]
    return sheet(rows, heads=[f"seed {seed}" for seed in seeds], sides=prompts, zoom=zoom)


def styles_by_concepts(styles: Sequence[str], concepts: Sequence[str], pictures: Pixels, zoom: int = 1) -> Image.Image:
    """A row for each concept, a column for each style. `pictures`: (styles, concepts, H, W, 4)."""
    rows = [[Cell(picture) for picture in pictures[:, i]] for i in range(len(concepts))]
    return sheet(rows, heads=styles, sides=concepts, zoom=zoom)


def nearest_neighbours(
    prompts: Sequence[str], pictures: Pixels, neighbours: Sequence[Sequence[Cell]], zoom: int = 1
) -> Image.Image:
    """A row for each prompt: the picture (H, W, 4) painted for it, then the training pictures nearest to it."""
    rows = [[Cell(own), *near] for own, near in zip(pictures, neighbours, strict=True)]
    heads = ["painted", *(f"nearest {i + 1}" for i in range(max(len(row) for row in rows) - 1))]
    return sheet(rows, heads=heads, sides=prompts, zoom=zoom)


def grid(prompts: Sequence[str], pictures: Pixels, columns: int = 8, zoom: int = 1) -> Image.Image:
    """One picture a prompt, (N, H, W, 4), each with its prompt below it, row after row."""
    cells = [Cell(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]
    return sheet([cells[i : i + columns] for i in range(0, len(cells), columns)], zoom=zoom)


def sheet(
    rows: Sequence[Sequence[Cell]], heads: Sequence[str] = (), sides: Sequence[str] = (), zoom: int = 1
) -> Image.Image:
    """Lay cells out on white: `heads` above the columns, `sides` left of the rows, labels wrapped below pictures.

    `zoom`: whole factor of enlargement, nearest neighbour. Raises LimnerError when there is no picture.
    """
    side = _side(rows) * zoom
    margin = 0 if not sides else 170
    head = (_depth(heads, side) + _GAP) if heads else 0
    depths = [side + _depth([cell.label for cell in row], side) + _GAP for row in rows]
    depths = [
        max(depth, _depth([text], margin - _GAP) + _GAP)
        for depth, text in zip(depths, _padded(sides, rows), strict=True)
    ]
    columns = max(len(row) for row in rows)
    canvas = Image.new("RGB", (margin + columns * (side + _GAP) + _GAP, head + sum(depths) + _GAP), _PAPER)
    for column, text in enumerate(heads):
        _write(canvas, text, margin + _GAP + column * (side + _GAP), _GAP // 2, side)
    top = head + _GAP
    for row, depth, text in zip(rows, depths, _padded(sides, rows), strict=True):
        _write(canvas, text, _GAP, top, margin - 2 * _GAP)
        _place(canvas, row, margin + _GAP, top, side)
        top += depth
    return canvas


def save(picture: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all. Raises LimnerError when the place cannot be written to."""
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(draft, "PNG", optimize=True)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise LimnerError(f"{path}: cannot be written ({error.strerror}); choose another file.") from None


def _side(rows: Sequence[Sequence[Cell]]) -> int:
    sides = [max(cell.picture.shape[:2]) for row in rows for cell in row if cell.picture is not None]
    if not sides:
        raise LimnerError("a contact sheet needs at least one picture.")
    return max(sides)


def _padded(sides: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    return [*sides, *("" for _ in range(len(rows) - len(sides)))]


def _place(canvas: Image.Image, row: Sequence[Cell], left: int, top: int, side: int) -> None:
    for column, cell in enumerate(row):
        x = left + column * (side + _GAP)
        if cell.picture is not None:
            picture = Image.fromarray(np.ascontiguousarray(cell.picture), "RGBA")
            enlarged = picture.resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (x, top), enlarged)
        _write(canvas, cell.label, x, top + side + 1, side, _FAINT)


def _write(canvas: Image.Image, text: str, x: int, y: int, width: int, ink: tuple[int, int, int] = _INK) -> None:
    draw = ImageDraw.Draw(canvas)
    for line in _wrapped(text, width):
        draw.text((x, y), line, ink, _font())
        y += _LINE


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT_SIZE)


def _depth(texts: Sequence[str], width: int) -> int:
    return _LINE * max((len(_wrapped(text, width)) for text in texts), default=0)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of `text` no wider than `width` pixels; a single word that is wider is broken."""
    lines: list[str] = []
    for word in text.split():
        first, *rest = _broken(word, width)
        joined = f"{lines[-1]} {first}" if lines else first
        if lines and _font().getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(first)
        lines += rest
    return lines


def _broken(word: str, width: int) -> list[str]:
    fits = max([n for n in range(1, len(word) + 1) if _font().getlength(word[:n]) <= width], default=1)
    return [word[:fits], *(_broken(word[fits:], width) if word[fits:] else [])]
