from __future__ import annotations

import math

import pytest
import torch

from limner.config import LossConfig
from limner.train.losses import charbonnier, fourier_l1, l1, l2, log_l2, multilevel, paintings
from limner.train.step import discriminator_losses, generator_loss, gradient_penalty


def test_multilevel_is_the_weighted_sum() -> None:
    torch.manual_seed(0)
    target, coarse, fine = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    from limner.data.degrade import shrink

    total = multilevel([coarse, fine], target, LossConfig(pixel="l1", alphas=(0.25, 2.0)))
    assert torch.allclose(total, 0.25 * l1(coarse, shrink(target, 2)) + 2.0 * l1(fine, target))


def test_fourier_term_is_added_with_its_weight() -> None:
    a, b = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    plain = multilevel([a], b, LossConfig(pixel="l1", alphas=(1.0,)))
    both = multilevel([a], b, LossConfig(pixel="l1", alphas=(1.0,), fourier=0.05))
    assert torch.allclose(both - plain, 0.05 * fourier_l1(a, b))


def test_perfect_pictures_cost_nothing() -> None:
    x = torch.rand(1, 3, 8, 8)
    for loss in (l1, l2, charbonnier, fourier_l1):
        assert loss(x, x).item() == pytest.approx(0.0, abs=1e-7)


def test_log_l2_is_minus_the_mean_psnr() -> None:
    target = torch.zeros(2, 3, 8, 8)
    off = torch.stack([torch.full((3, 8, 8), 0.1), torch.full((3, 8, 8), 0.02)])
    psnr = [10 * math.log10(1 / (0.1**2 + 1e-4)), 10 * math.log10(1 / (0.02**2 + 1e-4))]
    assert log_l2(off, target).item() == pytest.approx(-0.01 * math.log(10) / 10 * sum(psnr) / 2)
    assert multilevel([off], target, LossConfig(pixel="log_l2", alphas=(1.0,))).item() == log_l2(off, target).item()


def test_log_l2_weighs_an_error_by_its_picture() -> None:
    off = torch.stack([torch.full((3, 8, 8), 0.1), torch.full((3, 8, 8), 0.02)]).requires_grad_()
    log_l2(off, torch.zeros(2, 3, 8, 8), least=0.0).backward()
    assert off.grad is not None
    coarse, fine = off.grad[:, 0, 0, 0].tolist()
    assert fine / coarse == pytest.approx(0.1 / 0.02)


def test_log_l2_counts_flat_pictures_less_when_told_so() -> None:
    flat, target = torch.full((1, 3, 8, 8), 0.01), torch.zeros(1, 3, 8, 8)
    config = LossConfig(pixel="log_l2", alphas=(1.0,), least=1e-3)
    assert multilevel([flat], target, config).item() == log_l2(flat, target, least=1e-3).item()
    assert multilevel([flat], target, config).item() == pytest.approx(0.01 * math.log(1e-4 + 1e-3))


def test_orthonormal_fourier_ignores_picture_size() -> None:
    torch.manual_seed(0)
    small, large = (fourier_l1(torch.randn(1, 1, n, n), torch.zeros(1, 1, n, n)) for n in (32, 128))
    assert small.item() == pytest.approx(large.item(), rel=0.05)


class Linear(torch.nn.Module):
    """D(x) = 3 * sum(x): every number below follows by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x.sum((1, 2, 3))


def test_relativistic_losses_by_hand() -> None:
    fake, real = torch.zeros(2, 1, 2, 2, requires_grad=True), torch.full((2, 1, 2, 2), 0.25)
    losses = discriminator_losses(Linear(), fake, real, gamma=0.5, every=4)
    assert losses.relativistic.item() == pytest.approx(torch.nn.functional.softplus(torch.tensor(-3.0)).item())
    assert losses.r1.item() == pytest.approx(9.0 * 4)
    assert losses.r2.item() == pytest.approx(9.0 * 4)
    assert losses.total.item() == pytest.approx(losses.relativistic.item() + 4 * 0.25 * (36 + 36))
    loss = generator_loss(Linear(), fake, real)
    assert loss.item() == pytest.approx(torch.nn.functional.softplus(torch.tensor(3.0)).item())
    loss.backward()
    assert fake.grad is not None
    assert (fake.grad < 0).all()  # brighter fakes please this critic


class Places(Linear):
    """As Linear, and at each of the first two places the sum of a half of the picture."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        return super().forward(x), self.gain * x.sum((1, 3))


def test_a_critic_of_wholes_and_places() -> None:
    fake, real = torch.zeros(2, 1, 2, 2, requires_grad=True), torch.full((2, 1, 2, 2), 0.25)
    losses = discriminator_losses(Places(), fake, real, gamma=0.5)
    wanted = sum(torch.nn.functional.softplus(torch.tensor(-gap)).item() for gap in (3.0, 1.5))
    assert losses.relativistic.item() == pytest.approx(wanted)
    # a pixel moves the whole by 3 and the mean of two places by 1.5
    assert losses.r1.item() == pytest.approx(4 * 4.5**2)
    assert losses.total.item() == pytest.approx(wanted + 0.25 * 2 * 4 * 4.5**2)
    wanted = sum(torch.nn.functional.softplus(torch.tensor(gap)).item() for gap in (3.0, 1.5))
    assert generator_loss(Places(), fake, real).item() == pytest.approx(wanted)


def test_penalties_are_lazy() -> None:
    x = torch.rand(1, 1, 4, 4)
    losses = discriminator_losses(Linear(), x, x, gamma=1.0, penalize=False)
    assert losses.r1.item() == 0
    assert losses.total.item() == pytest.approx(losses.relativistic.item())


def test_gradient_penalty_reaches_the_critic() -> None:
    critic, x = Linear(), torch.rand(2, 1, 3, 3, requires_grad=True)
    gradient_penalty(critic(x), x).backward()
    assert critic.gain.grad is not None
    assert critic.gain.grad.item() == pytest.approx(2 * 3.0 * 9)


def test_painting_levels_are_compared_with_means_over_cells() -> None:
    target = torch.rand(2, 4, 16, 16)
    levels = [torch.nn.functional.avg_pool2d(target, 4), target + 0.5]
    only_coarse = LossConfig(pixel="l1", alphas=(1.0, 0.0))
    assert paintings(levels, target, only_coarse).item() == pytest.approx(0, abs=1e-6)
    assert paintings(levels, target, LossConfig(pixel="l1", alphas=(1.0, 0.4))).item() == pytest.approx(0.2, abs=1e-5)
