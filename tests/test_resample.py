from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from limner.resample import matrix, resize, resize_uint8, taps


def picture(height: int = 48, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("filter", ["bicubic", "lanczos", "decimate"])
@pytest.mark.parametrize("out", [13, 48, 96, 101])
def test_weights_sum_to_one_and_matrix_agrees(filter: str, out: int) -> None:
    index, weight = taps(48, out, filter)  # type: ignore[arg-type]
    assert np.allclose(weight.sum(1), 1, atol=1e-6)
    assert index.min() >= 0
    assert index.max() < 48
    column = np.random.default_rng(1).random((48, 1), np.float32)
    assert np.allclose(matrix(48, out, filter) @ column, resize(column, out, 1, filter), atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(12, 15), (24, 30), (96, 120)])
def test_decimate_is_cv2(size: tuple[int, int]) -> None:
    ours = resize_uint8(picture(), *size, "decimate").astype(int)
    assert np.abs(ours - cv2.resize(picture(), size[::-1], interpolation=cv2.INTER_CUBIC)).max() <= 1


def test_bicubic_is_antialiased_like_pillow_inside() -> None:
    """Pillow widens the same kernel; it differs at the border only (no mirror) and rounds between the passes."""
    ours = resize_uint8(picture(), 12, 15).astype(int)
    theirs = np.asarray(Image.fromarray(picture()).resize((15, 12), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(ours - theirs)[3:-3, 3:-3].max() <= 1


def test_border_is_mirrored_as_in_matlab() -> None:
    """imresize([0 1 2 3], 0.5, 'bicubic'), worked out by hand from the kernel of Keys with a mirrored border."""
    kernel = lambda x: np.where(  # noqa: E731
        np.abs(x) <= 1, 1.5 * np.abs(x) ** 3 - 2.5 * x**2 + 1, -0.5 * np.abs(x) ** 3 + 2.5 * x**2 - 4 * np.abs(x) + 2
    )
    positions = np.arange(-3, 5)
    weight = kernel((0.5 - positions) / 2)
    values = np.array([2, 1, 0, 0, 1, 2, 3, 3])
    expected = (weight * values).sum() / weight.sum()
    assert resize(np.array([[0.0, 1, 2, 3]], np.float32), 1, 2)[0, 0] == pytest.approx(expected, abs=1e-5)


def test_shrinking_a_fine_grid_gives_grey_not_moire() -> None:
    grid = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    assert resize_uint8(grid, 16, 16).std() < 3
    assert resize_uint8(grid, 15, 15, "decimate").std() > 20
