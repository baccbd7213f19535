"""Resampling of large pictures in bounded memory: bands of rows, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limner.errors import LimnerError
from limner.resample import Filter, taps

BAND_SAMPLES = 1 << 20


def bands(height: int, width: int) -> Iterator[slice]:
    """Slices of rows that cut a picture into parts of about BAND_SAMPLES samples."""
    rows = max(1, BAND_SAMPLES // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def bicubic(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """`limner.resample.resize` for (H, W[, C]) uint8 or uint16, rounded and clipped to the dtype."""
    return _resized(image, height, width, "bicubic")


def blend_bicubic(painted: NDArray[Any], image: NDArray[Any], strength: float) -> None:
    """In place: painted = (1 - strength) * bicubic(image) + strength * painted."""
    height, width = painted.shape[:2]
    for rows, band in _resized_bands(image, height, width, "bicubic"):
        plain = band.clip(0, np.iinfo(painted.dtype).max)
        painted[rows] = _rounded(plain + strength * (painted[rows] - plain), painted.dtype)


def lanczos(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Antialiased Lanczos-3 of (H, W[, C]) uint8 or uint16, rounded and clipped to the dtype."""
    if image.shape[:2] == (height, width):
        return image
    if height > image.shape[0] or width > image.shape[1]:
        return _resized(image, height, width, "lanczos")
    return _reduced(image, height, width)


def _reduced(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """By libvips: measured 10 to 20 times faster than numpy, and within 7 LSB of it (0.2 on average)."""
    import pyvips

    channels = 1 if image.ndim == 2 else image.shape[2]
    kind = "uchar" if image.dtype == np.uint8 else "ushort"
    memory = np.ascontiguousarray(image).data
    source = pyvips.Image.new_from_memory(memory, image.shape[1], image.shape[0], channels, kind)
    try:
        # On ushort libvips uses weights in fixed point that do not sum to 1: white would lose 112 of 65535.
        wide = source if kind == "uchar" else source.cast("float")
        small = wide.resize(width / image.shape[1], vscale=height / image.shape[0], kernel="lanczos3", gap=0)
        data = (small if kind == "uchar" else small.rint().cast(kind)).write_to_memory()
    except pyvips.Error as error:
        raise LimnerError(f"cannot resample to {width} x {height} ({error.detail.strip()}); ask for less.") from error
    return np.frombuffer(data, image.dtype).reshape(height, width, *image.shape[2:])


def _resized(image: NDArray[Any], height: int, width: int, filter: Filter) -> NDArray[Any]:
    out = np.empty((height, width, *image.shape[2:]), image.dtype)
    for rows, band in _resized_bands(image, height, width, filter):
        out[rows] = _rounded(band, image.dtype)
    return out


def _rounded(band: NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.rint(band).clip(0, np.iinfo(dtype).max).astype(dtype)


def _resized_bands(
    image: NDArray[Any], height: int, width: int, filter: Filter
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    vertical, horizontal = _taps(image.shape[0], height, filter), _taps(image.shape[1], width, filter)
    for rows in bands(height, max(width, image.shape[1])):
        index, weight = vertical[0][rows], vertical[1][rows]
        top = index.min()
        source = image[top : index.max() + 1].astype(np.float32)
        band = _weighted(source, index - top, weight, axis=0)
        yield rows, _weighted(band, *horizontal, axis=1)


def _taps(size: int, out: int, filter: Filter) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """`resample.taps` without the columns that are zero everywhere; a single tap where the size stays."""
    if size == out:
        return np.arange(out)[:, None], np.ones((out, 1), np.float32)
    index, weight = taps(size, out, filter)
    used = weight.any(0)
    return index[:, used], weight[:, used]


def _weighted(
    band: NDArray[np.float32], index: NDArray[np.intp], weight: NDArray[np.float32], axis: int
) -> NDArray[np.float32]:
    shape = [1] * band.ndim
    shape[axis] = len(index)
    result = np.take(band, index[:, 0], axis) * weight[:, 0].reshape(shape)
    for tap in range(1, index.shape[1]):
        result += np.take(band, index[:, tap], axis) * weight[:, tap].reshape(shape)
    return result
