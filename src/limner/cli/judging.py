"""Train the judges that measure painters: `python -m limner.cli.judging`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from limner.cli import console
from limner.errors import LimnerError, UsageError

Which = Literal["features", "matcher"]


def judge(
    which: Annotated[Which, typer.Argument(help="The feature encoders of own-KID, or the matcher of R-precision.")],
    *,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Captioned pictures, 64x64.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Judge folder; one that is there is resumed.")],
    text: Annotated[str, typer.Option(metavar="MODEL", help="Text bundle or Hugging Face model that reads captions.")],
    images: Annotated[int, typer.Option(min=1, help="Pictures to learn from, in all.")] = 150_000,
    seed: Annotated[int, typer.Option(min=0, help="Another gives another judge: how far do they agree?")] = 0,
    exclude_license: Annotated[
        list[str] | None, typer.Option(metavar="TERM", help="Terms that painters may not learn from. Repeatable.")
    ] = None,
) -> None:
    """Train a judge. The same command resumes where the last call stopped."""
    with console.extra("train"):
        import torch

        from limner.config import DataConfig
        from limner.evaluate import study
        from limner.evaluate.judges import JudgeConfig, embedding
    torch.set_num_threads(1)
    config = DataConfig(exclude_licenses=tuple(exclude_license or ()))
    records = study.chosen(which, data, config)
    lessons = study.lessons_of(which, records, embedding(text, out.parent), out.parent)
    with console.progress("pictures") as bar:
        task = bar.add_task(which, total=images)
        study.TRAINERS[which](
            lessons,
            JudgeConfig(images=images, seed=seed),
            out,
            lambda done, _: bar.update(task, completed=min(done, images)),
        )
    console.log().print(f"trained {out}")


def main() -> None:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(judge)
    try:
        app(prog_name="python -m limner.cli.judging")
    except LimnerError as error:
        console.complain(str(error))
        sys.exit(2 if isinstance(error, UsageError) else 1)


if __name__ == "__main__":
    main()
