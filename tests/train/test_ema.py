"""Averages of weights: the exponential one follows, the other is the mean of all steps."""

from __future__ import annotations

import pytest
import torch

from limner.train.ema import EMA


def averaged(decay: float, values: list[float]) -> float:
    module = torch.nn.Linear(1, 1, bias=False)
    ema = EMA(module, decay)
    for step, value in enumerate(values):
        torch.nn.init.constant_(module.weight, value)
        ema.update(module, step)
    ema.copy_to(module)
    return float(module.weight.detach())


def test_a_decay_of_one_is_the_mean_of_all_steps() -> None:
    assert averaged(1.0, [5.0, 1.0, 3.0]) == pytest.approx(3.0)


def test_a_decay_below_one_forgets() -> None:
    assert averaged(0.5, [100.0] + [1.0] * 40) == pytest.approx(1.0, abs=1e-3)
