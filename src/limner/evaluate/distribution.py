"""Own-KID and own-FD: how far painted pictures are from real ones as a crowd, in the features of our own encoder.

The figures compare with each other only when the same encoder measured them; they are not the figures of the
literature, whose feature network we do not use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

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

FEATURES = 128
MEMBERS = 3
_CHUNK = 256

Features = NDArray[np.float32]
Distance = Callable[[Features, Features], float]


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Encoder(nn.Module):
    """Pictures (N, 3, S, S) in 0..1 -> features (N, 128), which must tell caption and style. Dense 3x3 layers."""

    def __init__(self, text_width: int, styles: int, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.PixelUnshuffle(2),
            _conv(12, width, 2),
            _conv(width, width),
            _conv(width, 2 * width, 2),
            _conv(2 * width, 2 * width),
            _conv(2 * width, 4 * width, 2),
        )
        self.squeeze = nn.Linear(8 * width, FEATURES)
        self.to_text = nn.Linear(FEATURES, text_width)
        self.to_style = nn.Linear(FEATURES, styles)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.trunk(2 * pictures - 1)
        return self.squeeze(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))

    def loss(self, batch: Batch) -> Tensor:
        """1 - cosine to the caption's embedding, plus the cross-entropy of the style."""
        features = F.relu(self(batch.pictures))
        fit = F.cosine_similarity(self.to_text(features), batch.text)
        return (1 - fit).mean() + 0.3 * F.cross_entropy(self.to_style(features), batch.styles)


class FeatureNetwork(Judge):
    """Several encoders that began differently: pictures (N, 3, S, S) in 0..1 -> their features, (N, 128 * members).

    What one encoder says of a painter depends on the seed it began with (docs/log.md, 2026-11-30); side by side they
    say the same more often.
    """

    def __init__(self, text_width: int, styles: int, width: int, members: int = MEMBERS) -> None:
        super().__init__()
        self.members = nn.ModuleList(Encoder(text_width, styles, width) for _ in range(members))

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.cat([member(pictures) for member in self.members], 1)

    def loss(self, batch: Batch) -> Tensor:
        """The sum of what its members lose: each learns as it would alone."""
        return torch.stack([member.loss(batch) for member in self._encoders()]).sum()

    def styles(self, features: Tensor) -> Tensor:
        """Mean logits (N, styles) of features (N, 128 * members)."""
        parts = zip(self._encoders(), features.split(FEATURES, 1), strict=True)
        return torch.stack([member.to_style(F.relu(part)) for member, part in parts]).mean(0)

    def _encoders(self) -> list[Encoder]:
        return cast(list[Encoder], list(self.members))


@dataclass(frozen=True)
class FeatureSpace:
    """Trained encoders, D = 128 * members. `mean` and `scale` (D,) standardize: zero mean, unit spread over lessons."""

    network: FeatureNetwork
    styles: tuple[str, ...]
    mean: Features
    scale: Features

    @torch.no_grad()
    def _raw(self, pictures: Pixels) -> Tensor:
        return torch.cat([self.network(part) for part in to_tensor(on_white(pictures)).split(_CHUNK)])

    def features(self, pictures: Pixels) -> Features:
        """RGBA (N, S, S, 4) uint8 -> standardized features (N, D)."""
        return (self._raw(pictures).numpy() - self.mean) / self.scale

    @torch.no_grad()
    def style(self, features: Features) -> list[str]:
        """The most likely style for each row of standardized features (N, D)."""
        raw = torch.from_numpy(features * self.scale + self.mean)
        return [self.styles[i] for i in self.network.styles(raw).argmax(1).tolist()]


def train_features(
    data: Lessons, config: JudgeConfig, folder: Path, advance: Advance = lambda *_: None
) -> FeatureSpace:
    """Train feature encoders on `data`, or go on with those begun in `folder`, and keep them there."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    network = FeatureNetwork(data.text.shape[1], len(data.style_names), config.width)
    fit(network, data, config, folder, advance)
    with torch.no_grad():
        raw = torch.cat([network(to_tensor(part)) for part in np.array_split(data.pictures, 64) if len(part)]).numpy()
    facts = {
        "kind": "feature encoder",
        "text_width": data.text.shape[1],
        "members": len(network.members),
        "pictures": len(data.pictures),
        "styles": data.style_names,
        "mean": raw.mean(0).tolist(),
        "scale": np.maximum(raw.std(0), 1e-6).tolist(),
        "config": config.model_dump(),
    }
    keep(network, facts, folder)
    return load_features(folder)


def load_features(folder: Path) -> FeatureSpace:
    """The encoders that `train_features` kept. Raises LimnerError when `folder` holds none, or a damaged one."""
    found = about(folder, "feature encoder")
    if "members" not in found:
        raise LimnerError(f"{folder}: a single encoder, of an earlier version; train it again with runs/judges.sh.")
    shape = found["text_width"], len(found["styles"]), found["config"]["width"]
    network = FeatureNetwork(*shape, found["members"])
    fill(network, read_tensors(folder / WEIGHTS)[0], folder / WEIGHTS)
    network.eval()
    mean, scale = (np.array(found[key], np.float32) for key in ("mean", "scale"))
    return FeatureSpace(network, tuple(found["styles"]), mean, scale)


def mmd(ours: Features, real: Features) -> float:
    """Own-KID of (N, D) and (M, D): unbiased squared MMD, kernel (x.y / D + 1)^3 (Binkowski et al. 2018, eq. 4).

    0 in expectation for the same distribution, so it may come out slightly negative. Raises LimnerError for fewer than
    two rows.
    """
    if min(len(ours), len(real)) < 2:
        raise LimnerError(f"own-KID of {len(ours)} and {len(real)} pictures: both sides need at least 2.")
    return _within(ours) + _within(real) - 2 * float(_kernel(ours, real).mean())


def _kernel(a: Features, b: Features) -> NDArray[np.float64]:
    return ((a @ b.T).astype(np.float64) / a.shape[1] + 1) ** 3


def _within(a: Features) -> float:
    """Mean kernel of different rows."""
    kernel = _kernel(a, a)
    return float((kernel.sum() - np.trace(kernel)) / (len(a) * (len(a) - 1)))


def over_encoders(distance: Distance, ours: Features, real: Features) -> float:
    """Mean of a distance of (N, D) and (M, D) over the encoders whose features stand side by side, 128 columns each."""
    members = ours.shape[1] // FEATURES
    parts = zip(np.split(ours, members, axis=1), np.split(real, members, axis=1), strict=True)
    return float(np.mean([distance(a, b) for a, b in parts]))


def frechet(ours: Features, real: Features) -> float:
    """Squared Frechet distance of Gaussians fitted to (N, D) and (M, D) (Heusel et al. 2017, eq. 6).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). It shrinks with more rows: compare equal N only.
    """
    if min(len(ours), len(real)) < 2:
        raise LimnerError(f"own-FD of {len(ours)} and {len(real)} pictures: both sides need at least 2.")
    first, second = (np.cov(side, rowvar=False, dtype=np.float64) for side in (ours, real))
    root = _root(first)
    eigenvalues = np.linalg.eigvalsh(root @ second @ root)
    shift = np.square(ours.mean(0, dtype=np.float64) - real.mean(0, dtype=np.float64)).sum()
    return float(shift + np.trace(first) + np.trace(second) - 2 * np.sqrt(eigenvalues.clip(0)).sum())


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
