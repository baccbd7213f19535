"""`limner evaluate` for painters: tables of prompts, with real pictures and a retrieval baseline beside them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from limner import bundle
from limner.cli import console
from limner.data.records import Split
from limner.errors import LimnerError, UsageError

if TYPE_CHECKING:
    from limner.evaluate.painting import Floor, Judges, Paint, Row

CHUNK = 32
HELD_OUT = ("validation", "test")
BASELINES = 3  # rows of real pictures, real pictures shuffled and retrieval; combinations have the last alone


def are_painters(names: Sequence[str]) -> bool:
    """Whether all of `names` are bundles of painters. Raises UsageError for a mixture of painters and others."""
    tasks = {name: _task(name) for name in names}
    painters = [name for name, task in tasks.items() if task == "generate"]
    others = [name for name in names if name not in painters]
    if painters and others:
        raise UsageError(f"{painters[0]} paints and {others[0]} does not: evaluate them in two calls.")
    return bool(painters)


def _task(name: str) -> str | None:
    """The task of a bundle; None for a run folder."""
    if (Path(name) / "config.json").is_file() and not (Path(name) / bundle.MANIFEST).is_file():
        return None
    return bundle.read(name).manifest.task


def score_painters(
    names: Sequence[str],
    data: Path | None,
    folder: Path,
    split: str,
    prompts: int,
    options: dict[str, Any],
    json: str | None,
) -> None:
    """Measure painters on the concepts of `data` and print the table; `folder` holds the judges."""
    with console.extra("train"):
        from limner.config import DataConfig
        from limner.evaluate import painting
    opened = bundle.read(names[0], bundle.PainterManifest)
    config = DataConfig.model_validate(opened.manifest.recipe.get("data", {}) | {"captions": None})
    held, path = _split(split), _data(data)
    beside = opened.folder.resolve().parent / opened.manifest.text.bundle
    judges = _judges(folder, beside if (beside / bundle.MANIFEST).is_file() else opened.manifest.text.bundle)
    with console.progress("painters") as bar:
        task = bar.add_task("pictures", total=None)
        training, held_out = (painting.exhibits(path, each, config, folder) for each in ("train", held))
        reference = painting.Reference(training, held_out, judges)
        tables = painting.tables(training, held_out, prompts)
        bar.update(task, total=sum(len(names) + BASELINES - 2 * (kind in ("colour", "style")) for kind in tables))
        painters = {name: _paint(name, options) for name in names}
        rows = painting.evaluate(painters, tables, judges, reference, advance=lambda: bar.advance(task))
        floors = {kind: painting.floor(tables[kind], reference) for kind in ("seen", "unseen")}
    _print(rows, floors, f"{split} split, int8" if options["precision"] == "int8" else split, json)


def _split(name: str) -> Split:
    if name in HELD_OUT:
        return cast(Split, name)
    raise UsageError(f"split {name!r} is impossible: choose validation (to tune on) or test (once, at the end).")


def _data(given: Path | None) -> Path:
    path = given or Path(os.environ.get("LIMNER_DATA", "../shared/data")) / "icons"
    if not path.exists():
        raise LimnerError(f"{path}: no such data; name the painter's captioned pictures with --data.")
    return path


def _judges(folder: Path, text: str | Path) -> Judges:
    from limner.evaluate.distribution import load_features
    from limner.evaluate.judges import embedding
    from limner.evaluate.matcher import load_matcher
    from limner.evaluate.painting import Judges

    return Judges(load_features(folder / "features"), load_matcher(folder / "matcher"), embedding(text, folder))


def _paint(name: str, options: dict[str, Any]) -> Paint:
    import numpy as np

    from limner.runtime.generate import Painter, Request

    painter = Painter.load(name, **options)

    def paint(prompts: Sequence[str], seeds: Sequence[int]) -> Any:
        asked = [Request(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        parts = [painter.paint_batch(asked[i : i + CHUNK]) for i in range(0, len(asked), CHUNK)]
        return np.stack([picture for part in parts for picture in part])

    return paint


def _print(rows: Sequence[Row], floors: dict[str, Floor], title: str, json: str | None) -> None:
    from dataclasses import asdict

    from limner.evaluate import painting

    if json != "-":
        console.data().print(painting.table(rows, title))
        for kind, floor in floors.items():
            low, high = floor.own_kid.low * 100, floor.own_kid.high * 100
            console.data().print(f"{kind}: own-KID x100 of real against real pictures {low:.2f} to {high:.2f}")
    if json:
        figures = {"rows": painting.to_json(rows), "floors": {kind: asdict(each) for kind, each in floors.items()}}
        console.write_json(json, figures)
