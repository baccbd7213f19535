"""How fast bundles run here, beside a yardstick measured in the same rounds, so that the machine's mood cancels out.

The yardstick: the plain network 3 -> 32, 4 x (32 -> 32), 32 -> 48 of 3x3 convolutions with ReLU between them, then
pixel shuffle by 4; random weights, OpenVINO in float32, one thread, input float planar 160x90.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from limner.errors import LimnerError, UsageError
from limner.images import Picture
from limner.runtime import roofline
from limner.runtime.backends import AUTO, cores, openvino_core, openvino_options
from limner.runtime.painters import Upscaler, network_input

YARDSTICK_SIZE = (160, 90)
# Medians of two runs of one build differ by less than this on a busy machine when taken as ratios to the yardstick.
NOISE = 0.07

Verdict = Literal["faster", "slower", "same", "added", "removed"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(_Frozen):
    """One bundle on one engine. Times in ms per call, for `batch` pictures of `width` x `height` input pixels, decoding
    excluded. `stage`: what of a painter is timed, see `runtime.paint_bench`; empty for upscalers.

    `p50_ms`, `p95_ms`: of calls right after another of the same; `cold_ms`: p50 of calls after other networks have run.
    `ratio`: p50 to that of the yardstick; comparable between machines only at 160x90 and one thread.
    `load_ms`: opening the bundle and painting the first picture. `peak_mb`: peak resident memory (MiB) of a fresh
    process that paints two pictures, None when it was not asked for. `megapixels_per_s`: of output. `ran`: the engine
    that computed. `peak_share`, `memory_share`: of the machine's limits as in `runtime.roofline`, by the fastest
    picture, for int8 only and None where they cannot be measured. `stages`: the fused engine's profile, empty when it
    was not asked for.
    """

    bundle: str
    engine: str
    precision: str
    threads: int
    width: int
    height: int
    scale: int
    repeats: int
    p50_ms: float
    p95_ms: float
    pictures_per_s: float
    megapixels_per_s: float
    load_ms: float
    peak_mb: float | None
    yardstick_ms: float
    ratio: float
    ran: str = ""
    peak_share: float | None = None
    memory_share: float | None = None
    stages: tuple[roofline.Stage, ...] = ()
    batch: int = 1
    stage: str = ""
    cold_ms: float | None = None  # reports from before it was measured lack it

    @property
    def key(self) -> tuple[str | int, ...]:
        """What must agree for two rows to be compared."""
        how = self.engine, self.precision, self.threads, self.batch, self.stage
        return self.bundle, *how, self.width, self.height

    @property
    def label(self) -> str:
        """The bundle, and what of it was timed."""
        return f"{self.bundle}, {self.stage} x {self.batch}" if self.stage else self.bundle


class Report(_Frozen):
    """Rows and where they were measured."""

    machine: dict[str, str]
    rows: tuple[Row, ...]


class Change(_Frozen):
    """One configuration in two reports. `ratio`: new time / old time, each in units of its own yardstick."""

    old: Row | None
    new: Row | None
    ratio: float | None
    verdict: Verdict


class _Case(NamedTuple):
    bundle: str
    engine: str
    precision: str
    threads: int


class _Candidate(NamedTuple):
    case: _Case
    painter: Upscaler
    load_ms: float
    peak_mb: float | None
    stages: tuple[roofline.Stage, ...]


def bench(
    bundles: Sequence[str | os.PathLike[str]],
    engines: Sequence[str] = ("auto",),
    precisions: Sequence[str] = ("int8",),
    threads: Sequence[int] = (1,),
    *,
    size: tuple[int, int] = YARDSTICK_SIZE,
    repeats: int = 30,
    memory: bool = False,
    profile: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Time every bundle x engine x precision x threads, two pictures each per round, round after round.

    `size`: (width, height) of the input in pixels. `memory`: also start a process per configuration for its peak.
    `profile`: also time the stages of what runs on the fused engine.
    Raises UsageError for impossible sizes or repeats and whatever `Upscaler.load` raises.
    """
    if repeats < 1 or min(size) < 1:
        raise UsageError(f"repeats={repeats}, size={size[0]}x{size[1]}: both must be at least 1.")
    cases = [_Case(os.fspath(name), *how) for name in bundles for how in product(engines, precisions, threads)]
    picture = sample_picture(*size)
    candidates = [_prepared(case, picture, memory, repeats if profile else 0) for case in cases]
    runs: list[Callable[[], Any]] = [yardstick()]
    runs += [lambda painter=candidate.painter: painter.upscale_picture(picture) for candidate in candidates]
    times = turns(runs, repeats, progress)
    standard = float(np.median(times[1, 0]))
    return [_row(each, picture, times[:, index], standard) for index, each in enumerate(candidates, 1)]


