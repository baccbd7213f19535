"""Fewer layers: the closed form beats dropping, gradients beat the closed form, and a killed run goes on."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from text_kit import WORDS, bert
from torch import nn
from transformers import BertModel

from limner.errors import LimnerError, UsageError
from limner.text import distill
from limner.text.distill import Polish, fit, goals, polish, recombined, with_vocabulary

VOCABULARY = 60
Ids = list[tuple[list[int], list[int]]]


def texts(count: int, seed: int = 0) -> Ids:
    random = np.random.default_rng(seed)
    rows = [random.integers(5, VOCABULARY, random.integers(3, 9)).tolist() for _ in range(count)]
    return [(row, row) for row in rows]


@pytest.fixture
def teacher() -> BertModel:
    return bert(VOCABULARY, layers=4).requires_grad_(False)


def apart(student: BertModel, teacher: BertModel) -> float:
    """Squared error of the states on texts nobody has seen, relative to their size."""
    held = texts(40, seed=9)
    with torch.no_grad():
        pairs = [
            (student(torch.tensor([a])).last_hidden_state, teacher(torch.tensor([b])).last_hidden_state)
            for b, a in held
        ]
    return float(sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs))


def dropped(teacher: BertModel, keep: list[int]) -> BertModel:
    student = copy.deepcopy(teacher)
    student.encoder.layer = nn.ModuleList([student.encoder.layer[number] for number in keep])
    student.config.num_hidden_layers = len(keep)
    return student


def test_goals_lie_half_way_to_the_next_kept_layer() -> None:
    assert goals([0, 4, 5], 6) == [2, 4, 5]
    assert goals([0, 2, 4, 5], 6) == [1, 3, 4, 5]
    assert goals(range(6), 6) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("keep", [[], [1, 0], [0, 0], [-1, 2], [0, 6]])
def test_impossible_layers(keep: list[int]) -> None:
    with pytest.raises(UsageError, match=r"are impossible: name some of 0 to 5, in order"):
        goals(keep, 6)


def test_the_fit_is_nearer_than_dropping_layers(teacher: BertModel) -> None:
    student = copy.deepcopy(teacher)
    fit(student, teacher, texts(300), [0, 3])
    assert len(student.encoder.layer) == 2
    assert apart(student, teacher) < 0.7 * apart(dropped(teacher, [0, 3]), teacher)


def test_the_fit_of_all_layers_changes_nothing(teacher: BertModel) -> None:
    student = copy.deepcopy(teacher)
    fit(student, teacher, texts(50), [0, 1, 2, 3])
    assert apart(student, teacher) < 1e-8


def test_polish_brings_the_student_nearer(teacher: BertModel, tmp_path: Path) -> None:
    student = copy.deepcopy(teacher)
    fit(student, teacher, texts(200), [0, 3])
    before, vectors = apart(student, teacher), student.embeddings.word_embeddings.weight.clone()
    seen: list[int] = []
    polish(student, teacher, texts(400), tmp_path, Polish(steps=40, lr=3e-3), lambda done, _: seen.append(done))
    assert apart(student, teacher) < 0.9 * before
    assert (student.embeddings.word_embeddings.weight == vectors).all()
    assert seen == list(range(1, 41))


def test_a_stopped_run_goes_on_to_the_same_weights(teacher: BertModel, tmp_path: Path) -> None:
    settings = Polish(steps=9, checkpoint_every=3)

    class Stop(Exception):
        pass

    def stop(done: int, _: int) -> None:
        if done == 5:
            raise Stop

    straight = dropped(teacher, [0, 3])
    polish(straight, teacher, texts(100), tmp_path / "straight", settings)
    with pytest.raises(Stop):
        polish(dropped(teacher, [0, 3]), teacher, texts(100), tmp_path / "stopped", settings, stop)
    resumed, seen = dropped(teacher, [0, 3]), []
    polish(resumed, teacher, texts(100), tmp_path / "stopped", settings, lambda done, _: seen.append(done))
    assert seen == [4, 5, 6, 7, 8, 9]
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_student(teacher: BertModel, tmp_path: Path) -> None:
    polish(dropped(teacher, [0, 3]), teacher, texts(50), tmp_path, Polish(steps=1))
    with pytest.raises(LimnerError, match=r"polish\.pt: is no checkpoint of this student .*; remove it"):
        polish(dropped(teacher, [3]), teacher, texts(50), tmp_path, Polish(steps=2))


def test_a_smaller_vocabulary_keeps_the_vectors_to_a_rounding(teacher: BertModel) -> None:
    smaller = with_vocabulary(teacher, [3, 10, 40])
    old, new = teacher.embeddings.word_embeddings.weight[[3, 10, 40]], smaller.embeddings.word_embeddings.weight
    assert new.shape == (3, 32)
    assert 0 < (old - new).norm() < 0.1 * old.norm()
    assert teacher.config.vocab_size == VOCABULARY


def test_recombined_captions_are_new_and_of_known_words() -> None:
    captions = ["a red apple, flat style", "the small house", "dog, pixel art"]
    made = recombined(captions, 50, seed=0)
    assert len(made) == 50
    assert len(set(made) - set(captions)) > 20
    assert {word for text in made for word in text.replace(",", "").split()} <= set(WORDS)
    assert made == recombined(captions, 50, seed=0) != recombined(captions, 50, seed=1)


def test_batches_are_of_about_one_length() -> None:
    ordered = sorted(texts(2000), key=lambda each: len(each[0]))
    batch = distill._drawn(ordered, 0, 3)
    assert len(batch.mask) == distill.BATCH
    assert batch.mask.sum(1).max() - batch.mask.sum(1).min() <= 1
