"""The upscaler: head, a trunk of separable blocks, pixel shuffle last, residual from the enlarged input."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limner.config import UpscalerConfig
from limner.models.blocks import ACTIVATIONS, FoldableConv2d, block, fold, folded_together


def shuffle(x: Tensor, ratio: int) -> Tensor:
    """Pixel shuffle with channels ordered (row, column, colour), which is one copy per row in channels-last memory.

    (N, ratio * ratio * 3, H, W) -> (N, 3, H * ratio, W * ratio). After Shi et al. 2016, eq. 4, in another order.
    """
    batch, channels, height, width = x.shape
    colours = channels // ratio**2
    cells = x.reshape(batch, ratio, ratio, colours, height, width).permute(0, 3, 4, 1, 5, 2)
    return cells.reshape(batch, colours, height * ratio, width * ratio)


def level_scales(scale: int, levels: int) -> list[int]:
    """Picture scale of every level, coarse to fine: 4 with 2 levels -> [2, 4]; 3 with 2 -> [1, 3]."""
    return [max(1, scale // 2 ** (levels - 1 - level)) for level in range(levels)]


def shipped_order(cell: int, colours: int = 3) -> list[int]:
    """Torch's channel (colour first) for each (row, column, colour) of the shipped graph's unshuffled input."""
    return [colour * cell**2 + place for place in range(cell**2) for colour in range(colours)]


class Upscaler(nn.Module):
    """(N, 3, H, W) in 0..1 -> (N, 3, H * scale, W * scale), not clipped. H and W are multiples of `unshuffle`.

    With config.channels = 4 the pictures are RGBA with premultiplied alpha.
    """

    def __init__(self, config: UpscalerConfig) -> None:
        super().__init__()
        self.config = config
        width, cells = config.width, config.unshuffle**2
        entry = FoldableConv2d(config.channels * cells, width, 3, branches=config.branches)
        self.head = nn.Sequential(entry, ACTIVATIONS[config.activation]())
        shape = config.kind, width, config.kernel, config.group_width, config.branches, config.activation
        self.trunk = nn.Sequential(*(block(*shape, config.expansion) for _ in range(config.depth)))
        self.drop = nn.Dropout2d(config.dropout)
        self.scales = level_scales(config.scale, config.levels)
        self.heads = nn.ModuleList(self._picture_head(scale) for scale in self.scales[:-1])
        self.tail = self._picture_head(config.scale)

    def _picture_head(self, scale: int) -> FoldableConv2d:
        places = (scale * self.config.unshuffle) ** 2
        conv = FoldableConv2d(self.config.width, self.config.channels * places, 1, branches=self.config.branches)
        with torch.no_grad():  # start near the residual: the enlarged input
            for parameter in conv.parameters():
                parameter.mul_(0.1)
        return conv

    def forward(self, x: Tensor) -> Tensor:
        with folded_together(self):
            return self._paint(self.tail, self.drop(self.trunk(self._enter(x))), x, self.config.scale)

    def levels(self, x: Tensor) -> list[Tensor]:
        """The picture of every level, coarse to fine; the last is what `forward` gives."""
        with folded_together(self):
            return list(self._climb(x))

    def _climb(self, x: Tensor) -> Iterator[Tensor]:
        features = self._enter(x)
        cuts = [self.config.depth * (level + 1) // self.config.levels for level in range(self.config.levels)]
        start = 0
        for level, cut in enumerate(cuts):
            features = self.trunk[start:cut](features)
            start = cut
            last = level == len(cuts) - 1
            head = self.tail if last else self.heads[level]
            yield self._paint(head, self.drop(features) if last else features, x, self.scales[level])

    def _enter(self, x: Tensor) -> Tensor:
        return self.head(F.pixel_unshuffle(x, self.config.unshuffle) if self.config.unshuffle > 1 else x)

    def _paint(self, head: nn.Module, features: Tensor, x: Tensor, scale: int) -> Tensor:
        cells = scale * self.config.unshuffle
        if self.config.unshuffle > 1:
            return shuffle(head(features), cells) + F.interpolate(x, scale_factor=float(scale), mode="nearest")
        return shuffle(head(features) + x.repeat(1, cells**2, 1, 1), cells)  # the enlarged input, before it is large

    def fold(self) -> Upscaler:
        """Ship form, in place: branches folded, auxiliary heads dropped."""
        fold(self)
        self.heads = nn.ModuleList()
        self.config = self.config.model_copy(update={"levels": 1, "branches": False})
        self.scales = [self.config.scale]
        return self

    @property
    def radius(self) -> int:
        """Receptive field radius in input pixels, rounded up to whole unshuffle cells."""
        trunk = self.config.depth * (self.config.kernel // 2)
        return (1 + trunk) * self.config.unshuffle + self.config.unshuffle - 1

    def macs_per_pixel(self) -> float:
        """Multiply-accumulates per input pixel of the folded network, auxiliary heads left out."""
        return sum(conv.weight.numel() for conv in self.convolutions()) / self.config.unshuffle**2

    def parameters_shipped(self) -> int:
        """Weights and biases of the folded network, auxiliary heads left out."""
        return sum(conv.weight.numel() + conv.weight.shape[0] for conv in self.convolutions())

    def convolutions(self) -> list[FoldableConv2d | nn.Conv2d]:
        """The convolutions that ship, in the order they run."""
        shipped = nn.ModuleList([self.head, self.trunk, self.tail])
        return [module for module in shipped.modules() if isinstance(module, FoldableConv2d | nn.Conv2d)]
