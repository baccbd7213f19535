from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from limner.config import DataConfig
from limner.data.check import NEAR_BITS, NEAR_LEVELS, Report, check, difference, fingerprint, render
from limner.errors import LimnerError

CONFIG = DataConfig()


def photo(seed: int, side: int = 128) -> Image.Image:
    """Smooth random colours over several octaves, as photographs have."""
    rng = np.random.default_rng(seed)
    octaves = ((4, 0.6), (9, 0.3), (30, 0.1))
    noise = [Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)) for n, _ in octaves]
    grown = [np.asarray(layer.resize((side, side), Image.Resampling.BICUBIC), np.float32) for layer in noise]
    layers = [layer * weight for layer, (_, weight) in zip(grown, octaves, strict=True)]
    return Image.fromarray(np.clip(sum(layers), 0, 255).astype(np.uint8))


def icon(draw: Callable[[ImageDraw.ImageDraw], object], ink: str = "black") -> Image.Image:
    """A 64 px transparent picture with a ring and what `draw` adds."""
    picture = Image.new("RGBA", (64, 64))
    canvas = ImageDraw.Draw(picture)
    canvas.ellipse((6, 6, 58, 58), outline=ink, width=3)
    draw(canvas)
    return picture


def clock(x: int, y: int) -> Image.Image:
    return icon(lambda canvas: canvas.line((32, 32, x, y), "black", 3))


