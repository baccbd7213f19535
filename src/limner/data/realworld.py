"""Degradations as pictures meet them in the wild: the two-round pipeline of Real-ESRGAN, in numpy, on one crop.

Wang et al., "Real-ESRGAN: Training real-world blind super-resolution with pure synthetic data", 2021, section 3 and
appendix A, with their figures. A round is blur, resize, noise, JPEG. One thing differs: shrinking is antialiased
(Pillow's filters), where the paper's area, bilinear and bicubic shrinking is so only for area. No torch.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from limner.errors import UsageError

Floats = NDArray[np.float32]

KERNEL_SIZES = tuple(range(7, 22, 2))
SECOND_BLUR = 0.8  # chance that the second round blurs at all
FINAL_SINC = 0.8
GRAY_NOISE = 0.4
SINC = 0.1  # chance of a sinc kernel in place of a Gaussian one
KERNELS = (  # shape, anisotropic
    ("gaussian", False),
    ("gaussian", True),
    ("generalized", False),
    ("generalized", True),
    ("plateau", False),
    ("plateau", True),
)
KERNEL_ODDS = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_FILTERS = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


class Round(NamedTuple):
    """Figures of one round: `resize` are the odds of up, down and keep, ranges are drawn from uniformly."""

    blur: float
    sigma: tuple[float, float]
    resize: tuple[float, float, float]
    factor: tuple[float, float]
    noise: tuple[float, float]
    poisson: tuple[float, float]
    quality: tuple[int, int] = (30, 95)


FIRST = Round(1.0, (0.2, 3.0), (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3.0))
SECOND = Round(SECOND_BLUR, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5))


def degrade_realworld(hr: Floats, scale: int, rng: np.random.Generator, second_round: bool = True) -> Floats:
    """(H, W, 3) float32 in 0..1 -> (H / scale, W / scale, 3) float32 in 0..1. Equal `rng`, equal picture.

    `second_round=False` leaves out the second blur, resize and noise; the last resize, sinc and JPEG remain.
    Raises UsageError when H or W is not a multiple of `scale`.
    """
    height, width = hr.shape[:2]
    if height % scale or width % scale:
        raise UsageError(f"a crop of {width}x{height} cannot be degraded by {scale}: crop it to a multiple of {scale}.")
    target = (height // scale, width // scale)
    picture = _jpeg(_blurred_and_noisy(hr, (height, width), FIRST, rng), FIRST, rng)
    if second_round:
        picture = _blurred_and_noisy(picture, target, SECOND, rng)
    kernel = _sinc_kernel(_size(rng), rng) if rng.random() < FINAL_SINC else None
    if rng.random() < 0.5:
        return _jpeg(_finish(picture, target, kernel, rng), SECOND, rng)
    return _finish(_jpeg(picture, SECOND, rng), target, kernel, rng)


def _blurred_and_noisy(picture: Floats, base: tuple[int, int], figures: Round, rng: np.random.Generator) -> Floats:
    if rng.random() < figures.blur:
        picture = convolve(picture, random_kernel(figures.sigma, rng))
    factor = _factor(figures, rng)
    picture = resize(picture, round(base[0] * factor), round(base[1] * factor), rng)
    add = gaussian_noise if rng.random() < 0.5 else poisson_noise
    strength = rng.uniform(*(figures.noise if add is gaussian_noise else figures.poisson))
    return add(picture, strength, bool(rng.random() < GRAY_NOISE), rng)


def _factor(figures: Round, rng: np.random.Generator) -> float:
    low, high = figures.factor
    ranges = ((1.0, high), (low, 1.0), (1.0, 1.0))
    return rng.uniform(*ranges[rng.choice(3, p=figures.resize)])


def _finish(picture: Floats, target: tuple[int, int], kernel: Floats | None, rng: np.random.Generator) -> Floats:
    small = resize(picture, *target, rng)
    return np.clip(small if kernel is None else convolve(small, kernel), 0, 1)


def random_kernel(sigma: tuple[float, float], rng: np.random.Generator) -> Floats:
    """A blur kernel as the paper draws it: odd size from 7 to 21, sum 1; sigmas in pixels, uniform in `sigma`."""
    size = _size(rng)
    if rng.random() < SINC:
        return _sinc_kernel(size, rng)
    shape, anisotropic = KERNELS[rng.choice(len(KERNELS), p=KERNEL_ODDS)]
    x = rng.uniform(*sigma)
    y, angle = (rng.uniform(*sigma), rng.uniform(-np.pi, np.pi)) if anisotropic else (x, 0.0)
    return blur_kernel(size, (x, y), angle, shape, _exponent(shape, rng))


def _size(rng: np.random.Generator) -> int:
    return int(rng.choice(KERNEL_SIZES))


def _exponent(shape: str, rng: np.random.Generator) -> float:
    """beta: 1 for Gaussians; half of the others are heavier-tailed than beta = 1, half are flatter."""
    if shape == "gaussian":
        return 1.0
    low, high = (0.5, 4.0) if shape == "generalized" else (1.0, 2.0)
    return rng.uniform(low, 1.0) if rng.random() < 0.5 else rng.uniform(1.0, high)


def blur_kernel(size: int, sigmas: tuple[float, float], angle: float, shape: str, beta: float = 1.0) -> Floats:
    """(size, size), sum 1, of q = x' C^-1 x for the covariance C of two sigmas (pixels) turned by `angle` (radians).

    gaussian: exp(-q / 2) (their eq. 3); generalized: exp(-q^beta / 2) (eq. 4); plateau: 1 / (1 + q^beta) (eq. 5).
    """
    offset = np.arange(size) - size // 2
    y, x = np.meshgrid(offset, offset, indexing="ij")
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    q = ((u / sigmas[0]) ** 2 + (v / sigmas[1]) ** 2) ** beta
    kernel = 1 / (1 + q) if shape == "plateau" else np.exp(-q / 2)
    return (kernel / kernel.sum()).astype(np.float32)


def _sinc_kernel(size: int, rng: np.random.Generator) -> Floats:
    return sinc_kernel(size, rng.uniform(np.pi / 3 if size < 13 else np.pi / 5, np.pi))


def sinc_kernel(size: int, cutoff: float) -> Floats:
    """(size, size), sum 1: the circular low-pass filter w J1(w r) / (2 pi r), w = `cutoff` in (0, pi] (their eq. 6).

    Its negative lobes ring along edges as sharpening does.
    """
    from scipy.special import j1

    offset = np.arange(size) - size // 2
    radius = np.hypot(*np.meshgrid(offset, offset))
    centre = size // 2
    radius[centre, centre] = 1
    kernel = cutoff * j1(cutoff * radius) / (2 * np.pi * radius)
    kernel[centre, centre] = cutoff**2 / (4 * np.pi)
    return (kernel / kernel.sum()).astype(np.float32)


def convolve(picture: Floats, kernel: Floats) -> Floats:
    """(H, W, 3) with an odd square kernel, border mirrored; through the FFT. The size is kept."""
    from scipy.signal import fftconvolve

    margin = kernel.shape[0] // 2
    padded = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), "reflect")
    return fftconvolve(padded, kernel[..., None], "valid", axes=(0, 1)).astype(np.float32)


def resize(picture: Floats, height: int, width: int, rng: np.random.Generator) -> Floats:
    """To at least 1x1 with area, bilinear or bicubic filtering, drawn evenly; bicubic may leave 0..1."""
    filter = _FILTERS[rng.integers(len(_FILTERS))]
    size = (max(1, width), max(1, height))
    planes = (Image.fromarray(np.ascontiguousarray(picture[..., c])).resize(size, filter) for c in range(3))
    return np.stack([np.asarray(plane) for plane in planes], -1)


def gaussian_noise(picture: Floats, sigma: float, gray: bool, rng: np.random.Generator) -> Floats:
    """Add white noise of `sigma` levels of 255, one value per pixel when `gray`; clipped to 0..1."""
    shape = (*picture.shape[:2], 1 if gray else 3)
    noise = rng.standard_normal(shape, np.float32) * np.float32(sigma / 255)
    return np.clip(picture + noise, 0, 1).astype(np.float32)


def poisson_noise(picture: Floats, strength: float, gray: bool, rng: np.random.Generator) -> Floats:
    """Add `strength` times the shot noise of a sensor that counts as many photons as the picture has levels.

    The full scale is the number of distinct 8-bit values rounded up to a power of two; `gray` takes the noise of the
    luma for all channels. Clipped to 0..1.
    """
    clean = np.rint(np.clip(picture @ _LUMA[:, None] if gray else picture, 0, 1) * 255) / np.float32(255)
    photons = 2 ** np.ceil(np.log2(max(2, len(np.unique(clean)))))
    noise = rng.poisson(clean * photons) / photons - clean
    return np.clip(picture + strength * noise, 0, 1).astype(np.float32)


def _jpeg(picture: Floats, figures: Round, rng: np.random.Generator) -> Floats:
    return jpeg(picture, int(rng.integers(figures.quality[0], figures.quality[1] + 1)))


def jpeg(picture: Floats, quality: int) -> Floats:
    """Through a JPEG file of that quality (1 to 95) and back: (H, W, 3) in 0..1, clipped before."""
    file = io.BytesIO()
    Image.fromarray(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        return np.asarray(decoded, np.float32) / np.float32(255)
