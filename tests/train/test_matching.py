"""The contrastive loss: least when every picture scores its own caption best."""

from __future__ import annotations

import math

import pytest
import torch

from limner.train.matching import contrastive


def test_right_pairs_cost_nothing_and_chance_costs_the_logarithm() -> None:
    groups = torch.arange(4)
    assert contrastive(50 * torch.eye(4), groups).item() < 1e-6
    assert contrastive(torch.zeros(4, 4), groups).item() == pytest.approx(math.log(4))
    assert contrastive(50 * torch.eye(4).roll(1, 0), groups).item() > 10


def test_versions_of_one_thing_are_no_rivals() -> None:
    scores = torch.zeros(4, 4)
    assert contrastive(scores, torch.tensor([0, 0, 1, 1])).item() == pytest.approx(math.log(3))
