"""Critics: what they see and read."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from limner.models.discriminator import Discriminator, PaintingCritic, PicturePrompt


def test_patches_of_eight_pixels() -> None:
    assert Discriminator(8)(torch.rand(2, 3, 32, 48)).shape == (2, 4, 6)


@pytest.mark.parametrize("cell", [2, 4])
def test_the_painting_critic_sees_the_picture_and_reads_the_text(cell: Literal[2, 4]) -> None:
    torch.manual_seed(0)
    critic = PaintingCritic(16, 12, cell)
    pictures, pooled = torch.rand(3, 4, 64, 64), torch.nn.functional.normalize(torch.randn(3, 12), dim=1)
    logits = critic(pictures, pooled)
    assert logits.shape == (3,)
    assert not torch.allclose(critic(pictures.roll(1, 0), pooled), logits)
    assert not torch.allclose(critic(pictures, pooled.roll(1, 0)), logits)
    both = critic(pictures, torch.stack([pooled, pooled.roll(1, 0)]))
    torch.testing.assert_close(both[0], logits)
    torch.testing.assert_close(both[1], critic(pictures, pooled.roll(1, 0)))


@pytest.mark.parametrize("cell", [2, 4])
def test_the_painting_critic_judges_every_place(cell: Literal[2, 4]) -> None:
    torch.manual_seed(0)
    critic = PaintingCritic(16, 12, cell, places=True)
    pictures, pooled = torch.rand(3, 4, 64, 64), torch.nn.functional.normalize(torch.randn(3, 12), dim=1)
    whole, places = critic(pictures, pooled)
    assert (whole.shape, places.shape) == ((3,), (3, 64))
    touched = pictures.clone()
    touched[:, :, :8, :8] = 0.5
    moved = critic(touched, pooled)[1] != places
    assert moved[:, 0].all()
    assert not moved[:, 63].any()  # the far corner does not see it
    both = critic(pictures, torch.stack([pooled, pooled.roll(1, 0)]))
    torch.testing.assert_close(both[1][0], places)
    torch.testing.assert_close(both[1][1], critic(pictures, pooled.roll(1, 0))[1])


def test_logits_of_the_critic_are_float_in_mixed_precision() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert PaintingCritic(16, 12)(torch.rand(3, 4, 64, 64), torch.randn(3, 12)).dtype == torch.float32


def test_one_space_of_unit_vectors() -> None:
    torch.manual_seed(0)
    encoder = PicturePrompt(16, 12, space=20)
    pictures, pooled = torch.rand(3, 4, 64, 64), torch.randn(5, 12)
    for vectors, count in ((encoder.picture(pictures), 3), (encoder.prompt(pooled), 5)):
        assert vectors.shape == (count, 20)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(count))
    assert encoder(pictures, pooled).shape == (3, 5)
