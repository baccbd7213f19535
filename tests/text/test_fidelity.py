"""Fidelity: 1 for the same vectors, less for noise, and the worst text shows."""

from __future__ import annotations

import numpy as np
import pytest

from limner.text.fidelity import compare, retrieval


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def vectors() -> np.ndarray:
    return unit(np.random.default_rng(0).normal(size=(200, 16)))


def test_the_same_vectors_agree(vectors: np.ndarray) -> None:
    assert compare(vectors, vectors).to_json() == {"cosine": 1.0, "cosine_p1": 1.0, "top1": 1.0, "top5": 1.0}


def test_noise_lowers_every_figure(vectors: np.ndarray) -> None:
    random = np.random.default_rng(1)
    little, much = (compare(vectors, unit(vectors + random.normal(0, s, vectors.shape))) for s in (0.05, 0.3))
    for name, value in much.to_json().items():
        assert 0 < value < little.to_json()[name] < 1


def test_a_rotation_changes_the_cosine_but_no_neighbour(vectors: np.ndarray) -> None:
    found = compare(vectors, -vectors)
    assert (found.cosine, found.top1, found.top5) == (pytest.approx(-1), 1, 1)


def test_one_bad_text_shows_in_the_percentile(vectors: np.ndarray) -> None:
    found = vectors.copy()
    found[:4] *= -1
    assert compare(vectors, found).cosine > 0.9
    assert compare(vectors, found).cosine_p1 < 0


def test_retrieval_counts_queries_that_find_their_own(vectors: np.ndarray) -> None:
    queries = vectors.copy()
    queries[:50] = vectors[50:100]
    assert retrieval(queries, vectors) == 0.75
