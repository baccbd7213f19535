"""`limner pack-text`: a language model becomes a text bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limner.cli import console
from limner.errors import LimnerError, UsageError

if TYPE_CHECKING:
    from limner.bundle import Source

Lines = Annotated[Path | None, typer.Option(metavar="FILE", help="Text file, one text per line.")]


def pack_text(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hugging Face folder or id of a BERT-like model.")],
    *,
    out: Annotated[Path, typer.Option(metavar="BUNDLE", help="Bundle folder to write; one that is there is replaced.")],
    held: Annotated[Path, typer.Option(metavar="FILE", help="Texts that fidelity is measured on, one per line.")],
    captions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Texts of the domain to learn from, one per line.")
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="General texts to learn from, one per line.")
    ] = None,
    keep: Annotated[str, typer.Option(metavar="LIST", help="Layers to keep, such as 0,4,5. All when not given.")] = "",
    vocabulary: Annotated[int, typer.Option(min=0, metavar="N", help="Word pieces to keep; 0 keeps all.")] = 0,
    max_tokens: Annotated[int, typer.Option(min=4, metavar="N", help="Longest prompt, in tokens.")] = 64,
    steps: Annotated[int, typer.Option(min=0, metavar="N", help="Steps of training after the fit.")] = 0,
    run: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where training is kept, so that the same command resumes.")
    ] = None,
    min_cosine: Annotated[float, typer.Option(metavar="X", help="Refuse a bundle less like the original.")] = 0.9,
    license: Annotated[str, typer.Option(metavar="NAME", help="Licence of the model's weights.")] = "Apache-2.0",
    credit: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE=LICENCE", help="What the weights learned from. Repeatable."),
    ] = None,
) -> None:
    """Make a small text bundle from a language model: fewer layers and words, few bits; measured, then written."""
    named = _layers(keep)
    sources = tuple(_source(pair) for pair in credit or [f"{Path(model).name}={license}"])
    with console.extra("compress"):
        from limner.text.distill import Polish
        from limner.text.pack import Plan, pack
    plan = Plan(
        name=out.name,
        captions=_lines(captions),
        texts=_lines(texts),
        held=_lines(held),
        keep=named,
        vocabulary=vocabulary,
        max_tokens=max_tokens,
        min_cosine=min_cosine,
        polish=Polish(steps=steps),
        license=license,
        sources=sources,
    )
    with console.progress("") as bar:
        tasks: dict[str, object] = {}

        def tick(stage: str, done: int, total: int) -> None:
            task = tasks.setdefault(stage, bar.add_task(stage, total=total) if stage not in tasks else None)
            bar.update(task, completed=done, total=total)  # pyright: ignore[reportArgumentType]

        bundle = pack(model, out, plan, run or out.with_name(f"{out.name}-run"), tick)
    figures = bundle.manifest.scores["fidelity"]
    console.log().print(f"packed {out.name} into {out}: {bundle.bytes / 1e6:.1f} MB, cosine {figures['cosine']:.4f}")


def _layers(keep: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in keep.split(",")) if keep else ()
    except ValueError:
        raise UsageError(f"--keep {keep!r}: write the numbers of layers as 0,4,5.") from None


def _source(pair: str) -> Source:
    from limner.bundle import Source

    source, separator, license = pair.rpartition("=")
    if not (separator and source.strip() and license.strip()):
        raise UsageError(f"--credit {pair!r}: write it as SOURCE=LICENCE.")
    return Source(source=source.strip(), license=license.strip(), pictures=1)


def _lines(path: Path | None) -> list[str]:
    """Texts of a file, in order, each once, without blank ones."""
    if path is None:
        return []
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise LimnerError(f"{path}: is not text in UTF-8; give a file with one text per line.") from None
    except OSError as error:
        raise LimnerError(f"{path}: cannot be read ({error.strerror}); give a file with one text per line.") from None
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))
