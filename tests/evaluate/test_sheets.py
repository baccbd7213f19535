"""Contact sheets: every picture where it belongs, transparent ones on white, labels that stay inside their cell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.errors import LimnerError
from limner.evaluate.sheets import (
    Cell,
    grid,
    nearest_neighbours,
    prompts_by_seeds,
    save,
    sheet,
    styles_by_concepts,
)


def plain(*rgba: int) -> np.ndarray:
    return np.broadcast_to(np.array(rgba, np.uint8), (64, 64, 4)).copy()


def colours(picture: Image.Image) -> dict[tuple[int, ...], tuple[int, int, int]]:
    """Colour -> (left, top, number of pixels) of the pure colours that the tests paint."""
    packed = np.asarray(picture).astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    found = {}
    for colour in np.unique(packed).tolist():
        y, x = np.nonzero(packed == colour)
        found[(colour >> 16, colour >> 8 & 255, colour & 255)] = (int(x.min()), int(y.min()), len(x))
    return found


def test_seeds_go_across_and_prompts_down() -> None:
    pictures = np.array([[plain(100 + 10 * k, 200, 20 * n, 255) for n in range(3)] for k in range(2)])
    painted = colours(prompts_by_seeds(["one", "two", "three"], pictures, [7, 8]))
    corner = {(k, n): painted[(100 + 10 * k, 200, 20 * n)] for k in range(2) for n in range(3)}
    for k in range(2):
        for n in range(3):
            assert corner[k, n][2] == 64 * 64
            assert corner[k, n][:2] == (corner[k, 0][0], corner[0, n][1])
    assert corner[1, 0][0] >= corner[0, 0][0] + 64
    assert corner[0, 1][1] >= corner[0, 0][1] + 64


def test_styles_go_across_and_concepts_down() -> None:
    pictures = np.array([[plain(90, 10 * style, 50 * concept, 255) for concept in range(2)] for style in range(3)])
    painted = colours(styles_by_concepts(["a", "b", "c"], ["x", "y"], pictures))
    assert painted[(90, 20, 0)][0] > painted[(90, 10, 0)][0] > painted[(90, 0, 0)][0]
    assert painted[(90, 0, 50)][1] > painted[(90, 0, 0)][1]


def test_transparent_pictures_lie_on_white_and_zoom_is_whole() -> None:
    half = plain(255, 0, 0, 255)
    half[:, 32:, 3] = 0
    once, twice = (colours(sheet([[Cell(half)]], zoom=zoom)) for zoom in (1, 2))
    assert once[(255, 0, 0)][2] == 64 * 32
    assert twice[(255, 0, 0)][2] == 128 * 64
    assert set(once) == {(255, 0, 0), (255, 255, 255)}


def ink(picture: Image.Image, box: tuple[int, int, int, int]) -> int:
    return int((np.asarray(picture.convert("L").crop(box)) < 160).sum())


def test_labels_are_written_below_their_picture_and_stay_there() -> None:
    long = "a very long prompt about a red apple beside an extraordinarilylongwordthatneverends"
    picture = grid([long, ""], np.array([plain(255, 255, 255, 255)] * 2), columns=2)
    assert ink(picture, (0, 70, 70, picture.height)) > 200
    assert ink(picture, (78, 0, picture.width, picture.height)) == 0
    assert picture.height > 64 + 4 * 15


def test_a_word_wider_than_its_cell_goes_on_below() -> None:
    white = np.array([plain(255, 255, 255, 255)] * 2)
    short, long = (grid([word, ""], white, columns=2) for word in ("fluent", "fluent-high-contrast"))
    assert long.height == short.height + 15
    assert ink(long, (0, 85, 70, long.height)) > 20


def test_a_grid_breaks_into_rows() -> None:
    pictures = np.array([plain(10 * i, 90, 90, 255) for i in range(5)])
    painted = colours(grid(["p"] * 5, pictures, columns=2))
    tops = [painted[(10 * i, 90, 90)][1] for i in range(5)]
    assert tops[0] == tops[1] < tops[2] == tops[3] < tops[4]


def test_neighbours_stand_beside_what_was_painted() -> None:
    near = [[Cell(plain(0, 0, 200, 255), "0.01"), Cell(None, "none")], [Cell(plain(0, 0, 100, 255), "0.02")]]
    pictures = np.array([plain(200, 0, 0, 255), plain(100, 0, 0, 255)])
    painted = colours(nearest_neighbours(["p", "q"], pictures, near))
    assert painted[(200, 0, 0)][0] == painted[(100, 0, 0)][0] < painted[(0, 0, 200)][0] == painted[(0, 0, 100)][0]
    assert painted[(200, 0, 0)][1] == painted[(0, 0, 200)][1] < painted[(0, 0, 100)][1]


def test_a_sheet_needs_a_picture() -> None:
    with pytest.raises(LimnerError, match="at least one picture"):
        sheet([[Cell(None, "nothing")]])


def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    picture = sheet([[Cell(plain(255, 0, 0, 255))]])
    save(picture, tmp_path / "new" / "sheet.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "sheet.png")), np.asarray(picture))
    (tmp_path / "taken").mkdir()
    with pytest.raises(LimnerError, match="cannot be written"):
        save(picture, tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
