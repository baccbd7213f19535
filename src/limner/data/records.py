"""Records: every picture of a data set with its caption, split group, licence and a way to read its bytes.

What is understood, alone or as a tree of these:

- a folder or zip in the Hugging Face *imagefolder* convention: `metadata.jsonl` or `metadata.csv` beside the pictures
  (columns `file_name` and `text`; `group`, `license`, `source`, `style` and `split` are used, all others kept);
- a plain folder or zip of pictures, searched recursively;
- a plain folder with a sibling `<folder>.manifest.jsonl` (columns `file`, `license`, `repo`, `path`);
- WebDataset shards (`.tar`): pictures, with the caption as `.txt` or the columns as `.json` under the same key.

Further captions lie beside the data, where `limner data caption` puts them: `captions.jsonl` in a folder (of pictures,
or of archives), `train.zip.captions.jsonl` beside `train.zip`. A `captions` column of a row is read as well.

No torch.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import posixpath
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from limner.config import DataConfig
from limner.errors import LimnerError, UsageError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif"}
)
_METADATA = ("metadata.jsonl", "metadata.csv")
_SIDECARS = ("json", "txt")
_MANIFEST = ".manifest.jsonl"
_CAPTIONS = "captions.jsonl"
_ORIGINS = re.compile(r"person|template|palette|(model|endpoint|vision):.+")
_EMPTY: dict[Split, str] = {
    "train": "lower data.validation_fraction and data.test_fraction",
    "validation": "raise data.validation_fraction, or put pictures into a folder called validation",
    "test": "raise data.test_fraction, or put pictures into a folder called test",
}
_USED = ("file_name", "text", "group", "license", "source", "style", "split")
_GIVEN = re.compile(r"(train|validation|val|test)([-_]\d+)*(\.zip|\.tar)?", re.IGNORECASE)


class Caption(NamedTuple):
    """One wording for a picture, and who gave it.

    `origin`: "person", "template", "palette" (a template with a measured colour), "model:<name>",
    "endpoint:<model>" or "vision:<model>".
    """

    text: str
    origin: str


@dataclass(frozen=True)
class Record:
    """One picture. `read` returns the bytes of its file; it may be called from any thread and after a fork.

    `name`: file name inside the opened folder, zip or shard; in a tree it starts with the archive's relative path.
    `group`: records that share it stay in one split. It is the group column; without one, the photo that a manifest's
    `repo` and `path` name; in plain folders the name less its suffix and a last `_<one or two digits>`, so that crops
    `lake_0.jpg` and `lake_1.jpg` stay together; else the name.
    `split`: given by a `split` column, or by a folder or archive *below* the opened path that is called train,
    validation, val or test (or train-0001.tar ...); None when the data does not say.
    `text`, `license`, `source`, `style`: "" when unknown. `extra`: all other columns.
    `captions`: all wordings, each once; what a person wrote comes first, and first of all `text`.
    """

    name: str
    text: str
    group: str
    license: str
    source: str
    style: str
    split: Split | None
    extra: Mapping[str, Any] = field(hash=False)
    read: Callable[[], bytes] = field(compare=False, repr=False)
    captions: tuple[Caption, ...] = ()


def open_records(
    path: str | os.PathLike[str], config: DataConfig, captions: str | os.PathLike[str] | None = None
) -> list[Record]:
    """Every picture below `path`, sorted by name, before any filter.

    `captions`: a table of captions for this very `path` that does not lie beside it.
    Raises LimnerError: no such path, no pictures, a damaged archive, or metadata or captions at fault (the line is
    named).
    """
    root = Path(path)
    found, containers = _found(root, config)
    tables = [*_caption_tables(root, containers), *([_table_at(Path(captions), "")] if captions else [])]
    return captioned(found, tables)


def open_without_captions(path: str | os.PathLike[str], config: DataConfig) -> list[Record]:
    """As `open_records`, with no captions but those in the metadata."""
    return _found(Path(path), config)[0]


def _found(root: Path, config: DataConfig) -> tuple[list[Record], list[_Container]]:
    if not root.exists():
        raise LimnerError(f"{root}: no such file or folder; check the path of the data.")
    containers = list(_containers(root))
    found = [record for part in containers for record in _records(part, config)]
    if not found:
        raise LimnerError(f"{root}: no pictures there; give a folder, .zip or .tar that holds PNG, JPEG or WebP.")
    if config.group_column != "group" and not any(config.group_column in record.extra for record in found):
        raise LimnerError(f"{root}: no record has the column {config.group_column!r} that data.group_column names.")
    return sorted(found, key=lambda record: record.name), containers


class CaptionTable(NamedTuple):
    """The text of a table of captions; `prefix` goes before its file names, `where` before its errors."""

    where: str
    prefix: str
    text: str


def table_beside(path: Path) -> Path:
    """Where the captions of a folder, zip or shard lie."""
    return path / _CAPTIONS if path.is_dir() else path.with_name(f"{path.name}.{_CAPTIONS}")


def _caption_tables(root: Path, containers: Iterable[_Container]) -> Iterator[CaptionTable]:
    if root.is_file() and table_beside(root).is_file():
        yield _table_at(table_beside(root), "")
    for container in containers:
        for name, read in container.members.items():
            folder, base = posixpath.split(name)
            if base == _CAPTIONS or base.endswith(f".{_CAPTIONS}"):
                prefix = posixpath.join(container.prefix, folder, base.removesuffix(_CAPTIONS).removesuffix("."), "")
                where = f"{container.path}/{name}"
                yield CaptionTable(where, prefix, _decoded(read(), where))


def _table_at(path: Path, prefix: str) -> CaptionTable:
    try:
        return CaptionTable(str(path), prefix, _decoded(path.read_bytes(), str(path)))
    except OSError as error:
        raise LimnerError(f"{path}: the captions cannot be read ({error.strerror}); check the path.") from None


def captioned(records: Sequence[Record], tables: Iterable[CaptionTable]) -> list[Record]:
    """The records with the captions of `tables` added.

    Raises LimnerError that names the line: broken, a second one for a picture, or for a picture that is missing.
    """
    given = {record.name: list(record.captions) for record in records}
    for table in tables:
        for name, captions in parse_captions(table, given.keys()).items():
            given[name] += captions
    return [replace(record, captions=_in_order(given[record.name])) for record in records]


def parse_captions(table: CaptionTable, known: Container[str]) -> dict[str, list[Caption]]:
    """The captions of each picture in a table, by its name among the `known` ones. Raises as `captioned` does."""
    found: dict[str, list[Caption]] = {}
    for number, row in _json_lines(table.text, table.where):
        where = f"{table.where}, line {number}"
        name = table.prefix + _member("", _needed(row, "file_name", where))
        if name not in known:
            raise LimnerError(f"{where}: captions for a missing picture {name!r}; add the picture or remove the line.")
        if name in found:
            raise LimnerError(f"{where}: a second line for {name!r}; every picture needs one line.")
        found[name] = _listed_captions(row.get("captions"), where)
    return found


def _listed_captions(value: object, where: str) -> list[Caption]:
    if not isinstance(value, list):
        raise LimnerError(f'{where}: no list "captions"; write [{{"text": ..., "origin": "person"}}].')
    captions = [caption for each in value if (caption := _as_caption(each))]
    if len(captions) < len(value):
        raise LimnerError(f'{where}: a caption needs a "text" and an "origin" such as "person" or "template".')
    return captions


def _as_caption(value: object) -> Caption | None:
    if not isinstance(value, dict):
        return None
    text, origin = value.get("text"), value.get("origin")
    if not (isinstance(text, str) and text.strip() and isinstance(origin, str) and _ORIGINS.fullmatch(origin)):
        return None
    return Caption(text.strip(), origin)


def _in_order(captions: Iterable[Caption]) -> tuple[Caption, ...]:
    """What persons wrote first; the same words once."""
    first: dict[str, Caption] = {}
    for caption in sorted(captions, key=lambda caption: caption.origin != "person"):
        first.setdefault(caption.text, caption)
    return tuple(first.values())


def _own_captions(columns: Mapping[str, Any]) -> tuple[Caption, ...]:
    """`text`, and a column `captions`: plain strings, which persons wrote, or objects with their origin."""
    listed = columns.get("captions")
    own = [_string(columns, "text").strip(), *(listed if isinstance(listed, list) else [])]
    plain = [Caption(each.strip(), "person") if isinstance(each, str) else _as_caption(each) for each in own]
    return _in_order(caption for caption in plain if caption is not None and caption.text)


def select(records: Iterable[Record], config: DataConfig) -> list[Record]:
    """The records that pass the filters by licence (substrings, case ignored) and by style (exact)."""
    return [record for record in records if passes(record, config)]


def passes(record: Record, config: DataConfig) -> bool:
    """Whether `config` admits this record's licence and style."""
    if config.licenses is not None and not _mentions(record.license, config.licenses):
        return False
    if _mentions(record.license, config.exclude_licenses):
        return False
    return config.styles is None or record.style in config.styles


