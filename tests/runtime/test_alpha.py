"""Colours grow into transparency, alpha never overshoots."""

from __future__ import annotations

import numpy as np
import pytest
from kit import photo

from limner.runtime import alpha as transparency
from limner.runtime.fused import native


def disc(height: int, width: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return ((y - height / 2) ** 2 + (x - width / 2) ** 2 < radius**2).astype(np.uint8) * 255


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_visible_pixels_stay_and_hidden_colour_goes(dtype: type) -> None:
    alpha = disc(120, 140, 30)
    pixels = np.where(alpha[..., None] > 0, [200, 30, 60], [0, 255, 0]).astype(dtype)
    grown = transparency.bleed(pixels, alpha)
    assert (grown[alpha > 0] == [200, 30, 60]).all()
    near = (disc(120, 140, 50) > 0) & (alpha == 0)
    assert (grown[near] == [200, 30, 60]).all()
    assert grown.dtype == dtype and (grown[..., 1] < 255).all()


def test_the_nearest_colour_wins() -> None:
    alpha = np.zeros((20, 40), np.uint8)
    pixels = np.zeros((20, 40, 3), np.uint8)
    alpha[:, :5] = alpha[:, -5:] = 255
    pixels[:, :5], pixels[:, -5:] = 240, 10
    grown = transparency.bleed(pixels, alpha)
    assert (grown[:, 5:10] == 240).all() and (grown[:, -10:-5] == 10).all()


def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    pixels, alpha = photo(200, 60), (random.random((200, 60)) > 0.995).astype(np.uint8)
    whole = transparency.bleed(pixels, alpha)
    monkeypatch.setattr(transparency, "_BAND_ROWS", 32)
    assert (transparency.bleed(pixels, alpha) == whole).all()
    assert whole.any(2).mean() > 0.9


def test_window_sums_survive_wrap_around() -> None:
    plane = np.full((300, 400), 65535, np.uint16)
    total = transparency._window_sum(plane, 40)
    assert total[150, 200] == 81**2 * 65535
    assert total[0, 0] == 41**2 * 65535
    assert int(plane.sum(dtype=np.uint64)) > 2**32


def test_bound_clips_to_the_neighbourhood() -> None:
    alpha = disc(30, 40, 9)
    painted = photo(90, 120)[..., 0].copy()
    transparency.bound(painted, alpha)
    inside = disc(30, 40, 6).repeat(3, 0).repeat(3, 1) > 0
    outside = disc(30, 40, 12).repeat(3, 0).repeat(3, 1) == 0
    edge = ~inside & ~outside
    assert (painted[inside] == 255).all() and (painted[outside] == 0).all()
    assert len(np.unique(painted[edge])) > 50


def test_straight_undoes_premultiplied() -> None:
    random = np.random.default_rng(0)
    for dtype, off in ((np.uint8, 12), (np.uint16, 12)):
        top = np.iinfo(dtype).max
        pixels = random.integers(0, top, (9, 11, 3), dtype=dtype, endpoint=True)
        mask = random.integers(top // 10, top, (9, 11), dtype=dtype, endpoint=True)
        there = transparency.premultiplied(pixels, mask)
        back = transparency.straight(there)
        np.testing.assert_array_equal(back[..., 3], mask)
        # A product is off by half a step at most, which division by alpha enlarges up to tenfold.
        assert np.abs(back[..., :3].astype(int) - pixels).max() <= off
        np.testing.assert_array_equal(transparency.straight(np.stack([there, there]))[1], back)


def test_straight_leaves_no_fringe() -> None:
    """Around an orange disc: orange, not black, so that enlarging the straight picture darkens nothing."""
    picture = np.zeros((16, 16, 4), np.uint8)
    picture[4:12, 4:12] = 255, 128, 0, 255
    picture[4:12, 3] = 1, 1, 0, 2  # next to nothing, of a colour that rounding made up
    straight = transparency.straight(picture)
    np.testing.assert_array_equal(straight[3, 6], (255, 128, 0, 0))
    np.testing.assert_array_equal(straight[6, 13], (255, 128, 0, 0))
    assert np.abs(straight[6, 3, :3].astype(int) - (255, 128, 0)).max() <= 2 and straight[6, 3, 3] == 2
    np.testing.assert_array_equal(straight[0, 0], 0)


def test_straight_cuts_colours_above_alpha() -> None:
    picture = np.full((1, 1, 4), 100, np.uint8)
    picture[..., 0] = 120
    np.testing.assert_array_equal(transparency.straight(picture)[0, 0], (255, 255, 255, 100))


def test_firm_alpha_keeps_its_middle_and_the_colours() -> None:
    mask = np.arange(256, dtype=np.uint8)[None]
    picture = transparency.premultiplied(np.full((1, 256, 3), (200, 100, 30), np.uint8), mask)
    firm = transparency.firm(picture, 4.0)
    alpha = firm[0, :, 3].astype(float)
    np.testing.assert_allclose(alpha, ((np.arange(256) - 127.5) * 4 + 127.5).clip(0, 255), atol=0.5)
    assert (firm[0, alpha == 0] == 0).all()
    colours = transparency.straight(firm)[0, alpha > 128, :3].astype(int)
    assert np.abs(colours - (200, 100, 30)).max() <= 3
    np.testing.assert_array_equal(transparency.firm(picture, 1.0), picture)


def test_firm_alpha_holds_at_impossible_colours() -> None:
    picture = np.full((1, 1, 4), 140, np.uint8)
    picture[..., 0] = 255
    np.testing.assert_array_equal(transparency.firm(picture, 10.0)[0, 0], (255, 252, 252, 252))


@pytest.mark.skipif(native.unavailable() is not None, reason="needs the compiled library")
@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (1, 9), (40, 3), (2, 33, 34)])
def test_compiled_and_plain_straight_agree(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (*shape, 4), dtype=np.uint8)
    pictures[..., 3] = random.choice([0, 0, 0, 1, 2, 3, 4, 90, 254, 255], shape)
    colours, alpha = np.empty_like(pictures[..., :3]), np.empty_like(pictures[..., 3])
    transparency._straighten_plainly(pictures, colours, alpha)
    compiled = transparency.straight(pictures)
    np.testing.assert_array_equal(compiled, np.concatenate([colours, alpha[..., None]], -1))
    for picture, whole in zip(pictures.reshape(-1, *shape[-2:], 4), compiled.reshape(-1, *shape[-2:], 4), strict=True):
        parts = transparency.straight_parts(picture)
        np.testing.assert_array_equal(parts[0], whole[..., :3])
        np.testing.assert_array_equal(parts[1], whole[..., 3])
