"""`limner generate` and `limner sheet`."""

from __future__ import annotations

import math
import re
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from limner.cli import console
from limner.cli.options import Engine, Precision, Threads
from limner.errors import LimnerError, UsageError

if TYPE_CHECKING:
    from limner.evaluate.sheets import Cell
    from limner.images import Picture
    from limner.runtime.generate import Painter, Pixels, Request
    from limner.runtime.safety import Level

MODEL = "icons"
CHUNK = 32  # pictures painted together
LONGEST_NAME = 60  # characters of a prompt in a file name

Model = Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="Zoo name or bundle folder.")]


def generate(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT...", help="What to paint; - reads prompts from stdin, one a line."),
    ] = None,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Also the prompts in this text file, one a line.")
    ] = None,
    n: Annotated[int, typer.Option("-n", metavar="N", help="Pictures per prompt, seeds counted up.")] = 1,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the first picture; else drawn.")] = None,
    style: Annotated[str | None, typer.Option(metavar="NAME", help="A style that `limner info` lists.")] = None,
    negative: Annotated[
        str | None, typer.Option(metavar="PROMPT", help="What not to paint: turns the text away from it.")
    ] = None,
    size: Annotated[int | None, typer.Option(metavar="N", help="Side in pixels: 64, 128 or 256.")] = None,
    grid: Annotated[bool, typer.Option("--grid", help="All pictures in one file.")] = False,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="OUT", help="Folder, file or - for stdout.", show_default=False)
    ] = ".",
    format: Annotated[
        str | None, typer.Option("--format", "-f", metavar="NAME", help="png (default), webp, jpeg, tiff or avif.")
    ] = None,
    model: Model = MODEL,
    engine: Engine = "auto",
    precision: Precision = "int8",
    threads: Threads = 0,
    safety: Annotated[str, typer.Option(metavar="LEVEL", help="Prompt filter: off, low or auto.")] = "auto",
    record_prompt: Annotated[
        bool, typer.Option("--record-prompt", help="Write the prompt into the files, beside model and seed.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of paths.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but paths and errors.")] = False,
) -> None:
    """Paint pictures from prompts, with transparency. A prompt that cannot be painted stops only itself."""
    texts = list(_texts(prompts or [], file))
    _refuse_terminal(out, json)
    from limner.runtime.generate import Painter

    start = time.perf_counter()
    painter = Painter.load(model, engine=engine, precision=precision, threads=threads)
    asked = _asked(painter, texts, n, seed, negative, style, size, cast("Level", safety), quiet)
    files = _Files(out, format, grid, overwrite)
    targets = files.plan(asked.requests)
    if asked.requests:
        painter.warm((min(CHUNK, len(asked.requests)),), () if size is None else (size,))
    session = _Session(painter, files, record_prompt, loaded=time.perf_counter() - start)
    session.paint(asked.requests, targets, quiet)
    _print(session, asked, json)
    if not quiet:
        console.log().print(session.timing())
    if asked.failed:
        raise typer.Exit(1)


# ------------------------------------------------------------------------------------------------------------ asking


@dataclass
class _Asked:
    """What is to be painted, a prompt's pictures one after the other, and what cannot be: (prompt, reason)."""

    requests: list[Request] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


def _texts(words: Sequence[str], file: Path | None) -> Iterator[str]:
    if not words and file is None:
        raise UsageError("there is no prompt: describe a picture, as in limner generate 'a red apple', or give --file.")
    for word in words:
        if word != "-":
            yield word
            continue
        if sys.stdin.isatty():
            raise UsageError("- reads prompts from a pipe, not from the keyboard: give them as arguments.")
        yield from _lines("stdin", sys.stdin.buffer.read())
    if file is not None:
        try:
            yield from _lines(str(file), file.read_bytes())
        except OSError as error:
            raise LimnerError(f"{file}: cannot be read ({error.strerror}); check its name.") from None


def _lines(name: str, data: bytes) -> list[str]:
    try:
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise LimnerError(f"{name}: is not UTF-8 text (byte {error.start + 1}); give one prompt a line.") from None
    found = [line for line in lines if line]
    if not found:
        raise LimnerError(f"{name}: holds no prompt; write one a line.")
    return found


def _refuse_terminal(out: str, json: bool) -> None:
    if out != "-":
        return
    if json:
        raise UsageError("--json and -o - would both go to stdout: write the picture to a file.")
    if sys.stdout.isatty():
        raise UsageError("a picture would go to the terminal: send stdout to a file, or give -o.")


def _asked(
    painter: Painter,
    texts: Sequence[str],
    n: int,
    seed: int | None,
    negative: str | None,
    style: str | None,
    size: int | None,
    moderation: Level,
    quiet: bool,
) -> _Asked:
    """A lone prompt that cannot be painted is an error; one among several is reported."""
    first = painter.requests("icon", n=n, seed=seed, negative=negative, style=style, size=size)[0].seed
    asked = _Asked()
    for text in texts:
        try:
            requests = painter.requests(text, n=n, seed=first, negative=negative, style=style, size=size)
            painter.refuse_unsafe(text, moderation)
        except LimnerError as error:
            if len(texts) == 1:
                raise
            asked.failed.append((text, str(error)))
            console.complain(f"{text[:60]!r}: {error}")
            continue
        asked.requests += requests
        for warning in [] if quiet else painter.warnings(text):
            console.log().print(f"warning: {text[:60]!r}: {warning}", markup=False)
    return asked


