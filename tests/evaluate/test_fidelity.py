"""PSNR and SSIM: golden values, an independent slow reference, and the direction every distortion must push them."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from limner.errors import LimnerError
from limner.evaluate.fidelity import compare, luma, psnr, ssim


def picture(height: int = 60, width: int = 72, seed: int = 0) -> NDArray[np.uint8]:
    """Waves, edges and some grain, (height, width, 3) uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 7 + c) + np.cos(y / 5 - c) for c in range(3)], -1) * 50
    edges = ((x // 11 + y // 13) % 2)[..., None] * 60
    return (90 + waves + edges + random.normal(0, 4, waves.shape)).clip(0, 255).astype(np.uint8)


def noisy(sigma: float, seed: int = 1) -> NDArray[np.uint8]:
    clean = picture()
    return (clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)).round().clip(0, 255).astype(np.uint8)


def blurred(times: int) -> NDArray[np.uint8]:
    blur = picture().astype(float)
    for _ in range(times):
        padded = np.pad(blur, ((1, 1), (1, 1), (0, 0)), "edge")
        blur = sum(padded[i : i + 60, j : j + 72] for i in range(3) for j in range(3)) / 9
    return blur.round().astype(np.uint8)


def slow_ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Wang et al. 2004, eq. 13, window by window, in float64."""
    offset = np.arange(11) - 5
    window = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            x, y = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mx, my = (window * x).sum(), (window * y).sum()
            sxx, syy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            sxy = (window * (x - mx) * (y - my)).sum()
            c1, c2 = 2.55**2, 7.65**2
            values.append((2 * mx * my + c1) * (2 * sxy + c2) / ((mx**2 + my**2 + c1) * (sxx + syy + c2)))
    return float(np.mean(values))


@pytest.mark.parametrize("other", [noisy(3), noisy(25), blurred(2), picture(seed=5)[::-1]])
def test_ssim_agrees_with_the_definition(other: NDArray[np.uint8]) -> None:
    a, b = luma(picture())[:30, :34], luma(other)[:30, :34]
    assert ssim(a, b) == pytest.approx(slow_ssim(a.astype(float), b.astype(float)), abs=2e-6)


def test_ssim_of_bright_flat_planes_keeps_its_digits() -> None:
    a = np.full((32, 32), 250.0, np.float32)
    assert ssim(a, a - 1) == pytest.approx((2 * 250 * 249 + 2.55**2) / (250**2 + 249**2 + 2.55**2), abs=1e-6)


def test_luma_is_studio_range() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    np.testing.assert_allclose(luma(colours)[0], [16, 235, 81.481, 144.553, 40.966], atol=1e-4)


def test_psnr_follows_its_definition() -> None:
    a = np.zeros((10, 10), np.float32)
    assert psnr(a, a + 5) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(a, a) == math.inf


def test_golden_values() -> None:
    scores = compare(noisy(10), picture(), border=4)
    assert (scores.psnr_y, scores.psnr_rgb) == pytest.approx((33.0732, 28.2252), abs=1e-3)
    assert (scores.ssim_y, scores.ssim_rgb) == pytest.approx((0.943425, 0.897611), abs=1e-5)


@pytest.mark.parametrize("ladder", [[noisy(s) for s in (2, 5, 12, 30)], [blurred(n) for n in (1, 2, 4, 8)]])
def test_worse_pictures_score_less(ladder: list[NDArray[np.uint8]]) -> None:
    scores = [compare(each, picture(), border=2) for each in ladder]
    for better, worse in pairwise(scores):
        assert worse.psnr_y < better.psnr_y
        assert worse.ssim_y < better.ssim_y
        assert worse.psnr_rgb < better.psnr_rgb
        assert worse.ssim_rgb < better.ssim_rgb


def test_the_border_is_left_out() -> None:
    damaged = picture()
    damaged[:3], damaged[-3:], damaged[:, :3], damaged[:, -3:] = 0, 0, 0, 0
    assert compare(damaged, picture(), border=3).psnr_y == math.inf
    assert compare(damaged, picture(), border=2).psnr_y < 40


@pytest.mark.parametrize(
    ("other", "border", "words"),
    [
        (picture(60, 71), 2, "both must be one"),
        (picture()[..., :1], 2, "both must be one"),
        (picture(), 25, "too small to score"),
    ],
)
def test_what_cannot_be_compared(other: NDArray[np.uint8], border: int, words: str) -> None:
    with pytest.raises(LimnerError, match=words):
        compare(other, picture(), border)
