"""Test sets: any folder of pictures. The low-resolution input is made here, so a score says how it was made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from limner.errors import LimnerError, one_of
from limner.resample import resize_uint8
from limner.runtime.alpha import premultiplied

Downsampler = Literal["bicubic", "decimate"]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
SMALLEST = 16  # low-resolution pixels; less leaves nothing inside the border to score


@dataclass(frozen=True)
class PictureSet:
    """A named list of true pictures."""

    name: str
    files: tuple[Path, ...]


def open_set(folder: Path) -> PictureSet:
    """The pictures directly inside `folder`, sorted by name. Raises LimnerError when there are none."""
    if not folder.is_dir():
        raise LimnerError(f"{folder}: no such folder; give a folder of test pictures.")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise LimnerError(f"{folder}: no pictures in it; give a folder that holds {', '.join(SUFFIXES)} files.")
    return PictureSet(folder.resolve().name, tuple(files))


def default_sets() -> list[Path]:
    """Every folder under `sr/test` of $LIMNER_DATA, or else of ../shared/data. Raises LimnerError without any."""
    root = Path(os.environ.get("LIMNER_DATA", "../shared/data")) / "sr" / "test"
    folders = sorted(path for path in root.glob("*") if path.is_dir())
    if not folders:
        raise LimnerError(f"{root}: no test sets there; name one with --set DIR or point LIMNER_DATA at the data.")
    return folders


def downsampler_named(name: str) -> Downsampler:
    """The downsampler of that name. Raises UsageError for any other."""
    for known in get_args(Downsampler):
        if name == known:
            return known
    raise one_of("downsampler", name, get_args(Downsampler))


def pair(
    path: Path, scale: int, downsampler: Downsampler, channels: int = 3
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Low-resolution input (h, w, 3) and true picture (h*scale, w*scale, 3), both uint8 RGB.

    With `channels` = 4 both are RGBA with premultiplied alpha, which is also how they are shrunk.

    The truth is cropped at the bottom and right to a multiple of `scale`, then shrunk: `bicubic` as MATLAB's imresize
    (antialiased), `decimate` as cv2's INTER_CUBIC (aliased). Raises LimnerError for an unreadable or tiny picture.
    """
    truth = _read(path, channels)
    height, width = truth.shape[0] // scale, truth.shape[1] // scale
    if min(height, width) < SMALLEST:
        size = f"{truth.shape[1]}x{truth.shape[0]}"
        raise LimnerError(f"{path}: {size} is too small to score at x{scale}; remove it from the test set.")
    truth = np.ascontiguousarray(truth[: height * scale, : width * scale])
    return resize_uint8(truth, height, width, downsampler), truth


def _read(path: Path, channels: int) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            if channels == 4:
                straight = np.asarray(image.convert("RGBA"))
                return premultiplied(straight[..., :3], straight[..., 3])
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise LimnerError(f"{path}: not readable as a picture ({error}); remove it from the test set.") from None