# ----------------------------------------------------------------------------------------------------------- writing


class _Files:
    """Where pictures go and as what."""

    def __init__(self, out: str, format: str | None, grid: bool, overwrite: bool) -> None:
        from limner.runtime.jobs import WRITABLE

        self.out, self.grid, self.overwrite = out, grid, overwrite
        self.suffix = f".{(format or 'png').lower().removeprefix('.')}"
        if self.suffix not in WRITABLE:
            from limner import images
            from limner.errors import one_of

            raise one_of("format", str(format), tuple(images.FORMATS))
        named = out != "-" and not out.endswith("/") and not Path(out).is_dir()
        self.lone = out == "-" or (named and Path(out).suffix.lower() in WRITABLE)
        if self.lone and format and out != "-":
            self._check_suffix(format)

    def _check_suffix(self, format: str) -> None:
        from limner import images

        if images.format_of(self.out) != images.format_of(f"named{self.suffix}"):
            raise UsageError(f"-o {self.out}: its suffix does not go with --format {format}; leave one of them out.")

    def plan(self, requests: Sequence[Request]) -> list[Path]:
        """A path for every picture; one in all for a grid. Raises UsageError for a file that is there already."""
        names = [_name(request) for request in requests]
        if self.grid:
            names = [f"{name}-grid" for name in names[:1]]
        if self.lone and len(names) > 1:
            raise UsageError(f"-o {self.out}: one file for {len(names)} pictures; give a folder, or add --grid.")
        if self.lone:
            targets = [Path(self.out)] * len(names)
        else:
            targets = [Path(self.out) / f"{name}{self.suffix}" for name in _distinct(names)]
        self._check_free(targets)
        return targets

    def _check_free(self, targets: Sequence[Path]) -> None:
        there = next((path for path in targets if str(path) != "-" and path.exists()), None)
        if there is not None and not self.overwrite:
            raise UsageError(f"{there}: exists; choose another --seed or -o, or add --overwrite.")

    def write(self, picture: Picture, target: Path) -> None:
        from limner import images

        if str(target) == "-":
            sys.stdout.buffer.write(images.encode(picture, self.suffix))
            sys.stdout.buffer.flush()
            return
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LimnerError(f"{target.parent}: cannot be made ({error.strerror}); choose another -o.") from None
        images.write(picture, target)


def _name(request: Request) -> str:
    """`a-red-apple-flat-7`: the prompt's letters and digits, the style and the seed."""
    plain = unicodedata.normalize("NFC", request.prompt).lower()
    words = re.sub(r"[\W_]+", "-", plain).strip("-")[:LONGEST_NAME].rstrip("-")
    return "-".join([words, *([request.style] if request.style else []), str(request.seed)])


