"""Judges that learned toy icons, once for all tests."""

from __future__ import annotations

from pathlib import Path

import judging_kit
import numpy as np
import pytest
import torch

from limner.evaluate.distribution import train_features
from limner.evaluate.judges import JudgeConfig, Lessons, lessons
from limner.evaluate.matcher import train_matcher
from limner.evaluate.painting import Exhibits, Judges, Reference
from limner.evaluate.probes import palette
from limner.evaluate.prompts import style_phrases, wordings


@pytest.fixture(scope="session")
def toy_lessons() -> Lessons:
    records, pictures = judging_kit.toys("train", 0)
    phrases = style_phrases(records)
    captions = [wordings(record, phrases, shares) for record, shares in zip(records, palette(pictures), strict=True)]
    return lessons(records, pictures, captions, judging_kit.embed)


@pytest.fixture(scope="session")
def judge_folder(toy_lessons: Lessons, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained judges `features` and `matcher`."""
    folder, threads = tmp_path_factory.mktemp("judges"), torch.get_num_threads()
    torch.set_num_threads(1)
    train_features(toy_lessons, JudgeConfig(images=2048, batch=64, width=8), folder / "features")
    train_matcher(toy_lessons, JudgeConfig(images=4096, batch=64, width=8, lr=5e-3), folder / "matcher")
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="session")
def judges(judge_folder: Path) -> Judges:
    from limner.evaluate.distribution import load_features
    from limner.evaluate.matcher import load_matcher

    return Judges(load_features(judge_folder / "features"), load_matcher(judge_folder / "matcher"), judging_kit.embed)


@pytest.fixture(scope="session")
def reference(judges: Judges) -> Reference:
    training, held_out = (
        Exhibits(*judging_kit.toys(split, i, seed=i)) for i, split in enumerate(("train", "validation"))
    )
    return Reference(training, held_out, judges)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
