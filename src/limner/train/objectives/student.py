"""The one-step student: the teacher's picture at every level, and real pictures through the adversary."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from limner.config import RunConfig
from limner.data.painting import PaintingBatch
from limner.errors import LimnerError
from limner.models.painter import Text
from limner.train.matching import Match
from limner.train.objectives.base import Made, unwatched
from limner.train.objectives.painting import Material, Painting, encode
from limner.train.pairs import noises, read_pairs


class StudentBatch(NamedTuple):
    """`noise` (N, C, G, G) and `text`, what the teacher painted from them, and real pictures of the same captions (the
    teacher's where there is none).
    """

    noise: Tensor
    text: Text
    taught: Tensor
    real: PaintingBatch


class Student(Painting):
    """The map from noise to picture is one to one here, so that regression does not blur."""

    def __init__(self, config: RunConfig, found: Material, device: torch.device | str) -> None:
        super().__init__(config, found, device)
        if config.pairs.folder is None:
            raise LimnerError("a student needs pairs: set pairs.folder to the run folder of icons-pairs.")
        self.pairs = read_pairs(Path(config.pairs.folder))
        self.vectors = encode(config, self.pairs.captions, found.cache)[0]
        self.rows = np.array([found.sampler.names.get(name, -1) for name in self.pairs.names])
        self.match = Match.load(config.match, device) if config.match.run else None

    def batch(self, step: int, rank: int, world: int) -> StudentBatch:  # type: ignore[override]
        drawn = np.random.default_rng([self.config.train.seed, step]).integers(
            0, len(self.rows), self.config.train.batch
        )[rank::world]
        text = Text(*(part.to(self.device) for part in self.vectors.rows(drawn)))
        taught = self._pictures(torch.from_numpy(self.pairs.pictures[drawn]).to(self.device))
        real, rows = taught.clone(), self.rows[drawn]
        known = torch.from_numpy(rows >= 0)
        real[known] = self._pictures(self.material.sampler.pictures[torch.from_numpy(rows)[known]])
        groups = torch.where(known, self.material.sampler.groups[torch.from_numpy(rows)], -1 - torch.from_numpy(drawn))
        noise = noises(self.pairs.seeds[drawn], self.config.painter).to(self.device)
        return StudentBatch(noise, text, taught, PaintingBatch(real, *text, groups.to(self.device)))

    def _pictures(self, pictures: Tensor) -> Tensor:
        return pictures.permute(0, 3, 1, 2).float().div_(255)

    def made(self, network: nn.Module, batch: StudentBatch, share: float) -> Made:  # type: ignore[override]
        pictures = unwatched(network.levels(batch.noise, batch.text))  # type: ignore[operator]
        losses = {"pixel": self.pixel(pictures, batch.taught, batch.noise, batch.text)}
        if self.match:
            losses |= self.match.losses(pictures[-1], batch.real)
        return Made(losses, pictures[-1], batch.real.pictures, batch.text.pooled)
