"""Pictures of any size through a network of fixed input size: overlapping tiles that leave no seam.

A convolution pads with zeros at the border of its input. At the border of the picture the network was trained with
that; at the border of a tile inside the picture it is wrong, up to `radius` pixels deep. So neighbouring tiles
overlap by at least 2*radius, and of each only what lies deeper is kept: tiled equals whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limner.runtime.backends import Session

# Measured: 256 to 384 pixels a side is fastest (activations stay near the caches); a large radius wants larger tiles.
SIDE, LARGEST_SIDE = 384, 512
SIDE_STEP = 32
# More tiles in flight gain nothing, and each holds its own activations.
MOST_WORKERS = 8

Progress = Callable[[], None]
Turn = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Span:
    """A tile along one axis, input pixels: it begins at `start`; the result is kept for `first` <= pixel < `last`."""

    start: int
    first: int
    last: int


@dataclass(frozen=True)
class Plan:
    """Tiles of one shape, `height` x `width`, that cover a picture in the order of its rows."""

    height: int
    width: int
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __iter__(self) -> Iterator[tuple[Span, Span]]:
        return ((row, column) for row in self.rows for column in self.columns)


def plan(height: int, width: int, radius: int, multiple: int, side: int | None = None) -> Plan:
    """Cover a picture with tiles of one shape.

    `radius`: receptive radius, input pixels. `multiple`: tile sides and positions are multiples of it; the picture
    counts as padded up to it. `side`: largest tile side in pixels, by default chosen from `radius` for speed and
    bounded memory; raised where it leaves no room between the overlaps.
    """
    limit = min(max(SIDE, 16 * radius), LARGEST_SIDE) if side is None else side
    tile_height, rows = _cover(height, radius, multiple, limit)
    tile_width, columns = _cover(width, radius, multiple, limit)
    return Plan(tile_height, tile_width, rows, columns)


def _cover(size: int, radius: int, multiple: int, limit: int) -> tuple[int, tuple[Span, ...]]:
    padded, margin = _round_up(size, multiple), _round_up(radius, multiple)
    step = math.lcm(SIDE_STEP, multiple)
    limit = max(limit // step, (2 * margin) // step + 1) * step
    if padded <= limit:
        return padded, (Span(0, 0, size),)
    count = math.ceil((padded - 2 * margin) / (limit - 2 * margin))
    # Tiles of equal share, in steps, so that pictures of similar size share a compiled shape.
    side = min(_round_up(math.ceil((padded + 2 * margin * (count - 1)) / count), step), padded)
    count = math.ceil((padded - 2 * margin) / (side - 2 * margin))
    starts = [min(index * (side - 2 * margin), padded - side) for index in range(count)]
    edges = [0, *(start + side - margin for start in starts[:-1]), size]
    return side, tuple(Span(start, edges[i], edges[i + 1]) for i, start in enumerate(starts))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class Network:
    """An open graph and what it guarantees. `as_float`: it works on float32 in 0..1 rather than on uint8.

    `session(height, width, streams)` gives the callable for tiles of that size; `threads` is what it computes with.
    """

    session: Callable[[int, int, int], Session]
    threads: int
    scale: int
    radius: int
    multiple: int
    as_float: bool

    def plan(self, height: int, width: int) -> Plan:
        return plan(height, width, self.radius, self.multiple)


def run(
    image: NDArray[Any],
    network: Network,
    plan: Plan,
    *,
    gray: bool = False,
    skip_flat: bool = False,
    progress: Progress = lambda: None,
    turn: Turn = nullcontext,
) -> NDArray[Any]:
    """Enlarge (H, W, C) to (H*s, W*s, C), C = 3 or 4, or a plane (H, W) to (H*s, W*s), uint8 or uint16, tile by tile.

    `gray`: average the three channels of the result. A plane goes in as three equal channels and is always averaged.
    `skip_flat`: a tile of one value becomes that value without the network. `progress` is called in the calling
    thread after every tile. `turn` gives a context that every tile is computed in: it may wait, or raise to stop.
    """
    workers = min(network.threads, len(plan), MOST_WORKERS)
    session = network.session(plan.height, plan.width, workers)
    gray = gray or image.ndim == 2
    if not (gray or skip_flat or network.as_float) and image.shape[:2] == (plan.height, plan.width):
        return _whole(image, session, progress, turn)
    out = np.empty((image.shape[0] * network.scale, image.shape[1] * network.scale, *image.shape[2:]), image.dtype)

    def paint(row: Span, column: Span) -> None:
        tile = _cut(image, row.start, column.start, plan)
        kept = _part(out, row, column, network.scale)
        if skip_flat and tile.min() == tile.max():
            kept[:] = tile.flat[0]
            return
        with turn():
            y = session(_taken(tile, network.as_float))[0, _kept(row, network.scale), _kept(column, network.scale)]
        kept[:] = _given(y, kept.dtype, network.as_float, gray)

    _for_each(paint, plan, workers, progress)
    return out


def _whole(image: NDArray[Any], session: Session, progress: Progress, turn: Turn) -> NDArray[Any]:
    """One tile, and nothing to make of it: without a copy of the result."""
    with turn():
        painted = session(_taken(image, False))[0]
    progress()
    return painted


def _for_each(paint: Callable[[Span, Span], None], plan: Plan, workers: int, progress: Progress) -> None:
    if workers == 1:
        for row, column in plan:
            paint(row, column)
            progress()
        return
    pool = ThreadPoolExecutor(workers)
    try:
        tasks: list[Future[None]] = [pool.submit(paint, row, column) for row, column in plan]
        for task in as_completed(tasks):
            task.result()
            progress()
    finally:
        pool.shutdown(cancel_futures=True)


def _cut(image: NDArray[Any], top: int, left: int, plan: Plan) -> NDArray[Any]:
    """A (height, width, channels) tile; beyond the picture its last row and column are repeated."""
    tile = image[top : top + plan.height, left : left + plan.width]
    missing = plan.height - tile.shape[0], plan.width - tile.shape[1]
    if any(missing):
        tile = np.pad(tile, ((0, missing[0]), (0, missing[1]), (0, 0))[: tile.ndim], mode="edge")
    return tile if tile.ndim == 3 else tile[..., None]


def _part(out: NDArray[Any], row: Span, column: Span, scale: int) -> NDArray[Any]:
    """The view of `out`, always with a channel axis, that a tile answers for."""
    part = out[row.first * scale : row.last * scale, column.first * scale : column.last * scale]
    return part if part.ndim == 3 else part[..., None]


def _kept(span: Span, scale: int) -> slice:
    return slice((span.first - span.start) * scale, (span.last - span.start) * scale)


def _taken(tile: NDArray[Any], as_float: bool) -> NDArray[Any]:
    """(1, H, W, 3 or 4) as the graph takes it: float32 in 0..1, or the samples themselves."""
    if as_float:
        tile = tile.astype(np.float32) / np.float32(np.iinfo(tile.dtype).max)
    return np.ascontiguousarray(np.broadcast_to(tile, (1, *tile.shape[:2], max(3, tile.shape[2]))))


def _given(y: NDArray[Any], dtype: np.dtype[Any], as_float: bool, gray: bool) -> NDArray[Any]:
    """What the graph gave, as samples of the picture's dtype."""
    if gray:
        y = y.mean(-1, dtype=np.float32, keepdims=True)
    if as_float:
        y = (y * np.float32(np.iinfo(dtype).max)).clip(0, np.iinfo(dtype).max)
    return np.rint(y).astype(dtype) if gray or as_float else y
