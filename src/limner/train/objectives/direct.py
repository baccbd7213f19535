"""A painter that learns from the pictures themselves: multi-level regression, text match, adversary, in any mixture.

With all weights of the regression at 0 this is the GAN baseline.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limner.config import RunConfig
from limner.data.painting import PaintingBatch
from limner.models.painter import Text
from limner.train.matching import Match
from limner.train.objectives.base import Made
from limner.train.objectives.painting import Material, Painting, as_text


def leading(noise: Tensor, looks: Tensor, count: int) -> Tensor:
    """`noise` (N, C, G, G) of whose first `count` channels looks[n] has the largest mean, where that is not -1.

    It changes places with the channel that had it, so that noise stays normal where all looks are equally frequent: a
    painter learns to read from it what the caption leaves open, and a seed then decides it.
    """
    rows = torch.arange(len(noise), device=noise.device)[looks >= 0]
    wanted = looks.to(noise.device)[rows]
    led = noise[rows, :count].mean((2, 3)).argmax(1)
    own = noise.clone()
    own[rows, wanted], own[rows, led] = noise[rows, led], noise[rows, wanted]
    return own


class Direct(Painting):
    """(noise, text) -> the picture of the caption.

    With loss.best_of > 1 the noise of a picture is the best of that many draws (implicit maximum likelihood
    estimation, Li & Malik 2018, algorithm 1): where a caption fits several pictures the noise decides, instead of
    the mean being painted.
    """

    def __init__(self, config: RunConfig, found: Material, device: torch.device | str) -> None:
        super().__init__(config, found, device)
        self.match = Match.load(config.match, device) if config.match.run else None

    def made(self, network: nn.Module, batch: PaintingBatch, share: float) -> Made:
        text = as_text(batch)
        noise = self._noise(network, text, batch)
        pictures = network.levels(noise, text)  # type: ignore[operator]
        losses = {"pixel": self.pixel(pictures, batch.pictures, noise, text)}
        if self.match:
            losses |= self.match.losses(pictures[-1], batch)
        return Made(losses, pictures[-1], batch.pictures, batch.pooled)

    @torch.no_grad()
    def _noise(self, network: nn.Module, text: Text, batch: PaintingBatch) -> Tensor:
        """The noise whose coarsest picture is nearest to the true one: that picture costs half a pass."""
        true = batch.pictures
        draws = [self.noise(len(true)) for _ in range(self.config.loss.best_of)]
        if self.config.data.looks and batch.looks is not None:
            draws = [leading(draw, batch.looks, self.material.sampler.styles) for draw in draws]
        if len(draws) == 1:
            return draws[0]
        side = self.config.painter.sides[0]
        small = F.avg_pool2d(true, true.shape[2] // side)
        coarse = (network.levels(draw, text, None, side)[-1] for draw in draws)  # type: ignore[operator]
        best = torch.stack([(picture - small).abs().mean((1, 2, 3)) for picture in coarse]).argmin(0)
        return torch.stack(draws)[best, torch.arange(len(true), device=best.device)]
