"""Augmentation of what a critic sees (Zhao et al. 2020): shifts and holes, never colours, which captions name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT = 8  # a picture moves by up to 1 / SHIFT of its side
HOLE = 3  # a hole is 1 / HOLE of the side


def augmented(pictures: Tensor) -> Tensor:
    """Each of (N, C, S, S) shifted on transparent ground, and with a transparent square hole; differentiable."""
    return _holed(_shifted(pictures))


def _shifted(pictures: Tensor) -> Tensor:
    side, most = pictures.shape[2], pictures.shape[2] // SHIFT
    padded = F.pad(pictures, (most,) * 4)
    places = torch.randint(0, 2 * most + 1, (len(pictures), 2)).tolist()
    return torch.stack([picture[:, y : y + side, x : x + side] for picture, (y, x) in zip(padded, places, strict=True)])


def _holed(pictures: Tensor) -> Tensor:
    side, hole = pictures.shape[2], pictures.shape[2] // HOLE
    corner = torch.randint(-hole, side, (len(pictures), 2, 1), device=pictures.device)
    place = torch.arange(side, device=pictures.device)
    inside = (place >= corner) & (place < corner + hole)
    return pictures * ~(inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
