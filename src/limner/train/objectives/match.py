"""The encoder of pictures and prompts that a painter's loss looks through. It learns from half of the groups only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from limner.data.painting import PaintingBatch
from limner.data.records import Record
from limner.train.augment import augmented
from limner.train.matching import contrastive
from limner.train.objectives.base import Made
from limner.train.objectives.painting import Painting


def own_half(records: Sequence[Record]) -> list[Record]:
    """The records whose groups are in the half that losses may learn from; the judge of painters learns from the other.

    The halves are those of `evaluate.judges.half_of`: the first byte of a hash of the group, even or odd.
    """
    return [r for r in records if hashlib.sha256(f"judge:{r.group}".encode()).digest()[0] % 2 == 0]


class Matching(Painting):
    """Contrastive: which caption belongs to which picture of the batch?"""

    methods: tuple[str, ...] = ()

    def made(self, network: nn.Module, batch: PaintingBatch, share: float) -> Made:
        scores = network(augmented(batch.pictures), batch.pooled)
        return Made({"contrastive": contrastive(scores, batch.groups)})

    @torch.no_grad()
    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        """Share of held-out pictures whose own caption scores best among all held-out ones."""
        held = self.material.held_out
        if not len(held.pictures):
            return {}
        scores: Tensor = network(held.pictures, held.text.pooled)
        own = torch.arange(len(scores), device=scores.device)
        return {"retrieved": float((scores.argmax(1) == own).float().mean())}
