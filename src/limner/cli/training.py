"""`limner train`, `limner blend` and `limner pack`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from limner.cli import console
from limner.cli.options import Set
from limner.errors import LimnerError, UsageError, one_of

if TYPE_CHECKING:
    from limner.config import RunConfig


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe, such as photo-x4, or a JSON file of one.")],
    *,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Training pictures: a folder, zips or shards.")],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Run folder; one that is there is resumed.")],
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML laid over the recipe.")] = None,
    set: Set = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings as JSON and stop.")] = False,
) -> None:
    """Train a network. The same command resumes where the last call stopped."""
    resolved = resolve(recipe, config, set or [])
    if dry_run:
        sys.stdout.write(resolved.model_dump_json(indent=1) + "\n")
        return
    with console.extra("train"):
        from limner.train.loop import train as run
    run(resolved, data, out)


def blend(
    faithful: Annotated[str, typer.Argument(metavar="RUN", help="The run or bundle that the other one began as.")],
    vivid: Annotated[Path, typer.Argument(metavar="VIVID", help="The run that went on from it.")],
    *,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Run folder to make.")],
    share: Annotated[float, typer.Option(metavar="S", help="Share of the vivid one, 0 to 1.")] = 0.7,
) -> None:
    """Mix the weights of a run and of what it began with.

    After an adversary: fewer artefacts than the vivid one, more life than the faithful one. After other pictures: what
    both have learned.
    """
    with console.extra("train"):
        from limner.train.blend import blend as mix
    mix(faithful, vivid, out, share)
    console.log().print(f"{out}: {1 - share:.2g} x {Path(faithful).name} + {share:.2g} x {vivid.name}")


def resolve(recipe: str, file: Path | None, pairs: list[str]) -> RunConfig:
    """The recipe, then the TOML file, then the `section.key=value` pairs, each over what came before.

    `recipe`: a name, or a JSON file of settings such as `limner search` writes.
    """
    from limner.config import merge, override
    from limner.recipes import RECIPES

    if recipe.endswith(".json"):
        config = _settings(Path(recipe))
    elif recipe in RECIPES:
        config = RECIPES[recipe]()
    else:
        raise one_of("recipe", recipe, tuple(RECIPES))
    if file is not None:
        config = merge(config, _toml(file), str(file))
    return override(config, pairs)


def _settings(path: Path) -> RunConfig:
    import json

    from limner.config import parse

    try:
        return parse(json.loads(path.read_text("utf-8")), str(path))
    except OSError as error:
        raise LimnerError(f"{path}: cannot be read ({error.strerror}); give a recipe's name or its JSON.") from None
    except ValueError as error:
        if isinstance(error, LimnerError):
            raise
        raise UsageError(f"{path}: is not JSON ({error}); correct it.") from None


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise LimnerError(f"{path}: cannot be read ({error.strerror}); give a TOML file to --config.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not TOML ({error}); correct it.") from None


def pack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of `limner train`.")],
    *,
    out: Annotated[Path, typer.Option(metavar="BUNDLE", help="Bundle folder to write; one that is there is replaced.")],
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Training pictures, where the recipe needs them.")
    ] = None,
    eval: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Test pictures that the gate looks at. Repeatable.")
    ] = None,
    set: Set = None,
) -> None:
    """Fold, quantize, check and score a trained network, and write the bundle. What misses its gate is refused."""
    with console.extra("compress"):
        from limner.export.pack import pack as make
    manifest = make(run, out, eval or [], data, set or [])
    console.log().print(f"packed {manifest.name} into {out}")
