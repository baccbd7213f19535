"""EXIF, XMP and the directories of TIFF files: what describes a picture, kept and corrected. Standard library only."""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

_EXIF_HEAD = b"Exif\0\0"
_ORIENTATION, _EXIF, _GPS, _WIDTH, _HEIGHT = 0x0112, 0x8769, 0x8825, 0xA002, 0xA003
# Of a TIFF file's first directory, what describes the picture: description, maker, model, resolution and its unit,
# software, date, artist, copyright.
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298)
# TIFF 6.0 section 2 and BigTIFF: type -> bytes of the unit that byte order concerns; rationals are two units.
_UNITS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_RATIONALS = (5, 10)
_LARGEST_TAG = 16 << 20
_SHORT, _LONG, _LONG8 = 3, 4, 16


class _Entry(NamedTuple):
    """A tag as it lies in the file: `at` is the offset of its 12 (BigTIFF: 20) bytes, `value` that of its data."""

    at: int
    kind: int
    values: int
    value: int

    @property
    def size(self) -> int:
        return self.values * _UNITS.get(self.kind, 1) * (2 if self.kind in _RATIONALS else 1)


class _Value(NamedTuple):
    """A tag taken out of a file; `data` in the byte order it had there."""

    kind: int
    values: int
    data: bytes


class Tags:
    """The directories of a TIFF or BigTIFF file, or of an EXIF block, which is a TIFF file without pixels.

    Raises ValueError where the structure is broken.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        mark = self._read(0, 2)
        if mark not in (b"II", b"MM"):
            raise ValueError("no TIFF byte order mark")
        self.order: str = "<" if mark == b"II" else ">"
        self.big = self._integer(2, 2) == 43
        self.word = 8 if self.big else 4  # bytes of an offset, and of a value kept inside its entry
        self.pointer = 8 if self.big else 4  # where the offset of the first directory stands

    def _read(self, at: int, count: int) -> bytes:
        self.file.seek(at)
        data = self.file.read(min(count, _LARGEST_TAG + 1))
        if len(data) < count:
            raise ValueError("a TIFF tag is too large, or lies past the end")
        return data

    def _integer(self, at: int, size: int) -> int:
        return int.from_bytes(self._read(at, size), "little" if self.order == "<" else "big")

    def directory(self, at: int) -> tuple[dict[int, _Entry], int]:
        """Entries by tag, and the offset of the link to the next directory."""
        count_size, size = (8, 20) if self.big else (2, 12)
        start, count = at + count_size, self._integer(at, count_size)
        if count > 4096:
            raise ValueError("a TIFF directory of thousands of tags")
        found = dict(self._entry(start + size * index) for index in range(count))
        return {tag: entry for tag, entry in found.items() if entry.kind in _UNITS}, start + size * count

    def _entry(self, at: int) -> tuple[int, _Entry]:
        tag, kind = struct.unpack(f"{self.order}HH", self._read(at, 4))
        count, inside = self._integer(at + 4, self.word), at + 4 + self.word
        entry = _Entry(at, kind, count, inside)
        return tag, entry if entry.size <= self.word else entry._replace(value=self._integer(inside, self.word))

    def directories(self) -> Iterator[dict[int, _Entry]]:
        """All directories of the main chain."""
        link, seen = self.pointer, set[int]()
        while (at := self._integer(link, self.word)) and at not in seen:
            seen.add(at)
            entries, link = self.directory(at)
            yield entries

    def number(self, entry: _Entry) -> int:
        """An integer tag's first value."""
        return self._integer(entry.value, _UNITS[entry.kind])

    def take(self, entries: dict[int, _Entry]) -> dict[int, _Value]:
        return {
            tag: _Value(entry.kind, entry.values, self._read(entry.value, entry.size)) for tag, entry in entries.items()
        }

    def first(self) -> tuple[dict[int, _Entry], int]:
        return self.directory(self._integer(self.pointer, self.word))

    def nested(self, root: dict[int, _Entry]) -> dict[int, dict[int, _Value]]:
        """The EXIF and GPS directories that `root` points to."""
        return {tag: self.take(self.directory(self.number(root[tag]))[0]) for tag in (_EXIF, _GPS) if root.get(tag)}


def prefixed(data: bytes) -> bytes:
    return data if data.startswith(_EXIF_HEAD) else _EXIF_HEAD + data


def restated(exif: bytes | None, width: int, height: int) -> bytes | None:
    """EXIF that says upright and `width` x `height`, without its thumbnail; None if it is broken.

    Patched in place: maker notes hold offsets into the block, which rewriting it would break.
    """
    if exif is None:
        return None
    block = bytearray(prefixed(exif)[len(_EXIF_HEAD) :])
    try:
        tags = Tags(io.BytesIO(bytes(block)))
        root, link = tags.first()
        block[link : link + 4] = bytes(4)
        _patch(block, tags.order, root.get(_ORIENTATION), _SHORT, 1)
        nested = tags.directory(tags.number(root[_EXIF]))[0] if _EXIF in root else {}
        _patch(block, tags.order, nested.get(_WIDTH), _LONG, width)
        _patch(block, tags.order, nested.get(_HEIGHT), _LONG, height)
    except ValueError:
        return None
    return _EXIF_HEAD + bytes(block)


