"""`limner data check`: what a data set holds, what cannot be read, and what leaks between splits. No torch.

Two pictures in different splits (or one in a foreign test set) are a leak when both hold:

- their 64-bit perceptual hashes differ in at most `NEAR_BITS` bits;
- no cell of their 16x16 thumbnails differs by more than `NEAR_LEVELS` grey levels (of 255) once overall brightness and
  contrast are evened out.

The first test alone takes unlike icons for one another when they are flat, symmetric or nearly empty, because most of
the hash's coefficients are then zero; the second alone takes thin drawings (clock faces, say) for one another.
The limits come from looking at pairs. Copies that were halved, doubled, saved as JPEG (quality 75) or lossy WebP,
made brighter, or changed by 15 % in contrast or 20 % in colour pass in 99 of 100 cases for photographs, in 95 for
64-pixel icons; JPEG quality 30 passes in 97 and 72. Two shots of one fruit on a table differ by 27 levels or more.
Of icons, what passes though it is no copy are siblings that one would call the same drawing: a ring with a gem of
nearly the same colour, one wall tile in two reds. Faces with another mouth, keycaps, clock faces and cards of another
value do not pass, nor do grey copies, mirror images, and crops that share less than about 98 % of a photograph.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from os import PathLike
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

from limner.config import DataConfig
from limner.data.records import SPLITS, Record, open_records, select, split_of

NEAR_BITS = 6
NEAR_LEVELS = 20.0

_SHIFT = 40.0  # grey levels of mean brightness that "brightened" may change
_FLAT = 4.0  # DCT coefficients are compared in steps of this, so that noise in flat areas sets no bits
_THUMB = 16

Progress = Callable[[int, int], None]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Unreadable(_Part):
    """A picture that does not decode, and why."""

    name: str
    reason: str


class Leak(_Part):
    """A held-out picture and the picture nearest to it where it should not be.

    `first` in `first_split` is the training side, `second` in `second_split` (a split, or a path given as `against`)
    the held-out side. `bits`: differing bits of the hash, 0 to 64. `levels`: what `difference` gives.
    """

    first: str
    first_split: str
    second: str
    second_split: str
    bits: int
    levels: float


class Crossing(_Part):
    """A group with pictures in several splits, and one picture of it from each."""

    group: str
    splits: tuple[str, ...]
    names: tuple[str, ...]


class Report(_Part):
    """What `check` found. Counters map a value to its number of pictures; sizes are written "width x height"."""

    path: str
    pictures: int
    filtered_out: int
    without_caption: int
    splits: dict[str, int]
    sizes: dict[str, int]
    modes: dict[str, int]
    licenses: dict[str, int]
    styles: dict[str, int]
    unreadable: tuple[Unreadable, ...]
    leaks: tuple[Leak, ...]
    crossings: tuple[Crossing, ...]

    @property
    def fault(self) -> str | None:
        """One sentence when pictures leak, else None."""
        leaks = [f"{_many(len(self.leaks), 'held-out picture')} also elsewhere"] if self.leaks else []
        crossings = [f"{_many(len(self.crossings), 'group')} in several splits"] if self.crossings else []
        if not leaks + crossings:
            return None
        return (
            f"{self.path}: {' and '.join(leaks + crossings)}; give such pictures one group and split, or remove them."
        )


class _Prints(NamedTuple):
    """Fingerprints of N pictures: `hashes` (N,) uint64, `thumbs` (N, 16, 16, 4) uint8 RGBA, alpha premultiplied."""

    names: Sequence[str]
    hashes: NDArray[np.uint64]
    thumbs: NDArray[np.uint8]


class _Look(NamedTuple):
    size: str
    mode: str
    hash: np.uint64
    thumb: NDArray[np.uint8]


def check(
    path: str | PathLike[str],
    config: DataConfig,
    against: Iterable[str | PathLike[str]] = (),
    progress: Progress | None = None,
) -> Report:
    """Decode every picture that passes the filters once, and report.

    `against`: other data (test sets) that must not hold the same pictures. `progress(done, total)` is called after
    each picture. Raises LimnerError as `open_records` does; an unreadable picture is reported, not raised.
    """
    everything = open_records(path, config)
    records = select(everything, config)
    foreign = {str(other): open_records(other, DataConfig()) for other in against}
    tick = _ticker(progress, len(records) + sum(map(len, foreign.values())))
    splits = [split_of(record, config) for record in records]
    looks, unreadable = _look_at_all(records, tick)
    named = {split: [r for r, s in zip(records, splits, strict=True) if s == split] for split in SPLITS}
    prints = {split: _prints(members, looks) for split, members in named.items()}
    others = {name: _prints(members, _look_at_all(members, tick)[0]) for name, members in foreign.items()}
    return Report(
        path=str(path),
        pictures=len(records),
        filtered_out=len(everything) - len(records),
        without_caption=sum(not record.text for record in records),
        splits={split: len(members) for split, members in named.items()},
        sizes=_counted(look.size for look in looks.values()),
        modes=_counted(look.mode for look in looks.values()),
        licenses=_counted(record.license or "none" for record in records),
        styles=_counted(record.style or "none" for record in records),
        unreadable=tuple(unreadable),
        leaks=tuple(_leaks(prints, others)),
        crossings=tuple(_crossings(records, splits)),
    )


def _ticker(progress: Progress | None, total: int) -> Callable[[], None]:
    done = iter(range(1, total + 1))
    return (lambda: progress(next(done), total)) if progress else (lambda: None)


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _look_at_all(records: Sequence[Record], tick: Callable[[], None]) -> tuple[dict[str, _Look], list[Unreadable]]:
    looks: dict[str, _Look] = {}
    unreadable = []
    for record in records:
        try:
            looks[record.name] = _look(record)
        except Exception as error:  # decoders raise nearly anything on damaged files, and one must not end the check
            unreadable.append(Unreadable(name=record.name, reason=" ".join(str(error).split()) or type(error).__name__))
        tick()
    return looks, unreadable


def _look(record: Record) -> _Look:
    data = record.read()
    if not data:
        raise ValueError("the file is empty")
    with Image.open(io.BytesIO(data)) as picture:
        size, mode = f"{picture.width}x{picture.height}", picture.mode
        picture.draft("RGB", (128, 128))  # JPEG decodes at a fraction of its size: four times faster on photographs
        hash, thumb = fingerprint(picture)
    return _Look(size, mode, hash, thumb)


def _prints(records: Sequence[Record], looks: Mapping[str, _Look]) -> _Prints:
    seen = [(record.name, looks[record.name]) for record in records if record.name in looks]
    thumbs = np.array([look.thumb for _, look in seen], np.uint8).reshape(-1, _THUMB, _THUMB, 4)
    return _Prints([name for name, _ in seen], np.array([look.hash for _, look in seen], np.uint64), thumbs)


def fingerprint(picture: Image.Image) -> tuple[np.uint64, NDArray[np.uint8]]:
    """Perceptual hash, and a (16, 16, 4) uint8 thumbnail (RGBA, alpha premultiplied).

    The hash is Zauner's DCT hash ("Implementation and benchmarking of perceptual image hash functions", 2010, 3.2.1):
    the picture on white, as luma, 32x32; its DCT-II coefficients 1 to 8 in both directions, one bit each for being
    above their median. Coefficients are rounded first, so that a flat picture hashes to 0 rather than to noise.
    """
    small = _premultiplied(picture).resize((32, 32), Image.Resampling.BOX)
    pixels = np.asarray(small.convert("RGBA") if small.mode == "RGB" else _raw(small), np.float32)
    luma = (pixels[..., :3] + 255 - pixels[..., 3:]) @ np.array([0.299, 0.587, 0.114], np.float32)
    coefficients = np.rint(_cosines() @ luma @ _cosines().T / _FLAT).ravel()
    bits = np.packbits(coefficients > np.median(coefficients))
    thumb = pixels.reshape(_THUMB, 2, _THUMB, 2, 4).mean((1, 3))
    return bits.view(np.uint64)[0], np.rint(thumb).astype(np.uint8)


def _premultiplied(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        samples = np.asarray(picture, np.float32)
        white = 1.0 if picture.mode == "F" else 65535.0
        return Image.fromarray(np.clip(samples * (255 / white), 0, 255).astype(np.uint8)).convert("RGB")
    return picture.convert("RGBA").convert("RGBa") if picture.has_transparency_data else picture.convert("RGB")


def _raw(picture: Image.Image) -> NDArray[np.uint8]:
    return np.frombuffer(picture.tobytes(), np.uint8).reshape(picture.height, picture.width, 4)


@lru_cache(maxsize=1)
def _cosines() -> NDArray[np.float32]:
    """Rows 1 to 8 of the orthonormal 32-point DCT-II matrix."""
    n = np.arange(32)
    return (np.cos(np.pi / 32 * (n + 0.5) * np.arange(1, 9)[:, None]) / 4).astype(np.float32)


def difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How far thumbnails (N, 16, 16, 4) are apart pair by pair, (N,): the cell that differs most, in levels of 255.

    Both are first evened out in brightness and contrast. They are compared on white and, when both have alpha, on
    black too, so that white drawings differ. Infinite when the mean brightness differs by more than 40 levels.
    """
    a, b = first.astype(np.float32), second.astype(np.float32)
    both_clear = (a[..., 3].min((1, 2)) < 255) & (b[..., 3].min((1, 2)) < 255)
    x, y = (_on_both(picture, both_clear.reshape(-1, 1, 1, 1)) for picture in (a, b))
    mean_x, mean_y = x.mean((1, 2, 3), keepdims=True), y.mean((1, 2, 3), keepdims=True)
    contrast_x, contrast_y = x.std((1, 2, 3), keepdims=True) + 1, y.std((1, 2, 3), keepdims=True) + 1
    apart = np.abs((x - mean_x) / contrast_x - (y - mean_y) / contrast_y) * np.sqrt(contrast_x * contrast_y)
    worst = apart.mean(3).max((1, 2))
    return np.where(np.abs(mean_x - mean_y).ravel() > _SHIFT, np.inf, worst).astype(np.float32)


