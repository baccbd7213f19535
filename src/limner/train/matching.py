"""The text match inside a painter's loss, by an encoder of its own that learned from half of the groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from limner.config import MatchConfig
from limner.data.painting import PaintingBatch
from limner.models.discriminator import PicturePrompt


def contrastive(scores: Tensor, groups: Tensor) -> Tensor:
    """Symmetric InfoNCE (Radford et al. 2021, figure 3) of (N, N) scores; versions of one thing are no negatives."""
    own = torch.arange(len(scores), device=scores.device)
    same = (groups[:, None] == groups[None]) & (own[:, None] != own[None])
    scores = scores.masked_fill(same, -1e4)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


@dataclass(frozen=True)
class Match:
    """A frozen encoder with the weights of its two terms."""

    encoder: PicturePrompt
    config: MatchConfig

    @classmethod
    def load(cls, config: MatchConfig, device: torch.device | str) -> Match:
        """The encoder of the run folder `config.run`. Raises LimnerError when there is none."""
        from limner.train.runs import load_encoder

        assert config.run is not None
        encoder = load_encoder(Path(config.run)).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(encoder.requires_grad_(False), config)

    def losses(self, painted: Tensor, batch: PaintingBatch) -> dict[str, Tensor]:
        """Weighted terms: do the painted pictures fit their captions, and are they like the true ones?"""
        found: dict[str, Tensor] = {}
        maps = self.encoder.trunk.maps(painted)
        if self.config.weight:
            scores = self.encoder.scores(maps[-1], batch.pooled)
            found["match"] = self.config.weight * contrastive(scores, batch.groups)
        if self.config.features:
            found["features"] = self.config.features * self._features(maps, batch.pictures)
        return found

    def _features(self, maps: list[Tensor], true: Tensor) -> Tensor:
        """L1 distance of the trunk's maps, each relative to the mean size of the true one's."""
        with torch.no_grad():
            wanted = self.encoder.trunk.maps(true)
        gaps = [(a - b).abs().mean() / b.abs().mean() for a, b in zip(maps, wanted, strict=True)]
        return torch.stack(gaps).mean()
