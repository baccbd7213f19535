"""Networks by task, in two plain dicts: a name in a configuration leads here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from limner.config import UpscalerConfig
from limner.models.discriminator import Discriminator
from limner.models.upscaler import Upscaler

GENERATORS: dict[str, Callable[[UpscalerConfig], Upscaler]] = {"upscale": Upscaler}
DISCRIMINATORS: dict[str, Callable[[int], nn.Module]] = {"upscale": Discriminator}
