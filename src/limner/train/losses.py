"""Picture losses. All take (N, C, H, W) float pictures in 0..1 and give a scalar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from limner.config import LossConfig
from limner.data.degrade import shrink


def charbonnier(picture: Tensor, target: Tensor, epsilon: float = 1e-3) -> Tensor:
    """mean sqrt((x - y)^2 + eps^2) - eps (Charbonnier et al. 1994)."""
    return ((picture - target).square() + epsilon**2).sqrt().mean() - epsilon


def l1(picture: Tensor, target: Tensor) -> Tensor:
    return F.l1_loss(picture, target)


def l2(picture: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(picture, target)


def log_l2(picture: Tensor, target: Tensor, least: float = 1e-4) -> Tensor:
    """0.01 * log(MSE + least) of every picture, their mean: minus the mean PSNR, on the scale of an absolute loss.

    What a mean of PSNRs asks for: an error counts by its share of its picture's (minus the PSNR as a loss: Chen et al.
    2021, HINet). `least` keeps flat crops, which add next to nothing to a picture's error, from counting for
    everything (1e-4 is 40 dB, 1e-3 30 dB).
    """
    return (picture - target).square().mean((1, 2, 3)).add(least).log().mean() * 0.01


def fourier_l1(picture: Tensor, target: Tensor) -> Tensor:
    """L1 distance of orthonormal 2-D Fourier transforms (Cho et al. 2021, MIMO-UNet, eq. 5)."""
    difference = torch.fft.rfft2(picture - target, norm="ortho")
    return torch.view_as_real(difference).abs().mean()


PIXEL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": l1,
    "charbonnier": charbonnier,
    "l2": l2,
}


def pixel_loss(config: LossConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of one level that `config` names."""
    return partial(log_l2, least=config.least) if config.pixel == "log_l2" else PIXEL[config.pixel]


def multilevel(pictures: Sequence[Tensor], target: Tensor, config: LossConfig, only_l2: bool = False) -> Tensor:
    """sum_k alpha_k * L_k(f_k(x), y_k), y_k being the target resampled to the size of level k.

    `pictures` run coarse to fine and the last has the size of `target`. `only_l2` is the final phase of a run: the
    scale of 20 keeps the gradient near that of the absolute loss it replaces.
    """
    total = target.new_zeros(())
    for alpha, picture in zip(config.alphas, pictures, strict=True):
        truth = _at_size(target, picture)
        if only_l2:
            total = total + alpha * 20 * l2(picture, truth)
        else:
            total = total + alpha * pixel_loss(config)(picture, truth)
            if config.fourier:
                total = total + alpha * config.fourier * fourier_l1(picture, truth)
    return total


def _at_size(target: Tensor, picture: Tensor) -> Tensor:
    ratio = target.shape[2] // picture.shape[2]
    return shrink(target, ratio) if ratio > 1 else target


def paintings(pictures: Sequence[Tensor], target: Tensor, config: LossConfig) -> Tensor:
    """sum_k alpha_k * L_k(f_k, y_k) for pictures with premultiplied alpha, y_k being means over cells of the target.

    A level of weight 0 costs nothing. Premultiplied values may be averaged as they are.
    """
    ratios = [target.shape[2] // picture.shape[2] for picture in pictures]
    return level_by_level(pictures, [F.avg_pool2d(target, r) if r > 1 else target for r in ratios], config)


def level_by_level(pictures: Sequence[Tensor], targets: Sequence[Tensor], config: LossConfig) -> Tensor:
    """sum_k alpha_k * L_k(f_k, y_k) where every level has a target of its own, of its size."""
    total = targets[-1].new_zeros(())
    for alpha, picture, target in zip(config.alphas, pictures, targets, strict=True):
        if alpha:
            total = total + alpha * pixel_loss(config)(picture, target)
    return total
