"""Own-KID and own-FD: golden cases, and the direction in which noise, blur and dropped modes push them."""

from __future__ import annotations

import json
from pathlib import Path

import judging_kit
import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.linalg import sqrtm

from limner.errors import LimnerError
from limner.evaluate.distribution import FEATURES, frechet, load_features, mmd, over_encoders
from limner.evaluate.painting import Judges


def test_frechet_follows_its_equation(rng: np.random.Generator) -> None:
    ours, real = rng.normal(size=(300, 6)), rng.normal(1, 2, (400, 6)) @ rng.normal(size=(6, 6))
    first, second = np.cov(ours, rowvar=False), np.cov(real, rowvar=False)
    expected = np.square(ours.mean(0) - real.mean(0)).sum() + np.trace(
        first + second - 2 * np.real(sqrtm(first @ second))
    )
    assert frechet(ours.astype(np.float32), real.astype(np.float32)) == pytest.approx(expected, rel=1e-4)
    assert frechet(ours.astype(np.float32), ours.astype(np.float32)) == pytest.approx(0, abs=1e-4)


def test_mmd_follows_its_equation(rng: np.random.Generator) -> None:
    ours, real = rng.normal(size=(5, 3)).astype(np.float32), rng.normal(1, 1, (4, 3)).astype(np.float32)

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return (float(x @ y) / 3 + 1) ** 3

    within = np.mean([k(ours[i], ours[j]) for i in range(5) for j in range(5) if i != j])
    within_real = np.mean([k(real[i], real[j]) for i in range(4) for j in range(4) if i != j])
    across = np.mean([k(x, y) for x in ours for y in real])
    assert mmd(ours, real) == pytest.approx(within + within_real - 2 * across, rel=1e-5)


def test_mmd_is_unbiased_at_any_size(rng: np.random.Generator) -> None:
    """Zero on average for one distribution, where the biased estimate would grow as the samples shrink."""
    for size in (10, 80):
        draws = [mmd(*rng.normal(size=(2, size, 8)).astype(np.float32)) for _ in range(300)]
        assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(300)


def test_a_distance_over_encoders_is_the_mean_of_theirs(rng: np.random.Generator) -> None:
    ours, real = (rng.normal(shift, 1, (40, 2 * FEATURES)).astype(np.float32) for shift in (0, 0.5))
    parts = [mmd(ours[:, :FEATURES], real[:, :FEATURES]), mmd(ours[:, FEATURES:], real[:, FEATURES:])]
    assert over_encoders(mmd, ours, real) == pytest.approx(np.mean(parts))


def test_two_pictures_are_needed() -> None:
    one = np.zeros((1, 8), np.float32)
    with pytest.raises(LimnerError, match="own-KID of 1 and 1"):
        mmd(one, one)
    with pytest.raises(LimnerError, match="own-FD of 1 and 1"):
        frechet(one, one)


def blurred(pictures: np.ndarray, radius: float) -> np.ndarray:
    return np.array([Image.fromarray(each).filter(ImageFilter.GaussianBlur(radius)) for each in pictures])


def test_distortions_and_dropped_modes_move_them_away_from_real(judges: Judges, rng: np.random.Generator) -> None:
    records, pictures = judging_kit.toys("validation", 1, seed=5)
    real = judges.space.features(judging_kit.toys("validation", 2, seed=6)[1])
    noisy = (pictures + rng.normal(0, 60, pictures.shape)).clip(0, 255).astype(np.uint8)
    discs = pictures[["disc" in record.text for record in records]]
    crowds = {"noise": noisy, "blur": blurred(pictures, 1.5), "more blur": blurred(pictures, 5), "modes": discs}
    found = {name: judges.space.features(each) for name, each in {"clean": pictures, **crowds}.items()}
    for measure in (mmd, frechet):
        scores = {name: measure(each, real) for name, each in found.items()}
        for name in crowds:
            assert scores[name] > 2 * abs(scores["clean"]), (measure.__name__, name)
        assert scores["more blur"] > scores["blur"]


def test_the_order_of_the_pictures_does_not_matter(judges: Judges) -> None:
    features = judges.space.features(judging_kit.toys("train", 0)[1])
    assert frechet(features[::-1], features) == pytest.approx(0, abs=1e-3)
    assert mmd(features[::-1].copy(), features) == pytest.approx(mmd(features, features), rel=1e-4)


def test_styles_of_unseen_toys_are_told(judges: Judges, judge_folder: Path) -> None:
    records, pictures = judging_kit.toys("validation", 1)
    told = judges.space.style(judges.space.features(pictures))
    assert np.mean([ours == record.style for ours, record in zip(told, records, strict=True)]) > 0.9
    again = load_features(judge_folder / "features")
    np.testing.assert_array_equal(again.features(pictures[:5]), judges.space.features(pictures[:5]))


def test_encoders_of_a_judge_differ(judges: Judges) -> None:
    features = judges.space.features(judging_kit.toys("validation", 1)[1])
    parts = np.split(features, features.shape[1] // FEATURES, axis=1)
    assert len(parts) == 3 and not np.allclose(parts[0], parts[1], atol=0.1)


def test_a_judge_of_an_earlier_version_is_refused(judge_folder: Path, tmp_path: Path) -> None:
    facts = json.loads((judge_folder / "features" / "judge.json").read_text("utf-8"))
    del facts["members"]
    (tmp_path / "judge.json").write_text(json.dumps(facts), "utf-8")
    with pytest.raises(LimnerError, match="earlier version; train it again"):
        load_features(tmp_path)


def test_features_of_its_own_lessons_are_standardized(judges: Judges) -> None:
    features = judges.space.features(judging_kit.toys("train", 0)[1])
    assert abs(features.mean()) < 0.05
    assert np.median(features.std(0)) == pytest.approx(1, abs=0.1)
