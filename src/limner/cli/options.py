"""Options that several commands share."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from limner.errors import UsageError

Engine = Annotated[str, typer.Option(metavar="NAME", help="auto, fused, openvino or onnxruntime.")]
Precision = Annotated[str, typer.Option(metavar="NAME", help="int8 or float.")]
Threads = Annotated[int, typer.Option(min=0, metavar="N", help="CPU threads; 0 takes all cores.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting, as in train.lr=1e-3. Repeatable."),
]


def pixels(flag: str, size: str) -> tuple[int, int]:
    """(width, height) of a value such as 1920x1080. Raises UsageError that names `flag`."""
    sides = re.fullmatch(r"(\d+)[xX](\d+)", size)
    width, height = (int(side) for side in sides.groups()) if sides else (0, 0)
    if not width or not height:
        raise UsageError(f"{flag} {size!r}: write it as WIDTHxHEIGHT, such as 1920x1080.")
    return width, height
