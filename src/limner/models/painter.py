"""The painter: noise and the vectors of a prompt in, a picture at every level out, in one pass.

A U on the pixel-unshuffled picture. The text enters in three places: FiLM in every block (from the pooled vector),
cross-attention to the tokens at coarse levels, and a map at the coarsest level. There is no normalization layer: blocks
start near the identity instead, which keeps activations level and leaves nothing that integers could not compute.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limner.config import PainterConfig
from limner.models.depthwise import Conv2d
from limner.models.upscaler import shuffle

CHANNELS = 4  # red, green, blue, each times alpha, and alpha
TIME_WAVES = 32
MASKED = 1e4


class Text(NamedTuple):
    """Vectors of N prompts: `states` (N, L, width), `mask` (N, L) of 0 and 1, `pooled` (N, width) of unit length."""

    states: Tensor
    mask: Tensor
    pooled: Tensor


def dense(inputs: int, outputs: int, gain: float = 1.0, kernel: int = 1) -> nn.Conv2d:
    """A convolution whose output has `gain` times the standard deviation of its input, and no bias yet."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.normal_(conv.weight, std=gain / math.sqrt(inputs * kernel**2))
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


class Block(nn.Module):
    """x + narrow(relu(depthwise(relu(widen(film(x)))))): (N, width, H, W) -> same.

    The dense kind has no depthwise layer, and kernels in both others. FiLM (Perez et al. 2018, eq. 1) acts on the
    narrow side, before the first convolution: half the work of acting on the wide one, and the integer convolutions in
    between stay one chain. `film`: (N, 2 * width, 1, 1), scale and shift.
    """

    def __init__(self, width: int, config: PainterConfig) -> None:
        super().__init__()
        wide, separable = width * config.expansion, config.kind == "separable"
        self.widen = dense(width, wide, math.sqrt(2.0), 1 if separable else config.kernel)
        self.depthwise = passing(wide, config.kernel) if separable else None
        self.narrow = dense(wide, width, 0.3, 1 if separable else config.kernel)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        scale, shift = film.chunk(2, 1)
        inner = F.relu(self.widen(torch.addcmul(x + shift, x, scale)))
        if self.depthwise is not None:
            inner = F.relu(self.depthwise(inner))
        return x + self.narrow(inner)


