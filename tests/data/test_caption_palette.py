from __future__ import annotations

import pytest
from PIL import Image, ImageDraw

from limner.data.palette import TERMS, clear_colours


def drawing(side: int = 64) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGBA", (side, side))
    return picture, ImageDraw.Draw(picture)


@pytest.mark.parametrize(
    ("code", "term"),
    [
        ("#000000", "black"), ("#1e50c8", "blue"), ("#7a4a20", "brown"), ("#20a040", "green"), ("#808080", "grey"),
        ("#ff8c1a", "orange"), ("#ff8fb5", "pink"), ("#8030b0", "purple"), ("#d81e28", "red"), ("#ffffff", "white"),
        ("#ffd92b", "yellow"),
    ],
)  # fmt: skip
def test_every_basic_term_is_found(code: str, term: str) -> None:
    picture, draw = drawing()
    draw.ellipse((8, 8, 55, 55), fill=code)
    assert clear_colours(picture) == (term,)


def test_the_cases_cover_all_terms() -> None:
    assert len(TERMS) == 11 == len(set(TERMS))


@pytest.mark.parametrize("code", ["#f5deb3", "#008080", "#e0ac69"])
def test_colours_people_argue_about_have_no_word(code: str) -> None:
    picture, draw = drawing()
    draw.rectangle((8, 8, 55, 55), fill=code)
    assert clear_colours(picture) == ()


def test_a_black_outline_does_not_count_but_a_black_area_does() -> None:
    picture, draw = drawing()
    draw.rectangle((10, 8, 53, 44), fill="#ffd92b", outline="black", width=3)
    for x in range(2, 62, 8):
        draw.line((x, 50, x, 62), fill="black", width=3)
    assert clear_colours(picture) == ("yellow",)
    draw.rectangle((0, 46, 63, 63), fill="black")
    assert clear_colours(picture) == ("yellow", "black")


def test_two_colours_larger_first_and_none_of_three() -> None:
    picture, draw = drawing()
    draw.rectangle((0, 0, 63, 35), fill="#d81e28")
    draw.rectangle((0, 36, 63, 63), fill="white")
    assert clear_colours(picture) == ("red", "white")
    draw.rectangle((0, 36, 63, 50), fill="#1e50c8")
    draw.rectangle((0, 0, 63, 12), fill="#20a040")
    assert clear_colours(picture) == ()


def test_shade_is_no_second_colour() -> None:
    picture, draw = drawing()
    draw.rectangle((0, 0, 63, 33), fill="#ffd92b")
    draw.rectangle((0, 34, 63, 63), fill="#ff8c1a")
    assert clear_colours(picture) == ("yellow",)


def test_transparent_pixels_do_not_count_whatever_their_colour() -> None:
    picture = Image.new("RGBA", (64, 64), (0, 0, 255, 0))
    assert clear_colours(picture) == ()
    ImageDraw.Draw(picture).rectangle((20, 20, 40, 40), fill="#d81e28")
    assert clear_colours(picture) == ("red",)


def test_large_and_small_and_grey_pictures() -> None:
    assert clear_colours(Image.new("RGB", (700, 300), "#20a040")) == ("green",)
    assert clear_colours(Image.new("RGB", (1, 1), "#20a040")) == ("green",)
    assert clear_colours(Image.new("L", (20, 20), 255)) == ("white",)
