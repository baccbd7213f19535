"""Low-resolution pictures made on the fly from high-resolution crops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from limner.config import DegradeConfig
from limner.resample import matrix


def shrink(pictures: Tensor, scale: int, filter: str = "bicubic") -> Tensor:
    """Resample (N, C, H, W) float pictures to (N, C, H / scale, W / scale); values are neither clipped nor rounded."""
    rows = _matrix(pictures, pictures.shape[2], scale, filter)
    columns = _matrix(pictures, pictures.shape[3], scale, filter)
    return torch.einsum("ph,nchw,qw->ncpq", rows, pictures, columns)


def _matrix(like: Tensor, size: int, scale: int, filter: str) -> Tensor:
    return torch.from_numpy(matrix(size, size // scale, filter)).to(like)  # type: ignore[arg-type]


def degrade(crops: Tensor, scale: int, config: DegradeConfig, rngs: Sequence[np.random.Generator]) -> Tensor:
    """(N, 3, H, W) in 0..1 -> (N, 3, H / scale, W / scale), rounded to 8 bit as a file would be.

    `rngs`: one generator per crop, so that a crop is degraded alike in whichever process it falls.
    """
    real = config.kind == "realworld"
    small = _realworld(crops, scale, config, rngs) if real else shrink(crops, scale, config.kind)
    return small.mul(255).round().clamp(0, 255).div(255)


def _realworld(crops: Tensor, scale: int, config: DegradeConfig, rngs: Sequence[np.random.Generator]) -> Tensor:
    from limner.data.realworld import degrade_realworld

    pictures = crops.permute(0, 2, 3, 1).cpu().numpy()
    small = [
        degrade_realworld(picture, scale, rng, second_round=config.second_round)
        for picture, rng in zip(pictures, rngs, strict=True)
    ]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).to(crops)
