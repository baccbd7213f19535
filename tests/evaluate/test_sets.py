"""Test sets: folders of pictures, and the low-resolution inputs made from them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.errors import LimnerError, UsageError
from limner.evaluate.report import evaluate
from limner.evaluate.sets import default_sets, downsampler_named, open_set, pair
from limner.resample import resize_uint8

DATA = Path(os.environ.get("LIMNER_DATA", Path(__file__).parents[2] / "../shared/data"))


def save(path: Path, height: int = 50, width: int = 70, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_a_set_is_the_pictures_of_a_folder_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", "c.webp"):
        save(tmp_path / "Tiny" / name)
    (tmp_path / "Tiny" / "notes.txt").write_text("no picture")
    found = open_set(tmp_path / "Tiny")
    assert found.name == "Tiny"
    assert [path.name for path in found.files] == ["a.PNG", "b.png", "c.webp"]


def test_a_set_needs_pictures(tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match="no pictures in it"):
        open_set(tmp_path)
    with pytest.raises(LimnerError, match="no such folder"):
        open_set(tmp_path / "absent")


def test_the_truth_is_cropped_to_a_multiple_of_the_scale(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 50, 70)
    low, truth = pair(path, 3, "bicubic")
    assert (low.shape, truth.shape) == ((16, 23, 3), (48, 69, 3))
    np.testing.assert_array_equal(truth, np.asarray(Image.open(path))[:48, :69])


def test_the_downsamplers_differ_as_they_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 64, 64)
    smooth, aliased = pair(path, 4, "bicubic")[0], pair(path, 4, "decimate")[0]
    assert aliased.std() > 1.5 * smooth.std()  # white noise: antialiasing averages it away


def test_decimation_agrees_with_cv2(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    low, truth = pair(save(tmp_path / "a.png", 64, 96), 2, "decimate")
    theirs = cv2.resize(truth, (48, 32), interpolation=cv2.INTER_CUBIC)
    assert np.abs(low.astype(int) - theirs).max() <= 1


def test_gray_pictures_count_as_rgb(tmp_path: Path) -> None:
    low, _ = pair(save(tmp_path / "a.png", mode="L"), 2, "bicubic")
    assert low.shape == (25, 35, 3)


def test_bad_pictures_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(save(tmp_path / "a.png").read_bytes()[:300])
    with pytest.raises(LimnerError, match=r"broken\.png: not readable as a picture"):
        pair(broken, 2, "bicubic")
    with pytest.raises(LimnerError, match=r"tiny\.png: 70x40 is too small to score at x4"):
        pair(save(tmp_path / "tiny.png", 40, 70), 4, "bicubic")
    with pytest.raises(UsageError, match="unknown downsampler 'bicubc': did you mean 'bicubic'"):
        downsampler_named("bicubc")


def test_default_sets_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_DATA", str(tmp_path))
    with pytest.raises(LimnerError, match="--set DIR"):
        default_sets()
    save(tmp_path / "sr" / "test" / "B" / "b.png")
    save(tmp_path / "sr" / "test" / "A" / "a.png")
    assert [path.name for path in default_sets()] == ["A", "B"]


@pytest.mark.skipif(not (DATA / "sr/test/Set5").is_dir(), reason="Set5 is not here; set LIMNER_DATA")
@pytest.mark.parametrize(("scale", "expected"), [(4, 28.42), (2, 33.66)])
def test_bicubic_on_set5_gives_the_published_figure(scale: int, expected: float) -> None:
    def bicubic(low: np.ndarray) -> np.ndarray:
        return resize_uint8(low, low.shape[0] * scale, low.shape[1] * scale)

    (row,) = evaluate(bicubic, [open_set(DATA / "sr/test/Set5")], scale)
    assert row.scores.psnr_y == pytest.approx(expected, abs=0.03)
    assert row.scores == row.bicubic
