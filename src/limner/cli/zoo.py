"""`limner models` and `limner info`: what bundles there are and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from limner.cli import console
from limner.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from limner.bundle import Bundle, Manifest

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def models(json: Json = False) -> None:
    """List the bundles that ship, with size, scores and licence."""
    from limner import bundle

    found = [bundle.read(name) for name in bundle.zoo()]
    if json:
        console.write_json("-", [_summary(each) for each in found])
    else:
        console.data().print(_table(found))


def info(
    name: Annotated[
        str | None, typer.Argument(metavar="BUNDLE", help="Zoo name, bundle folder, or a picture.", show_default=False)
    ] = None,
    *,
    engines: Annotated[
        bool, typer.Option("--engines", help="Show which engines can be used here, or why not.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what a bundle says about itself, after checking its files; a picture's origin; or the engines here."""
    from limner import bundle

    if engines == (name is not None):
        raise UsageError("name one bundle, or give --engines.")
    if name is None:
        _show_engines(json)
        return
    if Path(name).is_file():
        _show_origin(name, json)
        return
    opened = bundle.read(name)
    if json:
        console.write_json(
            "-", {"folder": str(opened.folder), "bytes": opened.bytes, **opened.manifest.model_dump(mode="json")}
        )
    else:
        console.data().print(_sheet(opened))


def _show_origin(name: str, json: bool) -> None:
    from rich.table import Table

    from limner.runtime import provenance

    found = provenance.origin(name)
    if json:
        console.write_json("-", found)
        return
    grid = Table(show_header=False, box=None)
    for key, value in found.items():
        grid.add_row(key.replace("_", " "), str(value))
    console.data().print(grid if found else f"{name} does not say where it comes from.", markup=False)


def _show_engines(json: bool) -> None:
    from rich.table import Table

    from limner.runtime.fused.engine import states

    found = states()
    if json:
        console.write_json("-", [state._asdict() for state in found])
        return
    grid = Table("engine", "can be used", "detail")
    for state in found:
        grid.add_row(state.engine, "yes" if state.ready else "no", state.detail)
    console.data().print(grid)


def _summary(opened: Bundle[Manifest]) -> dict[str, Any]:
    manifest = opened.manifest
    shown = {"name", "task", "description", "scale", "size", "license", "scores"}
    kept = manifest.model_dump(mode="json", include=shown)
    return kept | {"parameters": manifest.parameters, "bytes": opened.bytes}


def _table(found: list[Bundle[Manifest]]) -> Table:
    from rich.table import Table

    grid = Table("name", "task", "gives", "size", "scores", "licence")
    for each in found:
        manifest = each.manifest
        row = manifest.name, manifest.task, _gives(manifest), _size(each), _headline(manifest.scores)
        grid.add_row(*row, manifest.license)
    return grid


def _gives(manifest: Manifest) -> str:
    from limner.bundle import PainterManifest, UpscalerManifest

    if isinstance(manifest, UpscalerManifest):
        return f"x{manifest.scale}"
    return f"{manifest.size} px" if isinstance(manifest, PainterManifest) else "vectors"


def _size(opened: Bundle[Manifest]) -> str:
    return f"{opened.bytes / 1000:.0f} KB"


def _headline(scores: dict[str, Any]) -> str:
    """`Set5 31.20, Set14 28.00 dB` of the int8 graph; empty where the scores are not those of `limner pack`."""
    try:
        rows = scores["fidelity"]["int8"]
        return ", ".join(f"{row['set']} {row['scores']['psnr_y']:.2f}" for row in rows) + " dB"
    except (KeyError, TypeError, ValueError):
        return ""


def _sheet(opened: Bundle[Manifest]) -> Table:
    from rich.table import Table

    manifest = opened.manifest
    grid = Table(show_header=False, box=None)
    for key, value in {
        "name": manifest.name,
        "about": manifest.description,
        "task": f"{manifest.task} {_gives(manifest)}",
        "size": f"{_size(opened)}, {manifest.parameters / 1000:.0f} thousand parameters",
        **_particulars(manifest),
        "graphs": ", ".join(f"{precision} ({graph.file})" for precision, graph in manifest.graphs.items()),
        "scores": _headline(manifest.scores),
        "licence": manifest.license,
        "learned from": "\n".join(f"{s.pictures} pictures of {s.source} ({s.license})" for s in manifest.sources),
        "made": f"{manifest.created} by limner {manifest.limner}".strip(),
        "folder": str(opened.folder),
    }.items():
        grid.add_row(key, value)
    return grid


def _particulars(manifest: Manifest) -> dict[str, str]:
    from limner.bundle import PainterManifest, TextManifest, UpscalerManifest

    if isinstance(manifest, UpscalerManifest):
        return {
            "work": f"{manifest.macs_per_pixel / 1000:.1f} thousand multiply-adds per input pixel",
            "reach": f"{manifest.radius} input pixels, sizes in multiples of {manifest.multiple}",
        }
    if isinstance(manifest, PainterManifest):
        return {
            "work": f"{manifest.macs / 1e6:.0f} million multiply-adds per picture",
            "reads": f"prompts through {manifest.text.bundle}",
            "styles": ", ".join(manifest.styles),
        }
    assert isinstance(manifest, TextManifest)
    return {
        "work": f"{manifest.width} numbers a token, up to {manifest.max_tokens} tokens",
        "languages": ", ".join(manifest.languages),
    }