def _distinct(names: Sequence[str]) -> list[str]:
    """Prompts that differ in punctuation alone would have one name: later ones are numbered."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return result


# ---------------------------------------------------------------------------------------------------------- painting


@dataclass
class _Session:
    """One run of the command; times in seconds."""

    painter: Painter
    files: _Files
    record_prompt: bool
    loaded: float
    painted: float = 0.0
    pictures: int = 0
    written: list[tuple[Path, list[Request]]] = field(default_factory=list)

    def paint(self, requests: Sequence[Request], targets: Sequence[Path], quiet: bool) -> None:
        kept: list[Pixels] = []
        with console.progress("pictures", quiet) as bar:
            task = bar.add_task("painting", total=len(requests))
            for at in range(0, len(requests), CHUNK):
                chunk = requests[at : at + CHUNK]
                pixels = self._timed(chunk)
                if self.files.grid:
                    kept += pixels
                else:
                    self._write(chunk, pixels, targets[at : at + CHUNK])
                bar.advance(task, len(chunk))
        if kept:
            self._write_grid(requests, kept, targets[0])

    def _timed(self, requests: Sequence[Request]) -> list[Pixels]:
        start = time.perf_counter()
        pixels = self.painter.paint_batch(requests)
        self.painted += time.perf_counter() - start
        self.pictures += len(pixels)
        return pixels

    def _write(self, requests: Sequence[Request], pixels: Sequence[Pixels], targets: Sequence[Path]) -> None:
        for request, each, target in zip(requests, pixels, targets, strict=True):
            self.files.write(self.painter.picture(request, each, record_prompt=self.record_prompt), target)
            self.written.append((target, [request]))

    def _write_grid(self, requests: Sequence[Request], pixels: Sequence[Pixels], target: Path) -> None:
        """A row to a prompt; the pictures of a lone prompt in a square."""
        from limner.runtime.generate import grid

        same = sum(request.prompt == requests[0].prompt for request in requests)
        columns = same if same < len(requests) else math.ceil(len(requests) ** 0.5)
        sheet = self.painter.picture(requests[0], grid(pixels, columns), record_prompt=self.record_prompt)
        self.files.write(sheet, target)
        self.written.append((target, list(requests)))

    def timing(self) -> str:
        each = 1e3 * self.painted / max(1, self.pictures)
        count = f"{self.pictures} picture{'' if self.pictures == 1 else 's'}"
        return f"{count} in {1e3 * self.painted:.1f} ms, {each:.1f} ms each (loading {self.loaded:.1f} s)"


def _print(session: _Session, asked: _Asked, json: bool) -> None:
    if json:
        console.write_json("-", _report(session, asked))
    elif session.files.out != "-":
        for target, _ in session.written:
            sys.stdout.write(f"{target}\n")


def _report(session: _Session, asked: _Asked) -> dict[str, Any]:
    painter = session.painter
    return {
        "model": painter.manifest.name,
        "engine": painter.engine,
        "files": [
            {
                "path": str(target),
                "pictures": [
                    {
                        "prompt": request.prompt,
                        "seed": request.seed,
                        "style": request.style,
                        "negative": request.negative,
                        "size": request.size or painter.size,
                    }
                    for request in requests
                ],
            }
            for target, requests in session.written
        ],
        "failed": [{"prompt": prompt, "reason": reason} for prompt, reason in asked.failed],
        "ms": {"load": 1e3 * session.loaded, "paint": 1e3 * session.painted},
    }


# ------------------------------------------------------------------------------------------------------------ sheets


def sheet(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT...", help="What to paint; - reads prompts from stdin, one a line."),
    ] = None,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Also the prompts in this text file, one a line.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The PNG to write.")] = Path("sheet.png"),
    seeds: Annotated[int, typer.Option(min=1, max=100, metavar="N", help="Columns: this many seeds.")] = 4,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="The first seed.")] = 0,
    styles: Annotated[bool, typer.Option("--styles", help="Columns: every style of the model, one seed.")] = False,
    nearest: Annotated[
        str | None, typer.Option(metavar="DATA", help="Columns: the nearest training pictures in this data set.")
    ] = None,
    columns: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="One picture a prompt, labelled, in this many columns.")
    ] = None,
    zoom: Annotated[int, typer.Option(min=1, max=8, metavar="N", help="Enlargement, whole pixels.")] = 1,
    model: Model = MODEL,
    engine: Engine = "auto",
    precision: Precision = "int8",
    threads: Threads = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
) -> None:
    """Draw a contact sheet: prompts x seeds, prompts x styles, or pictures beside their nearest training pictures."""
    texts = list(_texts(prompts or [], file))
    if sum([styles, nearest is not None, columns is not None]) > 1:
        raise UsageError("--styles, --nearest and --columns exclude each other: give one.")
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; choose another -o, or add --overwrite.")
    from limner.evaluate import sheets
    from limner.runtime.generate import Painter, Request

    painter = Painter.load(model, engine=engine, precision=precision, threads=threads)
    if styles:
        asked = [[Request(text, seed, style=style) for text in texts] for style in painter.styles]
        drawn = sheets.styles_by_concepts(painter.styles, texts, _painted(painter, asked), zoom)
    elif columns:
        (pictures,) = _painted(painter, [[Request(text, seed) for text in texts]])
        drawn = sheets.grid(texts, pictures, columns, zoom)
    elif nearest is not None:
        (pictures,) = _painted(painter, [[Request(text, seed) for text in texts]])
        drawn = sheets.nearest_neighbours(texts, pictures, _neighbours(nearest, pictures), zoom)
    else:
        span = range(seed, seed + seeds)
        asked = [[Request(text, each) for text in texts] for each in span]
        drawn = sheets.prompts_by_seeds(texts, _painted(painter, asked), span, zoom)
    sheets.save(drawn, out)
    sys.stdout.write(f"{out}\n")


def _painted(painter: Painter, asked: Sequence[Sequence[Request]]) -> Pixels:
    """(K, N, H, W, 4) for K lists of N requests."""
    import numpy as np

    if not asked:
        raise UsageError(f"{painter.manifest.name}: names no styles; leave out --styles.")
    requests = [request for row in asked for request in row]
    painted: list[Pixels] = []
    with console.progress("pictures") as bar:
        task = bar.add_task("painting", total=len(requests))
        for at in range(0, len(requests), CHUNK):
            painted += painter.paint_batch(requests[at : at + CHUNK])
            bar.update(task, completed=len(painted))
    return np.stack(painted).reshape(len(asked), len(asked[0]), *painted[0].shape)


def _neighbours(data: str, pictures: Pixels) -> list[list[Cell]]:
    """The nearest training picture in pixels for each of (N, H, W, 4), with its caption."""
    from limner.config import DataConfig
    from limner.evaluate.painting import exhibits
    from limner.evaluate.probes import PixelIndex
    from limner.evaluate.sheets import Cell

    training = exhibits(data, "train", DataConfig())
    rows = PixelIndex(training.pictures).nearest(pictures).row
    return [[Cell(training.pictures[row], training.records[row].text)] for row in rows]
