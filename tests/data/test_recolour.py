"""Pictures in other colours: the colour moves, the rest of the picture and of the caption stays."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from limner.data.palette import TERMS, clear_colours, from_oklab, oklab
from limner.data.recolour import in_colour, measured_colour, recoloured
from limner.data.records import Caption, Record


def picture(colour: tuple[int, int, int] = (221, 46, 52)) -> np.ndarray:
    """A disc of one colour with a black bar of 4 px on it, on nothing."""
    rows, columns = np.mgrid[:64, :64] - 31.5
    disc = rows**2 + columns**2 < 28**2
    made = np.zeros((64, 64, 4), np.uint8)
    made[disc] = (*colour, 255)
    made[30:34, 10:54] = (8, 8, 8, 255)
    return made


def record(name: str = "apple.png", *captions: Caption) -> Record:
    said = captions or (Caption("apple, flat", "person"), Caption("a red apple, flat style", "palette"))
    return Record(name, said[0].text, "apple", "MIT", "", "flat", None, {}, lambda: b"", said)


def test_oklab_there_and_back() -> None:
    colours = np.random.default_rng(0).uniform(0, 255, (100, 3)).astype(np.float32)
    assert np.abs(from_oklab(oklab(colours)) - colours).max() < 0.5


@pytest.mark.parametrize("wanted", [term for term in TERMS if term != "red"])
def test_the_main_colour_moves_and_the_line_stays(wanted: str) -> None:
    before, after = picture(), in_colour(picture(), "red", wanted)
    assert after is not None
    assert clear_colours(Image.fromarray(after)) == (wanted,)
    assert (after[..., 3] == before[..., 3]).all()
    assert np.abs(after[31, 20:44, :3].astype(int) - 8).max() < 60 if wanted != "black" else True


def test_a_picture_that_does_not_show_its_colour_is_left_out() -> None:
    assert in_colour(picture((46, 52, 221)), "red", "green") is None


def test_captions_say_the_new_word_with_its_article() -> None:
    spelt = Caption("A red apple in flat style", "palette")
    found, painted = recoloured([record("apple.png", Caption("apple", "person"), spelt)], picture()[None], 10, 0)
    assert len(found) == len(painted) == 10
    texts = {each.name: each.captions for each in found}
    assert [caption.text for caption in texts["apple.png#orange"]] == ["An orange apple in flat style"]
    assert [caption.text for caption in texts["apple.png#blue"]] == ["A blue apple in flat style"]
    assert all(each.group == "apple" and each.text == each.captions[0].text for each in found)


def test_the_draw_depends_on_name_and_seed_alone() -> None:
    records = [record("a.png"), record("b.png")]
    pictures = np.stack([picture()] * 2)
    names = [each.name for each in recoloured(records, pictures, 2, 0)[0]]
    assert names == [each.name for each in recoloured(records, pictures, 2, 0)[0]]
    assert names[2:] == [each.name for each in recoloured(records[1:], pictures[1:], 2, 0)[0]]
    assert names != [each.name for each in recoloured(records, pictures, 2, 1)[0]]


def test_only_one_measured_colour_counts() -> None:
    assert measured_colour(record()) == "red"
    assert measured_colour(record("x", Caption("a gray cat", "palette"))) == "grey"
    assert measured_colour(record("x", Caption("a red apple", "person"))) == ""
    assert measured_colour(record("x", Caption("a red and white flag", "palette"))) == ""
    found, painted = recoloured([record("x", Caption("apple", "person"))], picture()[None], 3, 0)
    assert found == []
    assert painted.shape == (0, 64, 64, 4)
