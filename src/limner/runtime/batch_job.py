"""The job behind `limner batch`: millions of pictures from a manifest, on one machine or on a Ray cluster.

The same `Worker` does a chunk of rows wherever it runs. Every picture is written whole or not at all, and what is there
is not made again, so that a job that was stopped, or lost a machine, is repeated with the same command: every row is
done at least once, and a row that is done twice is the same picture.
"""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, cast

from limner import bundle, images
from limner.errors import LimnerError, UsageError
from limner.runtime import jobs
from limner.runtime.backends import cores
from limner.runtime.batch_manifest import (
    BadRow,
    PaintRow,
    Plan,
    Row,
    Task,
    UpscaleRow,
    rows,
    write_json,
    write_lines,
)
from limner.runtime.generate import Painter, Prepared, Request
from limner.runtime.painters import Upscaler
from limner.runtime.safety import Level

BATCH = 32  # pictures painted together
FAILED = "failed.jsonl"
CONNECT_S = 10.0
HEALTH_S = 30.0  # most of it Ray's own start
BLOCKS = 1000  # of chunk names that Ray hands out


@dataclass(frozen=True)
class Job:
    """What every worker must know. `root`: where relative inputs begin. `threads`: of one worker, 0 for its share."""

    folder: Path
    root: Path
    task: Task
    model: str
    engine: str = "auto"
    precision: str = "int8"
    threads: int = 0
    quality: int = 90
    moderation: Level = "auto"
    record_prompt: bool = False


@dataclass(frozen=True)
class Tally:
    """Rows of one chunk, or of many, by what became of them."""

    done: int = 0
    skipped: int = 0
    failed: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.done + other.done, self.skipped + other.skipped, self.failed + other.failed)

    @property
    def rows(self) -> int:
        return self.done + self.skipped + self.failed


class _Failure(NamedTuple):
    row: int
    reason: str


# ---------------------------------------------------------------------------------------------------------- a worker


class Worker:
    """Does chunks one after the other; loads its model once. Raises as `Painter.load` and `Upscaler.load` do."""

    def __init__(self, job: Job) -> None:
        self.job = job
        load = Painter.load if job.task == "paint" else Upscaler.load
        self._model = load(job.model, engine=job.engine, precision=job.precision, threads=job.threads)

    def __call__(self, chunk: Path) -> Tally:
        """Make what is missing of a chunk, and note what failed beside it."""
        found = rows(chunk, self.job.task)
        failures = [_Failure(each.row, each.reason) for each in found if isinstance(each, BadRow)]
        named = [each for each in found if not isinstance(each, BadRow)]
        missing = [each for each in named if not (self.job.folder / each.output).exists()]
        if self.job.task == "paint":
            failures += self._paint(cast("list[PaintRow]", missing))
        else:
            failures += self._upscale(cast("list[UpscaleRow]", missing))
        bad = len(found) - len(named)
        tally = Tally(len(missing) - (len(failures) - bad), len(named) - len(missing), len(failures))
        _note(chunk, tally, failures)
        return tally

    # One chunk's pictures are encoded while the next batch is painted.

    def _paint(self, wanted: Sequence[PaintRow]) -> list[_Failure]:
        failures: list[_Failure] = []
        with ThreadPoolExecutor(jobs.ENCODERS) as pool:
            written: list[tuple[Row, Future[None]]] = []
            for at in range(0, len(wanted), BATCH):
                ready, refused = self._prepared(wanted[at : at + BATCH], pool)
                failures += refused
                painted = cast(Painter, self._model).paint_prepared([prepared for *_, prepared in ready])
                for (row, request, _), pixels in zip(ready, painted, strict=True):
                    written.append((row, pool.submit(self._write, row, request, pixels)))
            failures += _refused(written)
        return failures

    def _prepared(
        self, wanted: Sequence[PaintRow], pool: ThreadPoolExecutor
    ) -> tuple[list[tuple[Row, Request, Prepared]], list[_Failure]]:
        """Rows ready for the network, and those that the painter or its prompt filter refuses."""
        painter, ready, failures = cast(Painter, self._model), [], []

        def prepare(row: PaintRow) -> tuple[Request, Prepared]:
            request = Request(row.prompt, row.seed, row.negative, row.style, row.size)
            painter.refuse_unsafe(row.prompt, self.job.moderation)
            return request, painter.prepare(request)

        for row, task in [(row, pool.submit(prepare, row)) for row in wanted]:
            try:
                ready.append((row, *task.result()))
            except LimnerError as error:
                failures.append(_Failure(row.row, str(error)))
        return ready, failures

    def _write(self, row: Row, request: Request, pixels: Any) -> None:
        target = self.job.folder / row.output
        picture = cast(Painter, self._model).picture(request, pixels, record_prompt=self.job.record_prompt)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LimnerError(f"{target.parent}: cannot be made ({error.strerror}); free its name.") from None
        images.write(picture, target, quality=self.job.quality)

    def _upscale(self, wanted: Sequence[UpscaleRow]) -> list[_Failure]:
        upscaler, failures = cast(Upscaler, self._model), []
        for (scale, width, height), group in groupby(sorted(wanted, key=_shape), key=_size):
            paint = partial(upscaler.upscale_picture, scale=scale, size=(width, height) if width or height else None)
            numbers = {self._item(row): row.row for row in group}
            summary = jobs.run(list(numbers), paint, quality=self.job.quality)
            failures += [_Failure(numbers[each.item], each.reason) for each in summary.failed]
        return failures

    def _item(self, row: UpscaleRow) -> jobs.Item:
        target = self.job.folder / row.output
        return jobs.Item(self.job.root / row.input, target, images.format_of(target))


