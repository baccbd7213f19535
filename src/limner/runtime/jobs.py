"""The batch job behind `limner upscale`: which pictures, whereto, and a pipeline that goes on after an error."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from limner import images
from limner.errors import LimnerError, UsageError, one_of

PIPE = Path("-")
READABLE = (*(suffix for form in images.FORMATS.values() for suffix in form.suffixes), ".gif")
WRITABLE = READABLE[:-1]
ENCODERS = min(4, os.cpu_count() or 1)
AHEAD = 1  # pictures decoded while another is painted
PENDING_BYTES = 768 * 2**20  # of painted pictures that wait for their encoder; one picture may be larger

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Item:
    """One picture to make. `PIPE` as source is stdin, as target stdout; `format` is a key of images.FORMATS."""

    source: Path
    target: Path
    format: str


@dataclass(frozen=True)
class Result:
    """What became of an item; `reason` is the sentence that tells why it failed."""

    item: Item
    status: Status
    reason: str = ""


@dataclass
class Summary:
    """Results by status, each list in the order in which they came."""

    done: list[Result] = field(default_factory=list)
    skipped: list[Result] = field(default_factory=list)
    failed: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        {"done": self.done, "skipped": self.skipped, "failed": self.failed}[result.status].append(result)


# --------------------------------------------------------------------------------------------------------- planning

_Found = tuple[Path, Path]  # a picture, and its path below the input that named it


def plan(inputs: Sequence[str], out: str | None = None, *, tag: str = "", format: str | None = None) -> list[Item]:
    """Items for `inputs`: files, folders (searched recursively), glob patterns, `-` for stdin.

    `out`: a folder (the structure below an input folder, or below a pattern's fixed part, is kept), a file for a lone
    picture, `-` for stdout, or None for `<stem><tag>.<suffix>` beside the input (stdout for stdin). `format` sets the
    suffix, which else is the input's own where limner writes it and .png where not; stdout gets PNG unless told.
    Without `out`, pictures that an earlier run made of other inputs are left out, so that a folder can be done again.

    Raises UsageError when an output is an input or two inputs would become one output, LimnerError for a folder
    or pattern without pictures. A missing file is left to `run`, which reports it and goes on.
    """
    suffix = None if format is None else _suffix_of(format)
    found = _unique(each for word in inputs for each in _find(word, out))
    if out is None:
        items = _without_products([_item(source, _beside(source, tag, suffix), suffix) for source, _ in found])
    elif _is_folder(out, inputs):
        items = [_item(source, _below(Path(out), source, path, suffix), suffix) for source, path in found]
    else:
        items = [_item(source, _file(out, suffix), suffix) for source, _ in found]
    _check(items)
    return items


def _suffix_of(format: str) -> str:
    suffix = f".{format.lower().removeprefix('.')}"
    if suffix not in WRITABLE:
        raise one_of("format", format, tuple(images.FORMATS))
    return suffix


def _find(word: str, out: str | None) -> list[_Found]:
    path = Path(word)
    if path != PIPE and path.is_dir():
        found = _search(path, "**/*", out)
    elif _is_pattern(word):
        found = _match(path, out)
    else:
        return [(path, Path(path.name))]
    if not found:
        raise LimnerError(f"{word}: no pictures there; limner reads {', '.join(READABLE)} files.")
    return found


def _is_pattern(word: str) -> bool:
    return _has_wildcard(word) and not Path(word).exists()


def _has_wildcard(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _match(pattern: Path, out: str | None) -> list[_Found]:
    depth = next(i for i, part in enumerate(pattern.parts) if _has_wildcard(part))
    try:
        return _search(Path(*pattern.parts[:depth]), str(Path(*pattern.parts[depth:])), out)
    except ValueError as error:
        raise UsageError(f"{pattern}: is not a pattern ({error}); write ** only as a folder of its own.") from None


def _search(root: Path, wild: str, out: str | None) -> list[_Found]:
    """Pictures below `root`, but for hidden ones and those in an output folder inside it."""
    results = None if out is None else _real(Path(out))
    inside = results is not None and _real(root) in results.parents
    found = ((path, path.relative_to(root)) for path in sorted(root.glob(wild)))
    return [
        (path, relative)
        for path, relative in found
        if relative.suffix.lower() in READABLE
        and not any(part.startswith(".") for part in relative.parts)
        and path.is_file()
        and not (inside and results in _real(path).parents)
    ]


def _unique(found: Iterable[_Found]) -> list[_Found]:
    """A file that is named twice is one picture."""
    kept: dict[Path, _Found] = {}
    for source, relative in found:
        kept.setdefault(_identity(source), (source, relative))
    return list(kept.values())


def _identity(path: Path) -> Path:
    return path if path == PIPE else _real(path)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _is_folder(out: str, inputs: Sequence[str]) -> bool:
    """Whether -o names a folder. A file, or stdout, needs one input that is one picture."""
    if out != "-" and (out.endswith(("/", os.sep)) or Path(out).is_dir()):
        return True
    lone = len(inputs) == 1 and not Path(inputs[0]).is_dir() and not _is_pattern(inputs[0])
    if not lone and (out == "-" or Path(out).suffix.lower() in WRITABLE):
        raise UsageError(f"-o {out}: one output for several inputs; give a folder, its name ending in '/'.")
    return not lone or (out != "-" and not Path(out).suffix)


def _item(source: Path, target: Path, suffix: str | None) -> Item:
    return Item(source, target, images.format_of(f"stdout{suffix or '.png'}" if target == PIPE else target))


def _beside(source: Path, tag: str, suffix: str | None) -> Path:
    return PIPE if source == PIPE else source.with_name(f"{source.stem}{tag}{suffix or _kept_suffix(source)}")


def _below(folder: Path, source: Path, relative: Path, suffix: str | None) -> Path:
    if source == PIPE:
        raise UsageError(f"-o {folder}: a picture from stdin has no name; give an output file, or leave out -o.")
    return folder / relative.with_name(relative.stem + (suffix or _kept_suffix(source)))


def _file(out: str, suffix: str | None) -> Path:
    path = Path(out)
    if path != PIPE and suffix and images.format_of(path) != images.format_of(f"stdout{suffix}"):
        raise UsageError(f"-o {out}: its suffix does not go with --format {suffix[1:]}; leave one of them out.")
    return path


def _kept_suffix(source: Path) -> str:
    return source.suffix if source.suffix.lower() in WRITABLE else ".png"


def _without_products(items: list[Item]) -> list[Item]:
    makers = {_identity(item.target): item.source for item in items if item.target != PIPE}
    return [item for item in items if makers.get(_identity(item.source), item.source) == item.source]


def _check(items: Sequence[Item]) -> None:
    sources = {_identity(item.source) for item in items if item.source != PIPE}
    makers: dict[Path, Path] = {}
    for item in items:
        key = _identity(item.target)
        if key in sources:
            raise UsageError(f"{item.target}: the output would replace an input; choose another -o.")
        if key in makers:
            first, second = makers[key], item.source
            raise UsageError(f"{first} and {second} would both become {item.target}; rename one or run them apart.")
        makers[key] = item.source


# ---------------------------------------------------------------------------------------------------------- running


def run(
    items: Iterable[Item],
    upscale: Callable[[images.Picture], images.Picture],
    *,
    quality: int = 90,
    overwrite: bool = False,
    max_pixels: int = images.MAX_PIXELS,
    report: Callable[[Result], None] = lambda result: None,
) -> Summary:
    """Make every item; the next picture is decoded, and earlier ones are encoded, while `upscale` paints one.

    An item whose target exists is skipped unless `overwrite`. One that fails is reported with its reason, and the
    others go on. `report` is called from this thread. A target appears whole or not at all, also when the job is
    interrupted: pictures already with an encoder are then finished, all others dropped.
    """
    return _Pipeline(upscale, quality, overwrite, max_pixels, report).run(items)


class _Pipeline:
    def __init__(
        self,
        upscale: Callable[[images.Picture], images.Picture],
        quality: int,
        overwrite: bool,
        max_pixels: int,
        report: Callable[[Result], None],
    ) -> None:
        self.upscale, self.quality, self.overwrite = upscale, quality, overwrite
        self.max_pixels, self.report = max_pixels, report
        self.reader, self.writers = ThreadPoolExecutor(1), ThreadPoolExecutor(ENCODERS)
        self.writing: deque[tuple[Item, Future[None], int]] = deque()
        self.summary = Summary()

    def run(self, items: Iterable[Item]) -> Summary:
        with self.reader, self.writers:
            try:
                for item, decoded in self._decoded(items):
                    self._paint(item, decoded)
                self._drain()
            except BaseException:
                self.reader.shutdown(wait=False, cancel_futures=True)
                self.writers.shutdown(wait=False, cancel_futures=True)
                raise
        return self.summary

    def _decoded(self, items: Iterable[Item]) -> Iterator[tuple[Item, Future[images.Picture]]]:
        ahead: deque[tuple[Item, Future[images.Picture]]] = deque()
        for item in items:
            if not self.overwrite and item.target != PIPE and item.target.exists():
                self._settle(Result(item, "skipped"))
                continue
            # stdin is read here: a thread that waits for it could not be interrupted.
            source = sys.stdin.buffer.read() if item.source == PIPE else item.source
            ahead.append((item, self.reader.submit(self._decode, item, source)))
            if len(ahead) > AHEAD:
                yield ahead.popleft()
        while ahead:
            yield ahead.popleft()

    def _decode(self, item: Item, source: Path | bytes) -> images.Picture:
        if item.target != PIPE:
            _check_folder(item.target)
        return images.decode(source, max_pixels=self.max_pixels)

    def _paint(self, item: Item, decoded: Future[images.Picture]) -> None:
        try:
            picture = decoded.result()
            self._drain(ENCODERS, PENDING_BYTES)
            painted = self.upscale(picture)
        except Exception as error:
            self._settle(Result(item, "failed", _reason(item, error)))
        else:
            weight = painted.pixels.nbytes + (0 if painted.alpha is None else painted.alpha.nbytes)
            self.writing.append((item, self.writers.submit(self._encode, item, painted), weight))

    def _encode(self, item: Item, picture: images.Picture) -> None:
        if item.target == PIPE:
            sys.stdout.buffer.write(images.encode(picture, item.format, quality=self.quality))
            sys.stdout.buffer.flush()
            return
        item.target.parent.mkdir(parents=True, exist_ok=True)
        images.write(picture, item.target, format=item.format, quality=self.quality)

    def _drain(self, count: int = 0, weight: int = 0) -> None:
        """Settle finished pictures, and wait until at most `count` of `weight` bytes in all are being encoded."""
        while self.writing and (
            self.writing[0][1].done() or len(self.writing) > count or sum(size for *_, size in self.writing) > weight
        ):
            item, written, _ = self.writing.popleft()
            self._settle(_outcome(item, written))

    def _settle(self, result: Result) -> None:
        self.summary.add(result)
        self.report(result)


def _check_folder(target: Path) -> None:
    """Fail before the work rather than after it."""
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise LimnerError(f"{target}: {folder} is not a folder that can be written to; choose another -o.")


def _outcome(item: Item, written: Future[None]) -> Result:
    try:
        written.result()
    except BrokenPipeError:  # whoever read stdout has gone, so nobody waits for the rest
        raise
    except Exception as error:
        return Result(item, "failed", _reason(item, error))
    return Result(item, "done")


def _reason(item: Item, error: Exception) -> str:
    if isinstance(error, LimnerError):
        sentence = str(error)
        named = str(item.source) in sentence or str(item.target) in sentence
        return sentence if named else f"{item.source}: {sentence}"
    if isinstance(error, OSError):
        return f"{item.target}: cannot be written ({error.strerror or error}); choose another -o."
    if isinstance(error, MemoryError):
        return f"{item.source}: not enough memory for the result; ask for a smaller size."
    return f"{item.source}: could not be upscaled ({type(error).__name__}: {error}); please report this."
