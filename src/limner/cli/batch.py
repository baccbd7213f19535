"""`limner batch`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from limner.cli import console
from limner.cli.options import Engine, Precision, Threads
from limner.errors import one_of

if TYPE_CHECKING:
    from limner.runtime.batch_job import Job, Summary
    from limner.runtime.batch_manifest import Plan
    from limner.runtime.safety import Level

MODELS = {"paint": "icons", "upscale": "photo-x4"}


def batch(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="MANIFEST", help="A row to a picture: .jsonl, .csv or .parquet, see docs/deploy.md."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the pictures; a begun one is gone on with.")],
    *,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME", help="Zoo name or bundle folder; else icons, photo-x4."),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", "-w", min=1, metavar="N", help="Processes that share the cores, or Ray actors.")
    ] = 1,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on this Ray cluster; local starts one here.")
    ] = None,
    chunk: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="Rows that a worker takes at a time.")
    ] = 256,
    format: Annotated[str, typer.Option("--format", "-f", metavar="NAME", help="Where a row names no output.")] = "png",
    quality: Annotated[
        int, typer.Option("--quality", "-q", min=1, max=100, metavar="N", help="Of JPEG, WebP and AVIF.")
    ] = 90,
    engine: Engine = "auto",
    precision: Precision = "int8",
    threads: Threads = 0,
    safety: Annotated[str, typer.Option(metavar="LEVEL", help="Prompt filter: off, low or auto.")] = "auto",
    record_prompt: Annotated[
        bool, typer.Option("--record-prompt", help="Write the prompt into the files, beside model and seed.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Paint or upscale every row of a manifest. Repeated, the command goes on; failures stop only themselves."""
    from limner.runtime import batch_job, batch_manifest

    _check_choices(format, safety)
    task = batch_manifest.task_of(manifest)
    job = batch_job.Job(
        folder=out,
        root=manifest.absolute().parent,
        task=task,
        model=model or MODELS[task],
        engine=engine,
        precision=precision,
        threads=threads,
        quality=quality,
        moderation=cast("Level", safety),
        record_prompt=record_prompt,
    )
    settings = _settings(job)
    plan = batch_manifest.plan(manifest, out, settings, format=format, chunk=chunk)
    _conclude(_run(job, plan, workers, ray, quiet), plan, json, quiet)


def _check_choices(format: str, safety: str) -> None:
    """Told at once, rather than as a failure of every row."""
    from limner.runtime.jobs import WRITABLE
    from limner.runtime.safety import Level

    if f".{format}" not in WRITABLE:
        raise one_of("format", format, tuple(suffix[1:] for suffix in WRITABLE))
    if safety not in get_args(Level):
        raise one_of("moderation level", safety, get_args(Level))


def _settings(job: Job) -> dict[str, object]:
    """What decides what the pictures look like. The bundle by its hash: a name may come to mean another one."""
    from limner import bundle
    from limner.runtime.provenance import bundle_hash

    digest = bundle_hash(bundle.read(job.model))
    return {
        "bundle": digest,
        "precision": job.precision,
        "quality": job.quality,
        "safety": job.moderation,
        "record_prompt": job.record_prompt,
    }


def _run(job: Job, plan: Plan, workers: int, ray: str | None, quiet: bool) -> Summary:
    from limner.runtime import batch_job

    with console.progress("pictures", quiet) as bar:
        task = bar.add_task("painting" if plan.task == "paint" else "upscaling", total=plan.rows)
        return batch_job.run(job, plan, workers=workers, ray=ray, report=lambda tally: bar.advance(task, tally.rows))


def _conclude(summary: Summary, plan: Plan, json: bool, quiet: bool) -> None:
    from limner.runtime.batch_job import FAILED

    tally = summary.tally
    if json:
        console.write_json("-", {**asdict(tally), "rows": plan.rows, "seconds": round(summary.seconds, 3)})
    elif not quiet:
        each = f", {tally.done / summary.seconds:.1f} pictures a second" if tally.done else ""
        sys.stdout.write(f"{tally.done} done, {tally.skipped} there already, {tally.failed} failed{each}\n")
    if tally.failed:
        console.complain(f"{tally.failed} rows failed; {plan.folder / FAILED} tells why.")
        raise typer.Exit(1)
