"""Networks by objective, in a plain dict: a name in a configuration leads here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from limner.config import RunConfig
from limner.models.discriminator import PicturePrompt
from limner.models.painter import Painter
from limner.models.upscaler import Upscaler


def _painter(config: RunConfig) -> Painter:
    return Painter(config.painter, config.text.width)


NETWORKS: dict[str, Callable[[RunConfig], nn.Module]] = {
    "upscale": lambda config: Upscaler(config.model),
    "direct": _painter,
    "flow": _painter,
    "student": _painter,
    "match": lambda config: PicturePrompt(config.adversarial.width, config.text.width),
}
