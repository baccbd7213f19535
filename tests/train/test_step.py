"""The balanced adversarial loss: the direction of the adversary, the length of the regression."""

from __future__ import annotations

import pytest
import torch

from limner.train.step import balanced


def test_the_gradient_has_the_share_that_was_asked_for() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, requires_grad=True)
    picture = weight * torch.tensor([1.0, 2.0, 3.0])
    adverse, pixel = 100 * picture.square().sum(), (picture - 1).abs().sum()
    loss = balanced(adverse, pixel, picture, 0.5)
    assert loss.item() == pytest.approx(adverse.item())  # the log shows the adversary's own value
    (ours,) = torch.autograd.grad(loss, picture, retain_graph=True)
    (direction,) = torch.autograd.grad(100 * picture.square().sum(), picture, retain_graph=True)
    assert ours.norm().item() == pytest.approx(0.5 * 3**0.5, rel=1e-5)
    assert torch.nn.functional.cosine_similarity(ours, direction, 0).item() == pytest.approx(1, abs=1e-6)
    (loss + pixel).backward()
    assert weight.grad is not None