def _mentions(license: str, parts: Iterable[str]) -> bool:
    return any(part.casefold() in license.casefold() for part in parts)


def split_of(record: Record, config: DataConfig) -> Split:
    """The split the data gives, else one drawn by hashing the group.

    sha256 of seed and group as a number in [0, 1): test below `test_fraction`, validation from
    1 - `validation_fraction` on. It depends on nothing else, so other records or machines never move a record,
    and changing one fraction leaves the other split alone.
    """
    if record.split is not None:
        return record.split
    if config.validation_fraction + config.test_fraction >= 1:
        raise UsageError("data.validation_fraction and data.test_fraction add up to 1 or more; lower one.")
    digest = hashlib.sha256(f"{config.split_seed}:{record.group}".encode()).digest()
    draw = int.from_bytes(digest[:8], "big") / 2**64
    if draw < config.test_fraction:
        return "test"
    return "validation" if draw >= 1 - config.validation_fraction else "train"


def load_split(
    path: str | os.PathLike[str], split: Split, config: DataConfig, captions: str | os.PathLike[str] | None = None
) -> list[Record]:
    """Open, filter and split. Raises LimnerError when nothing is left, saying which step left nothing."""
    records = open_records(path, config, captions)
    kept = select(records, config)
    if not kept:
        licenses = ", ".join(sorted({record.license or "none" for record in records})[:8])
        raise LimnerError(f"{path}: no picture passes data.licenses, exclude_licenses and styles; it has: {licenses}.")
    chosen = [record for record in kept if split_of(record, config) == split]
    if not chosen:
        raise LimnerError(f"{path}: the {split} split is empty ({len(kept)} pictures in all): {_EMPTY[split]}.")
    return chosen