def _patch(block: bytearray, order: str, entry: _Entry | None, kind: int, value: int) -> None:
    if entry is not None:
        struct.pack_into(f"{order}HI4s", block, entry.at + 2, kind, 1, _scalar(order, kind, value).ljust(4, b"\0"))


def _scalar(order: str, kind: int, value: int) -> bytes:
    return struct.pack(order + {_SHORT: "H", _LONG: "I", _LONG8: "Q"}[kind], value)


def restated_xmp(xmp: bytes | None, width: int, height: int) -> bytes | None:
    """XMP repeats some of EXIF (XMP part 2, sections 3.2 and 3.3), as attributes or as elements."""
    if xmp is None:
        return None
    fields = {
        rb"tiff:Orientation": 1,
        rb"(?:tiff:ImageWidth|exif:PixelXDimension)": width,
        rb"(?:tiff:ImageLength|exif:PixelYDimension)": height,
    }
    for name, value in fields.items():
        xmp = re.sub(rb"(\b" + name + rb"\s*(?:=\s*[\"']|>)\s*)\d+", rb"\g<1>%d" % value, xmp)
    return xmp


def from_tiff(file: BinaryIO, image: Any) -> bytes | None:
    """EXIF of a TIFF file, which libvips does not read: the descriptive tags and what they point to, as a block."""
    if not image.get("vips-loader").startswith("tiffload"):
        return None
    try:
        tags = Tags(file)
        root, _ = tags.first()
        kept = tags.take({tag: root[tag] for tag in _DESCRIPTIVE if tag in root})
        body, at = _packed(kept, tags.nested(root), 8, tags.order, big=False)
    except ValueError:
        return None
    head = {"<": b"II*\0", ">": b"MM\0*"}[tags.order] + _scalar(tags.order, _LONG, at)
    return _EXIF_HEAD + head + body


def append_to_tiff(file: BinaryIO, exif: bytes, width: int, height: int) -> None:
    """Give the TIFF file that libvips wrote, which has no EXIF, a new first directory that has it, at its end."""
    block = restated(exif, width, height)
    if block is None:
        return
    source, target = Tags(io.BytesIO(block[len(_EXIF_HEAD) :])), Tags(file)
    turn = source.order != target.order
    entries, _ = source.first()
    kept = _turned(source.take({tag: entries[tag] for tag in _DESCRIPTIVE if tag in entries}), turn)
    nested = {tag: _turned(values, turn) for tag, values in source.nested(entries).items()}
    root = target.take(target.first()[0])
    at = file.seek(0, os.SEEK_END)
    at += file.write(bytes(at % 2))
    body, first = _packed(kept | root, nested, at, target.order, big=target.big)
    file.seek(at)
    file.write(body)
    file.seek(target.pointer)
    file.write(_scalar(target.order, _LONG8 if target.big else _LONG, first))


def _turned(values: dict[int, _Value], turn: bool) -> dict[int, _Value]:
    """The same values in the other byte order."""
    if not turn:
        return values
    turned = {}
    for tag, (kind, count, data) in values.items():
        unit = _UNITS[kind]
        units = [data[at : at + unit][::-1] for at in range(0, len(data), unit)]
        turned[tag] = _Value(kind, count, b"".join(units))
    return turned


def _packed(
    root: dict[int, _Value], nested: dict[int, dict[int, _Value]], at: int, order: str, *, big: bool
) -> tuple[bytes, int]:
    """Nested directories and then the root that points to them, to stand at offset `at`; and the root's offset."""
    body = b""
    kind = _LONG8 if big else _LONG
    for tag, values in nested.items():
        root = root | {tag: _Value(kind, 1, _scalar(order, kind, at + len(body)))}
        body += _packed_directory(values, at + len(body), order, big=big)
    return body + _packed_directory(root, at + len(body), order, big=big), at + len(body)


def _packed_directory(values: dict[int, _Value], at: int, order: str, *, big: bool) -> bytes:
    kind_of_offset, word, count = (_LONG8, 8, "Q") if big else (_LONG, 4, "H")
    rows = [struct.pack(order + count, len(values))]
    data_at = at + len(rows[0]) + len(values) * (4 + 2 * word) + word
    data = b""
    for tag, value in sorted(values.items()):
        inside = value.data
        if len(value.data) > word:
            inside = _scalar(order, kind_of_offset, data_at + len(data))
            data += value.data + bytes(len(value.data) % 2)
        number = _scalar(order, kind_of_offset, value.values)
        rows.append(struct.pack(f"{order}HH", tag, value.kind) + number + inside.ljust(word, b"\0"))
    return b"".join(rows) + bytes(word) + data
