"""Networks by objective, in a plain dict: a name in a configuration leads here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from limner.config import RunConfig
from limner.models.coder import Coder
from limner.models.discriminator import PicturePrompt
from limner.models.painter import Painter
from limner.models.upscaler import Upscaler


def _painter(config: RunConfig) -> Painter:
    return Painter(config.painter, config.text.width)


def _recaller(config: RunConfig) -> Painter:
    """A painter of which only the way from the text to the code learns."""
    painter = _painter(config)
    for name, parameter in painter.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in ("recall", "thoughts", "imagine", "mood"))
    return painter


NETWORKS: dict[str, Callable[[RunConfig], nn.Module]] = {
    "upscale": lambda config: Upscaler(config.model),
    "direct": _painter,
    "flow": _painter,
    "student": _painter,
    "code": lambda config: Coder(config.code, config.painter, config.text.width),
    "recall": _recaller,
    "match": lambda config: PicturePrompt(config.adversarial.width, config.text.width),
}
