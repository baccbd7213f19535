"""Flow matching: the teacher learns to find the picture in a noisy one.

x_t = (1 - t) x + t n (Lipman et al. 2023; Liu et al. 2023). The network predicts x, and is scored by the velocity that
follows from it: v = (x_t - x) / t, so |v - v'|^2 = |x - x'|^2 / t^2. Pictures x are in -1..1 here.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limner.config import FlowConfig, PainterConfig
from limner.data.painting import PaintingBatch
from limner.models.painter import Text
from limner.train.objectives.base import Made
from limner.train.objectives.painting import Painting, as_text


class Flow(Painting):
    """t is logit-normal (Esser et al. 2024, eq. 19); some pictures are learned without their text, for guidance."""

    def made(self, network: nn.Module, batch: PaintingBatch, share: float) -> Made:
        plan, cell = self.config.flow, self.config.painter.cell
        count = len(batch.pictures)
        time = torch.sigmoid(plan.t_mean + plan.t_std * torch.randn(count)).to(self.device)
        at = time[:, None, None, None]
        noisy = (1 - at) * F.pixel_unshuffle(2 * batch.pictures - 1, cell) + at * self.noise(count)
        noisy = noisy.contiguous(memory_format=self.memory)
        text = dropped(as_text(batch), torch.rand(count).to(self.device) < plan.text_dropout)
        pictures = network.levels(noisy, text, time)  # type: ignore[operator]
        weight = 1 / time.clamp_min(plan.t_least).square()
        losses = [
            alpha * (weight * (F.avg_pool2d(batch.pictures, ratio) - picture).square().mean((1, 2, 3))).mean()
            for alpha, picture in zip(self.config.loss.alphas, pictures, strict=True)
            for ratio in [batch.pictures.shape[2] // picture.shape[2]]
        ]
        return Made({"velocity": 4 * torch.stack(losses).sum()})

    def paint(self, network: nn.Module, noise: Tensor, text: Text) -> Tensor:
        return sample(network, noise, text, self.config.painter, self.config.flow)


def dropped(text: Text, without: Tensor) -> Text:
    """The text with the rows where `without` is true replaced by no text: zeros, and no token."""
    keep = (~without).float()
    return Text(text.states * keep[:, None, None], text.mask * keep[:, None], text.pooled * keep[:, None])


@torch.no_grad()
def sample(network: nn.Module, noise: Tensor, text: Text, painter: PainterConfig, plan: FlowConfig) -> Tensor:
    """Pictures (N, 4, S, S) in 0..1 from noise, in plan.steps steps of Euler.

    Guidance (Ho & Salimans 2022, eq. 6): x = x_without + guidance * (x_with - x_without).
    """
    times = torch.linspace(1, 0, plan.steps + 1, device=noise.device)
    x = noise
    for now, then in pairwise(times):
        picture = _guided(network, x, text, now.expand(len(x)), painter, plan.guidance)
        x = picture + (then / now) * (x - picture)  # the straight line from x_t to x, at the time `then`
    return F.pixel_shuffle(x, painter.cell).add(1).div(2).clamp(0, 1)


def _guided(network: nn.Module, x: Tensor, text: Text, time: Tensor, painter: PainterConfig, guidance: float) -> Tensor:
    def predicted(text: Text) -> Tensor:
        return F.pixel_unshuffle(2 * network(x, text, time).clamp(0, 1) - 1, painter.cell)

    if guidance == 1:
        return predicted(text)
    without = predicted(dropped(text, torch.ones_like(time, dtype=torch.bool)))
    return without + guidance * (predicted(text) - without) if guidance else without