def _on_both(premultiplied: NDArray[np.float32], both_clear: NDArray[np.bool_]) -> NDArray[np.float32]:
    black = premultiplied[..., :3]
    white = black + 255 - premultiplied[..., 3:]
    return np.concatenate([white, np.where(both_clear, black, white)], -1)


def _leaks(prints: Mapping[str, _Prints], others: Mapping[str, _Prints]) -> list[Leak]:
    names = list(prints)
    inner = [(one, prints[one], two, prints[two]) for i, one in enumerate(names) for two in names[i + 1 :]]
    outer = [(one, prints[one], two, others[two]) for one in names for two in others]
    found = [leak for pair in inner + outer for leak in _between(*pair)]
    return sorted(found, key=lambda leak: (leak.bits, leak.levels, leak.second))


def _between(first_split: str, first: _Prints, second_split: str, second: _Prints) -> list[Leak]:
    return [
        Leak(
            first=first.names[i],
            first_split=first_split,
            second=second.names[j],
            second_split=second_split,
            bits=bits,
            levels=round(levels, 2),
        )
        for j, (i, bits, levels) in _nearest(first, second).items()
    ]


def _nearest(first: _Prints, second: _Prints, block: int = 64) -> dict[int, tuple[int, int, float]]:
    """Index in `second` -> (index in `first`, bits, levels) of its nearest near-same picture, where there is one."""
    best: dict[int, tuple[int, int, float]] = {}
    for start in range(0, len(second.hashes), block):
        bits = np.bitwise_count(second.hashes[start : start + block, None] ^ first.hashes)
        rows, columns = np.nonzero(bits <= NEAR_BITS)
        for part in range(0, len(rows), 4096):
            j, i = rows[part : part + 4096], columns[part : part + 4096]
            levels = difference(first.thumbs[i], second.thumbs[start + j])
            for k in np.flatnonzero(levels <= NEAR_LEVELS):
                near = (int(i[k]), int(bits[j[k], i[k]]), float(levels[k]))
                held = start + int(j[k])
                best[held] = min(best.get(held, near), near, key=lambda n: (n[1], n[2]))
    return best


