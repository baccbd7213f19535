"""`limner search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from limner.cli import console
from limner.cli.options import Engine, Set
from limner.errors import LimnerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from limner.compress.search import Point
    from limner.config import RunConfig


def search(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="The upscaler's recipe that trials vary.")],
    *,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Training pictures: a folder, zips or shards.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Trials, front, plots and the SQLite file.")],
    eval: Annotated[list[Path], typer.Option(metavar="DIR", help="Test pictures that quality is measured on.")],
    trials: Annotated[int, typer.Option(min=0, metavar="N", help="Further trials; 0 only reports.")] = 20,
    images: Annotated[int, typer.Option(min=1, metavar="N", help="Crops that each trial learns from.")] = 20_000,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B", help="Values of a key, as in model.width=32,48; KEY= alone fixes it. Repeatable."
        ),
    ] = None,
    set: Set = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Database of many workers; else OUT/study.sqlite.")
    ] = None,
    study: Annotated[str | None, typer.Option(metavar="NAME", help="Name in the database; else the recipe's.")] = None,
    most_ratio: Annotated[
        float | None, typer.Option(metavar="R", help="Do not train what takes longer than R yardsticks.")
    ] = None,
    engine: Engine = "auto",
    seed: Annotated[int | None, typer.Option(metavar="N", help="Of the sampler; else another one each time.")] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the points here; - for stdout.")] = None,
) -> None:
    """Search networks by quality, latency and size. The same command resumes; run it again elsewhere to help."""
    from limner.cli.training import resolve

    with console.extra("compress"):
        from limner.compress import search as studies
        from limner.export import trials as runs
    base = resolve(recipe, None, set or [])
    if base.task != "upscale":
        raise UsageError(f"recipe {recipe!r} paints; search tunes upscalers so far.")
    wanted, sets = studies.parse_space(space or [], base), tuple(eval)
    plan = runs.Search(base, wanted, data, sets, out, images, engine=engine, most_ratio=most_ratio)
    _check(base, data, eval)
    out.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{out.resolve() / 'study.sqlite'}"
    opened = studies.open_study(url, study or base.name, plan.facts(), seed)
    studies.propose_base(opened, base, plan.space)
    with console.progress("trials") as bar:
        task = bar.add_task("searching", total=trials)

        def one(trial: Any) -> studies.Figures:
            try:
                return runs.objective(plan, opened, trial)
            except LimnerError as error:
                console.log().print(f"trial {trial.number} failed: {error}")
                raise

        studies.run(opened, one, trials, lambda: bar.advance(task))
    found = studies.points(opened)
    _conclude(base, found, out)
    if json != "-":
        console.data().print(_table(found, ", ".join(f"{n} {state}" for state, n in studies.counts(opened).items())))
    if json:
        console.write_json(json, entries(found))


def _check(base: RunConfig, data: Path, folders: Sequence[Path]) -> None:
    """Fail before the first hour of training, not after it, and not in every trial anew."""
    from limner.data.records import load_split
    from limner.evaluate.sets import open_set

    load_split(data, "train", base.data)
    for folder in folders:
        open_set(folder)


def _conclude(base: RunConfig, found: Sequence[Point], out: Path) -> None:
    from limner.compress import search as studies
    from limner.evaluate import page

    if not found:
        console.log().print("no trial has finished yet.")
        return
    studies.write_recipes(base, found, out / "front")
    studies.plot(found, out / "front.png")
    page.write(out / "front.html", page.of_search(base.name, entries(found)))
    console.write_json(str(out / "front.json"), entries(found))
    console.log().print(f"recipes in {out / 'front'}, plots in {out / 'front.png'} and {out / 'front.html'}")


def entries(found: Sequence[Point]) -> list[dict[str, Any]]:
    """Points as plain data."""
    return [
        {"trial": each.number, "front": each.best, "ms": each.ms, "parameters": each.parameters}
        | each.figures._asdict()
        | each.settings
        for each in found
    ]


def _table(found: Sequence[Point], title: str) -> Table:
    from rich.table import Table

    grid = Table("trial", "front", title=f"trials: {title or 'none'}", title_justify="left")
    for heading in ("dB", "p50 ms", "ratio", "KB", "parameters"):
        grid.add_column(heading, justify="right")
    grid.add_column("settings")
    for point in found:
        figures = f"{point.figures.quality:.3f}", f"{point.ms:.2f}", f"{point.figures.ratio:.3f}"
        sizes = f"{point.figures.bytes / 1000:.1f}", str(point.parameters)
        settings = ", ".join(f"{key.partition('.')[2]}={value}" for key, value in point.settings.items())
        grid.add_row(str(point.number), "*" if point.best else "", *figures, *sizes, settings)
    return grid
