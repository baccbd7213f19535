"""`limner data caption`: several descriptions of every picture, each with its origin, in a table beside the data.

What a person wrote is never touched: the metadata is only read, and captions of origin "person" in the table stay.
Templates (`grammar`) and measured colours (`palette`) cost seconds; models (`rewrite`) are asked once per picture,
their answers are kept in a journal beside the table as they come, and the table appears whole or not at all. No torch.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from limner.config import DataConfig
from limner.data.grammar import COLOUR_WORDS, Subject, describe, look, subject
from limner.data.palette import clear_colours
from limner.data.records import (
    Caption,
    CaptionTable,
    Record,
    open_without_captions,
    parse_captions,
    table_beside,
)
from limner.data.rewrite import Request, Rewriter, decoded, picture_for_model, usable_lines
from limner.errors import LimnerError, UsageError

PATIENCE = 8  # answers of a model without a usable one after which it is not asked further

Progress = Callable[[str, int, int], None]
Captions = Mapping[str, Sequence[Caption]]
_Item = tuple[str, Callable[[], Request]]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Options(_Part):
    """`variants`: captions per picture, besides what persons wrote. `palette`: name clearly dominant colours."""

    variants: int = 8
    seed: int = 0
    palette: bool = True


class Summary(_Part):
    """What was written. `captions`: count by origin, persons' included. `without`: pictures that have none.

    `unusable`: answers of models that were rubbish; those pictures keep their templates.
    """

    path: str
    table: str
    pictures: int
    captions: dict[str, int]
    without: int
    unusable: int


def caption_for(record: Record, epoch: int, seed: int = 0) -> str:
    """The wording of `record` in an epoch, "" when it has none: a pure function.

    Every wording comes once before any comes again; the order is drawn anew for each round, by seed and name.
    """
    texts = [caption.text for caption in record.captions] or [record.text]
    turn, place = divmod(epoch, len(texts))
    random.Random(f"{seed} {turn} {record.name}").shuffle(texts)
    return texts[place]


def caption(
    path: str | os.PathLike[str],
    options: Options,
    *,
    rewriter: Rewriter | None = None,
    describer: Rewriter | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Summary:
    """Caption every picture below `path` into the table `out` (default: beside `path`).

    `rewriter`: writes half of the variants anew. `describer`: looks at pictures of which nothing else is known.
    Captions in the table by persons, and by models, stay; a model is asked only where it has not answered yet.
    Raises LimnerError: the data is at fault, nothing can be said of any picture, the table cannot be written, a
    model does not answer or answers rubbish only. The same call then goes on where this one stopped.
    """
    root = Path(path)
    table = table_beside(root) if out is None else Path(out)
    records = _opened(root, options)
    kept = _kept(table, records)
    _check_place(table)
    drafts = _drafts(records, options, progress)
    asked = _Asked(Journal(table.with_name(f"{table.name}.journal")), progress)
    for model, work in _work(drafts, kept, options, rewriter, describer):
        asked.put(model, work)
    rows = {draft.record.name: _row(draft, kept, asked.given, options.variants) for draft in drafts}
    _check_any(root, records, rows)
    _write(table, rows)
    asked.journal.forget()
    return _summary(root, table, records, rows, asked.unusable)


def examples(
    path: str | os.PathLike[str],
    options: Options,
    *,
    rewriter: Rewriter | None = None,
    describer: Rewriter | None = None,
    count: int = 8,
) -> list[tuple[str, list[Caption]]]:
    """Captions of `count` pictures drawn by the seed, persons' first; nothing is written. Raises as `caption` does."""
    records = _opened(Path(path), options)
    drawn = random.Random(options.seed).sample(records, min(count, len(records)))
    drafts = _drafts(drawn, options, lambda stage, done, total: None)
    asked = _Asked(Journal(None), lambda stage, done, total: None)
    for model, work in _work(drafts, {}, options, rewriter, describer):
        asked.put(model, work)
    return [
        (draft.record.name, [*draft.record.captions, *_row(draft, {}, asked.given, options.variants)])
        for draft in drafts
    ]


def _opened(root: Path, options: Options) -> list[Record]:
    if options.variants < 1:
        raise UsageError(f"variants={options.variants}: at least one caption per picture.")
    return open_without_captions(root, DataConfig())


class _Draft(NamedTuple):
    """A record with what is known of it without asking anyone."""

    record: Record
    subject: Subject | None
    colours: tuple[str, ...]
    templates: tuple[Caption, ...]


def _drafts(records: Sequence[Record], options: Options, progress: Progress) -> list[_Draft]:
    drafts = []
    for done, record in enumerate(records, 1):
        drafts.append(_draft(record, options))
        if done % 64 == 0 or done == len(records):
            progress("describing", done, len(records))
    return drafts


def _draft(record: Record, options: Options) -> _Draft:
    what = subject(record)
    if what is None:
        return _Draft(record, None, (), ())
    measured = options.palette and what.paintable
    colours = clear_colours(decoded(record.read(), record.name)) if measured else ()
    own = {caption.text.casefold() for caption in record.captions}
    drawn = describe(what, colours, options.variants + len(own), f"{options.seed} {record.name}")
    fresh = [caption for caption in drawn if caption.text.casefold() not in own]
    return _Draft(record, what, colours, tuple(fresh[: options.variants]))


