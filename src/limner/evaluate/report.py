"""Score an upscaler on test sets, with bicubic beside it; as rows, as a table, as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from limner.errors import LimnerError
from limner.evaluate.fidelity import Scores, compare, on_white
from limner.evaluate.sets import Downsampler, PictureSet, pair
from limner.resample import resize_uint8

if TYPE_CHECKING:
    from rich.table import Table

Upscale = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True)
class Row:
    """Mean scores of one upscaler over the pictures of one set, and bicubic's on the same inputs."""

    set: str
    scale: int
    downsampler: Downsampler
    pictures: int
    scores: Scores
    bicubic: Scores


def evaluate(
    upscale: Upscale,
    sets: Sequence[PictureSet],
    scale: int,
    downsampler: Downsampler = "bicubic",
    advance: Callable[[], None] = lambda: None,
    channels: int = 3,
) -> list[Row]:
    """One Row per set. Set scores are means of the pictures' scores; `scale` pixels of border are left out.

    `upscale` maps (h, w, 3) uint8 RGB to (h*scale, w*scale, 3) uint8; with `channels` = 4 both are RGBA with
    premultiplied alpha, and laid on white to be compared. `advance` is called after every picture.
    Raises LimnerError for an unreadable picture or an output of the wrong shape.
    """
    return [_row(upscale, each, scale, downsampler, advance, channels) for each in sets]


def _row(
    upscale: Upscale,
    pictures: PictureSet,
    scale: int,
    downsampler: Downsampler,
    advance: Callable[[], None],
    channels: int,
) -> Row:
    ours, bicubic = [], []
    for path in pictures.files:
        low, truth = pair(path, scale, downsampler, channels)
        painted = upscale(low)
        if painted.shape != truth.shape:
            raise LimnerError(f"{path}: the upscaler returned shape {painted.shape} where x{scale} is {truth.shape}.")
        shown, plain = on_white(truth), on_white(resize_uint8(low, *truth.shape[:2]))
        ours.append(compare(on_white(painted), shown, scale))
        bicubic.append(compare(plain, shown, scale))
        advance()
    return Row(pictures.name, scale, downsampler, len(ours), mean(ours), mean(bicubic))


def mean(scores: Iterable[Scores]) -> Scores:
    """Field by field; the literature averages dB, not errors."""
    return Scores(*(float(column) for column in np.mean([astuple(each) for each in scores], axis=0)))


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as plain data: dB to 3 digits, SSIM to 5, an infinite PSNR (equal pictures) as None."""
    return [asdict(row) | {"scores": _rounded(row.scores), "bicubic": _rounded(row.bicubic)} for row in rows]


def _rounded(scores: Scores) -> dict[str, float | None]:
    digits = {name: 3 if name.startswith("psnr") else 5 for name in asdict(scores)}
    return {
        name: round(value, digits[name]) if math.isfinite(value) else None for name, value in asdict(scores).items()
    }


def table(results: dict[str, list[Row]], title: str = "") -> Table:
    """A rich table, set by set and scale by scale, bicubic first. Keys of `results` name the upscalers."""
    from rich.table import Table

    grid = Table(title=title or None, title_justify="left")
    for heading in ("set", "scale", "upscaler"):
        grid.add_column(heading, no_wrap=True)
    for heading in ("PSNR Y", "SSIM Y", "PSNR RGB", "SSIM RGB"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for lines in _by_input(results).values():
        for label, row, scores in lines:
            grid.add_row(row.set, f"x{row.scale}", label, *_cells(scores))
        grid.add_section()
    return grid


def _by_input(results: dict[str, list[Row]]) -> dict[tuple[str, int], list[tuple[str, Row, Scores]]]:
    """Lines that share their inputs, so that one bicubic line is the yardstick of all the others."""
    groups: dict[tuple[str, int], list[tuple[str, Row, Scores]]] = {}
    for label, rows in results.items():
        for row in rows:
            group = groups.setdefault((row.set, row.scale), [("bicubic", row, row.bicubic)])
            group.append((label, row, row.scores))
    return groups


def _cells(scores: Scores) -> tuple[str, str, str, str]:
    return (
        f"{scores.psnr_y:.2f}",
        f"{scores.ssim_y:.4f}",
        f"{scores.psnr_rgb:.2f}",
        f"{scores.ssim_rgb:.4f}",
    )