def interleaved(runs: list[Callable[[], Any]], repeats: int, progress: Callable[[int, int], None]) -> np.ndarray:
    """(len(runs), repeats) in ms: the warm calls of `turns`."""
    return turns(runs, repeats, progress)[1]


def turns(runs: list[Callable[[], Any]], repeats: int, progress: Callable[[int, int], None]) -> np.ndarray:
    """(2, len(runs), repeats) in ms: all runs take turns of two calls; one round to warm up is not counted.

    The first call of a turn is cold: the caches hold what the others left. The second is what a busy service sees.
    """
    times = np.empty((2, len(runs), repeats + 1))
    for repeat in range(repeats + 1):
        for index, run in enumerate(runs):
            times[:, index, repeat] = _milliseconds(run), _milliseconds(run)
        progress(repeat, repeats)
    return times[:, :, 1:]


def _milliseconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def sample_picture(width: int = YARDSTICK_SIZE[0], height: int = YARDSTICK_SIZE[1]) -> Picture:
    """What networks are timed on: opaque noise, the same every time."""
    return Picture(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _prepared(case: _Case, picture: Picture, memory: bool, profiled: int) -> _Candidate:
    start = time.perf_counter()
    painter = Upscaler.load(*case)
    painter.upscale_picture(picture)
    load_ms = (time.perf_counter() - start) * 1e3
    peak_mb = _peak_mb(case, picture) if memory else None
    return _Candidate(case, painter, load_ms, peak_mb, _stages(case, painter, picture, profiled))


def _stages(case: _Case, painter: Upscaler, picture: Picture, repeats: int) -> tuple[roofline.Stage, ...]:
    if not repeats or painter.engine != "fused":
        return ()
    pixels = network_input(picture, painter.manifest.channels)
    return tuple(roofline.profile(case.bundle, pixels, case.threads, repeats))


def _row(candidate: _Candidate, picture: Picture, turns: np.ndarray, yardstick_ms: float) -> Row:
    cold, times = turns
    scale, p50 = candidate.painter.scale, float(np.median(times))
    per_second = 1e3 / float(np.mean(times))
    threads = candidate.case.threads or cores()
    peak, memory = _shares(candidate, picture, threads, float(np.min(times)))
    return Row(
        bundle=candidate.painter.manifest.name,
        engine=candidate.painter.engine if candidate.case.engine == AUTO else candidate.case.engine,
        precision=candidate.case.precision,
        threads=threads,
        width=picture.width,
        height=picture.height,
        scale=scale,
        repeats=len(times),
        p50_ms=p50,
        p95_ms=float(np.percentile(times, 95)),
        pictures_per_s=per_second,
        megapixels_per_s=per_second * picture.width * picture.height * scale**2 / 1e6,
        load_ms=candidate.load_ms,
        peak_mb=candidate.peak_mb,
        yardstick_ms=yardstick_ms,
        ratio=p50 / yardstick_ms,
        ran=candidate.painter.engine,
        peak_share=peak,
        memory_share=memory,
        stages=candidate.stages,
        cold_ms=float(np.median(cold)),
    )


def _shares(candidate: _Candidate, picture: Picture, threads: int, ms: float) -> tuple[float | None, float | None]:
    if candidate.case.precision != "int8":
        return None, None
    found = roofline.shares(candidate.painter.manifest, picture.width, picture.height, threads, ms)
    return found or (None, None)


def yardstick() -> Callable[[], Any]:
    """A call that runs the plain network of this module's docstring once. Raises LimnerError without OpenVINO."""
    core = openvino_core()
    width, height = YARDSTICK_SIZE
    compiled = core.compile_model(_plain_network(height, width), "CPU", openvino_options(threads=1))
    request = compiled.create_infer_request()
    x = np.random.default_rng(0).random((1, 3, height, width), np.float32)
    return lambda: request.infer({0: x}, share_inputs=True, share_outputs=True)


def _plain_network(height: int, width: int) -> Any:
    from openvino import Model
    from openvino import opset13 as ops

    random = np.random.default_rng(0)
    x = y = ops.parameter([1, 3, height, width], np.float32)
    widths = [3, 32, 32, 32, 32, 32, 48]
    for index, (channels, out) in enumerate(pairwise(widths)):
        weight = random.normal(0, 1 / (9 * channels) ** 0.5, (out, channels, 3, 3)).astype(np.float32)
        y = ops.convolution(y, ops.constant(weight), [1, 1], [1, 1], [1, 1], [1, 1])
        y = ops.add(y, ops.constant(random.normal(0, 0.01, (1, out, 1, 1)).astype(np.float32)))
        y = ops.relu(y) if index < len(widths) - 2 else y
    # The stubs of OpenVINO declare the constructor of another class.
    return cast(Any, Model)([ops.depth_to_space(y, "blocks_first", 4)], [x], "yardstick")


def _peak_mb(case: _Case, picture: Picture) -> float:
    code = f"from limner.runtime import bench; bench.print_peak({tuple(case)!r}, {(picture.width, picture.height)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["killed"])[-1]
        raise LimnerError(f"{case.bundle}: the process that measures peak memory failed ({reason:.200}).")
    return float(done.stdout.split()[-1])


def print_peak(case: tuple[str, str, str, int], size: tuple[int, int]) -> None:
    """What `bench` runs in a process of its own: paint twice, print the peak resident memory in MiB."""
    painter = Upscaler.load(*case)
    for _ in range(2):
        painter.upscale_picture(sample_picture(*size))
    print(peak_memory() / 2**20)


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would answer with the parent's size if that was larger when it started this process.
        line = next(line for line in status.read_text("ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def report(rows: Sequence[Row]) -> Report:
    """The rows with the machine and the versions that gave them."""
    return Report(machine=_machine(), rows=tuple(rows))


def _machine() -> dict[str, str]:
    facts = {"cpu": _cpu_name(), "cores": str(cores()), "python": platform.python_version()}
    return facts | {package: _version(package) for package in ("limner", "openvino", "onnxruntime")}


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def write(measured: Report, path: Path) -> None:
    """Write JSON, whole or not at all."""
    _replace(path, lambda draft: draft.write_text(measured.model_dump_json(indent=1) + "\n", "utf-8"))


def read(path: Path) -> Report:
    """Read what `write` wrote. Raises LimnerError for anything else."""
    try:
        return Report.model_validate_json(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise LimnerError(f"{path}: cannot be read ({error}); give a file that `limner bench --json` wrote.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise LimnerError(f"{path}: is no benchmark report ({where}: {first['msg']}); measure it again.") from None


def compare(old: Report, new: Report, noise: float = NOISE) -> list[Change]:
    """Every configuration of either report; differences below `noise` (a fraction) count as the same."""
    before, after = ({row.key: row for row in side.rows} for side in (old, new))
    return [_change(before.get(key), after.get(key), noise) for key in {**before, **after}]


def _change(old: Row | None, new: Row | None, noise: float) -> Change:
    if old is None or new is None:
        return Change(old=old, new=new, ratio=None, verdict="added" if old is None else "removed")
    ratio = new.ratio / old.ratio
    verdict: Verdict = "slower" if ratio > 1 + noise else "faster" if ratio < 1 / (1 + noise) else "same"
    return Change(old=old, new=new, ratio=ratio, verdict=verdict)


def plot(rows: Sequence[Row], path: Path) -> None:
    """A PNG of bars, p50 with p95 as whisker. Raises UsageError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("the plot needs matplotlib: run `pip install matplotlib`, or leave out --plot.") from None
    figure = Figure(figsize=(8, 1.5 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    labels = [f"{row.label} {row.precision}, {row.engine}, {row.threads} threads" for row in rows]
    middle = [row.p50_ms for row in rows]
    above = [max(0.0, row.p95_ms - row.p50_ms) for row in rows]
    bars = axes.barh(range(len(rows)), middle, xerr=[[0.0] * len(rows), above], color="#4477aa", ecolor="#888888")
    axes.bar_label(bars, [f" {row.ratio:.2f}x" for row in rows], label_type="center", color="white")
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.axvline(rows[0].yardstick_ms, color="#cc3311", linestyle="--", label="yardstick")
    axes.set_xlabel(f"ms per picture of {rows[0].width}x{rows[0].height} (p50, whisker p95)")
    axes.legend()
    _replace(path, lambda draft: figure.savefig(draft, format="png", dpi=150))


def _replace(path: Path, fill: Callable[[Path], Any]) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix=".limner-", dir=path.parent) as folder:
            draft = Path(folder) / path.name
            fill(draft)
            draft.replace(path)
    except OSError as error:
        raise LimnerError(f"{path}: cannot be written ({error.strerror}); choose another place.") from None