def _work(
    drafts: Sequence[_Draft], kept: Captions, options: Options, rewriter: Rewriter | None, describer: Rewriter | None
) -> Iterator[tuple[Rewriter, list[_Item]]]:
    """The models, each with the pictures that it has not captioned yet."""

    def new(draft: _Draft, model: Rewriter) -> bool:
        return all(caption.origin != model.origin for caption in kept.get(draft.record.name, ()))

    if rewriter is not None:
        known = [draft for draft in drafts if draft.subject is not None and new(draft, rewriter)]
        yield rewriter, [(draft.record.name, _rewriting(draft, options.variants)) for draft in known]
    if describer is not None:
        bare = [draft for draft in drafts if not draft.templates and not draft.record.captions]
        todo = [draft for draft in bare if new(draft, describer)]
        yield describer, [(draft.record.name, _describing(draft.record, options.variants)) for draft in todo]


def _rewriting(draft: _Draft, variants: int) -> Callable[[], Request]:
    def make() -> Request:
        assert draft.subject is not None
        facts = _facts(draft.record, draft.subject, draft.colours)
        words = frozenset(re.findall(r"[\w'-]{3,}", " ".join([*draft.subject.names, *draft.subject.keywords])))
        said = frozenset(re.findall(r"\w+", facts.lower())) & COLOUR_WORDS
        grey = {"grey", "gray"} if said & {"grey", "gray"} else set()
        return Request(max(1, variants // 2), facts, words | {draft.subject.names[0]}, said | grey)

    return make


def _facts(record: Record, what: Subject, colours: Sequence[str]) -> str:
    facts = {
        "subject": what.names[0],
        "kind": what.kind,
        "keywords": ", ".join(what.keywords[:4]),
        "colour": " and ".join(colours),
        "style": "; ".join(look(what.style, what.tail).phrases[:4]),
        "written by a person": record.text,
    }
    return "\n".join(f"{key}: {value}" for key, value in facts.items() if value)


def _describing(record: Record, variants: int) -> Callable[[], Request]:
    def make() -> Request:
        style = "; ".join(look(record.style, "").phrases[:4])
        return Request(
            variants, f"style: {style}" if style else "", picture=picture_for_model(record.read(), record.name)
        )

    return make


class _Asked:
    """What models gave: usable captions by picture, and the count of answers that were none."""

    def __init__(self, journal: Journal, progress: Progress) -> None:
        self.journal, self.progress = journal, progress
        self.given: dict[str, list[Caption]] = {}
        self.unusable = 0

    def put(self, model: Rewriter, work: Sequence[_Item]) -> None:
        """Ask `model` for every picture of `work` that the journal does not hold."""
        before, rubbish = len(self.given), []
        for asked, (name, request, answer) in enumerate(_answered(model, self._open(model, work)), 1):
            lines = usable_lines(answer, request)
            if lines:
                self.journal.add(request.digest(model.origin), lines)
                self._keep(name, lines, model)
            else:
                rubbish.append(answer)
            if len(rubbish) == asked >= PATIENCE:
                raise _useless(model, rubbish[0])
            self.progress(model.origin, len(self.given) - before + len(rubbish), len(work))
        self.unusable += len(rubbish)

    def _open(self, model: Rewriter, work: Iterable[_Item]) -> Iterator[tuple[str, Request]]:
        for name, make in work:
            request = make()
            lines = self.journal.get(request.digest(model.origin))
            if lines is None:
                yield name, request
            else:
                self._keep(name, lines, model)

    def _keep(self, name: str, lines: Iterable[str], model: Rewriter) -> None:
        self.given[name] = [Caption(line, model.origin) for line in lines]


def _useless(model: Rewriter, answer: str) -> LimnerError:
    said = repr(" ".join(answer.split())[:80])
    return LimnerError(
        f"{model.origin}: none of its first {PATIENCE} answers can be a caption, the first was {said}; "
        "take another model."
    )


def _answered(model: Rewriter, work: Iterable[tuple[str, Request]]) -> Iterator[tuple[str, Request, str]]:
    """Every request with its answer, as they come. When the model fails, answers under way still come first."""
    items, running = iter(work), {}
    with ThreadPoolExecutor(model.workers) as pool:
        try:
            while batch := list(islice(items, model.batch)):
                running[pool.submit(model.answers, [request for _, request in batch])] = batch
                if len(running) >= model.workers:
                    yield from _next(running)
            while running:
                yield from _next(running)
        except LimnerError:
            model.close()
            for future in list(running):
                with suppress(LimnerError):
                    yield from _result(running, future)
            raise
        finally:
            model.close()


_Running = dict[Future[list[str]], list[tuple[str, Request]]]


def _next(running: _Running) -> Iterator[tuple[str, Request, str]]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        yield from _result(running, future)


def _result(running: _Running, future: Future[list[str]]) -> Iterator[tuple[str, Request, str]]:
    batch = running.pop(future)
    for (name, request), answer in zip(batch, future.result(), strict=True):
        yield name, request, answer


class Journal:
    """Usable answers by the digest of their question, appended to `path` as they come; in memory only for None.

    Raises LimnerError when the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.used: set[str] = set()
        self._lines = {} if path is None else _journalled(path)

    def get(self, digest: str) -> list[str] | None:
        """The answer to a question asked before."""
        self.used.add(digest)
        return self._lines.get(digest)

    def add(self, digest: str, lines: list[str]) -> None:
        """Remember an answer; it is on its way to the disk when this returns."""
        self._lines[digest] = lines
        if self.path is None:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"request": digest, "captions": lines}, ensure_ascii=False) + "\n")
        except OSError as error:
            raise LimnerError(
                f"{self.path}: cannot be written ({error.strerror}); make room, then run again."
            ) from None

    def forget(self) -> None:
        """Drop the answers that this run used; those of other questions stay for their run."""
        if self.path is None or not self.path.exists():
            return
        rest = {digest: lines for digest, lines in self._lines.items() if digest not in self.used}
        if rest:
            _replace(self.path, (json.dumps({"request": d, "captions": lines}) for d, lines in rest.items()))
        else:
            self.path.unlink()


def _journalled(path: Path) -> dict[str, list[str]]:
    """The whole lines of a journal; a last line that was cut off is ended, so that the next one starts anew."""
    try:
        text = path.read_text("utf-8", errors="replace") if path.exists() else ""
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")
    except OSError as error:
        raise LimnerError(f"{path}: the journal cannot be read ({error.strerror}); see to its rights.") from None
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        with suppress(ValueError, KeyError, TypeError):
            row = json.loads(line)
            found[row["request"]] = [str(caption) for caption in row["captions"]]
    return found


def _kept(table: Path, records: Sequence[Record]) -> Captions:
    """What an existing table holds by persons and models; templates are drawn anew."""
    if not table.exists():
        return {}
    try:
        text = table.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LimnerError(f"{table}: cannot be read as a table of captions ({error}); move it away.") from None
    held = parse_captions(CaptionTable(str(table), "", text), {record.name for record in records})
    return {name: [each for each in captions if _lasting(each)] for name, captions in held.items()}


def _lasting(caption: Caption) -> bool:
    return caption.origin not in ("template", "palette")


def _row(draft: _Draft, kept: Captions, given: Captions, variants: int) -> list[Caption]:
    """Captions of one picture for the table: persons', models', and templates in the places that are left.

    Models take at most half of the places from templates: the first templates name style and colour reliably.
    """
    held = kept.get(draft.record.name, ())
    persons = [caption for caption in held if caption.origin == "person"]
    models = [caption for caption in held if caption.origin != "person"] + list(given.get(draft.record.name, ()))
    places = variants - min(len(models), max(1, variants // 2))
    return [*persons, *models, *draft.templates[:places]]


def _check_place(table: Path) -> None:
    """Say now, not after the work, that the table cannot be written."""
    draft = _draft_of(table)
    try:
        draft.touch()
        draft.unlink()
    except OSError as error:
        raise _unwritable(table, error) from None


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}-{os.getpid()}")


def _unwritable(path: Path, error: OSError) -> LimnerError:
    return LimnerError(f"{path}: cannot be written ({error.strerror}); choose another place with --out.")


def _check_any(root: Path, records: Sequence[Record], rows: Captions) -> None:
    if not any(record.captions for record in records) and not any(rows.values()):
        raise LimnerError(
            f"{root}: no picture has a name, a text or a telling file name; let a model look at them with "
            "--endpoint URL --vision MODEL."
        )


def _write(table: Path, rows: Captions) -> None:
    lines = (
        json.dumps({"file_name": name, "captions": [caption._asdict() for caption in captions]}, ensure_ascii=False)
        for name, captions in rows.items()
        if captions
    )
    _replace(table, lines)


def _replace(path: Path, lines: Iterable[str]) -> None:
    draft = _draft_of(path)
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        draft.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        draft.unlink(missing_ok=True)


def _summary(root: Path, table: Path, records: Sequence[Record], rows: Captions, unusable: int) -> Summary:
    origins = Counter(caption.origin for record in records for caption in [*record.captions, *rows[record.name]])
    return Summary(
        path=str(root),
        table=str(table),
        pictures=len(records),
        captions=dict(sorted(origins.items())),
        without=sum(not record.captions and not rows[record.name] for record in records),
        unusable=unusable,
    )


def render(summary: Summary) -> str:
    """The summary as plain text."""
    total = sum(summary.captions.values())
    lines = [f"{summary.path}: {summary.pictures} pictures, {total} captions, in {summary.table}"]
    lines += [f"  {origin:<24}{count}" for origin, count in summary.captions.items()]
    if summary.without:
        lines.append(f"  {'pictures without any':<24}{summary.without}")
    if summary.unusable:
        lines.append(f"  {'unusable answers':<24}{summary.unusable}")
    return "\n".join(lines) + "\n"
