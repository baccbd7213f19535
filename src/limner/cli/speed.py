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
    from limner.server.bench import ServerReport


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="BUNDLE", help="Zoo names or bundle folders; else the whole zoo.")
    ] = None,
    *,
    engine: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="openvino (default), onnxruntime or fused. Repeatable.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="int8 (default) or float. Repeatable.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=0, metavar="N", help="CPU threads, 1 by default; 0: all cores. Repeatable.")
    ] = None,
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of the input, pixels.")] = "160x90",
    batch: Annotated[
        list[int] | None, typer.Option(min=1, metavar="N", help="Of painters: pictures per call; 1 to 32. Repeatable.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, metavar="N", help="Timed pictures per configuration.")] = 30,
    memory: Annotated[
        bool, typer.Option("--memory", help="Measure peak memory, each in a process of its own.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also time the stages of what runs on the fused engine.")
    ] = False,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the figures here; - for stdout.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the latencies into this PNG.")] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare with an earlier --json; slower ends in exit code 1.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Time a server over the bare runtime; local starts one.")
    ] = None,
    clients: Annotated[int, typer.Option(min=1, metavar="N", help="With --server: at the same time.")] = 64,
    soak: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="With --server: at twice the capacity for so long.")
    ] = 0,
) -> None:
    """Time upscalers and painters, engines x precisions x threads, beside a plain network in the same rounds."""
    if server is not None:
        _bench_server(server, names, clients, soak, (threads or [0])[0], json)
        return
    from limner import bundle
    from limner.runtime import bench as benches
    from limner.runtime import paint_bench

    old = benches.read(compare) if compare else None
    upscalers, painters = _by_task(names or bundle.zoo())
    how = engine or ["auto"], precision or ["int8"], threads or [1]
    rows: list[Row] = []
    with console.progress("rounds") as bar:
        task = bar.add_task("timing", total=repeats)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if upscalers:
            shape = pixels("--size", size)
            rows += benches.bench(
                upscalers, *how, size=shape, repeats=repeats, memory=memory, profile=profile, progress=show
            )
        if painters:
            rows += paint_bench.bench(
                painters, *how, batches=batch or paint_bench.BATCHES, repeats=repeats, progress=show
            )
    report = benches.report(rows)
    if json != "-":
        _print(rows)
    if json:
        console.write_json(json, report.model_dump(mode="json"))
    if plot:
        benches.plot(rows, plot)
    if old:
        _judge(benches.compare(old, report), str(compare))


def _print(rows: Sequence[Row]) -> None:
    console.data().print(_times(rows))
    for row in rows:
        if row.stages:
            console.data().print(_profile(row))


def _bench_server(
    where: str, names: Sequence[str] | None, clients: int, soak: float, threads: int, json: str | None
) -> None:
    if names is not None and len(names) > 1:
        raise UsageError("--server times one painter: name one.")
    with console.extra("serve"):
        from limner.server import bench as benches
    with console.progress("steps") as bar:
        task = bar.add_task("starting", total=None)
        report = benches.bench(
            where,
            (names or ["icons"])[0],
            clients=clients,
            soak=soak,
            threads=threads,
            progress=lambda step: bar.update(task, description=step),
        )
    if json != "-":
        console.data().print(_server_figures(report))
    if json:
        console.write_json(json, report.model_dump(mode="json"))


def _server_figures(report: ServerReport) -> Table:
    from rich.table import Table

    grid = Table("", "value", title=f"{report.model} at {report.url}", title_justify="left")
    for name, part in report:
        if isinstance(part, float):
            grid.add_row(name, f"{part:.2f}")
        elif part is not None and not isinstance(part, str):
            for key, value in part:
                grid.add_row(f"{name}.{key}", f"{value:.2f}" if isinstance(value, float) else str(value))
    return grid


def _by_task(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The bundles that upscale, and those that paint. Text bundles are timed with the painters that read them."""
    from limner import bundle

    if not names:
        raise UsageError("the zoo is empty: name the bundle folders to time.")
    tasks = {name: bundle.read(name).manifest.task for name in names}
    chosen = [[name for name in names if tasks[name] == task] for task in ("upscale", "generate")]
    if not any(chosen):
        raise UsageError("there is no upscaler and no painter to time: name the bundle folders.")
    return chosen[0], chosen[1]


def _times(rows: Sequence[Row]) -> Table:
    from rich.table import Table

    side = "out" if rows[0].stage else "in"
    title = f"{rows[0].width}x{rows[0].height} {side}; yardstick {rows[0].yardstick_ms:.2f} ms"
    grid = Table("bundle", "engine", "precision", title=title, title_justify="left")
    costs = "load ms", "peak MiB", "% of int8 peak", "% of memory limit"
    for heading in ("threads", "p50 ms", "p95 ms", "cold ms", "ratio", "pictures/s", "MP/s out", *costs):
        grid.add_column(heading, justify="right")
    for row in rows:
        cold = "" if row.cold_ms is None else f"{row.cold_ms:.2f}"
        speed = f"{row.p50_ms:.2f}", f"{row.p95_ms:.2f}", cold, f"{row.ratio:.3f}", f"{row.pictures_per_s:.1f}"
        cost = f"{row.megapixels_per_s:.1f}", f"{row.load_ms:.0f}", "" if row.peak_mb is None else f"{row.peak_mb:.0f}"
        roof = _percent(row.peak_share), _percent(row.memory_share)
        grid.add_row(row.label, _engine(row), row.precision, str(row.threads), *speed, *cost, *roof)
    return grid


def _engine(row: Row) -> str:
    return row.engine if row.ran in ("", row.engine) else f"{row.engine} ({row.ran} ran)"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _profile(row: Row) -> Table:
    """Stages in the order they run; times of all threads added up."""
    from rich.table import Table

    title = f"{row.bundle}, {row.engine}, threads {row.threads}: {sum(stage.ms for stage in row.stages):.2f} ms"
    grid = Table("stage", title=title, title_justify="left")
    for heading in ("ms", "% of time", "% of int8 peak"):
        grid.add_column(heading, justify="right")
    for stage in row.stages:
        grid.add_row(stage.name, f"{stage.ms:.3f}", _percent(stage.time_share), _percent(stage.peak_share))
    return grid


def _judge(changes: list[Change], earlier: str) -> None:
    """Tell every change on stderr. Raises LimnerError when something became slower."""
    for change in changes:
        row = change.new or change.old
        assert row is not None
        times = "" if change.ratio is None else f" ({change.ratio:.2f} times {earlier})"
        console.log().print(
            f"{row.label} {row.precision}, {row.engine}, threads {row.threads}: {change.verdict}{times}"
        )
    slower = sum(change.verdict == "slower" for change in changes)
    if slower:
        raise LimnerError(f"{slower} of {len(changes)} are slower than in {earlier}; measure again on a quiet machine.")
