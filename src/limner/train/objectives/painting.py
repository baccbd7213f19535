"""What the objectives of painters share: pictures with captions, the critic that reads, sample sheets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limner.config import RunConfig
from limner.data.painting import Captions, PaintingBatch, PaintingSampler, PromptVectors, decode_paintings
from limner.data.recolour import recoloured
from limner.data.records import Record
from limner.errors import LimnerError
from limner.models.discriminator import PaintingCritic
from limner.models.painter import Painter, Text
from limner.train.augment import augmented
from limner.train.losses import level_by_level, paintings
from limner.train.objectives.base import Judge, Made
from limner.train.progress import progress_bar
from limner.train.sheets import PROMPTS, SEEDS, save_sheet

VALIDATION_PICTURES = 256
CHUNK = 32

Teacher = Callable[[Tensor, Text], list[Tensor]]


@dataclass(frozen=True)
class HeldOutPaintings:
    """Validation pictures (N, 4, S, S) in 0..1, vectors of one caption of each, and those of the sheet's prompts."""

    pictures: Tensor
    text: Text
    prompts: Text


@dataclass(frozen=True)
class Material:
    """All that painters learn from; made once by `material`. `styles`: style -> the words that mostly ask for it."""

    sampler: PaintingSampler
    held_out: HeldOutPaintings
    cache: Path
    text_hash: str
    styles: dict[str, str]


def material(
    config: RunConfig, records: Sequence[Record], held: Sequence[Record], cache: Path, device: torch.device | str
) -> Material:
    """Decode the pictures and look the vectors of all captions up, encoding those that `cache` does not have."""
    pictures = decode_paintings(records, config.painter.size)
    if config.data.recolour:
        with progress_bar("recolour", len(records), 0, show=True) as advance:
            others, painted = recoloured(
                records, pictures, config.data.recolour, config.train.seed, lambda done: advance(done, {})
            )
        records, pictures = [*records, *others], np.concatenate([pictures, painted])
    captions = Captions(records, config.train.seed)
    picked = [held[i] for i in np.linspace(0, len(held) - 1, min(VALIDATION_PICTURES, len(held))).round().astype(int)]
    shown = [record.text or record.captions[0].text for record in picked]
    vectors, hash = encode(config, [*captions.texts, *shown, *PROMPTS], cache)
    sampler = PaintingSampler(records, pictures, captions, vectors, config.train.batch, device, config.data.upright)
    first = len(captions.texts)
    true = torch.from_numpy(decode_paintings(picked, config.painter.size)).permute(0, 3, 1, 2).float().div(255)
    rows = np.arange(first, first + len(shown) + len(PROMPTS))
    text = [part.to(device) for part in vectors.rows(rows)]
    held_text, prompts = (Text(*(part[a:b] for part in text)) for a, b in ((0, len(shown)), (len(shown), len(rows))))
    return Material(sampler, HeldOutPaintings(true.to(device), held_text, prompts), cache, hash, style_words(records))


