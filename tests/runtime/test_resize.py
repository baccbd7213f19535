"""Resampling in bands equals resampling at once."""

from __future__ import annotations

import numpy as np
import pytest
from kit import photo

from limner import resample
from limner.runtime import resize

SIZES = [(90, 110), (33, 41), (7, 200), (180, 111), (270, 330)]


@pytest.fixture(autouse=True)
def narrow_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "BAND_SAMPLES", 2000)


@pytest.mark.parametrize("height, width", SIZES)
@pytest.mark.parametrize("channels", [0, 3])
def test_bicubic_in_bands_is_the_reference(height: int, width: int, channels: int) -> None:
    image = photo(90, 110) if channels else photo(90, 110)[..., 0]
    assert (resize.bicubic(image, height, width) == resample.resize_uint8(image, height, width)).all()


def test_bicubic_keeps_sixteen_bits() -> None:
    image = photo(40, 50, dtype=np.uint16)
    expected = np.rint(resample.resize(image.astype(np.float32), 75, 99)).clip(0, 65535)
    assert (resize.bicubic(image, 75, 99) == expected).all()


@pytest.mark.parametrize("height, width", SIZES)
def test_lanczos_is_near_the_reference(height: int, width: int) -> None:
    """libvips works on tables in fixed point when it reduces: 8 LSB at worst, less than half of one on average."""
    image = photo(90, 110)
    got = resize.lanczos(image, height, width).astype(int)
    difference = np.abs(got - resample.resize_uint8(image, height, width, "lanczos"))
    assert got.shape == (height, width, 3)
    assert difference.max() <= 8 and difference.mean() < 0.5


def test_lanczos_results_may_be_written_to() -> None:
    reduced = resize.lanczos(photo(30, 40), 20, 30)
    reduced[0] = 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lanczos_keeps_flat_areas(dtype: type) -> None:
    top = np.iinfo(dtype).max
    assert (resize.lanczos(np.full((50, 60, 3), top, dtype), 31, 17) == top).all()


def test_blend() -> None:
    image, painted = photo(30, 40), photo(60, 80, seed=5)
    plain = resample.resize(image.astype(np.float32), 60, 80).clip(0, 255)
    expected = np.rint(0.75 * plain + 0.25 * painted)
    resize.blend_bicubic(painted, image, 0.25)
    assert np.abs(painted - expected).max() <= 1


def test_lanczos_keeps_sixteen_bits() -> None:
    image = photo(60, 70, dtype=np.uint16)
    expected = resample.resize(image.astype(np.float32), 41, 33, "lanczos").clip(0, 65535)
    difference = np.abs(resize.lanczos(image, 41, 33) - expected)
    assert difference.max() < 8 * 257 and difference.mean() < 0.2 * 257
