"""`limner data check`, `limner data caption` and `limner data shards`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limner.cli import console
from limner.errors import LimnerError, UsageError

if TYPE_CHECKING:
    from limner.data.check import Report
    from limner.data.endpoint import Endpoint
    from limner.data.records import Caption
    from limner.data.rewrite import Rewriter

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


def caption(
    path: Data,
    variants: Annotated[
        int, typer.Option("--variants", "-n", min=1, max=64, metavar="N", help="Captions of one picture.")
    ] = 8,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same captions.")] = 0,
    no_palette: Annotated[
        bool, typer.Option("--no-palette", help="Name no colours measured from the pictures.")
    ] = False,
    rewriter: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Hugging Face folder of a causal language model that rewrites.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI-compatible address, such as http://localhost:8000/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Model at --endpoint that rewrites.")] = None,
    vision: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model at --endpoint that looks at pictures without any words.")
    ] = None,
    key_env: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable that holds the key of --endpoint.")
    ] = "LIMNER_API_KEY",
    workers: Annotated[int, typer.Option(min=1, max=64, metavar="N", help="Requests at --endpoint at a time.")] = 4,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Longest wait for one answer.")] = 60,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The table; default beside PATH, where training finds it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print examples, write nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe every picture in several ways, from its name, keywords, style and colours; models may rewrite that.

    Captions go into a table beside the data, each with its origin; what a person wrote stays. Stopped, the same
    command goes on where it was.
    """
    from limner.data import caption as captions

    options = captions.Options(variants=variants, seed=seed, palette=not no_palette)
    ask = _asking(endpoint, key_env, workers, timeout)
    if (rewriter is not None) and (model is not None):
        raise UsageError("--rewriter and --model both rewrite; give one of them.")
    if endpoint is not None and model is None and vision is None:
        raise UsageError("--endpoint needs --model NAME to rewrite captions, or --vision NAME to look at pictures.")
    rewrites = _language_model(rewriter) if rewriter else ask("--model", model, False)
    describes = ask("--vision", vision, True)
    if dry_run:
        _show(captions.examples(path, options, rewriter=rewrites, describer=describes), json)
        return
    with console.progress("pictures") as bar:
        task = bar.add_task(str(path), total=None)
        done = captions.caption(
            path,
            options,
            rewriter=rewrites,
            describer=describes,
            out=out,
            progress=lambda stage, count, total: bar.update(task, description=stage, completed=count, total=total),
        )
    if json:
        console.write_json("-", done.model_dump(mode="json"))
    else:
        sys.stdout.write(captions.render(done))


def _asking(
    endpoint: str | None, key_env: str, workers: int, timeout: float
) -> Callable[[str, str | None, bool], Endpoint | None]:
    """(flag, model, whether it sees) -> that model at `endpoint`, or None without a model."""

    def ask(flag: str, model: str | None, sees: bool) -> Endpoint | None:
        if model is None:
            return None
        if endpoint is None:
            raise UsageError(f"{flag} {model}: give the address of the model as well, --endpoint URL.")
        from limner.data.endpoint import Endpoint

        return Endpoint(endpoint, model, sees=sees, key=_key(key_env), workers=workers, timeout=timeout)

    return ask


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"{variable}: the key holds characters that no key has; set the variable again.")
    return key


def _language_model(folder: Path) -> Rewriter:
    with console.extra("train"):
        from limner.data.language_model import LanguageModel

        return LanguageModel(folder)


def _show(drawn: list[tuple[str, list[Caption]]], json: bool) -> None:
    if json:
        rows = [{"file_name": name, "captions": [each._asdict() for each in captions]} for name, captions in drawn]
        console.write_json("-", rows)
        return
    for name, captions in drawn:
        sys.stdout.write(f"{name}\n" + "".join(f"  {each.text}  [{each.origin}]\n" for each in captions))


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