def style_words(records: Sequence[Record]) -> dict[str, str]:
    """Style -> what most captions of its pictures say after the picture's name."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        name = str(record.extra.get("name", ""))
        words = record.text.removeprefix(name).lstrip(", ") if name and record.text.startswith(name) else ""
        if record.style and words:
            counts.setdefault(record.style, Counter())[words] += 1
    return {style: words.most_common(1)[0][0] for style, words in sorted(counts.items())}


def encode(config: RunConfig, captions: Sequence[str], cache: Path) -> tuple[PromptVectors, str]:
    """The vectors of `captions` and the hash of their encoder; what `cache` does not have is encoded and added."""
    from limner.text.cache import cached_states

    plan = config.text
    with progress_bar("text", len(captions), 0, show=True) as advance:
        found = cached_states(plan.bundle, captions, cache, plan.tokens, lambda done, _: advance(done, {}))
    if found.pooled.shape[1] != plan.width:
        raise LimnerError(
            f"{plan.bundle}: its vectors have {found.pooled.shape[1]} numbers, text.width is {plan.width}; set it so."
        )
    return PromptVectors(found.states, found.mask, found.pooled), found.hash


class Painting:
    """Base of the objectives of painters. Subclasses say what is to be made of a batch and how prompts are painted.

    `teacher`: paints every level from (noise, text); weighed against the true picture by loss.distill.
    """

    methods: tuple[str, ...] = ("levels",)
    teacher: Teacher | None = None

    def __init__(self, config: RunConfig, found: Material, device: torch.device | str) -> None:
        self.config, self.material, self.device = config, found, device
        self.memory = torch.channels_last if config.train.channels_last else torch.contiguous_format

    def batch(self, step: int, rank: int, world: int) -> PaintingBatch:
        return self.material.sampler.batch(step, rank, world)

    def noise(self, count: int) -> Tensor:
        """(count, channels, G, G), standard normal, from the global generator: the loop seeds it for every step."""
        painter = self.config.painter
        noise = torch.randn(count, painter.grids[0], painter.grids[0], painter.noise)
        return noise.permute(0, 3, 1, 2).to(self.device)  # channels last in memory

    def pixel(self, pictures: list[Tensor], true: Tensor, noise: Tensor, text: Text) -> Tensor:
        """Distance of every level to the true picture and, where there is a teacher, to what it makes of the noise."""
        loss = self.config.loss
        total = paintings(pictures, true, loss)
        if self.teacher is None:
            return total
        return (1 - loss.distill) * total + loss.distill * level_by_level(pictures, self.teacher(noise, text), loss)

    def trains(self, name: str) -> bool:
        return True

    def critic(self) -> nn.Module:
        knobs = self.config.adversarial
        return PaintingCritic(knobs.width, self.config.text.width, knobs.cell, knobs.places)

    def judge(self, critic: nn.Module, made: Made) -> Judge:
        if not self.config.adversarial.augment:
            return lambda pictures: critic(pictures, made.text)
        return lambda pictures: critic(augmented(pictures), made.text)

    def criticism(self, critic: nn.Module, made: Made) -> dict[str, Tensor]:
        """A true picture fits its own caption better than another picture's (Reed et al. 2016, algorithm 1), and better
        than that of the same thing in another style or colour.
        """
        knobs = self.config.adversarial
        if not knobs.mismatch + knobs.versions or made.real is None or made.text is None:
            return {}
        same = made.text if made.versions is None else made.versions
        logits = critic(made.real, torch.stack([made.text, made.text.roll(1, 0), same]))
        own, other, version = logits[0] if isinstance(logits, tuple) else logits
        gaps = {"mismatch": (knobs.mismatch, other - own), "versions": (knobs.versions, version - own)}
        return {name: weight * F.softplus(gap).mean() for name, (weight, gap) in gaps.items() if weight}

    def paint(self, network: nn.Module, noise: Tensor, text: Text) -> Tensor:
        """Pictures (N, 4, S, S), as the product paints them."""
        return network(noise, text)

    @torch.no_grad()
    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        """L1 distance to held-out pictures, and a sheet of fixed prompts and seeds."""
        assert isinstance(network, Painter)
        self._sheet(network, sheet)
        held = self.material.held_out
        if not len(held.pictures):
            return {}
        painted = self._painted(network, held.text, seed=0)
        return {"l1": float((painted - held.pictures).abs().mean())}

    def _painted(self, network: nn.Module, text: Text, seed: int) -> Tensor:
        torch.manual_seed(seed)
        noise = self.noise(len(text.mask))
        parts = zip(noise.split(CHUNK), *(part.split(CHUNK) for part in text), strict=True)
        return torch.cat([self.paint(network, part, Text(*rest)) for part, *rest in parts]).clamp(0, 1)

    def _sheet(self, network: nn.Module, sheet: Path) -> None:
        columns = [self._painted(network, self.material.held_out.prompts, seed) for seed in range(SEEDS)]
        save_sheet(torch.stack(columns, 1), sheet)


def as_text(batch: PaintingBatch) -> Text:
    return Text(batch.states, batch.mask, batch.pooled)
