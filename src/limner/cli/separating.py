"""`limner separate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limner.cli import console
from limner.cli.options import Engine, Threads, pixels

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from limner.compress.separate import LayerPlan, SeparateConfig
    from limner.export.separated import Separated


def separate(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="ONNX file, or package.module:factory of a torch module.")
    ],
    *,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Your pictures, as large as the network should make them.")],
    out: Annotated[Path, typer.Option(metavar="BUNDLE", help="Bundle folder to write; one that is there is replaced.")],
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Safetensors of the torch module; an ONNX file has its own.")
    ] = None,
    eval: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Test pictures to score the bundle on. Repeatable.")
    ] = None,
    license: Annotated[str, typer.Option(metavar="NAME", help="Of the network and your pictures.")] = "proprietary",
    engine: Engine = "auto",
    threads: Threads = 1,
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of the input that times are taken at.")] = "160x90",
    set: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, as in rank=2. Repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan and measure, but train and write nothing.")] = False,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the figures here; - for stdout.")] = None,
) -> None:
    """Make your own convolutional generator separable, distil and quantize it, and pack it as a bundle."""
    shape = pixels("--size", size)
    with console.extra("compress"):
        from limner.compress import importing
        from limner.evaluate.sets import open_set
        from limner.export import separated
    config = settings(set or [])
    sets = [open_set(folder) for folder in eval or []]
    steps = importing.read(network, weights)
    crops = separated.Crops(data, steps.scale, config)
    place = separated.Place(*shape, engine, threads)
    with console.progress("steps") as bar:
        show = _Stages(bar)
        if dry_run:
            record = separated.decide(steps, crops.calibration(), config, place, show)[0]
        else:
            record, *networks = separated.separate(steps, crops, config, place, show)
            exact, integer = networks
            separated.pack_separated(
                record, (exact, integer), crops, out, source=network, license=license, config=config, sets=sets
            )
    if json != "-":
        console.data().print(_table(record))
        console.data().print(_verdict(record), highlight=False)
    if json:
        console.write_json(json, record.to_json())
    if not dry_run:
        console.log().print(f"packed {out.name} into {out}")


def settings(pairs: list[str]) -> SeparateConfig:
    """`key=value` pairs as a SeparateConfig. Raises UsageError that names the key."""
    from pydantic import ValidationError

    from limner.compress.separate import SeparateConfig
    from limner.config import explain
    from limner.errors import UsageError

    for pair in pairs:
        if "=" not in pair:
            raise UsageError(f"--set {pair!r}: write it as key=value.")
    try:
        return SeparateConfig.model_validate(dict(pair.split("=", 1) for pair in pairs))
    except ValidationError as error:
        raise explain(error, "--set") from None


class _Stages:
    """One bar for every stage."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self.tasks:
            self.tasks[stage] = self.bar.add_task(stage, total=total)
        self.bar.update(self.tasks[stage], completed=done)


def _table(record: Separated) -> Table:
    from rich.table import Table

    grid = Table("layer", "shape", "verdict", title="dense -> separable, per input pixel", title_justify="left")
    for heading in ("terms", "error", "MACs", "parameters", "ms alone"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for each in record.layers:
        cells = str(each.terms or ""), f"{each.error:.4f}" if each.terms else ""
        sizes = _change(*each.macs), _change(*each.parameters)
        verdict = f"{each.verdict}: {each.reason}" if each.reason else each.verdict
        grid.add_row(each.name, each.shape, verdict, *cells, *sizes, _times(each))
    return grid


def _change(before: float, after: float) -> str:
    return f"{before:.0f}" if before == after else f"{before:.0f} -> {after:.0f}"


def _times(each: LayerPlan) -> str:
    if each.dense_ms is None or each.separable_ms is None:
        return ""
    return f"{each.dense_ms:.2f} {each.engines[0]} -> {each.separable_ms:.2f} {each.engines[1]}"


def _verdict(record: Separated) -> str:
    times = ", ".join(f"{name} {ms:.2f} ms ({record.ran[name]})" for name, ms in record.times.items())
    count = sum(each.verdict == "separable" for each in record.layers)
    if record.chosen == "dense":
        said = "Separable does not pay on this machine: every layer stays dense."
    else:
        said = f"{count} of {len(record.layers)} convolutions are separable now."
    quality = ", ".join(f"{name} {value:.2f} dB" for name, value in record.psnr.items())
    return f"whole network, int8: {times}\n{said}" + (
        f"\non fresh crops of your pictures: {quality}" if quality else ""
    )
