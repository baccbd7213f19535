"""What a seed decides although no caption says it: which way a thing faces, and its shade."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LATENTS = 2  # channels of the noise whose means decide it: the last ones, those of the looks come first
HUE = math.radians(15)  # most that a hue turns, either way
DARKEST, LIGHTEST = 0.88, 1.04
# Luma and the two axes of colour around it (FCC 1953, NTSC's YIQ): hues turn there without moving greys.
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def varied(pictures: Tensor, noise: Tensor, free: Tensor) -> Tensor:
    """`pictures` (N, 4, S, S), premultiplied, as the means of the last channels of `noise` (N, C, G, G) say.

    The sign of the first mirrors a picture where `free` (N,) allows it, its size makes the picture darker or lighter;
    the second turns the hue. Both are standard normal, brought to shares of 0..1 by their distribution.
    """
    facing, tone = (noise[:, -LATENTS:].mean((2, 3)) * noise.shape[2]).unbind(1)
    mirrored = ((facing > 0) & free.to(facing.device))[:, None, None, None]
    turned = torch.where(mirrored, pictures.flip(3), pictures)
    value = DARKEST + (LIGHTEST - DARKEST) * torch.erf(facing.abs() / math.sqrt(2))
    return shaded(turned, HUE * torch.erf(tone / math.sqrt(2)), value)


def shaded(pictures: Tensor, angle: Tensor, value: Tensor) -> Tensor:
    """(N, 4, S, S) with hues turned by `angle` (N,), radians, and colours times `value` (N,); alpha as it is."""
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = [one, zero, zero], [zero, angle.cos(), -angle.sin()], [zero, angle.sin(), angle.cos()]
    turn, axes = torch.stack([torch.stack(row, 1) for row in rows], 1), YIQ.to(angle)
    change = torch.linalg.inv(axes) @ turn @ axes * value[:, None, None]
    colours = torch.einsum("nij,njhw->nihw", change, pictures[:, :3])
    alpha = pictures[:, 3:]
    return torch.cat([torch.minimum(colours.clamp_min(0), alpha), alpha], 1)
