"""Reports: means over a set, bicubic beside the upscaler, the table and the JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from limner.errors import LimnerError
from limner.evaluate.fidelity import Scores, compare
from limner.evaluate.report import Row, evaluate, mean, table, to_json
from limner.evaluate.sets import PictureSet, open_set, pair
from limner.resample import resize_uint8

Pixels = NDArray[np.uint8]


@pytest.fixture
def pictures(tmp_path: Path) -> PictureSet:
    folder = tmp_path / "Two"
    folder.mkdir()
    for seed, side in ((1, 48), (2, 64)):
        coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(resize_uint8(coarse, side, side + 1)).save(folder / f"{seed}.png")
    return open_set(folder)


def nearest(low: Pixels) -> Pixels:
    return low.repeat(2, 0).repeat(2, 1)


def bicubic(low: Pixels) -> Pixels:
    return resize_uint8(low, low.shape[0] * 2, low.shape[1] * 2)


def render(results: dict[str, list[Row]]) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(table(results))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_row_is_the_mean_of_its_pictures(pictures: PictureSet) -> None:
    advances: list[int] = []
    (row,) = evaluate(nearest, [pictures], 2, advance=lambda: advances.append(1))
    pairs = [pair(path, 2, "bicubic") for path in pictures.files]
    each = [compare(nearest(low), truth, 2) for low, truth in pairs]
    assert (row.set, row.scale, row.downsampler, row.pictures, len(advances)) == ("Two", 2, "bicubic", 2, 2)
    assert row.scores.psnr_y == pytest.approx((each[0].psnr_y + each[1].psnr_y) / 2)
    assert row.scores.ssim_rgb == pytest.approx((each[0].ssim_rgb + each[1].ssim_rgb) / 2)
    assert row.bicubic == mean(compare(bicubic(low), truth, 2) for low, truth in pairs)
    assert row.bicubic.psnr_y > row.scores.psnr_y


def test_the_downsampler_changes_the_input(pictures: PictureSet) -> None:
    (smooth,) = evaluate(nearest, [pictures], 2, "bicubic")
    (aliased,) = evaluate(nearest, [pictures], 2, "decimate")
    assert aliased.downsampler == "decimate"
    assert abs(aliased.scores.psnr_y - smooth.scores.psnr_y) > 0.01


def test_an_output_of_the_wrong_size_is_refused(pictures: PictureSet) -> None:
    with pytest.raises(LimnerError, match=r"1\.png: the upscaler returned shape \(24, 24, 3\)"):
        evaluate(lambda low: low, [pictures], 2)


def test_json_keeps_every_figure_and_no_infinity(pictures: PictureSet) -> None:
    perfect = Scores(float("inf"), 1.0, float("inf"), 1.0)
    rows = [*evaluate(nearest, [pictures], 2), Row("Same", 2, "bicubic", 1, perfect, perfect)]
    first, second = json.loads(json.dumps(to_json(rows), allow_nan=False))
    assert first["scores"]["psnr_y"] == round(rows[0].scores.psnr_y, 3)
    assert first["bicubic"]["ssim_y"] == round(rows[0].bicubic.ssim_y, 5)
    assert (first["set"], first["scale"], first["downsampler"], first["pictures"]) == ("Two", 2, "bicubic", 2)
    assert second["scores"] == {"psnr_y": None, "ssim_y": 1.0, "psnr_rgb": None, "ssim_rgb": 1.0}


def test_the_table_has_one_bicubic_line_per_input(pictures: PictureSet) -> None:
    rows = evaluate(nearest, [pictures], 2)
    text = render({"one": rows, "two": rows})
    assert text.count("bicubic") == 1
    assert text.count(f"{rows[0].scores.psnr_y:.2f}") == 2
    assert f"{rows[0].bicubic.ssim_y:.4f}" in text
