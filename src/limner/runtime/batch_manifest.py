"""Manifests of batch jobs: millions of rows, checked and cut into chunks of work once, at the start of a job.

A manifest is JSON lines, CSV with a header, or Parquet. Rows to paint have `prompt`, and may have `seed`, `style`,
`negative`, `size` and `output`; rows to upscale have `input`, and may have `scale`, `width`, `height` and `output`.
Other columns are not read. A row that is wrong becomes a failure with its reason; it never stops the others.
"""

from __future__ import annotations

import csv
import hashlib
import json
import secrets
import sys
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from limner import images
from limner.config import explain
from limner.errors import LimnerError, UsageError
from limner.runtime.generate import MAX_SEED

Task = Literal["paint", "upscale"]
SUFFIXES = (".jsonl", ".csv", ".parquet")
FOLDER = ".limner"  # inside the output folder: what is to be done, and what was
PER_FOLDER = 1000  # pictures that get no name of their own lie a thousand to a folder


class Row(BaseModel):
    """One picture to make. `output`: path below the output folder; default `000012/000012345.png` for row 12345."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    row: int
    output: str


class PaintRow(Row):
    """As generate.Request; without a seed, the number of the row, so that a repeated job paints the same."""

    prompt: str = Field(min_length=1)
    seed: int = Field(ge=0, le=MAX_SEED)
    style: str | None = None
    negative: str | None = None
    size: int | None = None


class UpscaleRow(Row):
    """`input`: a path, relative to the manifest. Without scale, width and height the model's own factor."""

    input: str = Field(min_length=1)
    scale: float | None = Field(default=None, gt=0, le=64)
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_size(self) -> UpscaleRow:
        if self.scale is not None and (self.width is not None or self.height is not None):
            raise ValueError("scale excludes width and height; give one")
        return self


class BadRow(BaseModel):
    """A row that no picture can be made of, and the sentence that tells why."""

    row: int
    reason: str


ROWS: dict[Task, type[PaintRow | UpscaleRow]] = {"paint": PaintRow, "upscale": UpscaleRow}
_SUBJECT: dict[str, Task] = {"prompt": "paint", "input": "upscale"}


def columns(task: Task) -> set[str]:
    """Names that a manifest may use."""
    return set(ROWS[task].model_fields) - {"row"}


# ---------------------------------------------------------------------------------------------------------- planning


@dataclass(frozen=True)
class Plan:
    """A job on disk. `folder`: the output folder; `rows`: how many the manifest has; `chunks`: files of rows."""

    folder: Path
    task: Task
    rows: int
    chunks: tuple[Path, ...]


@dataclass
class _Outputs:
    """64-bit hashes of the names given: eight bytes a row tell whether two are the same."""

    rows: array[int] = field(default_factory=lambda: array("Q"))
    hashes: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, row: int, output: str) -> None:
        self.rows.append(row)
        self.hashes.append(int.from_bytes(hashlib.blake2b(output.encode(), digest_size=8).digest(), sys.byteorder))

    def refuse_twins(self, manifest: Path) -> None:
        hashes = np.frombuffer(self.hashes, np.uint64) if self.hashes else np.empty(0, np.uint64)
        order = np.argsort(hashes, kind="stable")
        twins = np.flatnonzero(np.diff(hashes[order]) == 0) if len(order) > 1 else []
        if len(twins):
            first, second = (self.rows[int(order[twins[0] + step])] for step in (0, 1))
            raise UsageError(f"{manifest}: rows {first} and {second} have the same output; name each picture once.")


