"""The matcher: how well a picture fits a prompt, and R-precision, the share of pictures that find their own prompt.

It learns from other pictures than any encoder inside a training loss (see `judges.half_of`) and is a separable network,
where the feature encoder of `distribution` is a dense one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from limner.errors import LimnerError
from limner.evaluate.judges import (
    WEIGHTS,
    Advance,
    Batch,
    Judge,
    JudgeConfig,
    Lessons,
    Pixels,
    about,
    fill,
    fit,
    keep,
    on_white,
    read_tensors,
    to_tensor,
)

CANDIDATES = 100
_SPACE = 128
_CHUNK = 256


class _Separable(nn.Module):
    """Residual block (N, C, H, W) -> same: 5x5 depthwise, then a pointwise bottleneck turned inside out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, 3 * width, 1),
            nn.GELU(),
            nn.Conv2d(3 * width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 2, stride=2, bias=False), nn.BatchNorm2d(outputs))


class MatcherNetwork(Judge):
    """Pictures (N, 3, S, S) in 0..1 and caption embeddings (N, E) into one space of unit vectors (N, 128)."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=4),
            nn.BatchNorm2d(width),
            *(_Separable(width) for _ in range(2)),
            _down(width, 2 * width),
            *(_Separable(2 * width) for _ in range(3)),
            _down(2 * width, 3 * width),
            *(_Separable(3 * width) for _ in range(2)),
            nn.BatchNorm2d(3 * width),
        )
        self.from_picture = nn.Linear(6 * width, _SPACE)
        self.from_text = nn.Linear(text_width, _SPACE)
        self.temperature = nn.Parameter(torch.tensor(2.5))

    def picture(self, pictures: Tensor) -> Tensor:
        x = self.trunk(2 * pictures - 1)
        return F.normalize(self.from_picture(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)), dim=1)

    def prompt(self, text: Tensor) -> Tensor:
        return F.normalize(self.from_text(text), dim=1)

    def loss(self, batch: Batch) -> Tensor:
        """Symmetric InfoNCE (Radford et al. 2021, fig. 3). Versions of one thing are no negatives of each other."""
        scores = self.picture(batch.pictures) @ self.prompt(batch.text).T * self.temperature.exp().clamp(max=50)
        same = batch.groups[:, None] == batch.groups[None]
        scores = scores.masked_fill(same & ~torch.eye(len(scores), dtype=torch.bool), -1e4)
        own = torch.arange(len(scores))
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


@dataclass(frozen=True)
class Matcher:
    """A trained matcher. Both calls are safe to repeat: they keep nothing."""

    network: MatcherNetwork

    @torch.no_grad()
    def pictures(self, pictures: Pixels) -> NDArray[np.float32]:
        """RGBA (N, S, S, 4) uint8 -> unit vectors (N, 128)."""
        parts = to_tensor(on_white(pictures)).split(_CHUNK)
        return torch.cat([self.network.picture(part) for part in parts]).numpy()

    @torch.no_grad()
    def prompts(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Caption embeddings (N, E) -> unit vectors (N, 128)."""
        return self.network.prompt(torch.from_numpy(np.ascontiguousarray(embeddings))).numpy()


def train_matcher(data: Lessons, config: JudgeConfig, folder: Path, advance: Advance = lambda *_: None) -> Matcher:
    """Train a matcher on `data`, or go on with the one begun in `folder`, and keep it there."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    network = MatcherNetwork(data.text.shape[1], config.width)
    fit(network, data, config, folder, advance)
    sizes = {"text_width": data.text.shape[1], "pictures": len(data.pictures)}
    keep(network, {"kind": "matcher", **sizes, "config": config.model_dump()}, folder)
    return Matcher(network)


def load_matcher(folder: Path) -> Matcher:
    """The matcher that `train_matcher` kept. Raises LimnerError when `folder` holds none, or a damaged one."""
    found = about(folder, "matcher")
    network = MatcherNetwork(found["text_width"], found["config"]["width"])
    fill(network, read_tensors(folder / WEIGHTS)[0], folder / WEIGHTS)
    network.eval()
    return Matcher(network)


def retrieved(
    pictures: NDArray[np.float32],
    prompts: NDArray[np.float32],
    groups: Sequence[str],
    candidates: int = CANDIDATES,
) -> NDArray[np.float64]:
    """For each picture, the chance that its own prompt scores best among `candidates` of the table: (N,) in 0..1.

    The rivals are drawn from prompts of other `groups`: versions of one thing are no fair rivals. Instead of one draw,
    the chance over all draws is computed: with r of m rivals above the own score, all `candidates` - 1 drawn ones must
    miss those r. A tie counts against the picture. `pictures` (N, D), `prompts` (M, D), `groups` (M,): row i belongs to
    row i, prompts beyond N are rivals only. Raises LimnerError when a prompt has too few rivals.
    """
    scores = pictures @ prompts.T
    names = np.unique(groups, return_inverse=True)[1]
    rival = names[: len(pictures), None] != names[None]
    own = np.diagonal(scores)[:, None]
    if rival.sum(1).min() < candidates - 1:
        raise LimnerError(
            f"a table of {len(groups)} prompts leaves only {rival.sum(1).min()} rivals for one of them: "
            f"R-precision of {candidates} needs {candidates - 1}; give more prompts of different things."
        )
    better = ((scores >= own) & rival).sum(1)
    return _missed(better, rival.sum(1), candidates - 1)


def _missed(marked: NDArray[np.integer], total: NDArray[np.integer], drawn: int) -> NDArray[np.float64]:
    """The chance that `drawn` of `total` things, without replacement, hold none of the `marked` ones."""
    from scipy.special import gammaln

    free = np.maximum(total - marked, drawn)
    chance = gammaln(free + 1) - gammaln(free - drawn + 1) - gammaln(total + 1) + gammaln(total - drawn + 1)
    return np.where(total - marked >= drawn, np.exp(chance), 0.0)
