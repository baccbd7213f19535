"""A painter that learns from the pictures themselves: multi-level regression, text match, adversary, in any mixture.

With all weights of the regression at 0 this is the GAN baseline.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limner.config import RunConfig
from limner.data.painting import PaintingBatch
from limner.errors import LimnerError
from limner.models.painter import Text
from limner.train.matching import Match
from limner.train.objectives.base import Made, unwatched
from limner.train.objectives.painting import Material, Painting, as_text
from limner.train.vary import LATENTS, varied


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


def mixed(pooled: Tensor, most: float) -> Tensor:
    """Each unit vector (N, width) moved towards the next one, by a share drawn from 0..most, and of unit length again.

    Captions between those that have pictures (Reed et al. 2016, eq. 5): what a new prompt is to the painter. Here the
    picture of the nearer caption is learned for them, and the adversary sees what becomes of them.
    """
    share = most * torch.rand(len(pooled), 1, device=pooled.device)
    return F.normalize(pooled.lerp(pooled.roll(-1, 0), share), dim=1)


class Direct(Painting):
    """(noise, text) -> the picture of the caption.

    With loss.best_of > 1 the noise of a picture is the best of that many draws (implicit maximum likelihood
    estimation, Li & Malik 2018, algorithm 1): where a caption fits several pictures the noise decides, instead of
    the mean being painted.
    """

    def __init__(self, config: RunConfig, found: Material, device: torch.device | str) -> None:
        super().__init__(config, found, device)
        self.match = Match.load(config.match, device) if config.match.run else None
        needed = LATENTS + (found.sampler.styles if config.data.looks else 0)
        if config.data.vary and config.painter.noise < needed:
            raise LimnerError(
                f"painter.noise={config.painter.noise}: the noise must decide {needed} things (styles with data.looks, "
                f"direction and shade with data.vary): set painter.noise={needed} or more, or data.vary=false."
            )

    def made(self, network: nn.Module, batch: PaintingBatch, share: float) -> Made:
        text = as_text(batch)
        if self.config.text.mix:
            text = text._replace(pooled=mixed(text.pooled, self.config.text.mix))
        noise = self._noise(network, text, batch)
        true = self._true(batch, noise)
        pictures = unwatched(network.levels(noise, text))  # type: ignore[operator]
        losses = {"pixel": self.pixel(pictures, true, noise, text)}
        if self.match:
            losses |= self.match.losses(pictures[-1], batch._replace(pictures=true))
        return Made(losses, pictures[-1], true, batch.pooled, batch.versions)

    def _true(self, batch: PaintingBatch, noise: Tensor) -> Tensor:
        """The pictures of the batch, as that noise asks for them."""
        if not self.config.data.vary or batch.free is None:
            return batch.pictures
        return varied(batch.pictures, noise, batch.free)

    @torch.no_grad()
    def _noise(self, network: nn.Module, text: Text, batch: PaintingBatch) -> Tensor:
        """The noise whose coarsest picture is nearest to the true one: that picture costs half a pass."""
        draws = [self.noise(len(batch.pictures)) for _ in range(self.config.loss.best_of)]
        if self.config.data.looks and batch.looks is not None:
            draws = [leading(draw, batch.looks, self.material.sampler.styles) for draw in draws]
        if len(draws) == 1:
            return draws[0]
        best = torch.stack([self._miss(network, draw, text, batch) for draw in draws]).argmin(0)
        return torch.stack(draws)[best, torch.arange(len(best), device=best.device)]

    def _miss(self, network: nn.Module, draw: Tensor, text: Text, batch: PaintingBatch) -> Tensor:
        """How far from the truth the coarsest picture of each draw is, (N,)."""
        true, side = self._true(batch, draw), self.config.painter.sides[0]
        coarse = network.levels(draw, text, None, side)[-1]  # type: ignore[operator]
        return (coarse - F.avg_pool2d(true, true.shape[2] // side)).abs().mean((1, 2, 3))