def plan(manifest: Path, folder: Path, settings: dict[str, Any], *, format: str = "png", chunk: int = 256) -> Plan:
    """Check every row and write chunks of `chunk` rows below `folder`; a job that was planned before goes on as it is.

    `settings`: whatever decides what the pictures look like; a job goes on only with the same. Raises UsageError for a
    file that is no manifest, for two rows with one output, and for a folder that holds another job; LimnerError for
    what cannot be read or written.
    """
    identity = {"manifest": _digest(manifest), "format": format, "settings": settings}
    home = folder / FOLDER
    begun = _begun(home, identity)
    if begun is None:
        begun = _planned(manifest, home, format, chunk) | identity
        write_json(home / "job.json", begun)
    count = -(-begun["rows"] // begun["chunk"])
    return Plan(folder, begun["task"], begun["rows"], tuple(home / "rows" / f"{k:06d}.jsonl" for k in range(count)))


def task_of(manifest: Path) -> Task:
    """Whether the first row has a prompt or an input. Raises as `plan` does."""
    first = next(iter(_read(manifest, None)), None)
    if first is None:
        raise LimnerError(f"{manifest}: holds no rows; write one for each picture.")
    given = first if isinstance(first, dict) else {}
    found: list[Task] = [task for name, task in _SUBJECT.items() if given.get(name) not in (None, "")]
    if len(found) != 1:
        what = "both 'prompt' and 'input'" if found else "neither 'prompt' nor 'input'"
        raise UsageError(f"{manifest}: its first row has {what}; give prompts to paint, or inputs to upscale.")
    return found[0]


def _begun(home: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    try:
        begun = json.loads((home / "job.json").read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LimnerError(f"{home}/job.json: cannot be read ({error}); choose another output folder.") from None
    changed = [key for key, value in identity.items() if begun.get(key) != value]
    if changed:
        raise UsageError(
            f"{home.parent}: was begun with another {' and another '.join(changed)}; "
            "repeat the command that began it, or choose another folder."
        )
    return begun


def _planned(manifest: Path, home: Path, format: str, chunk: int) -> dict[str, Any]:
    task, outputs, total = task_of(manifest), _Outputs(), 0
    numbered = enumerate(_read(manifest, columns(task)))
    try:
        (home / "rows").mkdir(parents=True, exist_ok=True)
        while part := [_checked(task, number, raw, format, outputs) for number, raw in islice(numbered, chunk)]:
            lines = "".join(row.model_dump_json(exclude_none=True) + "\n" for row in part)
            write_whole(home / "rows" / f"{total // chunk:06d}.jsonl", lines)
            total += len(part)
    except OSError as error:
        raise LimnerError(f"{home.parent}: cannot be written ({error.strerror}); choose another folder.") from None
    outputs.refuse_twins(manifest)
    return {"task": task, "rows": total, "chunk": chunk}


def _checked(task: Task, number: int, raw: dict[str, Any] | str, format: str, outputs: _Outputs) -> Row | BadRow:
    if isinstance(raw, str):
        return BadRow(row=number, reason=raw)
    given = {key: value for key, value in raw.items() if value is not None and value != ""}
    given.setdefault("output", f"{number // PER_FOLDER:06d}/{number:09d}.{format}")
    if task == "paint":
        given.setdefault("seed", number)
    try:
        row = ROWS[task].model_validate({**given, "row": number})
        _check_output(row.output)
    except ValidationError as error:
        return BadRow(row=number, reason=str(explain(error, f"row {number}")))
    except UsageError as error:
        return BadRow(row=number, reason=f"row {number}: {error}")
    outputs.add(number, row.output)
    return row


def _check_output(output: str) -> None:
    path = PurePosixPath(output)
    if path.is_absolute() or any(part in ("..", FOLDER) for part in path.parts) or "\\" in output or "\0" in output:
        raise UsageError(f"output {output!r} does not stay inside the output folder; write a path below it.")
    images.format_of(output)


def _digest(manifest: Path) -> str:
    try:
        with manifest.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LimnerError(f"{manifest}: cannot be read ({error.strerror}); check its name.") from None


# ----------------------------------------------------------------------------------------------------------- reading


def _read(manifest: Path, wanted: set[str] | None) -> Iterator[dict[str, Any] | str]:
    """Rows as they are written; a sentence in place of one that cannot be parsed. `wanted`: columns, None for all."""
    readers = {".jsonl": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    if manifest.suffix.lower() not in readers:
        raise UsageError(f"{manifest}: is no manifest; its name must end in one of {', '.join(SUFFIXES)}.")
    try:
        for row in readers[manifest.suffix.lower()](manifest, wanted):
            yield row if wanted is None or isinstance(row, str) else {k: row[k] for k in wanted & row.keys()}
    except OSError as error:
        raise LimnerError(f"{manifest}: cannot be read ({error.strerror or error}); check its name.") from None


def _json_rows(manifest: Path, wanted: set[str] | None) -> Iterator[dict[str, Any] | str]:
    with manifest.open("rb") as file:
        lines = (line for line in file if line.strip())
        for number, line in enumerate(lines):
            try:
                row = json.loads(line)
            except ValueError as error:  # also what is not UTF-8
                yield f"row {number}: is not JSON ({error}); write one object per line."
                continue
            yield row if isinstance(row, dict) else f"row {number}: is not a JSON object; write one object per line."


def _csv_rows(manifest: Path, wanted: set[str] | None) -> Iterator[dict[str, Any] | str]:
    with manifest.open(encoding="utf-8-sig", newline="") as file:
        try:
            for number, row in enumerate(csv.DictReader(file)):
                yield f"row {number}: has more fields than the header; quote texts with commas." if None in row else row
        except (UnicodeDecodeError, csv.Error) as error:
            raise LimnerError(f"{manifest}: is not CSV in UTF-8 ({error}); save it anew.") from None


def _parquet_rows(manifest: Path, wanted: set[str] | None) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import ArrowInvalid  # pyright: ignore[reportMissingImports]
        from pyarrow.parquet import ParquetFile  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UsageError(f"{manifest}: Parquet needs the package pyarrow: pip install 'limner[cluster]'.") from None
    try:
        with ParquetFile(manifest) as file:
            named = [name for name in file.schema_arrow.names if wanted is None or name in wanted]
            for batch in file.iter_batches(columns=named):
                yield from batch.to_pylist()
    except ArrowInvalid as error:
        raise LimnerError(f"{manifest}: is not a Parquet file ({error!s:.80}); write it anew.") from None


def rows(chunk: Path, task: Task) -> list[PaintRow | UpscaleRow | BadRow]:
    """The rows of a chunk that `plan` wrote."""
    found = []
    for line in chunk.read_text("utf-8").splitlines():
        raw = json.loads(line)
        found.append(BadRow(**raw) if "reason" in raw else ROWS[task](**raw))
    return found


# ----------------------------------------------------------------------------------------------------------- writing


def write_json(path: Path, payload: Any) -> None:
    write_whole(path, json.dumps(payload, ensure_ascii=False, indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}.part")
    try:
        draft.write_text(text, "utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """JSON lines, whole or not at all."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines))
