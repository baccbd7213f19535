"""Sheets of sample pictures: fixed prompts and seeds, so that sheets of different runs can be laid side by side."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

SEEDS = 3
ACROSS = 4  # prompts in a row of the sheet
PROMPTS = (
    "a red apple, flat style",
    "a green apple, soft shaded emoji",
    "a blue potion, pixel art",
    "an orange cat face, twemoji style",
    "a sword, black silhouette icon",
    "a yellow star, 3d render",
    "a house with a tree, flat colours",
    "a purple dragon, pixel art dungeon tile",
    "a rocket, fluent style, 3d render",
    "a fish, black and white high contrast",
    "a red heart, noto style",
    "a smiling face with sunglasses, flat vector",
    "a brown dog, soft shaded emoji",
    "a wooden shield, game icon",
    "a slice of pizza, flat style",
    "a red car, twemoji style",
    "a tree, fluent style, flat colours",
    "a skull, black silhouette icon",
    "a blue bird, soft shaded emoji",
    "a golden crown, 3d render",
    "a cup of coffee, flat vector without outline",
    "a stone wall, pixel art dungeon tile",
    "a flag of japan, twemoji style",
    "a mushroom, flat style",
)


def save_sheet(pictures: Tensor, sheet: Path) -> None:
    """Write pictures (P, n, 4, S, S), RGBA premultiplied in 0..1, on white: ACROSS prompts a row, n seeds of each."""
    prompts, seeds, _, side, _ = pictures.shape
    white = pictures[:, :, :3] + 1 - pictures[:, :, 3:]
    white = torch.nn.functional.pad(white, (2, 2, 2, 2), value=0.8)
    rows = -(-prompts // ACROSS)
    canvas = white.new_full((rows * ACROSS, seeds, 3, side + 4, side + 4), 1.0)
    canvas[:prompts] = white
    grid = canvas.reshape(rows, ACROSS * seeds, 3, side + 4, side + 4).permute(0, 3, 1, 4, 2)
    flat = grid.reshape(rows * (side + 4), ACROSS * seeds * (side + 4), 3)
    sheet.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(flat.mul(255).round().clamp(0, 255).byte().cpu().numpy()).save(sheet)
