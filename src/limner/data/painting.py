"""Batches for painters: pictures with alpha and the vectors of a caption, as a pure function of (seed, step)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from limner.data.batches import premultiplied
from limner.data.caption import caption_for
from limner.data.records import Record
from limner.errors import LimnerError

Bytes = NDArray[np.uint8]
SIDES = {"left", "right", "left-facing", "right-facing", "leftwards", "rightwards"}


class PaintingBatch(NamedTuple):
    """`pictures` (N, 4, S, S) float32 in 0..1, RGBA with premultiplied alpha. `states` (N, L, width), `mask` (N, L) of
    0 and 1 and `pooled` (N, width): vectors of one caption of each. `groups` (N,): pictures that share a number are
    versions of one thing. `looks` (N,): which of the styles a picture has where its caption leaves that open, else -1.
    `free` (N,) bool: what may be mirrored. `versions` (N, width): as `pooled`, of another version of each thing (in
    another style or colour); its own where there is none that it does not fit.
    """

    pictures: Tensor
    states: Tensor
    mask: Tensor
    pooled: Tensor
    groups: Tensor
    looks: Tensor | None = None
    free: Tensor | None = None
    versions: Tensor | None = None


def decode_paintings(records: Sequence[Record], side: int) -> Bytes:
    """All pictures as one array (M, side, side, 4), RGBA with premultiplied alpha.

    Raises LimnerError that names the first picture that is unreadable or of another size.
    """
    pictures = np.empty((len(records), side, side, 4), np.uint8)
    for row, record in enumerate(records):
        pictures[row] = _premultiplied(record, side)
    return pictures


def _premultiplied(record: Record, side: int) -> Bytes:
    try:
        straight = np.asarray(Image.open(io.BytesIO(record.read())).convert("RGBA"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise LimnerError(
            f"{record.name}: cannot be decoded ({error}); remove it or run `limner data check`."
        ) from None
    if straight.shape != (side, side, 4):
        size = f"{straight.shape[1]}x{straight.shape[0]}"
        raise LimnerError(f"{record.name}: is {size} pixels, not {side}x{side}; resize it or set painter.size.")
    return premultiplied(straight)


@dataclass(frozen=True)
class PromptVectors:
    """Vectors of T captions: `states` (T, L, width) float16, `mask` (T, L) bool, `pooled` (T, width) float16."""

    states: NDArray[np.float16]
    mask: NDArray[np.bool_]
    pooled: NDArray[np.float16]

    def rows(self, index: Sequence[int] | NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """`states`, `mask`, `pooled` of some captions, float32."""
        taken = (self.states[index], self.mask[index], self.pooled[index])
        states, mask, pooled = (torch.from_numpy(part.astype(np.float32)) for part in taken)
        return states, mask, pooled


def may_be_mirrored(record: Record, upright: Sequence[str]) -> bool:
    """Whether a picture is as true the other way round: not in a category of `upright`, nor named by left or right."""
    named = str(record.extra.get("name", "")) or record.text
    category = str(record.extra.get("category", ""))
    return not SIDES & set(named.lower().replace(",", " ").split()) and not category.startswith(tuple(upright))


class Captions:
    """The wordings of M pictures, every wording once, and which one a picture has in an epoch."""

    def __init__(self, records: Sequence[Record], seed: int) -> None:
        self.records, self.seed = records, seed
        self.texts = sorted({text for record in records for text in wordings(record)})
        self._row = {text: row for row, text in enumerate(self.texts)}
        self.open = self._open()

    def _open(self) -> NDArray[np.bool_]:
        """(texts,): whether pictures of more than one style have that wording."""
        styles: list[set[str]] = [set() for _ in self.texts]
        for record in self.records:
            for text in wordings(record):
                styles[self._row[text]].add(record.style)
        return np.array([len(each) > 1 for each in styles])

    def row(self, picture: int, epoch: int) -> int:
        """Index into `texts`."""
        return self._row[caption_for(self.records[picture], epoch, self.seed)]

    def fits(self, row: int, picture: int) -> bool:
        """Whether that text is one of the picture's own wordings."""
        return self.texts[row] in wordings(self.records[picture])


