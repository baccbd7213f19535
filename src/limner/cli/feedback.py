"""`limner feedback export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limner.cli import console
from limner.cli.options import Engine, Precision, Threads

if TYPE_CHECKING:
    from limner.server.ratings import Exported


def export(
    url: Annotated[str, typer.Argument(metavar="URL", help="Database of the server, as in sqlite:///feedback.db.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make: pictures and metadata.jsonl.")],
    *,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME", help="Zoo name or folder of the painter that was rated.")
    ] = "icons",
    min_rating: Annotated[
        float, typer.Option(min=1, max=5, metavar="N", help="Least mean rating of a picture, 1 to 5.")
    ] = 4,
    license: Annotated[
        str, typer.Option(metavar="NAME", help="Licence to write beside every picture, such as CC0-1.0.")
    ] = "",
    engine: Engine = "auto",
    precision: Precision = "int8",
    threads: Threads = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but the folder and errors.")] = False,
) -> None:
    """Paint what people rated well again, as a captioned folder that `limner train` learns from."""
    from limner.runtime.generate import Painter

    with console.extra("serve"):
        from limner.server import ratings

    store = ratings.Store(url, existing=True)
    painter = Painter.load(model, engine=engine, precision=precision, threads=threads)
    with console.progress("pictures", quiet) as bar:
        task = bar.add_task("painting", total=None)
        done = ratings.export(
            store,
            painter,
            out,
            least=min_rating,
            license=license,
            progress=lambda count, total: bar.update(task, completed=count, total=total),
        )
    if not quiet:
        console.log().print(_told(done))
    sys.stdout.write(f"{out}\n")


def _told(done: Exported) -> str:
    left_out = {
        "rated lower": done.low,
        "of another bundle of that name": done.other_bundle,
        "that the painter refuses today": done.refused,
    }
    parts = [f"{done.pictures} picture{'' if done.pictures == 1 else 's'}"]
    return ", ".join(parts + [f"{count} {why}" for why, count in left_out.items() if count])
