"""Probes: colour words against palettes, and the direction in which noise, blur and copies move each figure."""

from __future__ import annotations

import judging_kit
import numpy as np
import pytest
from PIL import Image, ImageFilter

from limner.errors import LimnerError
from limner.evaluate.probes import (
    CHROMATIC,
    COLOURS,
    PixelIndex,
    colour_words,
    copies,
    gradient_energy,
    main_colour,
    nearest,
    obeys,
    palette,
    pixels,
    spread,
)

EXAMPLES = {
    "red": ["dd2e44", "be1931", "ff0000", "a0041e", "8b0000"],
    "orange": ["f4900c", "ffac33", "ff7800", "ed6c30"],
    "yellow": ["ffcc4d", "ffd83b", "fcea2b", "ffff00"],
    "green": ["77b255", "3e721d", "00ff00", "008000", "5c9e31"],
    "blue": ["55acee", "3b88c3", "226699", "0000ff", "000080", "5dadec"],
    "purple": ["aa8dd8", "744eaa", "800080", "8a2be2"],
    "pink": ["ea596e", "f4abba", "ff69b4", "ffc0cb"],
    "brown": ["662113", "8a4b38", "c1694f", "8b4513", "6b3f1d"],
    "black": ["000000", "1a1a1a", "292f33"],
    "white": ["ffffff", "f5f8fa", "e1e8ed"],
    "gray": ["808080", "99aab5", "66757f", "c0c0c0"],
}


def flat(code: str) -> np.ndarray:
    """A 64 px picture whose left half is opaque and of this colour."""
    picture = np.zeros((1, 64, 64, 4), np.uint8)
    picture[:, :, :32] = (*bytes.fromhex(code), 255)
    return picture


@pytest.mark.parametrize(("name", "code"), [(name, code) for name, codes in EXAMPLES.items() for code in codes])
def test_colours_bear_their_names(name: str, code: str) -> None:
    (shares,) = palette(flat(code))
    assert shares[COLOURS.index(name)] == 1
    assert shares.sum() == 1
    assert obeys(shares, name)
    assert main_colour(shares) == name
    assert [other for other in COLOURS if obeys(shares, other)] == [name]


def test_skin_bears_no_name_and_an_empty_picture_no_colour() -> None:
    assert palette(flat("f7dece")).sum() == 0
    (empty,) = palette(np.zeros((1, 64, 64, 4), np.uint8))
    assert empty.sum() == 0 and main_colour(empty) == ""
    assert not any(obeys(empty, colour) for colour in COLOURS)


def test_outlines_and_leaves_do_not_count_against_an_apple() -> None:
    apple = flat("dd2e44")
    apple[:, :8, :32], apple[:, -36:, :32] = (62, 114, 29, 255), (0, 0, 0, 255)
    (shares,) = palette(apple)
    assert obeys(shares, "red") and obeys(shares, "black") and not obeys(shares, "blue")
    assert main_colour(shares) == "red"


def test_colour_words_are_read_once_and_in_order() -> None:
    assert colour_words("A golden crown, grey and Red; red-hot. redder greens") == ["yellow", "gray", "red"]
    assert colour_words("a coloured reed") == []


def blurred(pictures: np.ndarray, radius: float) -> np.ndarray:
    return np.array([Image.fromarray(each).filter(ImageFilter.GaussianBlur(radius)) for each in pictures])


def test_blur_lowers_gradient_energy_and_noise_raises_it(rng: np.random.Generator) -> None:
    _, pictures = judging_kit.toys("train", 0)
    usual = gradient_energy(pictures[:40]).mean()
    noisy = (pictures[:40] + rng.normal(0, 40, pictures[:40].shape)).clip(0, 255).astype(np.uint8)
    assert gradient_energy(blurred(pictures[:40], 1)).mean() < 0.5 * usual
    assert gradient_energy(noisy).mean() > 1.2 * usual


def test_gradient_energy_by_hand() -> None:
    picture = np.full((1, 4, 4, 4), 255, np.uint8)
    picture[:, :, 2:, :3] = 0  # luma 235 beside 16, one of three columns of differences
    assert gradient_energy(picture)[0] == pytest.approx(219**2 / 3, rel=1e-4)


def test_spread_is_the_mean_over_pairs() -> None:
    vectors = np.array([[[0.0, 0.0]], [[3.0, 4.0]], [[0.0, 0.0]]])
    assert spread(vectors).tolist() == [pytest.approx(10 / 3)]
    assert spread(vectors[[0, 2]]).tolist() == [0]
    with pytest.raises(LimnerError, match="at least 2 seeds"):
        spread(vectors[:1])


def test_pixel_distance_is_the_root_mean_square() -> None:
    black, white = np.zeros((1, 64, 64, 4), np.uint8), np.full((1, 64, 64, 4), 255, np.uint8)
    black[..., 3] = 255
    assert np.linalg.norm(pixels(white) - pixels(black)) == pytest.approx(1, rel=1e-4)
    assert np.linalg.norm(pixels(white) - pixels(np.zeros_like(white))) == 0


def test_nearest_is_exact(rng: np.random.Generator) -> None:
    ours, theirs = rng.normal(size=(37, 5)).astype(np.float32), rng.normal(size=(60, 5)).astype(np.float32)
    distances = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
    found = nearest(ours, theirs, chunk=10)
    np.testing.assert_array_equal(found.row, distances.argmin(1))
    np.testing.assert_allclose(found.distance, distances.min(1), rtol=1e-4)


def test_the_pixel_index_finds_what_a_full_search_finds() -> None:
    _, theirs = judging_kit.toys("train", 0)
    _, ours = judging_kit.toys("train", 1, seed=9)
    distances = np.array([np.linalg.norm(pixels(theirs) - each, axis=1) for each in pixels(ours[:20])])
    found = PixelIndex(theirs).nearest(ours[:20])
    assert np.mean(found.distance <= distances.min(1) + 1e-6) >= 0.9
    np.testing.assert_allclose(found.distance, distances[np.arange(20), found.row], rtol=1e-4)
    assert PixelIndex(theirs).nearest(theirs[5:9]).row.tolist() == [5, 6, 7, 8]
    assert PixelIndex(theirs[:3]).nearest(theirs[2:3]).row.tolist() == [2]


def test_copies_are_what_lies_nearer_than_real_pictures_do(rng: np.random.Generator) -> None:
    held_out = rng.uniform(1, 2, 1000)
    assert copies(held_out, held_out).mean() == pytest.approx(0.05, abs=0.002)
    assert copies(np.zeros(10), held_out).all()
    assert not copies(np.full(10, 3.0), held_out).any()


def test_chromatic_colours_come_first() -> None:
    assert COLOURS[: len(CHROMATIC)] == CHROMATIC
