"""`limner evaluate`: quality."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from limner.cli import console
from limner.cli.options import Engine, Precision, Threads

if TYPE_CHECKING:
    from limner.evaluate.report import Row, Upscale


@dataclass(frozen=True)
class Subject:
    """An upscaler to score, and what computes it."""

    label: str
    scale: int
    engine: str
    precision: str
    upscale: Upscale
    channels: int = 3


def evaluate(
    names: Annotated[
        list[str], typer.Argument(metavar="BUNDLE_OR_RUN", help="Zoo names, bundle folders or run folders.")
    ],
    *,
    set: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Folder of test pictures, repeatable; else all of $LIMNER_DATA/sr/test."),
    ] = None,
    downsampler: Annotated[
        str, typer.Option(metavar="NAME", help="bicubic (antialiased, as MATLAB) or decimate (as cv2).")
    ] = "bicubic",
    engine: Engine = "auto",
    precision: Precision = "int8",
    threads: Threads = 0,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Painters: captioned pictures; else $LIMNER_DATA/icons.")
    ] = None,
    judges: Annotated[
        Path, typer.Option(metavar="DIR", help="Painters: what runs/judges.sh made, folders features and matcher.")
    ] = Path("out/runs/judges"),
    split: Annotated[
        str, typer.Option(metavar="NAME", help="Painters: validation, to tune on, or test, once.")
    ] = "validation",
    prompts: Annotated[int, typer.Option(metavar="N", min=16, help="Painters: at most so many of each kind.")] = 500,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the figures here; - for stdout.")] = None,
) -> None:
    """Score upscalers: PSNR and SSIM, on Y and on RGB, beside bicubic. A run folder is scored in float by torch.

    Painters: R-precision, own-KID, style and colour words, sharpness, diversity and copies, beside real pictures and
    retrieval of the nearest caption.
    """
    from limner.cli import scoring

    if scoring.are_painters(names):
        options = {"engine": engine, "precision": precision, "threads": threads}
        return scoring.score_painters(names, data, judges, split, prompts, options, json)
    from limner.evaluate import report, sets

    kind = sets.downsampler_named(downsampler)
    folders = [sets.open_set(folder) for folder in set or sets.default_sets()]
    subjects = [_subject(name, engine, precision, threads) for name in dict.fromkeys(names)]
    rows = {}
    with console.progress("pictures") as bar:
        for each in subjects:
            task = bar.add_task(each.label, total=sum(len(folder.files) for folder in folders))
            rows[each.label] = report.evaluate(
                each.upscale, folders, each.scale, kind, partial(bar.advance, task), each.channels
            )
    if json != "-":
        console.data().print(report.table(rows, f"{kind} input"))
    if json:
        console.write_json(json, [_entry(each, rows[each.label]) for each in subjects])


def _subject(name: str, engine: str, precision: str, threads: int) -> Subject:
    folder = Path(name)
    if (folder / "config.json").is_file() and not (folder / "manifest.json").is_file():
        with console.extra("train"):
            from limner.export.parity import torch_painter
        painter = torch_painter(folder)
        return Subject(name, painter.scale, "torch", "float", painter, painter.channels)
    from limner.runtime.painters import Upscaler

    upscaler = Upscaler.load(name, engine=engine, precision=precision, threads=threads)
    if upscaler.manifest.channels == 4:
        return Subject(name, upscaler.scale, engine, precision, upscaler.enlarge_premultiplied, 4)
    return Subject(name, upscaler.scale, engine, precision, upscaler.upscale)


def _entry(subject: Subject, rows: list[Row]) -> dict[str, Any]:
    from limner.evaluate.report import to_json

    about = {"name": subject.label, "engine": subject.engine, "precision": subject.precision}
    return about | {"rows": to_json(rows)}
