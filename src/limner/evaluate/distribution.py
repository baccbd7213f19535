"""Own-KID and own-FD: how far painted pictures are from real ones as a crowd, in the features of our own encoder.

The figures compare with each other only when the same encoder measured them; they are not the figures of the
literature, whose feature network we do not use.
"""

from __future__ import annotations

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

FEATURES = 128
_CHUNK = 256

Features = NDArray[np.float32]


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class FeatureNetwork(Judge):
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


@dataclass(frozen=True)
class FeatureSpace:
    """A trained encoder. `mean` and `scale` (128,) standardize: zero mean and unit spread over its own lessons."""

    network: FeatureNetwork
    styles: tuple[str, ...]
    mean: Features
    scale: Features

    @torch.no_grad()
    def _raw(self, pictures: Pixels) -> Tensor:
        return torch.cat([self.network(part) for part in to_tensor(on_white(pictures)).split(_CHUNK)])

    def features(self, pictures: Pixels) -> Features:
        """RGBA (N, S, S, 4) uint8 -> standardized features (N, 128)."""
        return (self._raw(pictures).numpy() - self.mean) / self.scale

    @torch.no_grad()
    def style(self, features: Features) -> list[str]:
        """The most likely style for each row of standardized features (N, 128)."""
        raw = torch.from_numpy(features * self.scale + self.mean)
        return [self.styles[i] for i in self.network.to_style(F.relu(raw)).argmax(1).tolist()]


def train_features(
    data: Lessons, config: JudgeConfig, folder: Path, advance: Advance = lambda *_: None
) -> FeatureSpace:
    """Train a feature encoder on `data`, or go on with the one begun in `folder`, and keep it there."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    network = FeatureNetwork(data.text.shape[1], len(data.style_names), config.width)
    fit(network, data, config, folder, advance)
    with torch.no_grad():
        raw = torch.cat([network(to_tensor(part)) for part in np.array_split(data.pictures, 64) if len(part)]).numpy()
    facts = {
        "kind": "feature encoder",
        "text_width": data.text.shape[1],
        "pictures": len(data.pictures),
        "styles": data.style_names,
        "mean": raw.mean(0).tolist(),
        "scale": np.maximum(raw.std(0), 1e-6).tolist(),
        "config": config.model_dump(),
    }
    keep(network, facts, folder)
    return load_features(folder)


def load_features(folder: Path) -> FeatureSpace:
    """The encoder that `train_features` kept. Raises LimnerError when `folder` holds none, or a damaged one."""
    found = about(folder, "feature encoder")
    network = FeatureNetwork(found["text_width"], len(found["styles"]), found["config"]["width"])
    fill(network, read_tensors(folder / WEIGHTS)[0], folder / WEIGHTS)
    network.eval()
    mean, scale = (np.array(found[key], np.float32) for key in ("mean", "scale"))
    return FeatureSpace(network, tuple(found["styles"]), mean, scale)


@dataclass(frozen=True)
class Kid:
    """Own-KID, and its standard error over the subsets."""

    value: float
    error: float


def kid(ours: Features, real: Features, subsets: int = 50, size: int = 500, seed: int = 0) -> Kid:
    """Unbiased squared MMD with the kernel (x.y / D + 1)^3 (Binkowski et al. 2018, eq. 4), a mean over random subsets.

    `ours` (N, D), `real` (M, D). Subsets have `size` rows, fewer where there are fewer. 0 in expectation for the
    same distribution, so it may come out slightly negative. Raises LimnerError for fewer than two rows.
    """
    rows = min(size, len(ours), len(real))
    if rows < 2:
        raise LimnerError(f"own-KID of {len(ours)} and {len(real)} pictures: both sides need at least 2.")
    random = np.random.default_rng(seed)
    draws = [
        mmd(ours[random.choice(len(ours), rows, replace=False)], real[random.choice(len(real), rows, replace=False)])
        for _ in range(subsets)
    ]
    return Kid(float(np.mean(draws)), float(np.std(draws) / np.sqrt(subsets)))


def mmd(ours: Features, real: Features) -> float:
    """Unbiased squared MMD of (N, D) and (M, D) with the cubic polynomial kernel."""
    return _within(ours) + _within(real) - 2 * float(_kernel(ours, real).mean())


def _kernel(a: Features, b: Features) -> NDArray[np.float64]:
    return ((a @ b.T).astype(np.float64) / a.shape[1] + 1) ** 3


def _within(a: Features) -> float:
    """Mean kernel of different rows."""
    kernel = _kernel(a, a)
    return float((kernel.sum() - np.trace(kernel)) / (len(a) * (len(a) - 1)))


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
