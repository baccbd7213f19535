"""Streams of WebDataset shards, for data larger than a disk, and the conversion to shards. No torch of our own.

Local `.tar` files that fit on a disk need none of this: `records.open_records` reads them by index.
"""

from __future__ import annotations

import json
import os
import random
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from limner.config import DataConfig
from limner.data.records import PICTURE_SUFFIXES, Record, Split, from_columns, passes, sidecar_columns, split_of
from limner.errors import LimnerError, UsageError


def expand(urls: str | Sequence[str]) -> list[str]:
    """Shard addresses with braces expanded: `data/{000..099}.tar`, `pipe:curl -s https://host/{000..099}.tar`."""
    from braceexpand import braceexpand

    patterns = [urls] if isinstance(urls, str) else urls
    try:
        return [url for pattern in patterns for url in braceexpand(pattern)]
    except ValueError as error:
        raise UsageError(f"{urls}: braces do not match ({error}); write ranges as {{000..099}}.") from None


def stream(
    urls: str | Sequence[str],
    config: DataConfig,
    *,
    split: Split = "train",
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world: int = 1,
    skip: int = 0,
    buffer: int = 1000,
) -> Iterator[Record]:
    """One epoch of the records of `split` that pass the filters; `read()` returns bytes that are in memory already.

    Shards are visited in an order drawn from (seed, epoch), every `world`-th from `rank` on, and their samples are
    shuffled through a `buffer` (1 keeps their order). The same arguments give the same records in the same order, so
    `skip=n` resumes after n records. Ranks see different counts: count steps, not epochs. Local paths, `pipe:`
    commands (run by a shell: use addresses you trust) and the schemes of the webdataset library are understood.

    Raises UsageError when there are fewer shards than ranks, LimnerError for a shard that is missing or damaged.
    """
    shards = expand(urls)
    if len(shards) < world:
        raise UsageError(f"{urls}: {len(shards)} shards cannot feed {world} processes; write more, smaller shards.")
    random.Random(f"shards {seed} {epoch}").shuffle(shards)
    mine = shards[rank::world]
    chosen = (r for r in _records(mine, config) if passes(r, config) and split_of(r, config) == split)
    return islice(_shuffled(chosen, buffer, random.Random(f"samples {seed} {epoch} {rank}")), skip, None)


def _shuffled(records: Iterable[Record], buffer: int, order: random.Random) -> Iterator[Record]:
    from webdataset.filters import shuffle

    return shuffle(bufsize=buffer, initial=buffer, rng=order)(records)


def _records(shards: Iterable[str], config: DataConfig) -> Iterator[Record]:
    from webdataset.pipeline import DataPipeline
    from webdataset.shardlists import SimpleShardList
    from webdataset.tariterators import tarfile_to_samples

    for shard in shards:
        pipeline = DataPipeline(SimpleShardList([shard]), tarfile_to_samples())
        try:
            for sample in pipeline:
                yield from _pictures(shard, sample, config)
        except LimnerError:
            raise
        except (OSError, tarfile.TarError, ValueError) as error:
            raise LimnerError(f"{shard}: cannot be read as a shard ({_reason(error)}); check the address.") from None


def _reason(error: Exception) -> str:
    """The error's own words: webdataset appends streams and addresses to its arguments, subprocesses their call."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.errno is None:
        return "the command that fetches it failed"
    return str(error.args[0]).partition("\n")[0].partition(" @ ")[0]


def _pictures(shard: str, sample: Mapping[str, Any], config: DataConfig) -> Iterator[Record]:
    key = sample["__key__"]
    sidecars = {suffix: sample[suffix] for suffix in ("json", "txt") if suffix in sample}
    columns = sidecar_columns(sidecars, f"{shard}/{key}")
    for suffix, data in sample.items():
        if f".{suffix}" in PICTURE_SUFFIXES:
            name = f"{PurePosixPath(shard).name}/{key}.{suffix}"
            yield from_columns(name, columns, config.group_column, partial(bytes, data))


def write_shards(records: Iterable[Record], folder: str | os.PathLike[str], per_shard: int = 1000) -> list[Path]:
    """Write records as `<folder>/000000.tar`, ... with picture and columns (`.json`) under one key; returns the paths.

    The same records give the same bytes. Each shard appears only when whole. Raises LimnerError for an empty list,
    a folder that holds shards already or cannot be written, and a picture that cannot be read.
    """
    target = Path(folder)
    if per_shard < 1:
        raise UsageError(f"per_shard={per_shard}: a shard needs at least one picture.")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LimnerError(f"{target}: cannot be made a folder ({error.strerror}); choose another.") from None
    if any(target.glob("*.tar")):
        raise LimnerError(f"{target}: holds shards already; choose an empty folder.")
    remaining, written = iter(records), []
    while batch := list(islice(remaining, per_shard)):
        written.append(_write_shard(target / f"{len(written):06d}.tar", batch, len(written) * per_shard))
    if not written:
        raise LimnerError(f"{target}: no pictures to write.")
    return written


def _write_shard(path: Path, records: Sequence[Record], first: int) -> Path:
    from webdataset.writer import TarWriter

    handle, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file, TarWriter(file, encoder=False, mtime=0) as tar:
            for number, record in enumerate(records, first):
                tar.write(_sample(number, record))
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except OSError as error:
        raise LimnerError(f"{path}: cannot be written ({error}); check pictures, rights and free space.") from None
    finally:
        Path(draft).unlink(missing_ok=True)
    return path


def _sample(number: int, record: Record) -> dict[str, Any]:
    columns = {
        **record.extra,
        "file_name": record.name,
        "text": record.text,
        "group": record.group,
        "license": record.license,
        "source": record.source,
        "style": record.style,
        "split": record.split,
    }
    suffix = PurePosixPath(record.name).suffix[1:].lower()
    return {
        "__key__": f"{number:08d}",
        suffix: record.read(),
        "json": json.dumps(columns, ensure_ascii=False, default=str).encode(),
    }
