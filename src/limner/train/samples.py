"""What a run looks like while it learns: PSNR on held-out pictures and a sheet of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from limner.config import DegradeConfig, UpscalerConfig
from limner.data.degrade import degrade
from limner.evaluate.fidelity import luma, on_white, psnr
from limner.resample import resize_uint8

SIDE = 256  # pixels of a held-out crop
ROWS = 4


@dataclass(frozen=True)
class HeldOut:
    """Pairs of (h, w, C) and (h * scale, w * scale, C) uint8 pictures, made once."""

    low: list[NDArray[np.uint8]]
    high: list[NDArray[np.uint8]]
    scale: int


def held_out(pictures: Sequence[NDArray[np.uint8]], model: UpscalerConfig, config: DegradeConfig) -> HeldOut:
    """Centre crops of validation pictures, degraded with a fixed seed."""
    step = model.scale * model.unshuffle
    high = [_centre(picture, step) for picture in pictures if min(picture.shape[:2]) >= step]
    low = [to_uint8(degrade(_tensor(crop), model.scale, config, [np.random.default_rng(0)])) for crop in high]
    return HeldOut(low, high, model.scale)


def _centre(picture: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    height, width = (min(side, SIDE) // step * step for side in picture.shape[:2])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]


def _tensor(picture: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].float() / 255


def to_uint8(picture: torch.Tensor) -> NDArray[np.uint8]:
    """(1, C, H, W) in 0..1 -> (H, W, C) uint8, rounded and clipped."""
    return picture[0].float().mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()


@torch.no_grad()
def paint(network: nn.Module, low: NDArray[np.uint8], device: torch.device | str = "cpu") -> NDArray[np.uint8]:
    """Upscale one (H, W, C) uint8 picture; the network must be in eval mode."""
    return to_uint8(network(_tensor(low).to(device)))


def validate(network: nn.Module, pairs: HeldOut, device: torch.device | str, sheet: Path) -> float:
    """Mean Y-PSNR in dB on the held-out pairs; writes rows of (bicubic, painted, true) to the PNG `sheet`.

    NaN, and no sheet, when nothing is held out.
    """
    if not pairs.low:
        return float("nan")
    painted = [paint(network, low, device) for low in pairs.low]
    inner = (slice(pairs.scale, -pairs.scale),) * 2
    shown = [(on_white(ours[inner]), on_white(true[inner])) for ours, true in zip(painted, pairs.high, strict=True)]
    scores = [psnr(luma(ours), luma(true)) for ours, true in shown]
    rows = [
        on_white(np.concatenate([resize_uint8(low, *high.shape[:2]), picture, high], 1))
        for low, picture, high in zip(pairs.low[:ROWS], painted, pairs.high, strict=False)
    ]
    _save_sheet(rows, sheet)
    return float(np.mean(scores))


def _save_sheet(rows: list[NDArray[np.uint8]], sheet: Path) -> None:
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows]
    sheet.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(padded)).save(sheet)
