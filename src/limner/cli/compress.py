"""`limner prune` and `limner compare-quantization`: make a trained network smaller, and see what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limner.cli import console
from limner.cli.options import Engine, Set

if TYPE_CHECKING:
    from limner.export.compare import Line, Measure


def prune(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of `limner train`.")],
    *,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Smaller run to make; one that is there is resumed.")],
    target_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="Time of one picture here, int8, one thread, to come down to.")
    ] = None,
    ratio: Annotated[
        float | None, typer.Option(metavar="R", help="Share of the work to take away, 0 to 1; default: prune.ratio.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Training pictures; default: where the run found them.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Pictures to train on; default: a quarter of the run's.")
    ] = None,
    engine: Engine = "auto",
    repeats: Annotated[int, typer.Option(min=1, metavar="N", help="Timed pictures of each size.")] = 30,
    prune_only: Annotated[
        bool, typer.Option("--prune-only", help="Stop before training; `limner train RUN/config.json` goes on.")
    ] = False,
) -> None:
    """Take blocks and channels out of a network until it is fast or small enough, then train what is left."""
    with console.extra("compress"):
        from limner.export.pruned import prune as shrink
    with console.progress("sizes") as bar:
        task = bar.add_task("pruning", total=None)
        record = shrink(
            run,
            out,
            target_ms=target_ms,
            ratio=ratio,
            images=images,
            engine=engine,
            repeats=repeats,
            advance=lambda: bar.advance(task),
        )
    costs = f"{record['before']:.4g} -> {record['after']:.4g} {record['unit']}"
    console.log().print(f"{out}: {costs}; pictures differ by {record['error']:.2f} last bits before training")
    if not prune_only:
        _train(run, out, data)


def _train(run: Path, out: Path, data: Path | None) -> None:
    from limner.compress.finetune import trained_on
    from limner.train.loop import train
    from limner.train.runs import read_config

    train(read_config(out), data or trained_on(run), out)


def compare_quantization(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of `limner train`.")],
    *,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the bundles go; default: RUN/compared.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Training pictures; default: where the run found them.")
    ] = None,
    eval: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Test pictures of upscalers. Repeatable.")
    ] = None,
    judge: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Feature encoder that measures painters.")
    ] = None,
    images: Annotated[
        int, typer.Option(min=0, metavar="N", help="Pictures seen in training through the rounding; 0: the run's.")
    ] = 0,
    adversarial: Annotated[
        float | None, typer.Option(metavar="W", help="Weight of the adversary; default: the run's, or 0.005.")
    ] = None,
    engine: Engine = "auto",
    repeats: Annotated[int, typer.Option(min=1, metavar="N", help="Timed pictures of each.")] = 20,
    set: Set = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the figures here; - for stdout.")] = None,
) -> None:
    """Round one run in four ways and compare: float, post-training, in training, in training with the adversary."""
    with console.extra("compress"):
        from dataclasses import asdict

        from limner.export.compare import compare
    measure = _measure(run, data, judge) if judge else None
    with console.progress("ways") as bar:
        task = bar.add_task("rounding", total=4)

        def advance(way: str) -> None:
            bar.update(task, description=way, advance=1)

        lines = compare(
            run,
            out or run / "compared",
            eval or [],
            data,
            measure=measure,
            images=images,
            weight=adversarial,
            engine=engine,
            repeats=repeats,
            overrides=set or [],
            advance=advance,
        )
    if json != "-":
        _print(lines)
    if json:
        console.write_json(json, [asdict(line) for line in lines])


def _measure(run: Path, data: Path | None, judge: Path) -> Measure:
    from limner.compress.finetune import trained_on
    from limner.export.compare import by_features
    from limner.train.runs import read_config

    return by_features(data or trained_on(run), judge, read_config(run).data)


def _print(lines: Sequence[Line]) -> None:
    from rich.table import Table

    figures = list(lines[0].figures)
    grid = Table(title="one thread; ms of one picture", title_justify="left")
    for place, head in enumerate(["rounded", "engine", "KB", "ms", "of the yardstick", *figures]):
        grid.add_column(head, justify="left" if place < 2 else "right", no_wrap=True)
    for line in lines:
        cells = f"{line.bytes / 1000:.0f}", f"{line.ms:.2f}", f"{line.ratio:.3f}"
        grid.add_row(line.way, line.engine, *cells, *(f"{line.figures[name]:.3f}" for name in figures))
    console.data().print(grid)
