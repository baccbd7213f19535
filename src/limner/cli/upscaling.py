"""`limner upscale`."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from limner.cli import console
from limner.cli.options import Engine, Precision, Threads, pixels
from limner.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

    from limner.runtime.jobs import Result, Summary


def upscale(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUTS", help="Files, folders, 'patterns/**/*.png', or - for stdin.", show_default=False
        ),
    ],
    *,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="OUT", help="Folder, file or - for stdout; else NAME-x4 beside the input."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="NAME", help="Zoo name or bundle folder; else photo-x4 (photo-x2 up to x2)."
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option("--scale", "-s", metavar="N", help="Enlarge by this factor; else by the model's own."),
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Exact size of the output, pixels.")] = None,
    width: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Width of the output, pixels; the height follows.")
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", "-f", metavar="NAME", help="png, jpeg, webp, tiff or avif.")
    ] = None,
    quality: Annotated[
        int, typer.Option("--quality", "-q", min=1, max=100, metavar="N", help="Of JPEG, WebP and AVIF.")
    ] = 90,
    strength: Annotated[
        float, typer.Option(min=0, max=1, metavar="N", help="1 is the network's picture, 0 is plain bicubic.")
    ] = 1.0,
    engine: Engine = "auto",
    precision: Precision = "int8",
    threads: Threads = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make again what is there.")] = False,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Refuse larger inputs; 200 million unless told.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Enlarge pictures. What is done is skipped, an error stops only its own picture."""
    wanted = _wanted(scale, size, width)
    _refuse_terminals(inputs, out)
    from limner import bundle, images
    from limner.runtime import jobs
    from limner.runtime.painters import Upscaler

    opened = bundle.read(model or ("photo-x2" if scale and scale <= 2 else "photo-x4"), bundle.UpscalerManifest)
    items = jobs.plan(inputs, out, tag=wanted.tag(opened.manifest.scale), format=format)
    upscaler = Upscaler.load(opened.folder, engine=engine, precision=precision, threads=threads)
    with console.progress("pictures", quiet) as bar:
        show = _Progress(bar, len(items))
        summary = jobs.run(
            items,
            partial(upscaler.upscale_picture, scale=scale, size=wanted.size, strength=strength, progress=show.tile),
            quality=quality,
            overwrite=overwrite,
            max_pixels=max_pixels or images.MAX_PIXELS,
            report=show.result,
        )
    _conclude(summary, quiet)


@dataclass(frozen=True)
class Wanted:
    """The size asked for: a factor, or (width, height) in pixels, or neither."""

    scale: float | None = None
    size: tuple[int, int | None] | None = None

    def tag(self, default: int) -> str:
        """What the name of an output beside its input ends in: -x4, -1920x1080 or -1920w."""
        if self.size is None:
            return f"-x{self.scale or default:g}"
        width, height = self.size
        return f"-{width}x{height}" if height else f"-{width}w"


def _wanted(scale: float | None, size: str | None, width: int | None) -> Wanted:
    if sum(each is not None for each in (scale, size, width)) > 1:
        raise UsageError("--scale, --size and --width exclude each other: give one.")
    if scale is not None and not 0 < scale < math.inf:
        raise UsageError(f"--scale {scale:g} is impossible: give a positive factor, such as 2 or 1.5.")
    if width is not None:
        return Wanted(size=(width, None))
    return Wanted(scale, None if size is None else pixels("--size", size))


def _refuse_terminals(inputs: list[str], out: str | None) -> None:
    if "-" in inputs and sys.stdin.isatty():
        raise UsageError("- reads a picture from a pipe, not from the keyboard: limner upscale - < in.png > out.png.")
    if (out == "-" or (out is None and "-" in inputs)) and sys.stdout.isatty():
        raise UsageError("a picture would go to the terminal: send stdout to a file, or give -o.")


class _Progress:
    """Pictures, and the tiles of the one being painted, on one bar; failures on lines of their own."""

    def __init__(self, bar: Progress, pictures: int) -> None:
        self.bar, self.settled, self.shown = bar, 0, 0.0
        self.task = bar.add_task("upscaling", total=pictures)

    def tile(self, done: int, total: int) -> None:
        self._show(self.settled + done / total)

    def result(self, result: Result) -> None:
        self.settled += 1
        self._show(self.settled)
        if result.reason:
            console.complain(result.reason, self.bar.console)

    def _show(self, pictures: float) -> None:
        # A picture is painted before it settles: without this the bar would step back when the next one begins.
        self.shown = max(self.shown, pictures)
        self.bar.update(self.task, completed=self.shown)


def _conclude(summary: Summary, quiet: bool) -> None:
    counts = {"done": summary.done, "skipped": summary.skipped, "failed": summary.failed}
    if not quiet:
        parts = [f"{len(results)} {status}" for status, results in counts.items() if results or status == "done"]
        hint = " (--overwrite makes them again)" if summary.skipped else ""
        console.log().print(", ".join(parts) + hint)
    if summary.failed:
        raise typer.Exit(1)
