"""The command line: one function per command. Heavy imports stay inside the commands, so that --help is instant."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from limner.cli import (
    batch,
    compress,
    data,
    feedback,
    measure,
    painting,
    reporting,
    searching,
    separating,
    serving,
    speed,
    text,
    training,
    upscaling,
    zoo,
)
from limner.cli.console import complain
from limner.errors import LimnerError, UsageError

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich's help pages would double the time of --help
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)
datasets = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look after training data.")
ratings = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look after what people thought of pictures.")

app.command("upscale")(upscaling.upscale)
app.command("generate")(painting.generate)
app.command("sheet")(painting.sheet)
app.command("batch")(batch.batch)
app.command("serve")(serving.serve)
app.command("models")(zoo.models)
app.command("info")(zoo.info)
app.command("evaluate")(measure.evaluate)
app.command("bench")(speed.bench)
app.add_typer(datasets, name="data")
app.add_typer(ratings, name="feedback")
ratings.command("export")(feedback.export)
datasets.command("check")(data.check)
datasets.command("caption")(data.caption)
datasets.command("shards")(data.shards)
app.command("train")(training.train)
app.command("blend")(training.blend)
app.command("pack")(training.pack)
app.command("compare-quantization")(compress.compare_quantization)
app.command("prune")(compress.prune)
app.command("separate")(separating.separate)
app.command("search")(searching.search)
app.command("report")(reporting.report)
app.command("ladder")(reporting.ladder)
app.command("pack-text")(text.pack_text)


def _version(asked: bool) -> None:
    if asked:
        from limner import __version__

        sys.stdout.write(f"limner {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train, compress and serve small image generators that answer in milliseconds on an ordinary CPU."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; always ends in SystemExit: 0, 1 for a failure, 2 for wrong usage, 130 when interrupted."""
    try:
        app(arguments, prog_name="limner")
    except LimnerError as error:
        complain(str(error))
        sys.exit(2 if isinstance(error, UsageError) else 1)
