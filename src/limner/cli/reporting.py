"""`limner report` and `limner ladder`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from limner.cli import console
from limner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from limner.evaluate.sets import PictureSet
    from limner.export.ladder import Rung


def report(
    subject: Annotated[
        str, typer.Argument(metavar="BUNDLE_OR_SEARCH", help="Zoo name, bundle folder, or the --out of limner search.")
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="HTML page to write.")],
    picture: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Show this picture before and after. Repeatable.")
    ] = None,
    eval: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Score on these test pictures, show one. Repeatable.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="WORDS", help="Of a painter: paint this. Repeatable.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, metavar="N", help="Timed pictures per engine.")] = 20,
) -> None:
    """Write one HTML page: pictures with a slider, size, latency by engine, quality, profile, the Pareto plot."""
    from limner.evaluate import dossier, page
    from limner.evaluate.sets import open_set

    sets = [open_set(folder) for folder in eval or []]
    folder = Path(subject)
    if (folder / dossier.FRONT).is_file():
        page.write(out, dossier.of_search(folder, picture or []))
    else:
        with console.progress("rounds") as bar:
            task = bar.add_task("timing", total=repeats)
            text = dossier.of_bundle(
                subject,
                picture or [],
                sets,
                prompt or [],
                repeats,
                lambda done, total: bar.update(task, completed=done, total=total),
            )
        page.write(out, text)
    console.log().print(f"wrote {out}")


def ladder(
    names: Annotated[list[str], typer.Argument(metavar="BUNDLE", help="Zoo names or bundle folders.")],
    *,
    runs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run folders, named as the bundles: for the steps before packing."),
    ] = None,
    pruned: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Bundles of pruned runs, named as the bundles: measured beside them."),
    ] = None,
    eval: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Test pictures of upscalers. Repeatable.")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Captioned pictures, for painters.")] = None,
    judge: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Feature encoder that measures painters.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, metavar="N", help="Timed pictures per step and engine.")] = 20,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the figures here; - for stdout.")] = None,
) -> None:
    """What each step costs and gains: float, folded, pruned, int8 on every engine; bytes, ms and quality."""
    with console.extra("compress"):
        from dataclasses import asdict

        from limner.evaluate.sets import open_set
        from limner.export import ladder as steps
    sets = [open_set(folder) for folder in eval or []]
    rungs: list[steps.Rung] = []
    with console.progress("bundles") as bar:
        task = bar.add_task("measuring", total=len(names))
        climb = _Climb(runs, pruned, sets, data, judge, repeats, lambda text: bar.update(task, description=text))
        for name in names:
            rungs += climb(name)
            bar.advance(task)
    found = [asdict(rung) for rung in rungs]
    if json != "-":
        _print(found, markdown)
    if json:
        console.write_json(json, found)


class _Climb(NamedTuple):
    """The ladder of one bundle after the other."""

    runs: Path | None
    pruned: Path | None
    sets: Sequence[PictureSet]
    data: Path | None
    judge: Path | None
    repeats: int
    advance: Callable[[str], None]

    def __call__(self, name: str) -> list[Rung]:
        from limner import bundle
        from limner.export import ladder as steps

        opened = bundle.read(name)
        smaller = self.pruned / opened.manifest.name if self.pruned else None
        smaller = smaller if smaller and smaller.is_dir() else None
        if opened.manifest.task == "generate":
            if self.data is None or self.judge is None:
                raise UsageError(f"{name}: a painter is measured with --data DIR and --judge FOLDER.")
            return steps.painter_ladder(
                name, self.data, self.judge, repeats=self.repeats, advance=self.advance, pruned=smaller
            )
        run = self.runs / opened.manifest.name if self.runs else None
        return steps.upscaler_ladder(name, self.sets, run, self.repeats, self.advance, smaller)


ENGINES = ("torch", "openvino", "onnxruntime", "fused")
HEADS = ["bundle", "step", "parameters", "KB", *(f"ms {engine}" for engine in ENGINES)]
GAINS = ["of the yardstick", "quality", "faster", "smaller", "change"]


def rows(rungs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A line for each step of each bundle, under HEADS and GAINS: times by engine, the rest on the fastest of them.

    `rungs`: as `limner ladder --json` writes them.
    """
    steps = dict.fromkeys((rung["bundle"], rung["step"]) for rung in rungs)
    return [_row([rung for rung in rungs if (rung["bundle"], rung["step"]) == step]) for step in steps]


def _row(step: Sequence[Mapping[str, Any]]) -> list[str]:
    best = min(step, key=lambda rung: rung["ms"])
    times = {rung["engine"]: f"{rung['ms']:.1f}" for rung in step}
    size = str(best["parameters"]), f"{best['bytes'] / 1000:.1f}"
    quality = f"{best['quality']:.2f} {best['measure'].split(', ')[-1]}"
    gains = _times(best["faster"]), _times(best["smaller"]), _signed(best["change"], 2)
    named = best["bundle"], best["step"], *size, *(times.get(engine, "") for engine in ENGINES)
    return [*named, f"{best['ratio']:.2f}", quality, *gains]


def _print(rungs: Sequence[Mapping[str, Any]], markdown: bool) -> None:
    from rich.table import Table

    heads = [*HEADS, *GAINS]
    if markdown:
        print("\n".join("| " + " | ".join(line) + " |" for line in [heads, ["---"] * len(heads), *rows(rungs)]))
        return
    grid = Table(title="each step against the fastest of the step before", title_justify="left")
    for place, head in enumerate(heads):
        grid.add_column(head, justify="left" if place < 2 else "right")
    for row in rows(rungs):
        grid.add_row(*row)
    console.data().print(grid)


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def _signed(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:+.{digits}f}"