def wordings(record: Record) -> list[str]:
    """Every caption of a picture. Raises LimnerError when it has none."""
    texts = [caption.text for caption in record.captions] or [record.text]
    if not texts[0].strip():
        raise LimnerError(f"{record.name}: has no caption; write one, or run `limner data caption` on the folder.")
    return texts


class PaintingSampler:
    """Draws pictures held in memory, each once an epoch, with another of its captions in every epoch.

    A step's draw depends on (seed, step) alone; a process takes every `world`-th picture of the global batch, starting
    with its rank.
    """

    def __init__(
        self,
        records: Sequence[Record],
        pictures: Bytes,
        captions: Captions,
        vectors: PromptVectors,
        batch: int,
        device: torch.device | str = "cpu",
        upright: Sequence[str] = (),
    ) -> None:
        self.captions, self.vectors, self.size, self.device = captions, vectors, batch, device
        self.free = torch.tensor([may_be_mirrored(record, upright) for record in records])
        self.pictures = torch.from_numpy(pictures).to(device)
        names = np.unique([record.group for record in records], return_inverse=True)[1]
        self.groups = torch.from_numpy(names.astype(np.int64))
        self.members = np.split(np.argsort(names, kind="stable"), np.cumsum(np.bincount(names))[:-1])
        styles, self.looks = np.unique([record.style for record in records], return_inverse=True)
        self.styles = len(styles)
        self.names = {record.name: row for row, record in enumerate(records)}
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def batch(self, step: int, rank: int = 0, world: int = 1) -> PaintingBatch:
        """The pictures of `step` that fall to `rank`."""
        rows, drawn = self.rows(step, rank, world)
        chosen = torch.from_numpy(drawn)
        pictures = self.pictures[chosen.to(self.device)].permute(0, 3, 1, 2).float().div_(255)
        states, mask, pooled = (part.to(self.device) for part in self.vectors.rows(rows))
        groups = self.groups[chosen].to(self.device)
        others = [self._version(*drawing) for drawing in self.drawings(step, rank, world)]
        versions = torch.from_numpy(self.vectors.pooled[others].astype(np.float32)).to(self.device)
        looks = self.open_looks(rows, drawn)
        return PaintingBatch(pictures, states, mask, pooled, groups, looks, self.free[chosen], versions)

    def rows(self, step: int, rank: int = 0, world: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Captions and pictures of `step` that fall to `rank`, as indices into `captions.texts` and `pictures`."""
        drawn = self.drawings(step, rank, world)
        rows = [self.captions.row(picture, epoch) for epoch, picture in drawn]
        return np.array(rows, np.int64), np.array([picture for _, picture in drawn], np.int64)

    def drawings(self, step: int, rank: int = 0, world: int = 1) -> list[tuple[int, int]]:
        """(epoch, picture) of all of `step` that falls to `rank`."""
        return [self.drawn(place) for place in range(step * self.size + rank, (step + 1) * self.size, world)]

    def _version(self, epoch: int, picture: int) -> int:
        """A caption of another version of the picture's thing, as `rows` has it; its own where none is another's."""
        members = self.members[self.groups[picture]]
        other = int(np.random.default_rng([self.captions.seed, epoch, picture]).choice(members))
        row = self.captions.row(other, epoch)
        return self.captions.row(picture, epoch) if self.captions.fits(row, picture) else row

    def open_looks(self, rows: NDArray[np.int64], pictures: NDArray[np.int64]) -> Tensor:
        """Which style each picture has where its caption leaves that open, else -1."""
        return torch.from_numpy(np.where(self.captions.open[rows], self.looks[pictures], -1))

    def drawn(self, place: int) -> tuple[int, int]:
        """(epoch, picture) at a place of the endless row of shuffled epochs."""
        epoch, index = divmod(place, len(self.groups))
        if self._order[0] != epoch:
            order = np.random.default_rng([self.captions.seed, epoch]).permutation(len(self.groups))
            self._order = (epoch, order)
        return epoch, int(self._order[1][index])
