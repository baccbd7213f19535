"""Augmentation moves and hides, and never recolours."""

from __future__ import annotations

import torch

from limner.train.augment import augmented


def test_only_places_change() -> None:
    torch.manual_seed(0)
    pictures = torch.zeros(32, 4, 64, 64)
    pictures[:, :, 16:48, 16:48] = torch.rand(32, 4, 1, 1)
    views = augmented(pictures)
    assert views.shape == pictures.shape
    assert not torch.equal(views, pictures)
    for view, picture in zip(views, pictures, strict=True):
        for channel, true in zip(view, picture, strict=True):
            assert set(channel.unique().tolist()) <= {0.0, true.max().item()}


def test_gradients_reach_the_picture() -> None:
    torch.manual_seed(0)
    pictures = torch.rand(4, 4, 64, 64, requires_grad=True)
    augmented(pictures).sum().backward()
    assert pictures.grad is not None
    assert set(pictures.grad.unique().tolist()) == {0.0, 1.0}
    assert 0.5 < pictures.grad.mean() < 0.95
