"""The batch job behind `limner upscale`: which pictures, whereto, and a pipeline that goes on after an error."""

from __future__ import annotations

import glob
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from limner import images
from limner.errors import LimnerError, UsageError, one_of

PIPE = Path("-")
IN_FLIGHT = 192 * 2**20  # output pixels being decoded, painted or encoded at one time; one picture is always let in
DECODERS = 2

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Item:
    """One picture to make. `PIPE` as source is stdin, as target stdout."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Result:
    """What became of an item; `reason` is one sentence when it failed."""

    item: Item
    status: Status
    reason: str = ""


@dataclass
class Summary:
    """Results by status, in the order in which they came."""

    done: list[Result] = field(default_factory=list)
    skipped: list[Result] = field(default_factory=list)
    failed: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        getattr(self, result.status).append(result)


def plan(inputs: Sequence[str], out: str | None = None, *, tag: str, format: str | None = None) -> list[Item]:
    """Items for `inputs`: files, folders (searched recursively), glob patterns, `-` for stdin.

    `out`: a folder (the structure below an input folder or a pattern's fixed part is kept), a file for a lone input,
    `-` for stdout, or None for `<stem><tag>.<suffix>` beside the input. `format` replaces the suffix, which else is the
    input's own where it can be written. What an earlier run made of another input is left out.
    Raises UsageError when an output is an input, or when two inputs would become one output.
    """
    found = _unique(each for word in inputs for each in _find(word, out))
    if out is None:
        items = [Item(source, _beside(source, tag, format)) for source, _ in found]
        made = {_identity(item.target) for item in items}
        items = [item for item in items if _identity(item.source) not in made]
    elif _is_folder(out, inputs):
        items = [Item(source, _below(Path(out), source, relative, format)) for source, relative in found]
    else:
        _writable(out, format)
        items = [Item(source, Path(out)) for source, _ in found]
    _check(items)
    return items


Found = tuple[Path, Path]  # a picture, and its path below the input that named it


def _find(word: str, out: str | None) -> Iterator[Found]:
    folder = Path(word)
    if word != "-" and folder.is_dir():
        yield from _walk(folder, out)
    elif glob.has_magic(word) and not folder.exists():
        yield from _match(word)
    else:
        yield folder, Path(folder.name)


def _walk(folder: Path, out: str | None) -> Iterator[Found]:
    """Readable files below `folder`, but for hidden ones and for an output folder inside it."""
    empty = True
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _same(Path(here, name), out))
        for name in sorted(names):
            path = Path(here, name)
            if not name.startswith(".") and images.readable(path):
                empty = False
                yield path, path.relative_to(folder)
    if empty:
        raise LimnerError(f"{folder}: no pictures in it; limner reads {', '.join(images.READABLE)}.")


def _match(pattern: str) -> Iterator[Found]:
    parts = Path(pattern).parts
    fixed = Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    files = [path for path in matches if path.is_file() and images.readable(path)]
    if not files:
        raise LimnerError(f"{pattern}: no picture matches; check the pattern, and quote it if the shell expands it.")
    yield from ((path, path.relative_to(fixed)) for path in files)


def _unique(found: Iterable[Found]) -> list[Found]:
    """The same file named twice is one picture."""
    return list({_identity(source): (source, relative) for source, relative in reversed([*found])}.values())[::-1]


def _identity(path: Path) -> str:
    return str(path) if path == PIPE else os.path.realpath(path)


def _same(path: Path, other: str | None) -> bool:
    return other is not None and _identity(path) == _identity(Path(other))


def _is_folder(out: str, inputs: Sequence[str]) -> bool:
    """Whether -o names a folder; a file name needs one input that is one picture."""
    if out != "-" and (out.endswith(("/", os.sep)) or Path(out).is_dir()):
        return True
    lone = len(inputs) == 1 and not Path(inputs[0]).is_dir() and not _is_pattern(inputs[0])
    if out == "-" or images.writable(Path(out)):
        if not lone:
            raise UsageError(f"-o {out}: one output for several inputs; give a folder (end its name with '/').")
        return False
    if lone and Path(out).suffix:
        raise one_of("output format", Path(out).suffix, images.WRITABLE)
    return True


def _is_pattern(word: str) -> bool:
    return glob.has_magic(word) and not Path(word).exists()


def _suffix(source: Path, format: str | None) -> str:
    if format:
        return f".{format}"
    return source.suffix if images.writable(source) else ".png"


def _beside(source: Path, tag: str, format: str | None) -> Path:
    return PIPE if source == PIPE else source.with_name(f"{source.stem}{tag}{_suffix(source, format)}")


def _below(folder: Path, source: Path, relative: Path, format: str | None) -> Path:
    if source == PIPE:
        raise UsageError(f"-o {folder}: a picture from stdin has no name; give an output file, or leave out -o.")
    return folder / relative.with_suffix(_suffix(source, format))


def _writable(out: str, format: str | None) -> None:
    if out != "-" and format and images.format_of(Path(out)) != format:
        raise UsageError(f"-o {out}: its suffix does not fit --format {format}; change one of them.")


def _check(items: Sequence[Item]) -> None:
    sources = {_identity(item.source) for item in items} - {str(PIPE)}
    makers: dict[str, Path] = {}
    for item in items:
        key = _identity(item.target)
        if key in sources:
            raise UsageError(f"{item.target}: the output would replace an input; choose another -o.")
        if key in makers:
            raise UsageError(f"{makers[key]} and {item.source} would both become {item.target}; run them one by one.")
        makers[key] = item.source
