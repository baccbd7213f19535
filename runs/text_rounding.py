"""Prints what it costs and saves to read prompts with rounded numbers (docs/text.md): milliseconds, the least cosine of
the pooled vectors to the exact ones, and how far painted pictures move on grey, in steps of 255. Two quiet minutes.

    python runs/text_rounding.py [PAINTER] [PROMPTS]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from unittest import mock

import numpy as np

import limner
from limner.runtime import text
from limner.runtime.generate import TEXT_ENGINE

GROUP, HINT = "DYNAMIC_QUANTIZATION_GROUP_SIZE", "INFERENCE_PRECISION_HINT"
WAYS: dict[str, dict[str, Any]] = {
    "exact": text.EXACT,
    "bfloat16": text.EXACT | {HINT: "bf16"},
    **{f"{size} numbers to a step": {GROUP: size} for size in (16, 32, 64, 384)},
}
CLOCKED = (
    "a bicycle",
    "a red apple, flat style",
    "a birthday cake, fluent style, flat colours",
    "an orange cat face, twemoji style, flat vector without outline",
)
SEED, ROUNDS = 3, 60


def measured(way: dict[str, Any], painter: str, prompts: list[str]) -> tuple[list[float], Any, Any]:
    """Medians of milliseconds for CLOCKED, pooled vectors of the prompts, their pictures on grey."""
    engines = {**text.ENGINES, TEXT_ENGINE: partial(text._openvino, rounding=way)}
    with mock.patch.object(text, "ENGINES", engines):
        opened = limner.load(painter)
    spent = [median(clocked(opened.encoder, prompt) for _ in range(ROUNDS)) for prompt in CLOCKED]
    painted = np.concatenate([opened.paint_array(prompt, seed=SEED) for prompt in prompts]).astype(float)
    opaque = painted[..., 3:] / 255
    return spent, opened.encoder.encode(prompts).pooled, painted[..., :3] * opaque + 127 * (1 - opaque)


def clocked(encoder: text.TextEncoder, prompt: str) -> float:
    encoder.forget()
    start = perf_counter()
    encoder.encode([prompt])
    return 1000 * (perf_counter() - start)


def main(painter: str = "icons", file: str = "examples/sheet.txt") -> None:
    prompts = [line for line in Path(file).read_text("utf-8").splitlines() if line.strip()]
    _, vectors, pictures = measured(text.EXACT, painter, prompts)
    print("| | ms | cosine | moves |\n| --- | --- | --- | --- |")
    for name, way in WAYS.items():
        spent, pooled, painted = measured(way, painter, prompts)
        likeness, moved = (pooled * vectors).sum(1).min(), np.abs(painted - pictures).mean()
        print(f"| {name} | {' / '.join(f'{ms:.1f}' for ms in spent)} | {likeness:.5f} | {moved:.2f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
