"""The adversarial step: networks and tensors in, losses out. The loop owns optimizers, averaging and logging.

Relativistic pairing (Jolicoeur-Martineau 2019) with both zero-centred penalties (Huang et al. 2024, eq. 2-4):
    L_G = E softplus(-(D(G(z)) - D(x)))
    L_D = E softplus(-(D(x) - D(G(z)))) + gamma / 2 * (E |grad D(x)|^2 + E |grad D(G(z))|^2)

A critic may give two tensors, one logit for a picture and one for each of its places (N, P): the losses of both are
added, each a mean, and the penalties are those of the first plus the mean of the second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from limner.models.discriminator import Logits


class DiscriminatorLosses(NamedTuple):
    """`total` to descend; `relativistic`, `r1`, `r2` detached, for the log (penalties 0 where not computed)."""

    total: Tensor
    relativistic: Tensor
    r1: Tensor
    r2: Tensor


Judge = Callable[[Tensor], Logits]


def generator_loss(discriminator: Judge, fake: Tensor, real: Tensor) -> Tensor:
    """L_G for a batch of pairs; the gradient reaches `fake` only."""
    with torch.no_grad():
        on_real = discriminator(real)
    return behind(on_real, discriminator(fake))


def behind(ahead: Logits, logits: Logits) -> Tensor:
    """E softplus(ahead - logits): how far the second are from being above the first."""
    pairs = zip(_tensors(ahead), _tensors(logits), strict=True)
    return torch.stack([F.softplus(first - second).mean() for first, second in pairs]).sum()


def _tensors(logits: Logits) -> tuple[Tensor, ...]:
    return (logits,) if isinstance(logits, Tensor) else logits


def balanced(loss: Tensor, other: Tensor, picture: Tensor, share: float) -> Tensor:
    """A loss whose gradient at `picture` is that of `loss`, brought to `share` times the norm of `other`'s.

    The adaptive weight of Esser et al. 2021 (VQGAN, eq. 7), taken at the picture instead of the last layer: that
    needs no second pass through the network.
    """
    (wanted,) = torch.autograd.grad(other, picture, retain_graph=True)
    (gradient,) = torch.autograd.grad(loss, picture)
    gradient = gradient * (share * wanted.norm() / gradient.norm().clamp_min(1e-12))
    pull = (picture * gradient).sum()
    return loss.detach() + pull - pull.detach()


def discriminator_losses(
    discriminator: Judge, fake: Tensor, real: Tensor, gamma: float, penalize: bool = True, every: int = 1
) -> DiscriminatorLosses:
    """L_D for a batch of pairs. With `every` > 1 the penalties are lazy: called once in `every` steps, scaled by it."""
    fake = fake.detach().requires_grad_(penalize)
    real = real.detach().requires_grad_(penalize)
    on_fake, on_real = discriminator(fake), discriminator(real)
    relativistic = behind(on_fake, on_real)
    if not penalize or gamma == 0:
        nothing = relativistic.new_zeros(())
        return DiscriminatorLosses(relativistic, relativistic.detach(), nothing, nothing)
    r1, r2 = gradient_penalty(on_real, real), gradient_penalty(on_fake, fake)
    total = relativistic + every * gamma / 2 * (r1 + r2)
    return DiscriminatorLosses(total, relativistic.detach(), r1.detach(), r2.detach())


def gradient_penalty(logits: Logits, pictures: Tensor) -> Tensor:
    """E |grad_x D(x)|^2, the squared norm per picture (Mescheder et al. 2018, eq. 9)."""
    first, *places = _tensors(logits)
    said = first.sum() + sum(each.mean(1).sum() for each in places)
    (gradient,) = torch.autograd.grad(said, pictures, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()
