"""`limner evaluate` and `limner bench`: quality and speed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limner.cli import console
from limner.cli.options import Engine, Precision, Threads
from limner.errors import LimnerError

if TYPE_CHECKING:
    from limner.evaluate.report import Upscale


@dataclass(frozen=True)
class Subject:
    """An upscaler to score."""

    label: str
    scale: int
    upscale: Upscale


def evaluate(
    names: Annotated[list[str], typer.Argument(metavar="BUNDLE_OR_RUN...", help="Zoo names, bundle or run folders.")],
    set: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Folder of test pictures, repeatable [default: $LIMNER_DATA/sr/test/*]."),
    ] = None,
    downsampler: Annotated[
        str, typer.Option(metavar="NAME", help="bicubic (antialiased, as MATLAB) or decimate (as cv2).")
    ] = "bicubic",
    engine: Engine = "openvino",
    precision: Precision = "int8",
    threads: Threads = 0,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the figures here; - for stdout.")] = None,
) -> None:
    """Score upscalers: PSNR and SSIM on Y and RGB, beside bicubic. A run folder is scored in torch."""
    from limner.evaluate import report, sets

    folders = [sets.open_set(folder) for folder in set or sets.default_sets()]
    made = sets.downsampler(downsampler)
    subjects = [_subject(name, engine, precision, threads) for name in names]
    results = {}
    with console.progress("pictures") as bar:
        for subject in subjects:
            task = bar.add_task(subject.label, total=sum(len(each.files) for each in folders))
            advance: Callable[[], None] = lambda task=task: bar.advance(task)  # noqa: E731
            results[subject.label] = report.evaluate(subject.upscale, folders, subject.scale, made, advance)
