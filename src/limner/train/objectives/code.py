"""Two stages before a painter learns end to end: pictures to codes and back, and text to codes.

A painter that learns from text alone must find out at once what its words mean and how pictures are made, and blurs
for long. Here the trunk first learns to decode codes of real pictures (a problem with one answer, as in the first stage
of Esser et al. 2021, VQGAN, without its discrete codes); then the layers between the text and the code learn to predict
them, far more texts a second, since no picture is painted.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from limner.config import RunConfig
from limner.data.painting import PaintingBatch
from limner.errors import LimnerError
from limner.models.coder import Coder
from limner.models.painter import Text
from limner.train.objectives.base import Made, unwatched
from limner.train.objectives.direct import leading
from limner.train.objectives.painting import CHUNK, Material, Painting, as_text
from limner.train.progress import progress_bar
from limner.train.sheets import save_sheet

SHOWN = 36


RECALLING = {"recall", "thoughts", "imagine"}  # what stands between the text and the code


class Coding(Painting):
    """Pictures to codes and back, judged at every level."""

    def trains(self, name: str) -> bool:
        return name.startswith("encoder.") or (self.config.code.decoder and not RECALLING & set(name.split(".")))

    def made(self, network: nn.Module, batch: PaintingBatch, share: float) -> Made:
        text, true = as_text(batch), batch.pictures.contiguous(memory_format=self.memory)
        noise = self.noise(len(true))
        pictures = unwatched(network.levels(true, noise, text))  # type: ignore[operator]
        losses = {"pixel": self.pixel(pictures, batch.pictures, noise, text)}
        return Made(losses, pictures[-1], true, batch.pooled, batch.versions)

    @torch.no_grad()
    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        """L1 distance of held-out pictures to what their codes give, and a sheet of both."""
        held = self.material.held_out
        if not len(held.pictures):
            return {}
        torch.manual_seed(0)
        parts = zip(held.pictures.split(CHUNK), *(part.split(CHUNK) for part in held.text), strict=True)
        found = torch.cat([network(part, self.noise(len(part)), Text(*text)) for part, *text in parts]).clamp(0, 1)
        save_sheet(torch.stack([held.pictures[:SHOWN], found[:SHOWN]], 1), sheet)
        return {"l1": float((found - held.pictures).abs().mean())}


class RecallBatch(NamedTuple):
    """`pooled` (N, width): a caption of each picture; `codes` (N, C, G, G); `looks` as in PaintingBatch."""

    pooled: Tensor
    codes: Tensor
    looks: Tensor


class Recall(Painting):
    """Text (and the mood of the noise) to the codes of its pictures.

    With loss.best_of > 1 a picture is learned from the best of that many draws of noise (implicit maximum likelihood
    estimation, Li & Malik 2018, algorithm 1), which costs next to nothing here.
    """

    methods: tuple[str, ...] = ("recalled",)

    def trains(self, name: str) -> bool:
        return bool({*RECALLING, "mood"} & set(name.split(".")))

    def __init__(self, config: RunConfig, found: Material, device: torch.device | str) -> None:
        super().__init__(config, found, device)
        self.codes = codes_of(config, found, device)

    def batch(self, step: int, rank: int, world: int) -> RecallBatch:  # type: ignore[override]
        rows, pictures = self.material.sampler.rows(step, rank, world)
        pooled = torch.from_numpy(self.material.sampler.vectors.pooled[rows].astype(np.float32))
        looks = self.material.sampler.open_looks(rows, pictures)
        return RecallBatch(pooled.to(self.device), self.codes[torch.from_numpy(pictures)].to(self.device), looks)

    def made(self, network: nn.Module, batch: RecallBatch, share: float) -> Made:  # type: ignore[override]
        error = network.recalled(self._mood(network, batch), batch.pooled) - batch.codes  # type: ignore[operator]
        return Made({"code": error.square().mean()})

    @torch.no_grad()
    def _mood(self, network: nn.Module, batch: RecallBatch) -> Tensor:
        """The draw whose code is nearest to the true one."""
        draws = [self._moods(batch) for _ in range(self.config.loss.best_of)]
        if len(draws) == 1:
            return draws[0]
        codes = (network.recalled(draw, batch.pooled) for draw in draws)  # type: ignore[operator]
        best = torch.stack([(code - batch.codes).square().mean((1, 2, 3)) for code in codes]).argmin(0)
        return torch.stack(draws)[best, torch.arange(len(best), device=best.device)]

    def _moods(self, batch: RecallBatch) -> Tensor:
        """Noise of one place (N, C, 1, 1): its mean, brought to unit variance, is all that is read of it."""
        draw = torch.randn(len(batch.pooled), self.config.painter.noise, 1, 1, device=batch.pooled.device)
        return leading(draw, batch.looks, self.material.sampler.styles) if self.config.data.looks else draw


@torch.no_grad()
def codes_of(config: RunConfig, found: Material, device: torch.device | str) -> Tensor:
    """The codes (M, C, G, G) float16 of all pictures. Raises LimnerError when the coder does not fit this painter."""
    from limner.train.runs import load_network

    if config.code.run is None:
        raise LimnerError("recall needs a coder: set code.run to the run folder of a run with objective=code.")
    coder = load_network(Path(config.code.run), Coder)[1].to(device)
    if coder.painter.config != config.painter:
        raise LimnerError(f"{config.code.run}: codes pictures for another painter; give the same painter settings.")
    pictures, codes = found.sampler.pictures, []
    with progress_bar("codes", len(pictures), 0, show=True) as advance:
        for part in pictures.split(256):
            codes.append(coder.encoder(part.permute(0, 3, 1, 2).float().div(255)).half().cpu())
            advance(sum(map(len, codes)), {})
    return torch.cat(codes)