def reencoded(picture: Image.Image, format: str = "JPEG", **options: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return Image.open(file)


def near(first: Image.Image, second: Image.Image) -> bool:
    (hash_a, thumb_a), (hash_b, thumb_b) = fingerprint(first), fingerprint(second)
    close = np.bitwise_count(hash_a ^ hash_b) <= NEAR_BITS
    return bool(close and difference(thumb_a[None], thumb_b[None])[0] <= NEAR_LEVELS)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "same": lambda p: p.copy(),
    "halved": lambda p: p.resize((p.width // 2, p.height // 2), Image.Resampling.BICUBIC),
    "doubled": lambda p: p.resize((p.width * 2, p.height * 2), Image.Resampling.LANCZOS),
    "jpeg": lambda p: reencoded(p, quality=75),
    "webp": lambda p: reencoded(p, "WEBP", quality=60),
    "darker": lambda p: ImageEnhance.Brightness(p).enhance(0.9),
    "contrast": lambda p: ImageEnhance.Contrast(p).enhance(1.15),
    "paler": lambda p: ImageEnhance.Color(p).enhance(0.85),
    "opaque alpha": lambda p: p.convert("RGBA"),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_a_photo_are_near(name: str) -> None:
    assert all(near(photo(seed), COPIES[name](photo(seed))) for seed in range(8))


def test_different_photos_are_not_near() -> None:
    prints = [fingerprint(photo(seed)) for seed in range(60)]
    bits = [int(np.bitwise_count(a[0] ^ b[0])) for i, a in enumerate(prints) for b in prints[:i]]
    assert min(bits) > NEAR_BITS + 3
    assert 28 < np.mean(bits) < 36
    assert not near(photo(0), photo(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT))


def test_clock_faces_differ_and_copies_of_one_do_not() -> None:
    assert not near(clock(32, 12), clock(50, 32))
    assert not near(clock(32, 12), clock(44, 16))
    assert near(clock(50, 32), COPIES["doubled"](clock(50, 32)))
    on_white = Image.new("RGBA", (64, 64), "white")
    on_white.alpha_composite(clock(50, 32))
    assert near(clock(50, 32), on_white.convert("RGB"))


def test_a_recoloured_patch_tells_pictures_apart_where_the_hash_does_not() -> None:
    pixels = (np.asarray(photo(0, 64)) * 0.4 + 76).astype(np.int16)
    plain = Image.fromarray(pixels.astype(np.uint8))
    pixels[20:40, 20:40] += np.array([29, 0, -76], np.int16)  # the luma stays
    patched = Image.fromarray(pixels.astype(np.uint8))
    assert np.bitwise_count(fingerprint(plain)[0] ^ fingerprint(patched)[0]) <= NEAR_BITS
    assert not near(plain, patched)


def test_white_drawings_on_nothing_differ_by_their_alpha() -> None:
    drawings = [icon(lambda canvas, box=box: canvas.rectangle(box, "white"), "white") for box in
                ((10, 28, 54, 36), (28, 10, 36, 54))]  # fmt: skip
    assert fingerprint(drawings[0])[0] == fingerprint(drawings[1])[0] == 0
    assert not near(*drawings)
    assert near(drawings[0], drawings[0].copy())


def test_flat_pictures_are_told_apart_by_colour() -> None:
    red, red_noise, blue, white, black = (
        Image.new("RGB", (32, 32), colour) for colour in ("#c02020", "#c12020", "#2020c0", "white", "black")
    )
    assert near(red, red_noise)
    assert not near(red, blue)
    assert not near(white, black)


def test_sixteen_bit_gray_palette_and_cmyk_have_fingerprints() -> None:
    gray = photo(1).convert("L")
    deep = Image.fromarray(np.asarray(gray, np.uint16) * 257)
    unit = Image.fromarray(np.asarray(gray, np.float32) / 255)
    assert all(near(gray, other) for other in (deep, unit, gray.convert("RGB"), gray.convert("LA")))
    assert near(photo(1), photo(1).convert("CMYK"))
    assert near(photo(1), photo(1).quantize(256).convert("P"))


def save(folder: Path, **pictures: Image.Image) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")


def test_leaks_between_splits_and_into_test_sets(tmp_path: Path) -> None:
    data, bench = tmp_path / "data", tmp_path / "bench"
    save(data / "train", a=photo(0), b=photo(1), c=photo(2), d=clock(32, 12))
    save(data / "validation", a=photo(9), copy=COPIES["halved"](photo(1)), d=clock(50, 32))
    save(data / "test", x=photo(8))
    save(bench, y=ImageEnhance.Brightness(photo(2)).enhance(0.9), z=photo(7))
    report = check(data, CONFIG, [bench])
    found = {(leak.first, leak.first_split, leak.second, leak.second_split) for leak in report.leaks}
    assert found == {
        ("train/b.png", "train", "validation/copy.png", "validation"),
        ("train/c.png", "train", "y.png", str(bench)),
    }
    assert all(leak.bits <= NEAR_BITS and leak.levels <= NEAR_LEVELS for leak in report.leaks)
    assert report.fault is not None
    assert report.fault.startswith(f"{data}: 2 held-out pictures also elsewhere; ")


def test_a_held_out_picture_is_listed_once_with_its_nearest(tmp_path: Path) -> None:
    save(tmp_path / "train", far=COPIES["jpeg"](photo(0)).convert("RGB"), exact=photo(0))
    save(tmp_path / "test", x=photo(0))
    (leak,) = check(tmp_path, CONFIG).leaks
    assert (leak.first, leak.bits, leak.levels) == ("train/exact.png", 0, 0.0)


def test_hashed_splits_leak_too_and_one_split_does_not(tmp_path: Path) -> None:
    save(tmp_path, **{f"p{i:03}": photo(0, 32) for i in range(30)})
    leaks = check(tmp_path, DataConfig(validation_fraction=0.3)).leaks
    assert {leak.second_split for leak in leaks} == {"validation"}
    assert check(tmp_path, DataConfig(validation_fraction=0)).leaks == ()


def test_groups_that_cross_splits(tmp_path: Path) -> None:
    for split, seed in (("train", 0), ("val", 1)):
        rows = [{"file_name": f"{k}.png", "group": g} for k, g in enumerate(("shared", split))]
        with zipfile.ZipFile(tmp_path / f"{split}.zip", "w") as archive:
            archive.writestr("metadata.jsonl", "\n".join(map(json.dumps, rows)))
            for k in range(2):
                file = io.BytesIO()
                photo(seed * 2 + k, 32).save(file, "PNG")
                archive.writestr(f"{k}.png", file.getvalue())
    report = check(tmp_path, CONFIG)
    (crossing,) = report.crossings
    assert (crossing.group, crossing.splits) == ("shared", ("train", "validation"))
    assert crossing.names == ("train.zip/0.png", "val.zip/0.png")
    assert report.leaks == ()
    assert report.fault is not None
    assert report.fault.startswith(f"{tmp_path}: 1 group in several splits; ")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Four good pictures (two under a licence that some tests exclude), and three that do not decode."""
    save(tmp_path, a=photo(0), b=photo(1), c=photo(2, 64), d=clock(32, 12))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a picture")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    rows = [
        {"file_name": "a.png", "text": "one", "license": "MIT", "style": "photo"},
        {"file_name": "b.png", "text": "two", "license": "GPL-3.0", "style": "photo"},
        {"file_name": "c.png", "text": "", "license": "MIT"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_counts_and_unreadable_files(mixed: Path) -> None:
    report = check(mixed, DataConfig(validation_fraction=0))
    assert (report.pictures, report.filtered_out, report.without_caption) == (7, 0, 5)
    assert report.splits == {"train": 7, "validation": 0, "test": 0}
    assert report.sizes == {"128x128": 2, "64x64": 2}
    assert report.modes == {"RGB": 3, "RGBA": 1}
    assert report.licenses == {"none": 4, "MIT": 2, "GPL-3.0": 1}
    assert report.styles == {"none": 5, "photo": 2}
    assert [bad.name for bad in report.unreadable] == ["cut.png", "empty.png", "text.jpg"]
    assert report.unreadable[1].reason == "the file is empty"
    assert all(bad.reason and "\n" not in bad.reason for bad in report.unreadable)
    assert report.fault is None


def test_filters_apply_and_progress_is_told(mixed: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = check(mixed, DataConfig(licenses=("mit",)), progress=lambda done, total: seen.append((done, total)))
    assert (report.pictures, report.filtered_out) == (2, 5)
    assert seen == [(1, 2), (2, 2)]


def test_render_says_it_all_and_shortens_lists(mixed: Path, tmp_path: Path) -> None:
    text = render(check(mixed, DataConfig(validation_fraction=0)))
    for part in ("7 pictures", "train 7, validation 0, test 0", "128x128 2", "MIT 2", "missing 5", "unreadable: 3"):
        assert part in text
    assert "  empty.png: the file is empty" in text
    assert "leaks: 0" in text
    short = render(check(mixed, CONFIG), most=1)
    assert "... and 2 more" in short
    assert "text.jpg" not in short


def test_report_survives_json(tmp_path: Path) -> None:
    save(tmp_path / "train", a=photo(0))
    save(tmp_path / "test", b=photo(0))
    report = check(tmp_path, CONFIG)
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert "test/b.png (test) is near train/a.png (train): 0 bits, 0.0 levels" in render(report)


def test_missing_data_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "data", a=photo(0))
    with pytest.raises(LimnerError, match="no such file or folder"):
        check(tmp_path / "nowhere", CONFIG)
    with pytest.raises(LimnerError, match="no such file or folder"):
        check(tmp_path / "data", CONFIG, [tmp_path / "nowhere"])