class _Row(NamedTuple):
    """Columns of a picture, and the group it falls back to (None: its name)."""

    columns: Mapping[str, Any]
    group: str | None = None


class _Container(NamedTuple):
    """A folder, zip or shard: its members by name. `prefix` goes before names when it is part of a tree."""

    path: Path
    prefix: str
    members: Mapping[str, Callable[[], bytes]]


def _containers(root: Path) -> Iterator[_Container]:
    if root.is_file():
        yield _archive(root, "")
        return
    files = {name: root / name for name in _walk(root)}
    loose = {name: partial(Path.read_bytes, path) for name, path in files.items() if not _is_archive(path)}
    yield _Container(root, "", loose)
    for name, path in files.items():
        if _is_archive(path):
            yield _archive(path, f"{name}/")


def _walk(root: Path) -> list[str]:
    names = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(name for name in names if _visible(name))


def _visible(name: str) -> bool:
    return not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() in (".zip", ".tar")


def _archive(path: Path, prefix: str) -> _Container:
    if not _is_archive(path):
        raise LimnerError(f"{path}: not a data set; give a folder of pictures, a .zip or a .tar.")
    list_members = _zip_members if path.suffix.lower() == ".zip" else _tar_members
    try:
        listed = [(name, read) for name, read in list_members(path) if _visible(name)]
    except (zipfile.BadZipFile, tarfile.TarError, OSError) as error:
        raise LimnerError(f"{path}: damaged or not an archive ({error}); copy it again.") from None
    _unique((name for name, _ in listed), str(path))
    return _Container(path, prefix, dict(listed))


