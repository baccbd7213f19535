"""The picture codec: what goes in comes out, and every bad file is refused with one clear sentence."""

from __future__ import annotations

import errno
import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import ExifTags, Image, ImageCms

from limner.errors import LimnerError, UsageError
from limner.images import FORMATS, Picture, decode, encode, format_of, from_array, from_pil, header, to_pil, write

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
    b'tiff:Orientation="6" exif:PixelXDimension="24"><exif:PixelYDimension>16</exif:PixelYDimension>'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def smooth(height: int = 16, width: int = 24, dtype: Any = np.uint8) -> np.ndarray:
    """A picture without symmetry that lossy formats keep well: (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    top = np.iinfo(dtype).max
    ramps = np.stack([x / width, y / height, (x + y) / (width + height)], axis=-1)
    return np.rint(ramps * top).astype(dtype)


def save(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def camera_exif(orientation: int = 6, order: str = ">") -> bytes:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F], exif[0x0112], exif[0x8298] = "Acme", orientation, "(c) someone"
    exif[0x011A] = exif[0x011B] = 300.0
    exif[0x0128] = 2
    exif.get_ifd(0x8769).update({0x9003: "2020:01:02 03:04:05", 0xA002: 24, 0xA003: 16, 0x829A: 0.01})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 30.0, 15.5)})
    return exif.tobytes()


def tags(exif: bytes | None) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
    """First, EXIF and GPS directory."""
    assert exif is not None
    parsed = Image.Exif()
    parsed.load(exif)
    return dict(parsed), dict(parsed.get_ifd(0x8769)), dict(parsed.get_ifd(0x8825))


def refusal(call: Any, *arguments: Any, **options: Any) -> str:
    """The one sentence with which `call` refuses."""
    with pytest.raises(LimnerError) as caught:
        call(*arguments, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


# ------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize("format", ["png", "tiff"])
def test_lossless_formats_return_every_sample(dtype: Any, gray: bool, clear: bool, format: str) -> None:
    pixels = smooth(dtype=dtype)
    pixels = np.repeat(pixels[..., :1], 3, axis=2) if gray else pixels
    alpha = smooth(dtype=dtype)[..., 1].copy() if clear else None
    again = decode(encode(Picture(pixels, alpha, gray), format))
    assert again.pixels.dtype == dtype and again.gray == gray
    np.testing.assert_array_equal(again.pixels, pixels)
    if alpha is None:
        assert again.alpha is None
    else:
        np.testing.assert_array_equal(again.alpha, alpha)


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
def test_lossy_formats_stay_close_and_obey_quality(format: str) -> None:
    picture = Picture(smooth(64, 96))
    again = decode(encode(picture, format))
    assert np.abs(again.pixels.astype(int) - picture.pixels).mean() < 2
    noise = Picture(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    assert len(encode(noise, format, quality=30)) < len(encode(noise, format, quality=95)) / 2


def test_gray_stays_one_channel_and_is_the_luma() -> None:
    picture = Picture(smooth(), gray=True)
    luma = np.rint(picture.pixels @ np.array([0.299, 0.587, 0.114]))
    for format in ("png", "tiff", "jpeg"):
        assert opened(encode(picture, format)).mode == "L"
    assert np.abs(np.asarray(opened(encode(picture, "png"))) - luma).max() <= 1


def test_sixteen_bits_are_rounded_to_eight() -> None:
    pixels = np.repeat(np.array([[0, 128, 129, 385, 386, 65406, 65407, 65535]], np.uint16)[..., None], 3, axis=2)
    expected = np.array([0, 0, 1, 1, 2, 254, 255, 255])
    blocks = np.repeat(np.repeat(pixels, 16, axis=0), 16, axis=1)
    again = decode(encode(Picture(blocks), "webp", quality=100)).pixels[8, 8::16, 1]
    assert again.dtype == np.uint8 and np.abs(again.astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(np.asarray(to_pil(Picture(pixels)))[0, :, 0], expected)


def test_jpeg_lays_alpha_over_white() -> None:
    alpha = np.zeros((16, 24), np.uint8)
    alpha[:, 8:16], alpha[:, 16:] = 128, 255
    again = decode(encode(Picture(np.zeros((16, 24, 3), np.uint8), alpha), "jpeg", quality=100)).pixels
    assert again[:, :7].min() > 252 and again[:, 17:].max() < 3
    assert abs(again[8, 12, 0] - 127.0) < 3
    deep = Picture(np.zeros((16, 24, 3), np.uint16), alpha.astype(np.uint16) * 257, gray=True)
    assert abs(decode(encode(deep, "jpeg", quality=100)).pixels[8, 12, 0] - 127.0) < 3


def test_sixteen_bit_avif_keeps_more_than_eight_bits() -> None:
    ramp = np.repeat(np.linspace(20000, 24000, 256, dtype=np.uint16)[None, :, None], 64, axis=0).repeat(3, axis=2)
    again = decode(encode(Picture(ramp), "avif", quality=100)).pixels
    assert again.dtype == np.uint16 and np.abs(again.astype(int) - ramp).mean() < 60


# ------------------------------------------------------------------------------------------------ what decode expands


def test_palettes_are_expanded() -> None:
    colours = Image.fromarray(smooth()).quantize(8)
    expected = np.asarray(colours.convert("RGB"))
    for format in ("PNG", "GIF"):
        np.testing.assert_array_equal(decode(save(colours, format)).pixels, expected)
    clear = decode(save(colours, "PNG", transparency=3))
    assert clear.alpha is not None
    np.testing.assert_array_equal(clear.alpha == 0, np.asarray(colours) == 3)


def test_one_bit_and_gray_with_alpha() -> None:
    bits = np.indices((9, 13)).sum(axis=0) % 2 == 1
    for format in ("PNG", "TIFF"):
        picture = decode(save(Image.fromarray(bits), format))
        assert picture.gray
        np.testing.assert_array_equal(picture.pixels[..., 2], bits * 255)
    both = Image.merge("LA", [Image.fromarray(smooth()[..., 0]), Image.fromarray(smooth()[..., 1])])
    picture = decode(save(both, "PNG"))
    assert picture.gray and picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, smooth()[..., 1])


def test_cmyk_becomes_srgb_and_loses_its_profile() -> None:
    inks = np.zeros((16, 32, 4), np.uint8)
    inks[:, :16, 3], inks[:, 16:, 1:3] = 255, 255
    picture = decode(save(Image.fromarray(inks, "CMYK"), "JPEG", quality=100, icc_profile=SRGB))
    assert picture.pixels.shape == (16, 32, 3) and picture.icc is None
    black, red = picture.pixels[8, 4].astype(int), picture.pixels[8, 28].astype(int)
    assert black.max() < 70 and red[0] > 180 and red[1:].max() < 80
    same = from_pil(Image.fromarray(inks, "CMYK")).pixels[8, 28].astype(int)
    assert np.abs(same - red).max() <= 3


def float_tiff(samples: np.ndarray) -> bytes:
    height, width, bands = samples.shape
    return pyvips.Image.new_from_memory(samples.tobytes(), width, height, bands, "float").tiffsave_buffer()


def test_float_tiff_becomes_sixteen_bit_and_is_clipped() -> None:
    samples = smooth().astype(np.float32) / 255
    samples[0, 0], samples[1, 1] = -0.5, 1.5
    picture = decode(float_tiff(samples))
    assert picture.pixels.dtype == np.uint16
    np.testing.assert_array_equal(picture.pixels, np.rint(samples.clip(0, 1) * 65535))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = smooth(40, 24)
    data = save(Image.fromarray(pixels), "PNG", exif=exif)
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels[::-1, ::-1].transpose(1, 0, 2), 0),
        8: np.rot90(pixels),
    }[orientation]
    picture = decode(data)
    np.testing.assert_array_equal(picture.pixels, upright)
    assert picture.pixels.flags.c_contiguous
    assert header(data) == (picture.width, picture.height)
    assert tags(picture.exif)[0][0x0112] == 1
    np.testing.assert_array_equal(from_pil(opened(data)).pixels, upright)


def test_orientation_of_a_tiff_file() -> None:
    picture = decode(save(Image.fromarray(smooth()), "TIFF", tiffinfo={0x0112: 6}))
    np.testing.assert_array_equal(picture.pixels, np.rot90(smooth(), -1))
    assert opened(encode(picture, "tiff")).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("options", [{"tile": True}, {"bigtiff": True}, {"compression": "jpeg"}, {"premultiply": True}])
def test_kinds_of_tiff_file(options: dict[str, Any]) -> None:
    image = pyvips.Image.new_from_array(np.dstack([smooth(300, 400), np.full((300, 400), 128, np.uint8)]))
    image = image.copy(interpretation="srgb")
    picture = decode(
        image.tiffsave_buffer(**options) if "premultiply" in options else image[:3].tiffsave_buffer(**options)
    )
    assert np.abs(picture.pixels.astype(int) - smooth(300, 400)).max() <= (8 if "compression" in options else 2)
    assert (picture.alpha is not None) == ("premultiply" in options)


def test_lab_and_deep_cmyk_tiff_become_srgb() -> None:
    gray = pyvips.Image.black(8, 8, bands=3).copy(interpretation="lab").linear([1, 1, 1], [100, 0, 0]).cast("float")
    lab = decode(gray.copy(interpretation="lab").tiffsave_buffer())
    assert lab.icc is None and lab.pixels.min() > 0.98 * lab.maximum
    inks = pyvips.Image.black(8, 8, bands=4).linear([1] * 4, [0, 65535, 65535, 0]).cast("ushort")
    red = decode(inks.copy(interpretation="cmyk").tiffsave_buffer())
    assert red.pixels.dtype == np.uint16 and red.pixels[0, 0, 0] > 45000 and red.pixels[0, 0, 1] < 20000


def test_interlaced_and_progressive_files() -> None:
    image = pyvips.Image.new_from_array(smooth(300, 400)).copy(interpretation="srgb")
    np.testing.assert_array_equal(decode(image.pngsave_buffer(interlace=True)).pixels, smooth(300, 400))
    progressive = decode(image.jpegsave_buffer(interlace=True, Q=95)).pixels
    assert np.abs(progressive.astype(int) - smooth(300, 400)).max() < 8


# ---------------------------------------------------------------------------------------------------------- metadata


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_xmp_and_profile_travel_through_every_format(format: str, order: str, tmp_path: Path) -> None:
    data = save(Image.fromarray(smooth()), "JPEG", exif=camera_exif(6, order), xmp=XMP, icc_profile=SRGB)
    picture = decode(data)
    large = Picture(
        np.repeat(np.repeat(picture.pixels, 2, 0), 2, 1), None, False, picture.icc, picture.exif, picture.xmp
    )
    path = tmp_path / "large.bin"
    write(large, path, format=format)
    for again in (decode(path), decode(encode(large, format))):
        assert again.icc == SRGB
        root, shot, place = tags(again.exif)
        assert (root[0x010F], root[0x8298], root.get(0x0112, 1), root[0x011A]) == ("Acme", "(c) someone", 1, 300)
        assert (shot[0x9003], shot[0xA002], shot[0xA003]) == ("2020:01:02 03:04:05", 32, 48)
        assert place[2] == (48.0, 30.0, 15.5)
        assert again.xmp is not None and b'tiff:Orientation="1"' in again.xmp
        assert b'exif:PixelXDimension="32"' in again.xmp and b"<exif:PixelYDimension>48<" in again.xmp


def test_exif_of_a_tiff_file_made_elsewhere() -> None:
    exif = Image.Exif()
    exif.load(camera_exif())
    root, shot, place = tags(decode(save(Image.fromarray(smooth()), "TIFF", exif=exif)).exif)
    assert root[0x010F] == "Acme" and shot[0x9003] == "2020:01:02 03:04:05" and place[1] == "N"


def test_tiff_with_appended_exif_opens_elsewhere() -> None:
    picture = Picture(smooth(dtype=np.uint8), exif=camera_exif(1))
    with opened(encode(picture, "tiff")) as image:
        np.testing.assert_array_equal(np.asarray(image), picture.pixels)
        assert image.getexif()[0x010F] == "Acme"
        assert image.getexif().get_ifd(0x8769)[0xA002] == 24


def test_a_thumbnail_of_the_old_picture_is_dropped() -> None:
    small = save(Image.fromarray(smooth()), "JPEG")
    body = bytearray(camera_exif(6)[6:])
    count = struct.unpack(">H", body[8:10])[0]
    body[10 + 12 * count : 14 + 12 * count] = struct.pack(">I", len(body))
    body += struct.pack(">HHHIIHHIII", 2, 0x0201, 4, 1, len(body) + 30, 0x0202, 4, 1, len(small), 0) + small
    exif = b"Exif\0\0" + bytes(body)
    assert tags_of_thumbnail(exif)
    picture = decode(save(Image.fromarray(smooth()), "JPEG", exif=exif))
    assert tags(picture.exif)[0][0x010F] == "Acme" and not tags_of_thumbnail(picture.exif or b"")
    assert small not in encode(picture, "jpeg")


def tags_of_thumbnail(exif: bytes) -> dict[int, Any]:
    parsed = Image.Exif()
    parsed.load(exif)
    return dict(parsed.get_ifd(ExifTags.IFD.IFD1))


def test_broken_exif_costs_only_the_exif() -> None:
    data = save(Image.fromarray(smooth()), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff garbage")
    picture = decode(data)
    assert picture.exif is None and picture.pixels.shape == (16, 24, 3)


def test_nothing_is_invented_for_a_picture_without_metadata() -> None:
    for format in ("png", "jpeg", "webp", "avif"):
        again = decode(encode(Picture(smooth()), format))
        assert (again.icc, again.exif, again.xmp) == (None, None, None)


def test_a_profile_for_other_channels_is_left_out() -> None:
    picture = Picture(smooth(), gray=True, icc=SRGB)
    assert decode(encode(picture, "png")).icc is None
    assert decode(encode(picture, "webp")).icc == SRGB


# --------------------------------------------------------------------------------------------------------- bad input


def test_missing_folder_empty_and_text(tmp_path: Path) -> None:
    assert "gone.png: no such file" in refusal(decode, tmp_path / "gone.png")
    assert "is a folder" in refusal(decode, tmp_path)
    (tmp_path / "zero.jpg").touch()
    assert "zero.jpg: is empty" in refusal(decode, tmp_path / "zero.jpg")
    assert "is empty" in refusal(decode, b"")
    (tmp_path / "note.png").write_text("not a picture at all, but long enough to be one")
    for call in (decode, header):
        assert "note.png: is not a PNG, JPEG" in refusal(call, tmp_path / "note.png")
    assert "no such file" in refusal(decode, "a\0b")


@pytest.mark.skipif(os.name != "posix", reason="needs named pipes")
def test_a_pipe_is_no_picture_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in refusal(decode, tmp_path / "pipe.png")
    assert "not a regular file" in refusal(write, Picture(smooth()), tmp_path / "pipe.png")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "AVIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_fail_whole(format: str, share: float, tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    data = save(noise, format)
    path = tmp_path / f"cut.{format.lower()}"
    path.write_bytes(data[: int(len(data) * share)])
    for source in (path, path.read_bytes()):
        sentence = refusal(decode, source)
        assert "truncated" in sentence
    assert "cut" in refusal(decode, path)


def test_damaged_png_fails() -> None:
    data = bytearray(save(Image.fromarray(smooth(64, 64)), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert "damaged" in refusal(decode, bytes(data))


def test_a_jpeg_that_ends_early_is_no_half_gray_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    for progressive in (False, True):
        data = save(Image.fromarray(noise), "JPEG", progressive=progressive)
        for share in (0.5, 0.9):
            assert "damaged" in refusal(decode, data[: int(len(data) * share)] + b"\xff\xd9")
        np.testing.assert_array_equal(decode(data + b"trailing bytes").pixels, decode(data).pixels)


def test_harmless_oddities_of_png_files_are_forgiven() -> None:
    data = save(Image.fromarray(smooth()), "PNG")
    for odd in (chunk(b"iCCP", b"name\0\0" + zlib.compress(b"junk")), chunk(b"tEXt", b"a\0b")[:-1] + b"?"):
        np.testing.assert_array_equal(decode(data[:33] + odd + data[33:]).pixels, smooth())


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb() -> bytes:
    size = struct.pack(">IIBBBBB", 100_000, 90_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1 << 16))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_decompression_bombs_are_refused_by_their_header() -> None:
    assert header(bomb()) == (100_000, 90_000)
    sentence = refusal(decode, bomb())
    assert "100000 x 90000" in sentence and "--max-pixels" in sentence
    data = encode(Picture(smooth()), "png")
    assert "--max-pixels" in refusal(decode, data, max_pixels=16 * 24 - 1)
    assert decode(data, max_pixels=16 * 24).width == 24


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_animations_and_pages_are_counted_and_refused(format: str) -> None:
    frames = [Image.fromarray(np.roll(smooth(), shift, 1)) for shift in (0, 5, 11)]
    data = save(frames[0], format, save_all=True, append_images=frames[1:])
    assert "3 frames or pages" in refusal(decode, data)
    if format == "AVIF":
        assert "several frames" in refusal(decode, data[:100])


def test_a_tiff_thumbnail_is_no_page_but_a_raw_file_is_no_picture() -> None:
    full, thumbnail = Image.fromarray(smooth()), Image.fromarray(smooth(4, 6))
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    both = save(full, "TIFF", save_all=True, append_images=[thumbnail])
    np.testing.assert_array_equal(decode(both).pixels, smooth())
    assert "camera raw" in refusal(decode, save(thumbnail, "TIFF", tiffinfo={254: 1}))


def test_float_tiff_with_nan_or_infinity(tmp_path: Path) -> None:
    for wrong in (np.nan, np.inf):
        samples = np.full((8, 8, 3), 0.5, np.float32)
        samples[3, 4, 1] = wrong
        path = tmp_path / "scan.tif"
        path.write_bytes(float_tiff(samples))
        assert "scan.tif: contains NaN or infinite" in refusal(decode, path)


def test_strange_samples_and_channels() -> None:
    deep = pyvips.Image.black(8, 8).cast("int").tiffsave_buffer()
    assert "int samples" in refusal(decode, deep)
    many = pyvips.Image.black(8, 8, bands=7).tiffsave_buffer()
    assert "7 channels" in refusal(decode, many)


# ----------------------------------------------------------------------------------------------------------- writing


def test_write_takes_the_format_from_the_suffix_or_the_name(tmp_path: Path) -> None:
    for name, kind in {"a.JPG": "JPEG", "b.tiff": "TIFF", "c.webp": "WEBP", "d[page=2].png": "PNG"}.items():
        write(Picture(smooth()), tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert image.format == kind
        assert decode(tmp_path / name).width == 24 and header(tmp_path / name) == (24, 16)
    write(Picture(smooth()), tmp_path / "e.dat", format="jpg")
    assert (tmp_path / "e.dat").read_bytes() == encode(Picture(smooth()), "jpeg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.JPG", "b.tiff", "c.webp", "d[page=2].png", "e.dat"]


def test_unknown_formats_and_qualities(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown suffix '\.xyz'"):
        write(Picture(smooth()), tmp_path / "a.xyz")
    with pytest.raises(UsageError, match="no suffix"):
        format_of("plain")
    with pytest.raises(UsageError, match="did you mean 'webp'"):
        encode(Picture(smooth()), "webpp")
    with pytest.raises(UsageError, match="quality 0"):
        write(Picture(smooth()), tmp_path / "a.jpg", quality=0)
    assert not list(tmp_path.iterdir())


def test_a_side_too_long_for_the_format() -> None:
    strip = Picture(np.zeros((2, 16384, 3), np.uint8))
    assert "16383" in refusal(encode, strip, "webp")
    assert decode(encode(strip, "png")).width == 16384


def test_unwritable_targets_leave_nothing(tmp_path: Path) -> None:
    picture = Picture(smooth())
    assert "folder does not exist" in refusal(write, picture, tmp_path / "gone" / "a.png")
    (tmp_path / "file").write_text("x")
    assert "folder does not exist" in refusal(write, picture, tmp_path / "file" / "a.png")
    (tmp_path / "dir.png").mkdir()
    assert "not a regular file" in refusal(write, picture, tmp_path / "dir.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dir.png", "file"]


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow past `size` bytes: writes fail as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(format: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    picture = Picture(noise, exif=camera_exif(1))
    path = tmp_path / f"full{FORMATS[format].suffixes[0]}"
    path.write_bytes(b"old")
    size = len(encode(picture, format))
    for room in (100, size // 2, size - 1):
        with disk_of(room):
            sentence = refusal(write, picture, path)
        assert path.name in sentence and os.strerror(errno.EFBIG) in sentence
        assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert os.strerror(errno.EACCES) in refusal(write, Picture(smooth()), tmp_path / "a.png")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder where nobody may write")
def test_a_folder_that_takes_no_files() -> None:
    assert "/proc/self/a.png: cannot be written" in refusal(write, Picture(smooth()), Path("/proc/self/a.png"))


def test_new_files_obey_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write(Picture(smooth()), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


# ------------------------------------------------------------------------------------------------- Pillow and numpy


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "YCbCr", "HSV"])
def test_pillow_modes(mode: str) -> None:
    image = (
        Image.fromarray(smooth()).convert("L").convert(mode)
        if mode == "LA"
        else Image.fromarray(smooth()).convert(mode)
    )
    picture = from_pil(image)
    np.testing.assert_array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert picture.gray == (mode in ("1", "L", "LA"))
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA"))


def test_pillow_palette_with_transparency() -> None:
    image = Image.fromarray(smooth()).quantize(8)
    image.info["transparency"] = 2
    alpha = from_pil(image).alpha
    assert alpha is not None
    np.testing.assert_array_equal(alpha == 0, np.asarray(image) == 2)


def test_pillow_deep_and_float_modes() -> None:
    deep = smooth(dtype=np.uint16)[..., 0]
    for image in (Image.fromarray(deep), Image.fromarray(deep.astype(np.int32))):
        picture = from_pil(image)
        assert picture.gray and picture.pixels.dtype == np.uint16
        np.testing.assert_array_equal(picture.pixels[..., 1], deep)
    assert from_pil(Image.fromarray(np.full((4, 4), 0.5, np.float32))).pixels[0, 0, 0] == 32768
    assert "32-bit" in refusal(from_pil, Image.fromarray(np.full((4, 4), 70000, np.int32)))
    assert "NaN" in refusal(from_pil, Image.fromarray(np.full((4, 4), np.nan, np.float32)))


def test_gray_pictures_become_their_luma_in_pillow() -> None:
    image = to_pil(Picture(smooth(), gray=True))
    np.testing.assert_array_equal(np.asarray(image), decode(encode(Picture(smooth(), gray=True), "png")).pixels[..., 0])


def test_pillow_image_of_a_truncated_file() -> None:
    data = save(Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)), "PNG")
    assert "cannot be loaded" in refusal(from_pil, opened(data[: len(data) // 2]))


def test_pillow_there_and_back() -> None:
    alpha = smooth()[..., 2].copy()
    for picture, mode in [
        (Picture(smooth()), "RGB"),
        (Picture(smooth(), alpha), "RGBA"),
        (Picture(np.repeat(alpha[..., None], 3, 2), gray=True), "L"),
        (Picture(np.repeat(alpha[..., None], 3, 2), alpha, gray=True), "LA"),
        (Picture(np.repeat(smooth(dtype=np.uint16)[..., :1], 3, 2), gray=True), "I;16"),
    ]:
        image = to_pil(picture)
        assert image.mode == mode
        again = from_pil(image)
        np.testing.assert_array_equal(again.pixels, picture.pixels)
        assert again.gray == picture.gray and (again.alpha is None) == (picture.alpha is None)


def test_pillow_carries_metadata() -> None:
    data = save(Image.fromarray(smooth()), "JPEG", exif=camera_exif(6), xmp=XMP, icc_profile=SRGB)
    picture = from_pil(opened(data))
    np.testing.assert_array_equal(picture.pixels, decode(data).pixels)
    image = to_pil(picture)
    assert image.size == (16, 24) and image.info["icc_profile"] == SRGB and b"Orientation" in image.info["xmp"]
    root, shot, _ = tags(image.info["exif"])
    assert root[0x0112] == 1 and (shot[0xA002], shot[0xA003]) == (16, 24)


def test_arrays() -> None:
    np.testing.assert_array_equal(from_array(smooth()).pixels, smooth())
    gray = from_array(smooth()[..., 0])
    assert gray.gray and gray.pixels.shape == (16, 24, 3)
    assert from_array(smooth()[..., :1]).gray
    rgba = np.dstack([smooth(), smooth()[..., 1]])
    alpha = from_array(rgba).alpha
    assert alpha is not None
    np.testing.assert_array_equal(alpha, smooth()[..., 1])
    big_endian = from_array(smooth(dtype=np.uint16).astype(">u2"))
    np.testing.assert_array_equal(big_endian.pixels, smooth(dtype=np.uint16))
    floats = from_array(np.array([[-0.1, 0.0, 0.5, 1.0, 1.1]]))
    np.testing.assert_array_equal(floats.pixels[0, :, 0], [0, 0, 32768, 65535, 65535])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4,), np.uint8), "shape (4,)"),
        (np.zeros((4, 4, 2), np.uint8), "shape (4, 4, 2)"),
        (np.zeros((0, 4, 3), np.uint8), "shape (0, 4, 3)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "shape (2, 4, 4, 3)"),
        (np.zeros((4, 4, 3), np.int64), "dtype int64"),
        (np.zeros((4, 4, 3), np.bool_), "dtype bool"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (np.full((4, 4, 3), -np.inf), "NaN or infinite"),
        (np.full((4, 4, 3), 255.0), "scale it to 0..1"),
        ([[1, 2]], "not list"),
    ],
)
def test_arrays_that_are_no_pictures(array: Any, words: str) -> None:
    assert words in refusal(from_array, array)


# ----------------------------------------------------------------------------------------------- threads and memory


def test_many_threads_at_once(tmp_path: Path) -> None:
    pictures = [Picture(np.roll(smooth(120, 90), shift, 1)) for shift in range(8)]

    def work(index: int) -> bool:
        picture, path = pictures[index % 8], tmp_path / f"{index}.png"
        write(picture, path)
        broken = path.read_bytes()[:-40]
        assert "truncated" in refusal(decode, broken)
        return bool((decode(path).pixels == picture.pixels).all())

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(48)))


def run(code: str, *arguments: str) -> str:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True).stdout


def test_importing_the_module_loads_no_image_library() -> None:
    loaded = run("import sys, limner.images; print([m for m in ('pyvips', 'PIL', 'torch') if m in sys.modules])")
    assert loaded.strip() == "[]"


MEASURE = """
import resource, sys
import numpy as np
from limner.images import Picture, decode, encode, write
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
decode(encode(Picture(np.zeros((64, 64, 3), np.uint8)), "png"))
if sys.argv[1] == "write":
    pixels = np.zeros((3000, 9600, 3), np.uint8) + np.arange(9600, dtype=np.uint8)[:, None]
    before = peak()
    write(Picture(pixels), sys.argv[2])
    print(peak() - before)
else:
    before = peak()
    picture = decode(sys.argv[2])
    print(peak() - before - picture.pixels.nbytes / 2**20)
"""


def test_a_damaged_file_leaves_stderr_alone(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(encode(Picture(smooth(200, 200)), "jpeg")[:-500])
    code = "import sys; from limner.images import decode\ntry: decode(sys.argv[1])\nexcept ValueError: print('refused')"
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("refused\n", "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in kibibytes on Linux")
def test_large_pictures_need_little_more_than_their_pixels(tmp_path: Path) -> None:
    """82 MiB of pixels; the bound on decoding leaves room for libvips' lines, not for a second copy."""
    for name in ("large.jpg", "large.png"):
        assert float(run(MEASURE, "write", str(tmp_path / name))) < 50
    assert float(run(MEASURE, "decode", str(tmp_path / "large.png"))) < 110
