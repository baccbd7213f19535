"""A painter's trunk as the decoder of pictures: before it learns what words look like, it learns what pictures are."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limner.config import CodeConfig, PainterConfig
from limner.models.painter import CHANNELS, Painter, Text, dense

CELL = 4
LIMIT = 2.0


class PictureEncoder(nn.Module):
    """Pictures (N, 4, S, S) in 0..1 -> codes (N, painter.code, G, G) in -2..2, G being the painter's coarsest grid."""

    def __init__(self, config: CodeConfig, painter: PainterConfig) -> None:
        super().__init__()
        halvings = (painter.size // CELL // painter.grids[-1]).bit_length() - 1
        widths = [min(config.width * 2**k, 4 * config.width) for k in range(halvings + 1)]
        self.enter = dense(CHANNELS * CELL**2, widths[0], 1.4, 3)
        self.blocks = nn.ModuleList(dense(width, width, 0.5, 3) for width in widths)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.leave = dense(widths[-1], painter.code)

    def forward(self, pictures: Tensor) -> Tensor:
        x = F.relu(self.enter(F.pixel_unshuffle(pictures, CELL)))
        for level, block in enumerate(self.blocks):
            x = x + F.relu(block(x))
            if level < len(self.downs):
                x = F.relu(self.downs[level](x))
        code = self.leave(x).float()
        return LIMIT * code / (1 + code.abs())  # bounded: what a text shall hit must lie within reach


class Coder(nn.Module):
    """A painter and the encoder of pictures in place of its reading of the text at the coarsest level.

    `levels` decodes the code of `pictures`, disturbed by normal noise of standard deviation `jitter`: a decoder that
    bears it will bear the error of whoever predicts the code.
    """

    def __init__(self, config: CodeConfig, painter: PainterConfig, text_width: int) -> None:
        super().__init__()
        if not painter.code:
            raise ValueError("painter.code=0: a coder needs the number of channels of its code")
        self.painter, self.encoder = Painter(painter, text_width), PictureEncoder(config, painter)
        self.jitter = config.jitter

    def levels(self, pictures: Tensor, noise: Tensor, text: Text) -> list[Tensor]:
        """The picture of every level, as `Painter.levels`."""
        code = self.encoder(pictures)
        if self.training:
            code = code + self.jitter * torch.randn_like(code)
        return self.painter.levels(noise, text, code=code)

    def forward(self, pictures: Tensor, noise: Tensor, text: Text) -> Tensor:
        return self.levels(pictures, noise, text)[-1]
