"""PSNR and SSIM as the super-resolution literature computes them. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limner.errors import LimnerError

PEAK = 255.0
_TAPS = 11
_SIGMA = 1.5
_C1, _C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """Fidelity to the true picture: PSNR in dB (inf when equal), SSIM in -1..1, on luma (`y`) and on RGB."""

    psnr_y: float
    ssim_y: float
    psnr_rgb: float
    ssim_rgb: float


def compare(picture: NDArray[np.uint8], truth: NDArray[np.uint8], border: int) -> Scores:
    """Scores of `picture` against `truth`, both (H, W, 3) uint8 RGB, without `border` pixels on every side.

    RGB: PSNR of the error over all three channels, SSIM as the mean over channels. Raises LimnerError when the
    shapes differ or fewer than 11 x 11 pixels remain.
    """
    ours, theirs = _inner(picture, truth, border)
    y, true_y = luma(ours), luma(theirs)
    rgb, true_rgb = ours.astype(np.float32), theirs.astype(np.float32)
    return Scores(
        psnr_y=psnr(y, true_y),
        ssim_y=ssim(y, true_y),
        psnr_rgb=psnr(rgb, true_rgb),
        ssim_rgb=sum(ssim(rgb[..., c], true_rgb[..., c]) for c in range(3)) / 3,
    )


def _inner(a: NDArray[np.uint8], b: NDArray[np.uint8], border: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    if a.shape != b.shape or a.ndim != 3 or a.shape[2] != 3:
        raise LimnerError(f"pictures of shape {a.shape} and {b.shape} cannot be compared: both must be one (H, W, 3).")
    if min(a.shape[:2]) - 2 * border < _TAPS:
        raise LimnerError(
            f"a {a.shape[1]}x{a.shape[0]} picture is too small to score with a border of {border} pixels."
        )
    inner = slice(border, a.shape[0] - border), slice(border, a.shape[1] - border)
    return a[inner], b[inner]


def on_white(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 4) with premultiplied alpha laid on white; RGB stays as it is."""
    if picture.shape[2] == 3:
        return picture
    return np.minimum(picture[..., :3].astype(np.uint16) + 255 - picture[..., 3:], 255).astype(np.uint8)


def luma(rgb: NDArray[np.uint8]) -> Plane:
    """Y of (H, W, 3) uint8 RGB in 16..235, unrounded: ITU-R BT.601 studio range, as MATLAB's rgb2ycbcr."""
    weights = np.array([65.481, 128.553, 24.966], np.float32) / PEAK
    return rgb.astype(np.float32) @ weights.astype(np.float32) + np.float32(16)


def psnr(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Peak signal-to-noise ratio in dB of two arrays in 0..255; inf when they are equal."""
    error = float(np.mean(np.square(a - b, dtype=np.float64)))
    return 10 * float(np.log10(PEAK**2 / error)) if error else float("inf")


def ssim(a: Plane, b: Plane) -> float:
    """Mean structural similarity of two (H, W) planes in 0..255.

    Wang et al. 2004, eq. 13, with their 11x11 Gaussian window (sigma 1.5), K1 = 0.01 and K2 = 0.03, over the pixels
    whose window lies inside the picture.
    """
    # Statistics of values around zero: float32 then keeps the small difference E[x^2] - E[x]^2.
    x: Plane = np.subtract(a, PEAK / 2, dtype=np.float32)
    y: Plane = np.subtract(b, PEAK / 2, dtype=np.float32)
    mean_x, mean_y = _blur(x), _blur(y)
    product = mean_x * mean_y
    covariance = _blur(x * y) - product
    variances = _blur(np.square(x) + np.square(y)) - mean_x**2 - mean_y**2
    mean_x, mean_y = mean_x + PEAK / 2, mean_y + PEAK / 2
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (variances + _C2)
    return float(np.mean(luminance * structure, dtype=np.float64))


def _gaussian() -> NDArray[np.float32]:
    offsets = np.arange(_TAPS) - _TAPS // 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    return (weights / weights.sum()).astype(np.float32)


def _blur(plane: Plane) -> Plane:
    """Gaussian mean of (H, W), valid region: (H - 10, W - 10)."""
    return _down_columns(_down_columns(plane).T).T


def _down_columns(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    height = plane.shape[0] - _TAPS + 1
    weights = _gaussian()
    total = weights[_TAPS // 2] * plane[_TAPS // 2 : _TAPS // 2 + height]
    for tap in range(_TAPS // 2):  # the window is symmetric: two rows share a weight
        mirror = _TAPS - 1 - tap
        total += weights[tap] * (plane[tap : tap + height] + plane[mirror : mirror + height])
    return total
