"""Batches of (low, high) crops, drawn as a pure function of (seed, step): resuming needs no loader state."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limner.config import DegradeConfig, TrainConfig
from limner.data.degrade import degrade
from limner.data.records import Record
from limner.errors import LimnerError
from limner.resample import resize_uint8

# Low-resolution pixels around a crop, so that resampling sees real neighbours instead of a mirror: an antialiased cubic
# reaches 2 of them, the blurs of the real world further.
MARGINS = {"bicubic": 4, "decimate": 4, "realworld": 8}
SHRINKS = (0.75, 0.5)


class Batch(NamedTuple):
    """`low` (N, C, crop, crop) and `high` (N, C, crop * scale, crop * scale), float32 in 0..1."""

    low: Tensor
    high: Tensor


def decode_all(records: Sequence[Record], channels: int = 3) -> list[np.ndarray]:
    """Decode records to (H, W, 3) uint8 RGB, on white where transparent, or to (H, W, 4) with premultiplied alpha.

    Raises LimnerError that names an unreadable record.
    """
    return [_decode(record, channels) for record in records]


def _decode(record: Record, channels: int) -> np.ndarray:
    try:
        image = Image.open(io.BytesIO(record.read()))
        if channels == 4:
            return premultiplied(np.asarray(image.convert("RGBA")))
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise LimnerError(
            f"{record.name}: cannot be decoded ({error}); remove it or run `limner data check`."
        ) from None


def premultiplied(straight: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 with straight alpha -> the same with colours times alpha, rounded."""
    wide = straight.astype(np.uint16)
    wide[..., :3] = (wide[..., :3] * wide[..., 3:] + 127) // 255
    return wide.astype(np.uint8)


class CropSampler:
    """Draws crops from pictures held in memory (on `device`).

    Every step's draw depends on (seed, step) alone; a process takes every `world`-th crop of the global batch,
    starting with its rank, so that any number of processes sees the same global batches.
    """

    def __init__(
        self,
        pictures: Sequence[np.ndarray],
        scale: int,
        train: TrainConfig,
        degrade_config: DegradeConfig,
        device: torch.device | str = "cpu",
    ) -> None:
        self.scale, self.train, self.degrade_config = scale, train, degrade_config
        self.margin = MARGINS[degrade_config.kind]
        self.side = (train.crop + 2 * self.margin) * scale
        sized = [picture for picture in _pyramid(pictures, train.multiscale) if min(picture.shape[:2]) >= self.side]
        if not sized:
            raise LimnerError(
                f"no picture is {self.side} pixels on both sides, as train.crop={train.crop} at x{scale} needs: "
                "lower train.crop or bring larger pictures."
            )
        self.pictures = [torch.from_numpy(np.ascontiguousarray(p.transpose(2, 0, 1))).to(device) for p in sized]
        areas = np.array([p.shape[1] * p.shape[2] for p in self.pictures], np.float64)
        self.odds = areas / areas.sum()

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The crops of `step` that fall to `rank`."""
        draws = np.random.default_rng([self.train.seed, step])
        which = draws.choice(len(self.pictures), self.train.batch, p=self.odds)
        where, turns = draws.random((self.train.batch, 2)), draws.integers(0, 8, self.train.batch)
        mine = range(rank, self.train.batch, world)
        crops = torch.stack([self._crop(which[i], where[i], turns[i]) for i in mine]).float().div_(255)
        noise = [np.random.default_rng([self.train.seed, step, i]) for i in mine]
        low = degrade(crops, self.scale, self.degrade_config, noise)
        inner, outer = self.margin, self.margin * self.scale
        return Batch(
            low[:, :, inner:-inner, inner:-inner].contiguous(), crops[:, :, outer:-outer, outer:-outer].contiguous()
        )

    def _crop(self, which: int, where: np.ndarray, turn: int) -> Tensor:
        picture = self.pictures[which]
        top = int(where[0] * (picture.shape[1] - self.side + 1))
        left = int(where[1] * (picture.shape[2] - self.side + 1))
        crop = picture[:, top : top + self.side, left : left + self.side]
        crop = crop.transpose(1, 2) if turn & 4 else crop
        return torch.rot90(crop, int(turn & 3), (1, 2))


def _pyramid(pictures: Sequence[np.ndarray], multiscale: bool) -> list[np.ndarray]:
    shrunk = [_shrunk(p, ratio) for p in pictures for ratio in SHRINKS] if multiscale else []
    return [*pictures, *shrunk]


def _shrunk(picture: np.ndarray, ratio: float) -> np.ndarray:
    return resize_uint8(picture, round(picture.shape[0] * ratio), round(picture.shape[1] * ratio))
