"""`limner bench`: speed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limner.cli import console
from limner.cli.options import pixels
from limner.errors import LimnerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from limner.runtime.bench import Change, Row


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="BUNDLE", help="Zoo names or bundle folders; else the whole zoo.")
    ] = None,
    *,
    engine: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="openvino (default) or onnxruntime. Repeatable.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="int8 (default) or float. Repeatable.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=0, metavar="N", help="CPU threads, 1 by default; 0: all cores. Repeatable.")
    ] = None,
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of the input, pixels.")] = "160x90",
    repeats: Annotated[int, typer.Option(min=1, metavar="N", help="Timed pictures per configuration.")] = 30,
    memory: Annotated[
        bool, typer.Option("--memory", help="Measure peak memory, each in a process of its own.")
    ] = False,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the figures here; - for stdout.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the latencies into this PNG.")] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare with an earlier --json; slower ends in exit code 1.")
    ] = None,
) -> None:
    """Time upscalers, engines x precisions x threads, beside a plain network measured in the same rounds."""
    from limner import bundle
    from limner.runtime import bench as benches

    old = benches.read(compare) if compare else None
    chosen = names or bundle.zoo()
    if not chosen:
        raise UsageError("the zoo is empty: name the bundle folders to time.")
    with console.progress("rounds") as bar:
        task = bar.add_task("timing", total=repeats)
        rows = benches.bench(
            chosen,
            engine or ["openvino"],
            precision or ["int8"],
            threads or [1],
            size=pixels("--size", size),
            repeats=repeats,
            memory=memory,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    report = benches.report(rows)
    if json != "-":
        console.data().print(_times(rows))
    if json:
        console.write_json(json, report.model_dump(mode="json"))
    if plot:
        benches.plot(rows, plot)
    if old:
        _judge(benches.compare(old, report), str(compare))


def _times(rows: Sequence[Row]) -> Table:
    from rich.table import Table

    title = f"{rows[0].width}x{rows[0].height} in; yardstick {rows[0].yardstick_ms:.2f} ms"
    grid = Table("bundle", "engine", "precision", title=title, title_justify="left")
    for heading in ("threads", "p50 ms", "p95 ms", "ratio", "pictures/s", "MP/s out", "load ms", "peak MiB"):
        grid.add_column(heading, justify="right")
    for row in rows:
        speed = f"{row.p50_ms:.2f}", f"{row.p95_ms:.2f}", f"{row.ratio:.3f}", f"{row.pictures_per_s:.1f}"
        cost = f"{row.megapixels_per_s:.1f}", f"{row.load_ms:.0f}", "" if row.peak_mb is None else f"{row.peak_mb:.0f}"
        grid.add_row(row.bundle, row.engine, row.precision, str(row.threads), *speed, *cost)
    return grid


def _judge(changes: list[Change], earlier: str) -> None:
    """Tell every change on stderr. Raises LimnerError when something became slower."""
    for change in changes:
        row = change.new or change.old
        assert row is not None
        times = "" if change.ratio is None else f" ({change.ratio:.2f} times {earlier})"
        console.log().print(
            f"{row.bundle} {row.precision}, {row.engine}, threads {row.threads}: {change.verdict}{times}"
        )
    slower = sum(change.verdict == "slower" for change in changes)
    if slower:
        raise LimnerError(f"{slower} of {len(changes)} are slower than in {earlier}; measure again on a quiet machine.")
