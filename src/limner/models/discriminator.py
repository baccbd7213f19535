"""A fully convolutional critic without normalization layers."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Logits = Tensor | tuple[Tensor, Tensor]


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


class _Grouped(nn.Module):
    """Residual block that halves the resolution, a grouped 3x3 then a 1x1: (N, in, H, W) -> (N, out, H/2, W/2).

    Groups of 16 channels; grouped convolutions gained most in R3GAN (Huang et al. 2024, table 2). A mean over 2x2
    pixels and a 1x1 convolution may change places, and the mean first is a quarter of the work.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(inputs, inputs, 3, padding=1, groups=max(1, inputs // 16))
        self.mix = nn.Conv2d(inputs, outputs, 1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
        nn.init.normal_(self.mix.weight, std=0.3 / inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.leaky_relu(self.spread(F.leaky_relu(x, 0.2)), 0.2)
        return self.mix(F.avg_pool2d(inner, 2)) + self.skip(F.avg_pool2d(x, 2))


class PictureTrunk(nn.Module):
    """(N, 4, S, S) pictures in 0..1 -> (N, 4 * width, S / 32, S / 32), on pixels unshuffled by `cell`.

    No normalization.
    """

    def __init__(self, width: int, cell: Literal[2, 4] = 4) -> None:
        super().__init__()
        widths = [width, 2 * width, 3 * width, 4 * width] + [4 * width] * (cell == 2)
        self.enter = nn.Conv2d(4 * cell**2, width, 3, padding=1)
        self.downs = nn.ModuleList(_Grouped(a, b) for a, b in pairwise(widths))
        self.width, self.cell = widths[-1], cell

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)[-1]

    def maps(self, x: Tensor) -> list[Tensor]:
        """The features at S / cell and every halving of it down to S / 32 pixels."""
        found = [self.enter(F.pixel_unshuffle(2 * x - 1, self.cell))]
        for down in self.downs:
            found.append(down(found[-1]))
        return found


class PaintingCritic(nn.Module):
    """Whether pictures (N, 4, S, S) look real and fit `pooled` (N, text_width): (N,) logits.

    The projection form (Miyato & Koyama 2018, eq. 4): psi(h) + <V text, h>, h being the features summed over places.
    With `places` the same is asked at every place of the maps of 1/8 of the picture's side too, which see 28 pixels:
    what is wrong in one corner is not outvoted by the others, as it is in a mean (Isola et al. 2017, section 3.2.2).
    Logits are float under autocast too: it is their small differences that are learned from.
    """

    def __init__(self, width: int, text_width: int, cell: Literal[2, 4] = 4, places: bool = False) -> None:
        super().__init__()
        self.trunk = PictureTrunk(width, cell)
        self.whole = Projection(self.trunk.width, text_width)
        self.part = Projection(3 * width if cell == 2 else 2 * width, text_width) if places else None

    def forward(self, x: Tensor, pooled: Tensor) -> Logits:
        """`pooled` may also be (K, N, text_width), K captions of each picture: then the logits are (K, N).

        With `places` a second tensor follows, with a row of logits of each place for every logit of a whole.
        """
        maps = self.trunk.maps(x)
        whole = self.whole(_rows(maps[-1]).mean(1, keepdim=True), pooled)[..., 0]
        if self.part is None:
            return whole
        return whole, self.part(_rows(next(each for each in maps if 8 * each.shape[2] == x.shape[2])), pooled)


class Projection(nn.Module):
    """Features (N, P, width) of P places and captions (N, text_width) or (K, N, text_width) -> logits (..., N, P)."""

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.real = nn.Linear(width, 1)
        self.text = nn.Linear(text_width, width, bias=False)
        self.gain = (text_width / width) ** 0.5

    def forward(self, features: Tensor, pooled: Tensor) -> Tensor:
        features = features.float()
        with torch.autocast(features.device.type, enabled=False):
            asked = self.gain * self.text(pooled.float())
            return self.real(features)[..., 0] + torch.einsum("npc,...nc->...np", features, asked)


def _rows(maps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H * W, C), after the activation that the maps still lack."""
    return F.leaky_relu(maps, 0.2).flatten(2).transpose(1, 2)


class PicturePrompt(nn.Module):
    """Pictures (N, 4, S, S) and pooled captions (N, text_width) into one space of unit vectors (N, space).

    The encoder inside a painter's loss; `evaluate.matcher` judges with another one, learned from other pictures.
    """

    def __init__(self, width: int, text_width: int, space: int = 128) -> None:
        super().__init__()
        self.trunk = PictureTrunk(width)
        self.from_picture = nn.Linear(2 * self.trunk.width, space)
        self.from_text = nn.Linear(text_width, space)
        self.temperature = nn.Parameter(torch.tensor(2.5))

    def forward(self, pictures: Tensor, pooled: Tensor) -> Tensor:
        """Likeness of every picture to every caption, times the learned temperature: (N, N)."""
        return self.scores(self.trunk(pictures), pooled)

    def scores(self, last: Tensor, pooled: Tensor) -> Tensor:
        """As `forward`, from what the trunk made of the pictures."""
        return self._point(last) @ self.prompt(pooled).T * self.temperature.exp().clamp(max=50)

    def picture(self, pictures: Tensor) -> Tensor:
        return self._point(self.trunk(pictures))

    def _point(self, last: Tensor) -> Tensor:
        last = F.leaky_relu(last, 0.2)
        return F.normalize(self.from_picture(torch.cat([last.mean((2, 3)), last.amax((2, 3))], 1)), dim=1)

    def prompt(self, pooled: Tensor) -> Tensor:
        return F.normalize(self.from_text(pooled), dim=1)