def _size(row: UpscaleRow) -> tuple[float | None, int | None, int | None]:
    return row.scale, row.width, row.height


def _shape(row: UpscaleRow) -> tuple[float, int, int]:
    return row.scale or 0, row.width or 0, row.height or 0


def _refused(written: Iterable[tuple[Row, Future[None]]]) -> list[_Failure]:
    """Waits for the encoders."""
    failures = []
    for row, task in written:
        try:
            task.result()
        except LimnerError as error:
            failures.append(_Failure(row.row, str(error)))
    return failures


# ----------------------------------------------------------------------------------------------------------- a job


@dataclass
class Summary:
    """What a run did. `failed` counts rows; FAILED in the output folder names them."""

    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    workers: str = ""


def run(
    job: Job,
    plan: Plan,
    *,
    workers: int = 1,
    ray: str | None = None,
    report: Callable[[Tally], None] = lambda tally: None,
) -> Summary:
    """Do every chunk that is not done, and list in FAILED what failed; without failures there is no such file.

    `workers`: processes on this machine, or actors on the Ray cluster at `ray` ("local" starts one here); all workers
    see the same folders, and share nothing else. `report` gets the rows that have settled since it was last called.

    Raises UsageError for a model, engine or cluster that is not there, LimnerError for a worker that died.
    """
    start, open_chunks = time.perf_counter(), []
    summary = Summary()
    for chunk in plan.chunks:
        if (settled := _settled(chunk)) is None:
            open_chunks.append(chunk)
            continue
        summary.tally += settled
        report(settled)
    for tally in _tallies(job, open_chunks, workers, ray):
        summary.tally += tally
        report(tally)
    _list_failures(plan)
    summary.seconds = time.perf_counter() - start
    return summary


