"""R-precision: its arithmetic, and that it falls for noise and for shuffled captions, but not for another wording."""

from __future__ import annotations

from pathlib import Path

import judging_kit
import numpy as np
import pytest

from limner.errors import LimnerError
from limner.evaluate.matcher import CANDIDATES, load_matcher, retrieved
from limner.evaluate.painting import Judges


def test_it_equals_the_average_over_draws_of_rivals(rng: np.random.Generator) -> None:
    pictures, prompts = rng.normal(size=(12, 4)).astype(np.float32), rng.normal(size=(12, 4)).astype(np.float32)
    prompts += pictures
    scores = pictures @ prompts.T
    wins = np.zeros(12)
    for _ in range(2000):
        for i in range(12):
            rivals = rng.choice([j for j in range(12) if j != i], 4, replace=False)
            wins[i] += scores[i, i] > scores[i, rivals].max()
    chances = retrieved(pictures, prompts, [str(i) for i in range(12)], candidates=5)
    np.testing.assert_allclose(chances, wins / 2000, atol=0.04)
    assert 0.2 < chances.mean() < 0.98


def test_versions_of_one_thing_are_no_rivals() -> None:
    pictures = np.eye(4, dtype=np.float32)
    prompts = pictures[[1, 0, 2, 3]]  # the first two are taken for each other
    assert retrieved(pictures, prompts, ["a", "b", "c", "d"], candidates=4).tolist() == [0, 0, 1, 1]
    assert retrieved(pictures, prompts, ["a", "a", "c", "d"], candidates=3)[:2].tolist() == [0, 0]  # ties lose
    assert retrieved(pictures, pictures, ["a", "a", "c", "d"], candidates=3).tolist() == [1, 1, 1, 1]


def test_prompts_beyond_the_pictures_are_rivals_only() -> None:
    prompts = np.eye(4, dtype=np.float32)
    taken = np.array([[1.0, 0, 0, 0], [0, 1, 0, 2]], np.float32)  # the second is taken for the fourth prompt
    assert retrieved(taken, prompts, ["a", "b", "c", "d"], candidates=4).tolist() == [1, 0]
    assert retrieved(taken, prompts, ["a", "b", "c", "b"], candidates=3).tolist() == [1, 1]


def test_one_picture_for_all_prompts_scores_as_chance(rng: np.random.Generator) -> None:
    prompts = rng.normal(size=(300, 8)).astype(np.float32)
    same = np.repeat(rng.normal(size=(1, 8)).astype(np.float32), 300, 0)
    assert retrieved(same, prompts, [str(i) for i in range(300)]).mean() == pytest.approx(1 / CANDIDATES, rel=0.02)


def test_too_few_rivals_are_an_error() -> None:
    with pytest.raises(LimnerError, match="leaves only 2 rivals"):
        retrieved(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32), ["a", "a", "b", "c"])


def precision(judges: Judges, pictures: np.ndarray, captions: list[str]) -> float:
    vectors = judges.matcher.prompts(judges.embed(captions))
    return float(retrieved(judges.matcher.pictures(pictures), vectors, captions).mean())


def test_unseen_combinations_are_recognized_and_distortions_lower_the_share(
    judges: Judges, rng: np.random.Generator
) -> None:
    records, pictures = judging_kit.toys("validation", 1, seed=3)
    captions = [record.text for record in records]
    real = precision(judges, pictures, captions)
    assert real > 0.25
    assert precision(judges, pictures, captions[1:] + captions[:1]) < 0.1  # shuffled
    noise = rng.integers(0, 256, pictures.shape, np.uint8)
    noisy = np.where(rng.random(pictures.shape[:3])[..., None] < 0.5, noise, pictures)
    assert precision(judges, noisy, captions) < 0.6 * real
    reworded = [f"please paint {record.extra['name']} as {record.style} toy" for record in records]
    assert precision(judges, pictures, reworded) > 0.6 * real


def test_a_kept_matcher_says_the_same(judges: Judges, judge_folder: Path) -> None:
    _, pictures = judging_kit.toys("train", 2)
    again = load_matcher(judge_folder / "matcher")
    np.testing.assert_array_equal(again.pictures(pictures[:9]), judges.matcher.pictures(pictures[:9]))
    np.testing.assert_allclose(np.linalg.norm(again.pictures(pictures[:9]), axis=1), 1, atol=1e-5)
