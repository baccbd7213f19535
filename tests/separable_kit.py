"""A user's own generator, small enough for a test."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dense(nn.Module):
    """x2: a head, a residual block and a tail of dense 3x3 convolutions, and the enlarged picture."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.tail = nn.Conv2d(width, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = F.relu(self.head(x))
        features = F.relu(features + self.second(F.relu(self.first(features))))
        detail = F.pixel_shuffle(0.1 * self.tail(features), 2)
        return detail + F.interpolate(x, scale_factor=2.0, mode="nearest")


class Odd(nn.Module):
    """Every other layer that can be read: leaky and learned slopes, a clip, a concatenation, no enlarged picture."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 5, padding=2), nn.Conv2d(3, 8, 1)
        self.three = nn.Conv2d(16, 3, 3, padding=1)
        self.slopes = nn.PReLU(8)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([F.leaky_relu(self.one(x), 0.2), self.slopes(self.two(x))], 1)
        return torch.sigmoid(self.three(torch.clamp(both, 0.0, 6.0)))


def dense() -> Dense:
    torch.manual_seed(0)
    return Dense().eval()


def gated() -> nn.Module:
    """With an operator that cannot be read."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3, 3, padding=1)).eval()


def strided() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, stride=2, padding=1)).eval()


class Broken(nn.Module):
    """Cannot be made without an argument."""

    def __init__(self, width: int) -> None:
        super().__init__()
