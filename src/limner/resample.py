"""Separable resampling as plain matrices, shared by training, evaluation and the runtime. numpy only."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Filter = Literal["bicubic", "lanczos", "decimate"]


def _cubic(a: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Keys' cubic convolution kernel (Keys 1981, eq. 4) with free parameter `a`."""

    def kernel(x: NDArray[np.float64]) -> NDArray[np.float64]:
        x = np.abs(x)
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

    return kernel


def _lanczos3(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


# bicubic: MATLAB's imresize (a = -0.5, widened when shrinking, mirrored border).
# decimate: cv2's INTER_CUBIC (a = -0.75, never widened, replicated border), so shrinking aliases.
_FILTERS: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], float, bool]] = {
    "bicubic": (_cubic(-0.5), 2.0, True),
    "lanczos": (_lanczos3, 3.0, True),
    "decimate": (_cubic(-0.75), 2.0, False),
}


@lru_cache(maxsize=256)
def taps(size: int, out: int, filter: Filter = "bicubic") -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Source indices and weights of every output sample, each (out, taps); pixel centres at half integers.

    The weights of a row sum to 1. Borders are mirrored (`decimate`: replicated).
    """
    kernel, support, antialias = _FILTERS[filter]
    stretch = max(size / out, 1.0) if antialias else 1.0
    centres = (np.arange(out) + 0.5) * size / out - 0.5
    count = int(np.ceil(2 * support * stretch)) + 2
    index = np.floor(centres - support * stretch)[:, None].astype(np.intp) + np.arange(count)
    weight = kernel((centres[:, None] - index) / stretch)
    weight /= weight.sum(1, keepdims=True)
    return _inside(index, size, mirror=antialias), weight.astype(np.float32)


def _inside(index: NDArray[np.intp], size: int, mirror: bool) -> NDArray[np.intp]:
    if not mirror:
        return np.clip(index, 0, size - 1)
    folded = np.mod(index, 2 * size)
    return np.where(folded < size, folded, 2 * size - 1 - folded)


@lru_cache(maxsize=64)
def matrix(size: int, out: int, filter: Filter = "bicubic") -> NDArray[np.float32]:
    """The (out, size) matrix that resamples a column of `size` samples."""
    index, weight = taps(size, out, filter)
    dense = np.zeros((out, size), np.float32)
    np.add.at(dense, (np.arange(out)[:, None], index), weight)
    return dense


def resize(image: NDArray[np.float32], height: int, width: int, filter: Filter = "bicubic") -> NDArray[np.float32]:
    """Resample (H, W) or (H, W, C) float32 to (height, width[, C]). Values may overshoot their input range."""
    rows = _along_rows(np.asarray(image, np.float32), height, filter)
    return np.ascontiguousarray(_along_rows(rows.swapaxes(0, 1), width, filter).swapaxes(0, 1))


def _along_rows(image: NDArray[np.float32], out: int, filter: Filter) -> NDArray[np.float32]:
    if out == image.shape[0]:
        return image
    index, weight = taps(image.shape[0], out, filter)
    result = np.zeros((out, *image.shape[1:]), np.float32)
    shape = (out,) + (1,) * (image.ndim - 1)
    for tap in range(index.shape[1]):
        result += image[index[:, tap]] * weight[:, tap].reshape(shape)
    return result


def resize_uint8(image: NDArray[np.uint8], height: int, width: int, filter: Filter = "bicubic") -> NDArray[np.uint8]:
    """`resize` for (H, W[, C]) uint8, rounded and clipped once at the end."""
    return np.rint(resize(image.astype(np.float32), height, width, filter)).clip(0, 255).astype(np.uint8)
