"""`limner data check` and `limner data shards`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limner.cli import console
from limner.errors import LimnerError

if TYPE_CHECKING:
    from limner.data.check import Report

Data = Annotated[
    Path, typer.Argument(metavar="PATH", help="A folder of pictures, zips or shards, or one of these files.")
]


def check(
    path: Data,
    against: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Data that must not hold the same pictures. Repeatable.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count, decode and compare training pictures. Unreadable pictures and leaks between splits end in exit code 1."""
    from limner.config import DataConfig
    from limner.data import check as checks

    with console.progress("pictures") as bar:
        task = bar.add_task(str(path), total=None)
        found = checks.check(
            path, DataConfig(), against or [], lambda done, total: bar.update(task, completed=done, total=total)
        )
    if json:
        console.write_json("-", found.model_dump(mode="json"))
    else:
        sys.stdout.write(checks.render(found))
    _judge(found)


def _judge(found: Report) -> None:
    if found.fault:
        raise LimnerError(found.fault)
    if found.unreadable:
        raise LimnerError(f"{found.path}: {_many(len(found.unreadable))} cannot be read; repair or remove them.")


def _many(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"


def shards(
    path: Data,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for 000000.tar, 000001.tar, ...")],
    per_shard: Annotated[int, typer.Option(min=1, metavar="N", help="Pictures in one shard.")] = 1000,
) -> None:
    """Write pictures and their columns as WebDataset shards, for data larger than a disk. Prints the shards' names."""
    from limner.config import DataConfig
    from limner.data.records import open_records

    with console.extra("train"):
        from limner.data.shards import write_shards

        written = write_shards(open_records(path, DataConfig()), out, per_shard)
    sys.stdout.writelines(f"{shard}\n" for shard in written)
