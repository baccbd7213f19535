"""The reference against a second one: loops over Python integers, one value at a time."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from fused_kit import noise, random_film, random_plan
from kit import photo

from limner import bundle
from limner.runtime.backends import open_engine
from limner.runtime.fused import compiler, reference
from limner.runtime.fused.plan import Convolution, Layer, Plan

f32 = np.float32


def total(conv: Convolution, x: np.ndarray, row: int, column: int, out: int) -> int:
    """One sum, in integers without limit."""
    per_group, value = conv.weight.shape[1], int(conv.bias[out])
    first = out // (conv.outputs // conv.groups) * per_group
    for channel, dy, dx in product(range(per_group), range(conv.kernel), range(conv.kernel)):
        y, z = row + dy - conv.kernel // 2, column + dx - conv.kernel // 2
        inside = 0 <= y < x.shape[0] and 0 <= z < x.shape[1]
        value += int(conv.weight[out, channel, dy, dx]) * (int(x[y, z, first + channel]) if inside else conv.zero)
    return value


def byte(layer: Layer, exact: Fraction) -> int:
    """Python rounds fractions half to even."""
    return min(max(round(exact) + layer.zero_out, layer.low), layer.high)


def rational(value: np.float32) -> Fraction:
    return Fraction(float(value))


def layer_loop(layer: Layer, found: list[np.ndarray], film: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    x = found[layer.source]
    y = np.zeros((*x.shape[:2], layer.outputs), np.uint8)
    for row, column, out in np.ndindex(y.shape):
        exact = f32(total(layer, x, row, column, out))
        if film is None and layer.residual is None:
            y[row, column, out] = byte(layer, rational(exact) * rational(layer.multiplier[out]))
            continue
        if film is None:
            exact = f32(exact * layer.multiplier[out])
        else:
            exact = f32(f32(exact * f32(layer.multiplier[out] * film[0][out])) + film[1][out])
        if layer.residual is not None:
            gap = int(found[layer.residual.source][row, column, out]) - layer.residual.zero
            exact = f32(exact + f32(f32(gap) * layer.residual.multiplier))
        y[row, column, out] = byte(layer, rational(exact))
    return y


def run_loop(plan: Plan, picture: np.ndarray, film: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    u, side, colours = plan.unshuffle, plan.scale * plan.unshuffle, plan.colours
    height, width = picture.shape[0] // u, picture.shape[1] // u
    cells = np.zeros((height, width, colours * u * u), np.uint8)
    for row, column, i, j, colour in np.ndindex(height, width, u, u, colours):
        cells[row, column, (i * u + j) * colours + colour] = picture[row * u + i, column * u + j, colour]
    found, left = [cells], list(film)
    for layer in plan.layers:
        found.append(layer_loop(layer, found, left.pop(0) if layer.film else None))
    out = np.zeros((height * side, width * side, colours), np.uint8)
    for y, x, colour in np.ndindex(out.shape):
        channel = ((y % side) * side + x % side) * colours + colour
        exact = f32(total(plan.tail, found[plan.tail.source], y // side, x // side, channel))
        detail = round(float(exact) * float(plan.tail.multiplier[channel]))
        out[y, x, colour] = min(max(detail + int(picture[y // plan.scale, x // plan.scale, colour]), 0), 255)
    return out


PLANS = {
    "separable": {},
    "5x5": {"shapes": ((16, 5, 0), (16, 1, 1)), "scale": 3},
    "dense": {"shapes": ((16, 3, 1),), "scale": 1},
    "grouped and expanded": {"shapes": ((32, 3, 1), (32, 3, 2), (16, 1, 1))},
    "residuals and film": {"shapes": ((16, 3, 0), (16, 1, 1), (16, 1, 1)), "residuals": True, "film": True},
    "cells": {"unshuffle": 2, "scale": 3},
    "cells with alpha": {"unshuffle": 2, "colours": 4},
}


@pytest.mark.parametrize("name", PLANS)
def test_reference_equals_loops(name: str) -> None:
    for seed, (height, width) in enumerate([(4, 6), (2, 2)] if "cells" in name else [(1, 1), (3, 4)]):
        plan = random_plan(seed, **PLANS[name])
        film = random_film(seed, plan)
        picture = noise(height, width, seed, plan.colours)
        expected = run_loop(plan, picture, film)
        assert (reference.run(plan, picture, film) == expected).all()
        assert len(np.unique(expected)) > min(20, expected.size // 3)


def test_ties_round_to_even_and_bytes_saturate() -> None:
    """Sums of 1, 3, 5 ... halves; a depthwise kernel of 1 that doubles nothing."""
    weight, bias = np.zeros((16, 3, 1, 1), np.int8), np.arange(-6, 10, dtype=np.int32)
    bias[-1] = 2**31 - 1
    layer = Layer(0, 0, weight, bias, np.full(16, 0.5, f32), 1, zero_out=0, low=0, high=255)
    tail = Convolution(1, 0, np.zeros((3, 16, 1, 1), np.int8), np.zeros(3, np.int32), np.ones(3, f32), 1)
    _, values, painted = reference.tensors(Plan((layer,), tail, 1), noise(1, 1))
    assert values.ravel().tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 3, 4, 4, 255]
    assert (painted == noise(1, 1)).all(), "a tail of zeros gives the picture itself"


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * math.log10(255**2 / np.square(a.astype(float) - b).mean())


@pytest.mark.parametrize("name", ["photo-x2", "photo-x4"])
def test_shipped_bundles_paint_as_the_onnx_runtime_does(name: str) -> None:
    """Not to the last bit: multipliers are rounded, and dozens of layers make much of the least difference."""
    path = bundle.ZOO / name / "int8.onnx"
    plan, picture = compiler.load(path), photo(24, 30)
    theirs = open_engine("onnxruntime", path, 1).session(24, 30)(picture[None])[0]
    assert psnr(reference.run(plan, picture), theirs) > 48


@pytest.mark.parametrize(("name", "scale"), [("photo-x2", 2), ("photo-x4", 4)])
def test_quality_on_a_photograph(name: str, scale: int) -> None:
    """As good as the engine that rounds where training did, on a part of a real photograph."""
    from PIL import Image

    examples = Path(__file__).parents[3] / "examples"
    with Image.open(examples / "strawberries-true.jpg") as file:
        true = np.asarray(file.convert("RGB").crop((200, 200, 456, 392)))
    with Image.fromarray(true) as file:
        low = np.asarray(file.resize((256 // scale, 192 // scale), Image.Resampling.BICUBIC))
    path = bundle.ZOO / name / "int8.onnx"
    ours = reference.run(compiler.load(path), low)
    theirs = open_engine("onnxruntime", path, 1).session(*low.shape[:2])(low[None])[0]
    assert psnr(ours, true) == pytest.approx(psnr(theirs, true), abs=0.02)
    assert psnr(ours, true) > 25
