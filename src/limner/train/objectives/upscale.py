"""Upscaling: the true picture at every level."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from limner.config import RunConfig
from limner.data.batches import Batch, CropSampler
from limner.models.discriminator import Discriminator
from limner.train.losses import multilevel
from limner.train.objectives.base import Judge, Made, unwatched
from limner.train.samples import HeldOut, validate

Teacher = Callable[[Tensor], Tensor]


class Upscale:
    """Crops in, the multi-level loss against the true crop, or partly against a teacher's, out."""

    methods: tuple[str, ...] = ("levels",)

    def __init__(
        self,
        config: RunConfig,
        sampler: CropSampler,
        pairs: HeldOut,
        device: torch.device | str,
        teacher: Teacher | None = None,
    ) -> None:
        self.config, self.sampler, self.pairs, self.device, self.teacher = config, sampler, pairs, device, teacher
        self.memory = torch.channels_last if config.train.channels_last else torch.contiguous_format

    def batch(self, step: int, rank: int, world: int) -> Batch:
        return self.sampler.batch(step, rank, world)

    def made(self, network: nn.Module, batch: Batch, share: float) -> Made:
        pictures = unwatched(network.levels(batch.low.contiguous(memory_format=self.memory)))  # type: ignore[operator]
        return Made({"pixel": self._pixel(pictures, batch, share)}, pictures[-1], batch.high)

    def _pixel(self, pictures: list[Tensor], batch: Batch, share: float) -> Tensor:
        loss = self.config.loss
        only_l2 = share >= 1 - loss.l2_share
        total = multilevel(pictures, batch.high, loss, only_l2)
        if self.teacher is None:
            return total
        return (1 - loss.distill) * total + loss.distill * multilevel(pictures, self.teacher(batch.low), loss, only_l2)

    def trains(self, name: str) -> bool:
        return True

    def critic(self) -> nn.Module:
        return Discriminator(self.config.adversarial.width, self.config.model.channels)

    def judge(self, critic: nn.Module, made: Made) -> Judge:
        return critic

    def criticism(self, critic: nn.Module, made: Made) -> dict[str, Tensor]:
        return {}

    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        return {"psnr_y": validate(network, self.pairs, self.device, sheet)}
