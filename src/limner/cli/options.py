"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Engine = Annotated[str, typer.Option(metavar="NAME", help="openvino or onnxruntime.")]
Precision = Annotated[str, typer.Option(metavar="NAME", help="int8 or float.")]
Threads = Annotated[int, typer.Option(min=0, metavar="N", help="CPU threads; 0 takes all cores.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting, as in train.lr=1e-3. Repeatable."),
]
