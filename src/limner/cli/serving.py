"""`limner serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limner.cli import console


def serve(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL...", help="Zoo names or bundle folders; else the whole zoo.")
    ] = None,
    *,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="TOML or JSON; see docs/server.md.")
    ] = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="127.0.0.1 unless told.")] = None,
    port: Annotated[int | None, typer.Option(metavar="N", help="8000 unless told; 0: any free one.")] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="NAME", help="auto unless told; fused, openvino or onnxruntime.")
    ] = None,
    precision: Annotated[str | None, typer.Option(metavar="NAME", help="int8 unless told; or float.")] = None,
    threads: Annotated[int | None, typer.Option(min=0, metavar="N", help="CPU threads; 0: all cores.")] = None,
    new_key: Annotated[
        str | None, typer.Option("--new-key", metavar="NAME", help="Print a new API key and its configuration.")
    ] = None,
) -> None:
    """Serve painters and upscalers over the OpenAI Images API. The address goes to stdout, logs to stderr as JSON."""
    with console.extra("serve"):
        if new_key is not None:
            _print_key(new_key)
            return
        from limner.server import run
        from limner.server.config import load

    flags = {"host": host, "port": port, "engine": engine, "precision": precision, "threads": threads}
    settings = load(config, models=tuple(models) if models else None, **flags)
    code = run.run(settings)
    if code:
        raise typer.Exit(code)


def _print_key(name: str) -> None:
    """The key for whoever will use it, and what the server may know of it."""
    from limner.server.access import new_key
    from limner.server.config import ServerConfig, replaced

    key, hashed = new_key()
    (entry,) = replaced(ServerConfig(), keys=({"name": name, "sha256": hashed},)).keys
    console.data().print(f'{key}\n\n[[keys]]\nname = "{entry.name}"\nsha256 = "{entry.sha256}"', markup=False)