def _unique(names: Iterable[str], source: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise LimnerError(f"{source}: file_name {name!r} occurs twice; every picture needs one name and one line.")
        seen.add(name)


def _zip_members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    stamp = path.stat().st_mtime_ns
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield info.filename, partial(_read_zip, path, stamp, info.filename)


@lru_cache(maxsize=256)
def _open_zip(path: Path, stamp: int, process: int) -> zipfile.ZipFile:
    """One handle per process: ZipFile locks its reads among threads, but a fork would share the file position."""
    return zipfile.ZipFile(path)


def _read_zip(path: Path, stamp: int, name: str) -> bytes:
    try:
        return _open_zip(path, stamp, os.getpid()).read(name)
    except (zipfile.BadZipFile, zlib.error, KeyError, RuntimeError, OSError) as error:
        raise LimnerError(f"{path}: {name} cannot be read ({error}); copy the zip again.") from None


def _tar_members(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    size = path.stat().st_size
    with tarfile.open(path, "r:") as archive:
        for info in archive:
            if info.offset_data + info.size > size:
                raise tarfile.ReadError(f"{info.name} is cut off")
            if info.isreg():
                yield info.name, partial(_read_range, path, info.offset_data, info.size)


def _read_range(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _records(container: _Container, config: DataConfig) -> list[Record]:
    return [_record(container, name, row, config) for name, row in _rows(container).items()]


def is_picture(name: str) -> bool:
    """Whether the file name ends as a picture's does."""
    return PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES


def _record(container: _Container, name: str, row: _Row, config: DataConfig) -> Record:
    full = container.prefix + name
    fallback = full if row.group is None else row.group
    return from_columns(full, row.columns, config.group_column, container.members[name], fallback)


def from_columns(
    name: str,
    columns: Mapping[str, Any],
    group_column: str,
    read: Callable[[], bytes],
    fallback_group: str | None = None,
) -> Record:
    """A record from a row of metadata; `fallback_group` (default: the name) serves when the group column is empty."""
    return Record(
        name=name,
        text=_string(columns, "text"),
        group=_string(columns, group_column) or fallback_group or name,
        license=_string(columns, "license"),
        source=_string(columns, "source"),
        style=_string(columns, "style"),
        split=_split_name(_string(columns, "split")) or _split_in(name),
        extra={key: value for key, value in columns.items() if key not in _USED},
        read=read,
        captions=_own_captions(columns),
    )


def _string(columns: Mapping[str, Any], key: str) -> str:
    value = columns.get(key)
    return "" if value is None else str(value)


def _split_in(name: str) -> Split | None:
    parts = name.split("/")[:-1]
    return next((split for part in reversed(parts) if (split := _split_name(part))), None)


def _split_name(part: str) -> Split | None:
    match = _GIVEN.fullmatch(part)
    if match is None:
        return None
    word = match[1].lower()
    return next(split for split in SPLITS if split.startswith(word))


def _rows(container: _Container) -> dict[str, _Row]:
    """Every picture, with its columns from the shard, metadata files or manifests; plain ones have a group at most."""
    if container.path.suffix.lower() == ".tar" and container.path.is_file():
        return _shard_rows(container)
    tables = [name for name in container.members if posixpath.basename(name) in _METADATA]
    pictures = [name for name in container.members if is_picture(name)]
    if tables:
        listed = _joined((_table_rows(container, table) for table in tables), container)
        return {name: _Row({}) for name in pictures} | listed
    plain = {name: _Row({}, photo(container.prefix + name)) for name in pictures}
    return plain | _joined((_manifest_rows(*manifest) for manifest in _manifests(container)), container)


def photo(name: str) -> str:
    """The photograph a plain file was cut from: its name less suffix and a last `_<one or two digits>`."""
    return re.sub(r"_\d{1,2}$", "", str(PurePosixPath(name).with_suffix("")))


def _joined(tables: Iterable[Sequence[tuple[str, _Row]]], container: _Container) -> dict[str, _Row]:
    pairs = [pair for table in tables for pair in table]
    _unique((name for name, _ in pairs), str(container.path))
    missing = [name for name, _ in pairs if name not in container.members]
    if missing:
        raise LimnerError(
            f"{container.path}: {len(missing)} of {len(pairs)} captions are for missing files, first {missing[0]!r}; "
            "add the pictures or remove the lines."
        )
    return dict(pairs)


def _table_rows(container: _Container, table: str) -> list[tuple[str, _Row]]:
    where = str(container.path / table)
    text = _decoded(container.members[table](), where)
    parsed = _json_lines(text, where) if table.endswith(".jsonl") else _csv_lines(text, where)
    folder = posixpath.dirname(table)
    return [(_member(folder, _needed(row, "file_name", f"{where}, line {line}")), _Row(row)) for line, row in parsed]


def _member(folder: str, name: str) -> str:
    return posixpath.normpath(posixpath.join(folder, name.replace("\\", "/")))


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LimnerError(f"{where}: not UTF-8 text ({error}); save it as UTF-8.") from None


def _needed(row: Mapping[str, Any], column: str, where: str) -> str:
    value = _string(row, column)
    if not value:
        raise LimnerError(f"{where}: no column {column!r}; every line must name its picture there.")
    return value


def _json_lines(text: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, parse_columns(line, f"{where}, line {number}")


def parse_columns(text: str, where: str) -> dict[str, Any]:
    """A JSON object as columns. Raises LimnerError that starts with `where`."""
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise LimnerError(f"{where}: not JSON ({error}); write one object per line.") from None
    if not isinstance(row, dict):
        raise LimnerError(f'{where}: not a JSON object; write {{"file_name": ..., "text": ...}}.')
    return row


def _csv_lines(text: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    for row in reader:
        if None in row:
            raise LimnerError(f"{where}, line {reader.line_num}: more fields than columns; quote captions with commas.")
        yield reader.line_num, row


def _manifests(container: _Container) -> Iterator[tuple[str, str, str]]:
    """(location, text, folder inside the container) of every `<folder>.manifest.jsonl`."""
    root = container.path
    beside = root.with_name(root.name + _MANIFEST)
    if root.is_dir() and beside.is_file():
        yield str(beside), _decoded(beside.read_bytes(), str(beside)), ""
    for name, read in container.members.items():
        if name.endswith(_MANIFEST):
            where = f"{root}/{name}"
            yield where, _decoded(read(), where), name.removesuffix(_MANIFEST)


def _manifest_rows(where: str, text: str, folder: str) -> list[tuple[str, _Row]]:
    title = PurePosixPath(where).name.removesuffix(_MANIFEST)
    pairs = []
    for line, row in _json_lines(text, where):
        parts = PurePosixPath(_needed(row, "file", f"{where}, line {line}")).parts
        inside = parts[parts.index(title) + 1 :] if title in parts else parts
        pairs.append((_member(folder, "/".join(inside)), _manifest_row(row, "/".join(parts))))
    return pairs


def _manifest_row(row: dict[str, Any], file: str) -> _Row:
    origin = "/".join(part for part in (_string(row, "repo"), _string(row, "path")) if part)
    columns = {"source": row.get("repo"), **{key: value for key, value in row.items() if key != "file"}}
    return _Row(columns, origin if row.get("path") else photo(file))


def _shard_rows(container: _Container) -> dict[str, _Row]:
    sidecars: dict[str, dict[str, Callable[[], bytes]]] = {}
    for name, read in container.members.items():
        key, suffix = shard_key(name)
        if suffix in _SIDECARS:
            sidecars.setdefault(key, {})[suffix] = read
    rows = {}
    for name in container.members:
        key, suffix = shard_key(name)
        if f".{suffix}" not in PICTURE_SUFFIXES:
            continue
        files = {kind: read() for kind, read in sidecars.get(key, {}).items()}
        rows[name] = _Row(sidecar_columns(files, f"{container.path}/{key}"))
    return rows


def shard_key(name: str) -> tuple[str, str]:
    """WebDataset's key and extension of a member: they part at the first dot after the last slash."""
    folder, slash, base = name.rpartition("/")
    key, _, extension = base.partition(".")
    return folder + slash + key, extension.lower()


def sidecar_columns(files: Mapping[str, bytes], where: str) -> dict[str, Any]:
    """Columns of a WebDataset sample from its `json` and `txt` members; the JSON's own `text` wins."""
    columns = parse_columns(_decoded(files["json"], f"{where}.json"), f"{where}.json") if "json" in files else {}
    if not _string(columns, "text") and "txt" in files:
        columns["text"] = _decoded(files["txt"], f"{where}.txt").strip()
    return columns
