"""Small PNG files are what libvips would have written, but for the compression."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limner import images, png


def noise(height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("shape", [(64, 64, 4), (64, 64, 3), (1, 1, 4), (128, 3, 3), (2, 128, 4)])
def test_what_is_written_is_read(shape: tuple[int, int, int]) -> None:
    pixels = noise(*shape)
    file = png.encode(pixels)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), pixels)
    again = images.decode(file)
    np.testing.assert_array_equal(again.pixels, pixels[..., :3])
    assert (again.alpha is None) == (shape[2] == 3) and again.xmp is None


def test_a_packet_and_the_density_come_along() -> None:
    packet = '<?xpacket begin="\ufeff"?><x:xmpmeta xmlns:x="adobe:ns:meta/"/>'.encode()
    file = png.encode(noise(8, 8, 4), packet)
    assert images.embedded_xmp(file) == packet
    assert Image.open(io.BytesIO(file)).info["dpi"] == pytest.approx((72, 72), abs=0.1)


def chunks(file: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(file):
        (size,) = struct.unpack_from(">I", file, at)
        found.append((file[at + 4 : at + 8], file[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def test_libvips_writes_the_same_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = replace(images.from_array(noise(16, 16, 4)), xmp=b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    own = dict(chunks(images.encode(picture, "png")))
    monkeypatch.setattr(png, "SIDE", 0)
    theirs = dict(chunks(images.encode(picture, "png")))
    # Compressors differ; and XMP belongs into iTXt (XMP part 3, section 1.1.5), while libvips takes zTXt.
    assert own.pop(b"iTXt").startswith(b"XML:com.adobe.xmp\0") and theirs.pop(b"zTXt").startswith(
        b"XML:com.adobe.xmp\0"
    )
    assert own.pop(b"IDAT") and theirs.pop(b"IDAT") and own == theirs


LARGE: dict[str, Any] = {"gray": True, "icc": b"\0" * 16 + b"RGB " + b"\0" * 108}


@pytest.mark.parametrize("name", LARGE)
def test_what_it_does_not_know_goes_to_libvips(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "encode", lambda *_: pytest.fail("not for this one"))
    picture = images.from_array(np.repeat(noise(8, 8, 1), 3, 2))
    images.encode(replace(picture, **{name: LARGE[name]}), "png")
    images.encode(images.from_array(noise(8, 8, 3).astype(np.uint16)), "png")
    images.encode(images.from_array(noise(2, png.SIDE + 1, 3)), "png")