def _shared(job: Job, workers: int) -> Job:
    """Workers that would all take every core get their share."""
    return job if job.threads or workers == 1 else replace(job, threads=max(1, cores() // workers))


def _tallies(job: Job, chunks: Sequence[Path], workers: int, ray: str | None) -> Iterator[Tally]:
    if not chunks:
        return iter(())
    if ray is not None:
        return _on_ray(_portable(job), chunks, workers, ray)
    job = _shared(job, workers)
    return map(Worker(job), chunks) if workers == 1 else _in_processes(job, chunks, workers)


_worker: Worker | None = None


def _begin(job: Job) -> None:
    global _worker  # noqa: PLW0603 -- a process of the pool has one worker for all its chunks
    _worker = Worker(job)


def _do(chunk: Path) -> Tally:
    assert _worker is not None
    return _worker(chunk)


def _in_processes(job: Job, chunks: Sequence[Path], workers: int) -> Iterator[Tally]:
    Worker(job)  # a model that cannot be opened is told here, in a sentence
    count = min(workers, len(chunks))
    with ProcessPoolExecutor(count, get_context("spawn"), _begin, (job,)) as pool:
        try:
            for task in as_completed([pool.submit(_do, chunk) for chunk in chunks]):
                yield task.result()
        except BrokenProcessPool:
            raise LimnerError(
                f"{job.folder}: a worker died, most likely for want of memory; repeat the command with fewer --workers."
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _on_ray(job: Job, chunks: Sequence[Path], workers: int, address: str) -> Iterator[Tally]:
    """Ray Data gives chunks to actors, starts dead ones again, and does what they held once more."""
    ray = _connected(address)
    names = [{"chunk": str(chunk.absolute())} for chunk in chunks]
    data = ray.data.from_items(names, override_num_blocks=min(len(names), BLOCKS))
    done = data.map(
        _Actor,
        fn_constructor_args=(job,),
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(chunks))),
        num_cpus=job.threads,
    )
    # What Ray has to say, of a worker that died, it says on stdout, which is for data.
    with redirect_stdout(sys.stderr):
        try:
            for row in done.iter_rows():
                yield Tally(**row)
        finally:
            ray.shutdown()


def _portable(job: Job) -> Job:
    """Paths that mean the same from any folder, and as many threads as Ray reserves cores."""
    shipped = job.model in bundle.zoo() or not Path(job.model).exists()
    model = job.model if shipped else str(Path(job.model).absolute())
    folder, root = job.folder.absolute(), job.root.absolute()
    return replace(job, folder=folder, root=root, model=model, threads=job.threads or 1)


class _Actor:
    """A worker as Ray Data calls it: rows in, rows out."""

    def __init__(self, job: Job) -> None:
        self._worker = Worker(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return asdict(self._worker(Path(row["chunk"])))


def _connected(address: str) -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.data  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise UsageError(f"--ray needs the package {error.name!r}: pip install 'limner[cluster]'.") from None
    here = address == "local"
    if not here:
        _check_reachable(address)
    dashboard = False if here else None
    try:
        # Ray takes "local" for a new cluster; without an address it would look for one that may have died.
        ray.init(address, include_dashboard=dashboard, log_to_driver=False, logging_level=40)
    except Exception as error:  # Ray raises plain Exceptions too
        raise _unreachable(address, " ".join(str(error).split())) from None
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # progress is ours to tell
    return ray


def _check_reachable(address: str) -> None:
    """Ray itself asks a cluster that does not answer again and again, for longer than five minutes."""
    kind, _, rest = address.rpartition("://")
    host, _, port = rest.rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", or a name that Ray looks up
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except OSError as error:
        raise _unreachable(address, error.strerror or str(error)) from None
    if not kind and _health(address):
        raise _unreachable(address, "what listens there is no Ray cluster of this version")


def _health(address: str) -> int:
    """Exit code of `ray health-check`; not 0 as well where it has no answer in time."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        return subprocess.run(command, capture_output=True, timeout=HEALTH_S, check=False).returncode
    except subprocess.TimeoutExpired:
        return 1


def _unreachable(address: str, reason: str) -> UsageError:
    return UsageError(f"--ray {address}: no cluster is there ({reason:.120}); start one, or leave --ray out.")


# ------------------------------------------------------------------------------------------------------------- notes


def _note_of(chunk: Path) -> Path:
    return chunk.parents[1] / "done" / f"{chunk.stem}.json"


def _note(chunk: Path, tally: Tally, failures: Sequence[_Failure]) -> None:
    """Beside the rows of a chunk: how many there are, and which failed. Its presence says that the chunk was done."""
    path = _note_of(chunk)
    try:
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"rows": tally.rows, "failed": [each._asdict() for each in failures]})
    except OSError as error:
        raise LimnerError(f"{path}: cannot be written ({error.strerror}); free some space.") from None


def _settled(chunk: Path) -> Tally | None:
    """What an earlier run left of a chunk; None when there is something left to do, failures included."""
    note = _read_note(chunk)
    return None if note is None or note["failed"] else Tally(skipped=note["rows"])


def _read_note(chunk: Path) -> dict[str, Any] | None:
    try:
        return json.loads(_note_of(chunk).read_text("utf-8"))
    except FileNotFoundError:
        return None


def _list_failures(plan: Plan) -> None:
    notes = filter(None, map(_read_note, plan.chunks))
    failures = [failure for note in notes for failure in note["failed"]]
    target = plan.folder / FAILED
    if failures:
        write_lines(target, failures)
    else:
        target.unlink(missing_ok=True)