def passing(width: int, kernel: int) -> nn.Conv2d:
    """A depthwise convolution that passes its input, so that a stack of them starts as a stack of pointwise layers."""
    conv = Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
    nn.init.normal_(conv.weight, std=0.5 / kernel)
    with torch.no_grad():
        conv.weight[:, 0, kernel // 2, kernel // 2] += 1.0
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


class Stage(nn.ModuleList):
    """The blocks of one level, in one direction."""

    def __init__(self, width: int, depth: int, config: PainterConfig) -> None:
        super().__init__(Block(width, config) for _ in range(depth))


class CrossAttention(nn.Module):
    """x + leave(softmax(q(x) k(tokens)^T / sqrt(d)) v(tokens)): (N, width, H, W) and text -> (N, width, H, W)."""

    def __init__(self, width: int, text: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = dense(width, width, (width // heads) ** -0.25)
        self.key = dense(text, width, (width // heads) ** -0.25)
        self.value = dense(text, width)
        self.leave = dense(width, width, 0.3)

    def forward(self, x: Tensor, text: Text) -> Tensor:
        batch, width, height, _ = x.shape
        tokens, absent = text.states.transpose(1, 2)[..., None], ((text.mask - 1) * MASKED)[:, None, None]
        query, key, value = (self._split(part) for part in (self.query(x), self.key(tokens), self.value(tokens)))
        share = torch.softmax(query.transpose(2, 3) @ key + absent, 3)
        mixed = (value @ share.transpose(2, 3)).reshape(batch, width, height, -1)
        return x + self.leave(mixed)

    def _split(self, x: Tensor) -> Tensor:
        """(N, heads * d, H, W) -> (N, heads, d, H * W)."""
        return x.reshape(len(x), self.heads, x.shape[1] // self.heads, -1)


class Painter(nn.Module):
    """(noise, text) -> pictures, RGBA with premultiplied alpha in 0..1, not clipped.

    `noise`: (N, config.noise, G, G), G = size / cell. With config.timed the input is the noisy picture of a flow,
    pixel-unshuffled, and `time` (N,) in 0..1 says how noisy: 1 is noise alone.
    """

    clock: nn.Conv2d  # of flows only
    thoughts: nn.ModuleList
    mood: nn.Conv2d  # where config.mood says so

    def __init__(self, config: PainterConfig, text_width: int) -> None:
        super().__init__()
        self.config, self.text_width = config, text_width
        widths = config.widths
        self.enter = dense(config.noise, widths[0])
        self.read = dense(text_width, config.condition, math.sqrt(2.0))
        if config.timed:
            self.clock = dense(2 * TIME_WAVES, config.condition)
        self.down = nn.ModuleList(self._stage(level, config.down[level]) for level in range(len(widths) - 1))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.middle = self._stage(len(widths) - 1, config.middle)
        self.grow = nn.ModuleList(dense(b, a) for a, b in pairwise(widths))
        self.up = nn.ModuleList(self._stage(level, config.up[level]) for level in range(len(widths) - 1))
        self.attend = nn.ModuleDict(
            {str(level): CrossAttention(widths[level], text_width, config.heads) for level in config.attention}
        )
        if config.mood:
            self.mood = dense(config.noise, config.condition + config.memory)
        if config.memory:
            self.recall = dense(text_width, config.memory, math.sqrt(2.0))
            self.thoughts = nn.ModuleList(dense(config.memory, config.memory, 0.5) for _ in range(config.thoughts))
            self.imagine = dense(config.memory, (config.code or widths[-1]) * config.grids[-1] ** 2, 0.5)
        if config.code:
            self.widen = dense(config.code, widths[-1])
        self.film = dense(config.condition, sum(self.film_widths()), 0.1)
        self.heads = nn.ModuleDict({str(side): self._head(side) for side in config.sides})

    def _stage(self, level: int, depth: int) -> Stage:
        return Stage(self.config.widths[level], depth, self.config)

    def _head(self, side: int) -> nn.Conv2d:
        level = self.level_of(side)
        outputs = CHANNELS * (side // self.config.grids[level]) ** 2
        conv = dense(self.config.widths[level], outputs, 0.1, self.config.head_kernel if self.details(side) else 1)
        if not self.details(side):
            nn.init.constant_(conv.bias, 0.3)  # type: ignore[arg-type]
        return conv

    def details(self, side: int) -> bool:
        """Whether the head of that side only adds to the coarser picture."""
        return self.config.pyramid and side > self.config.sides[0]

    def level_of(self, side: int) -> int:
        """The level of the trunk that paints the picture of that side."""
        grids = self.config.grids
        return grids.index(side) if side in grids else 0

    def plan(self, level: int) -> list[tuple[int, int | None]]:
        """The way up of a level as (blocks to run, side to paint then): its pictures are spread over its blocks."""
        sides = [side for side in self.config.sides if self.level_of(side) == level]
        depth = len(self.middle if level == len(self.up) else self.up[level])  # type: ignore[arg-type]
        if not sides:
            return [(depth, None)]
        cuts = [depth * (k + 1) // len(sides) for k in range(len(sides))]
        return [(cut - before, side) for before, cut, side in zip([0, *cuts], cuts, sides, strict=False)]

    def film_widths(self) -> list[int]:
        """Length of the part of the FiLM vector that each block reads, in the order they run."""
        return [2 * len(block.narrow.weight) for stage in self.stages() for block in stage]  # type: ignore[union-attr]

    def stages(self) -> list[Stage]:
        """Every stage, in the order they run."""
        return [*self.down, self.middle, *reversed(self.up)]  # type: ignore[list-item]

    def forward(self, noise: Tensor, text: Text, time: Tensor | None = None) -> Tensor:
        """The finest picture, (N, 4, size, size)."""
        return self.levels(noise, text, time)[-1]

    def levels(
        self,
        noise: Tensor,
        text: Text,
        time: Tensor | None = None,
        until: int | None = None,
        code: Tensor | None = None,
    ) -> list[Tensor]:
        """The picture of every side in config.sides, coarse to fine; `until`: the last side that is wanted.

        `code`: (N, config.code, G, G), taken instead of what the text says, G being the coarsest grid.
        """
        mood = self._mood(noise)
        films = iter(self._films(text.pooled, mood, time))
        x, skips = self.enter(noise), []
        for stage, shrink in zip(self.down, self.shrink, strict=True):
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, next(films))
            skips.append(x)
            x = shrink(x)
        if self.config.memory:
            x = x + self._seen(self._imagined(text.pooled, mood) if code is None else code)
        pictures: list[Tensor] = []
        for level in reversed(range(len(self.config.widths))):
            if level < len(skips):
                x = skips[level] + F.interpolate(self.grow[level](x), scale_factor=2.0, mode="nearest")
            if str(level) in self.attend:
                x = self.attend[str(level)](x, text)
            x = self._climb(level, x, films, pictures)
            if until and pictures and pictures[-1].shape[2] >= until:
                break
        return [picture for picture in pictures if picture.shape[2] <= (until or self.config.size)]

    def _climb(self, level: int, x: Tensor, films: Iterator[Tensor], pictures: list[Tensor]) -> Tensor:
        """The blocks of a level on the way up; adds its pictures to `pictures`."""
        blocks = iter(self.middle if level == len(self.up) else self.up[level])  # type: ignore[arg-type]
        for count, side in self.plan(level):
            for block in islice(blocks, count):
                x = block(x, next(films))
            if side:
                # float: a sum of pictures in bf16 would be coarser than bytes
                picture = shuffle(self.heads[str(side)](x).float(), side // self.config.grids[level])
                pictures.append(picture + enlarged(pictures[-1]) if self.details(side) else picture)
        return x

    def _mood(self, noise: Tensor) -> Tensor | None:
        """What the mean of the noise, brought to a standard deviation of 1, adds to the hidden units of the text."""
        return self.mood(noise.mean((2, 3), keepdim=True) * noise.shape[2]) if self.config.mood else None

    def _films(self, pooled: Tensor, mood: Tensor | None, time: Tensor | None) -> tuple[Tensor, ...]:
        condition = self.read(self._spread(pooled))
        if mood is not None:
            condition = condition + mood[:, : self.config.condition]
        if self.config.timed:
            assert time is not None
            condition = condition + self.clock(waves(time)[:, :, None, None])
        return self.film(F.relu(condition)).split(self.film_widths(), 1)

    def recalled(self, noise: Tensor, pooled: Tensor) -> Tensor:
        """The code (N, config.code, G, G) of what a text means; of the noise (N, C, H, W) the mood alone counts."""
        return self._imagined(pooled, self._mood(noise))

    def _seen(self, code: Tensor) -> Tensor:
        return self.widen(code) if self.config.code else code

    def _imagined(self, pooled: Tensor, mood: Tensor | None) -> Tensor:
        """The map that the text and the mood put at the coarsest level, laid out with channels last."""
        grid, hidden = self.config.grids[-1], self.recall(self._spread(pooled))
        if mood is not None:
            hidden = hidden + mood[:, self.config.condition :]
        for thought in self.thoughts:
            hidden = hidden + thought(F.relu(hidden))
        flat = self.imagine(F.relu(hidden))
        return flat.reshape(len(flat), grid, grid, -1).permute(0, 3, 1, 2)

    def _spread(self, pooled: Tensor) -> Tensor:
        """A unit vector as a 1x1 picture, its elements brought to a standard deviation of 1."""
        return pooled[:, :, None, None] * math.sqrt(self.text_width)

    def fold(self) -> Painter:
        """Ship form, in place: the time of a flow fixed at 1 (noise alone)."""
        if self.config.timed:
            bias = self.read.bias
            assert bias is not None
            with torch.no_grad():
                bias += self.clock(waves(torch.ones(1, device=bias.device))[:, :, None, None]).flatten()
            del self.clock
            self.config = self.config.model_copy(update={"timed": False})
        return self

    def convolutions(self) -> list[nn.Conv2d]:
        """Every layer that ships."""
        return [module for module in self.modules() if isinstance(module, nn.Conv2d)]

    def parameters_shipped(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @torch.no_grad()
    def macs(self, tokens: int) -> int:
        """Multiply-accumulates per picture with prompts of that many tokens, products of attention left out."""
        found: list[int] = []

        def count(conv: nn.Module, _: object, y: Tensor) -> None:
            assert isinstance(conv, nn.Conv2d)
            found.append(conv.weight.numel() * y.shape[2] * y.shape[3])

        hooks = [conv.register_forward_hook(count) for conv in self.convolutions()]
        device, grid = self.enter.weight.device, self.config.grids[0]
        shapes = (tokens, self.text_width), (tokens,), (self.text_width,)
        text = Text(*(torch.zeros(1, *shape, device=device) for shape in shapes))
        self(torch.zeros(1, self.config.noise, grid, grid, device=device), text, torch.ones(1, device=device))
        for hook in hooks:
            hook.remove()
        return sum(found)


def enlarged(picture: Tensor) -> Tensor:
    """Twice the side, bilinearly: (N, C, H, W) -> (N, C, 2H, 2W)."""
    return F.interpolate(picture, scale_factor=2.0, mode="bilinear", align_corners=False)


def waves(time: Tensor) -> Tensor:
    """Sines and cosines of `time` (N,) in 0..1 at frequencies from 1 to 1000 radians: (N, 2 * TIME_WAVES)."""
    frequencies = torch.logspace(0, 3, TIME_WAVES, device=time.device)
    angles = time[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)
