"""Transparency without fringes: colours grow into what is transparent, and alpha keeps within its neighbours."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limner.runtime.fused import native
from limner.runtime.resize import bands

# Windows of 3, 9, 27 and 81 pixels a side: each fill builds on the one before, together they reach 58 pixels.
REACHES = (1, 4, 13, 40)
_HALO = sum(REACHES)
_BAND_ROWS = 512
SHEER = 4  # of 255


def bleed(pixels: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """(H, W, 3) in which pixels with alpha 0 take the mean colour of the visible ones nearby.

    Whatever colour a file hides under full transparency would otherwise leak into the visible edge. The mean is over
    the smallest of four growing windows that holds any colour; pixels too far from all visible ones become black.
    """
    out = np.empty_like(pixels)
    for top in range(0, len(pixels), _BAND_ROWS):
        first, last = max(0, top - _HALO), min(len(pixels), top + _BAND_ROWS)
        window = slice(first, min(len(pixels), last + _HALO))
        out[top:last] = _filled(pixels[window], alpha[window] > 0)[top - first : last - first]
    return out


def _filled(pixels: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[Any]:
    pixels = np.where(known[..., None], pixels, 0).astype(pixels.dtype)
    for reach in REACHES:
        if known.all():
            break
        count = _window_sum(known, reach)
        grown = ~known & (count > 0)
        divisor = count[grown]
        for channel in range(3):
            total = _window_sum(pixels[..., channel], reach)[grown]
            pixels[grown, channel] = (total + divisor // 2) // divisor
        known = known | grown
    return pixels


def _window_sum(plane: NDArray[Any], reach: int) -> NDArray[np.uint32]:
    """Sum over the square of 2*reach + 1 pixels a side. Running sums may wrap around: their differences are exact."""
    for axis in (0, 1):
        size = plane.shape[axis]
        sums = np.insert(np.cumsum(plane, axis, np.uint32), 0, 0, axis)
        at = np.arange(size)
        plane = sums.take(np.minimum(at + reach + 1, size), axis) - sums.take(np.maximum(at - reach, 0), axis)
    return plane


def premultiplied(pixels: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """(H, W, 4): the colours (H, W, 3) times alpha (H, W), rounded, and alpha itself."""
    maximum = np.iinfo(pixels.dtype).max
    colours = pixels * (alpha[..., None] / np.float32(maximum))
    return np.concatenate([np.rint(colours).astype(pixels.dtype), alpha[..., None]], -1)


def firm(pictures: NDArray[np.uint8], gain: float) -> NDArray[np.uint8]:
    """Pictures (..., 4) with premultiplied alpha whose alpha has `gain` times the contrast around one half.

    alpha' = clip((alpha - 1/2) * gain + 1/2, 0, 1); the colours, seen without alpha, stay. A painter that is unsure
    where an outline runs paints it soft: its alpha is the share of outlines that cover a pixel. This is the outline in
    the middle of them, as wide as the gain leaves it (Green 2007, Improved Alpha-Tested Magnification, section 3).
    """
    values = pictures * _factors(gain).take(pictures[..., 3], 0)
    values += np.float32(0.5)
    return np.minimum(values, np.float32(255), out=values).astype(np.uint8)


@cache
def _factors(gain: float) -> NDArray[np.float32]:
    """What a pixel is multiplied by, for every alpha: (256, 4), four times the same."""
    levels = np.arange(256, dtype=np.float32)
    firmer = ((levels - 127.5) * np.float32(gain) + 127.5).clip(0, 255).round()
    return np.repeat((firmer / levels.clip(1))[:, None], 4, 1).astype(np.float32)


def straight(pictures: NDArray[Any]) -> NDArray[Any]:
    """(..., H, W, 4) with premultiplied alpha, uint8 or uint16, as straight alpha of the same dtype.

    Colours above alpha, which no picture can have, are cut. Where alpha is below SHEER the rounded product says next
    to nothing about the colour; there it is the mean of the 5x5 pixels around, weighted by alpha, so that viewers which
    enlarge straight alpha draw no fringe. Laid over anything, such a pixel changes by less than SHEER of 255.
    """
    out = np.empty(pictures.shape, pictures.dtype)
    _straighten(pictures, out[..., :3], out[..., 3])
    return out


def straight_parts(picture: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """`straight` of one picture, as colours (H, W, 3) and alpha (H, W)."""
    colours, alpha = np.empty((*picture.shape[:2], 3), picture.dtype), np.empty(picture.shape[:2], picture.dtype)
    _straighten(picture, colours, alpha)
    return colours, alpha


def _straighten(pictures: NDArray[Any], colours: NDArray[Any], alpha: NDArray[Any]) -> None:
    """By the compiled library, ten times as fast, where it is there."""
    if pictures.dtype != np.uint8 or native.unavailable():
        return _straighten_plainly(pictures, colours, alpha)
    height, width = pictures.shape[-3:-1]
    parts = (part.reshape(-1, height, width, *part.shape[pictures.ndim - 1 :]) for part in (pictures, colours, alpha))
    for picture, its_colours, its_alpha in zip(*parts, strict=True):
        native.straighten(picture, SHEER, its_colours, its_alpha)


def _straighten_plainly(pictures: NDArray[Any], straight: NDArray[Any], opacity: NDArray[Any]) -> None:
    maximum = int(np.iinfo(pictures.dtype).max)
    planes = np.ascontiguousarray(np.moveaxis(pictures, -1, 0))
    alpha = planes[3]
    np.minimum(planes[:3], alpha, out=planes[:3])
    colours = planes[:3] * (maximum / np.maximum(alpha, 1).astype(np.float32)) + np.float32(0.5)
    thin = alpha < SHEER * (maximum // 255)
    if thin.any():
        _take_mean(colours, planes, thin)
    straight[...], opacity[...] = np.moveaxis(colours, 0, -1), alpha


def _take_mean(colours: NDArray[np.floating[Any]], planes: NDArray[Any], where: NDArray[np.bool_]) -> None:
    """In place: `colours` (3, ..., H, W) become those around, except where everything around is transparent."""
    sums = _sum_of_squares(planes).reshape(4, -1)
    chosen = np.flatnonzero(where.ravel() & (sums[3] > 0))
    sums = sums[:, chosen].astype(np.float32)
    colours.reshape(3, -1)[:, chosen] = sums[:3] * (np.iinfo(planes.dtype).max / sums[3]) + np.float32(0.5)


def _sum_of_squares(plane: NDArray[Any]) -> NDArray[Any]:
    """Sums over the 5x5 pixels around each of (..., H, W); beyond the border lies nothing."""
    edges = [(0, 0)] * (plane.ndim - 2) + [(2, 2), (2, 2)]
    # 25 times the maximum has to fit.
    sums = np.pad(plane.astype(np.uint16 if plane.dtype == np.uint8 else np.uint32), edges)
    two = sums[..., :-1, :] + sums[..., 1:, :]
    sums = two[..., :-3, :] + two[..., 2:-1, :] + sums[..., 4:, :]
    two = sums[..., :-1] + sums[..., 1:]
    return two[..., :-3] + two[..., 2:-1] + sums[..., 4:]


def bound(painted: NDArray[Any], alpha: NDArray[Any]) -> None:
    """In place: keep an enlarged alpha (H', W') between the least and greatest of the 3x3 pixels it came from.

    No ringing, and what was fully opaque or fully transparent stays so.
    """
    height, width = painted.shape
    low, high = _extreme(np.minimum, alpha), _extreme(np.maximum, alpha)
    columns = np.arange(width) * alpha.shape[1] // width
    for rows in bands(height, width):
        lines = np.arange(rows.start, rows.stop) * alpha.shape[0] // height
        np.clip(painted[rows], low[lines][:, columns], high[lines][:, columns], out=painted[rows])


def _extreme(least_or_greatest: np.ufunc, plane: NDArray[Any]) -> NDArray[Any]:
    """Erosion or dilation by a 3x3 square."""
    for axis in (0, 1):
        padded = np.pad(plane, [(1, 1) if axis == k else (0, 0) for k in (0, 1)], mode="edge")
        size = plane.shape[axis]
        left, middle, right = (padded.take(range(k, k + size), axis) for k in range(3))
        plane = least_or_greatest(least_or_greatest(left, middle), right)
    return plane