def _crossings(records: Sequence[Record], splits: Sequence[str]) -> list[Crossing]:
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for record, split in zip(records, splits, strict=True):
        groups[record.group].setdefault(split, record.name)
    return [
        Crossing(group=group, splits=tuple(seen), names=tuple(seen.values()))
        for group, seen in sorted(groups.items())
        if len(seen) > 1
    ]


def render(report: Report, most: int = 20) -> str:
    """The report as plain text; lists end after `most` lines with the number left out."""
    filtered = f" ({report.filtered_out} more are filtered out)" if report.filtered_out else ""
    lines = [f"{report.path}: {_many(report.pictures, 'picture')}{filtered}"]
    for title in ("splits", "sizes", "modes", "licenses", "styles"):
        lines.append(f"  {title:<10}{_listed(getattr(report, title))}")
    lines.append(f"  {'captions':<10}{report.pictures - report.without_caption}, missing {report.without_caption}")
    lines += _section("unreadable", [f"{bad.name}: {bad.reason}" for bad in report.unreadable], most)
    lines += _section("leaks", [_leak_line(leak) for leak in report.leaks], most)
    crossings = [f"{c.group}: " + ", ".join(map("{} ({})".format, c.names, c.splits)) for c in report.crossings]
    return "\n".join(lines + _section("groups in several splits", crossings, most)) + "\n"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _listed(counts: Mapping[str, int], most: int = 8) -> str:
    shown = ", ".join(f"{value} {count}" for value, count in list(counts.items())[:most])
    return shown + (f", and {len(counts) - most} others" if len(counts) > most else "")


def _section(title: str, lines: Sequence[str], most: int) -> list[str]:
    rest = [f"  ... and {len(lines) - most} more"] if len(lines) > most else []
    return [f"{title}: {len(lines)}", *(f"  {line}" for line in lines[:most]), *rest]


def _leak_line(leak: Leak) -> str:
    distance = f"{_many(leak.bits, 'bit')}, {leak.levels:.1f} levels"
    return f"{leak.second} ({leak.second_split}) is near {leak.first} ({leak.first_split}): {distance}"
