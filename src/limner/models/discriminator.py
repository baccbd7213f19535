"""A fully convolutional critic without normalization layers."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class _Down(nn.Module):
    """Residual block that halves the resolution: (N, in, H, W) -> (N, out, H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.second(F.leaky_relu(self.first(F.leaky_relu(x, 0.2)), 0.2))
        return F.avg_pool2d(inner + self.skip(x), 2)


class Discriminator(nn.Module):
    """(N, channels, H, W) in 0..1 -> (N, h, w) logits, one for each patch of 8 x 8 pixels. H and W multiples of 8."""

    def __init__(self, width: int = 32, channels: int = 3) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.downs = nn.Sequential(*(_Down(a, b) for a, b in pairwise(widths)))
        self.leave = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(F.leaky_relu(self.downs(self.enter(2 * x - 1)), 0.2))[:, 0]
