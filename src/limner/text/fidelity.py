"""How much of the original's sense of likeness a smaller encoder keeps."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Fidelity:
    """Two encoders on the same texts. `cosine`, `cosine_p1`: of the pooled vectors, mean and 1st percentile.

    `top1`, `top5`: share of texts whose nearest (five nearest) other text is the same for both; of the five, the
    average share.
    """

    cosine: float
    cosine_p1: float
    top1: float
    top5: float

    def to_json(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


def compare(true: Floats, found: Floats) -> Fidelity:
    """`true`, `found`: pooled vectors (N, width) of unit length, N at least 7."""
    cosines = (true * found).sum(1)
    a, b = _nearest(true), _nearest(found)
    same = [len(set(x) & set(y)) / a.shape[1] for x, y in zip(a, b, strict=True)]
    return Fidelity(
        cosine=float(cosines.mean()),
        cosine_p1=float(np.percentile(cosines, 1)),
        top1=float((a[:, 0] == b[:, 0]).mean()),
        top5=float(np.mean(same)),
    )


def _nearest(vectors: Floats, count: int = 5) -> NDArray[np.intp]:
    """The `count` nearest other texts, nearest first, (N, count)."""
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    return np.argsort(-likeness, axis=1)[:, :count]


def retrieval(queries: Floats, targets: Floats) -> float:
    """Share of queries (N, width) whose nearest of the N targets is their own."""
    return float(((queries @ targets.T).argmax(1) == np.arange(len(queries))).mean())
