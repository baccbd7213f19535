"""The fused engine's arithmetic in plain numpy integers: slow, and meant to be read. The kernels give the same bytes.

    acc    = bias[o] + sum over the kernel of weight * byte           int32; outside the picture the byte is `zero`
    layer:   t = float32(acc) * multiplier[o]                         exact: rounded only once, to an integer
             with a residual or FiLM every operation is rounded to float32 instead, and
             t = t + float32(byte of the residual - its zero) * its multiplier
             byte = clamp(round half to even(t) + zero_out, low, high)
    tail:    t = float32(acc) * multiplier[o]                         exact
             byte = clamp(round half to even(t) + pixel, 0, 255)      pixel: the nearest one, same colour

With FiLM the first line is t = float32(acc) * (multiplier[o] * scale[o]) + shift[o] (Perez et al. 2018, eq. 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limner.runtime.fused.plan import Convolution, Layer, Plan

Bytes = NDArray[np.uint8]
# For each FiLM layer in order: (scales, shifts), each float32 (outputs,).
Film = Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]


def run(plan: Plan, picture: Bytes, film: Film = ()) -> Bytes:
    """Paint (H, W, colours) to (H * scale, W * scale, colours). H and W are multiples of plan.unshuffle."""
    return tensors(plan, picture, film)[-1]


def tensors(plan: Plan, picture: Bytes, film: Film = ()) -> list[Bytes]:
    """The picture in cells, the result of every layer (H / unshuffle, W / unshuffle, channels), and the painting."""
    found, modulations = [_cells(picture, plan.unshuffle)], iter(film)
    for layer in plan.layers:
        found.append(_layer(layer, found, next(modulations) if layer.film else None))
    return [*found, _tail(plan, found[plan.tail.source], picture)]


def sums(conv: Convolution, x: Bytes) -> NDArray[np.int32]:
    """The 32-bit sums (H, W, outputs) of a convolution of (H, W, inputs)."""
    height, width, _ = x.shape
    margin, groups = conv.kernel // 2, conv.groups
    padded = np.pad(x, ((margin, margin), (margin, margin), (0, 0)), constant_values=conv.zero).astype(np.int32)
    weight = conv.weight.astype(np.int32).reshape(groups, -1, *conv.weight.shape[1:])
    total = np.broadcast_to(conv.bias, (height, width, conv.outputs)).astype(np.int32)
    for row in range(conv.kernel):
        for column in range(conv.kernel):
            part = padded[row : row + height, column : column + width].reshape(height, width, groups, -1)
            total += np.einsum("hwgi,goi->hwgo", part, weight[..., row, column]).reshape(total.shape)
    return total


def _layer(layer: Layer, found: list[Bytes], film: tuple[Any, Any] | None) -> Bytes:
    exact = sums(layer, found[layer.source]).astype(np.float32)
    if film is None and layer.residual is None:
        exact = exact.astype(np.float64) * layer.multiplier.astype(np.float64)
    else:
        exact = exact * layer.multiplier if film is None else exact * (layer.multiplier * film[0]) + film[1]
    if layer.residual is not None:
        other = found[layer.residual.source].astype(np.float32) - np.float32(layer.residual.zero)
        exact = exact + other * layer.residual.multiplier
    return (np.rint(exact) + layer.zero_out).clip(layer.low, layer.high).astype(np.uint8)


def _tail(plan: Plan, x: Bytes, picture: Bytes) -> Bytes:
    scale, side = plan.scale, plan.scale * plan.unshuffle
    exact = sums(plan.tail, x).astype(np.float32).astype(np.float64) * plan.tail.multiplier.astype(np.float64)
    cells = np.rint(exact).reshape(*x.shape[:2], side, side, -1).transpose(0, 2, 1, 3, 4)
    nearest = picture.repeat(scale, 0).repeat(scale, 1)
    return (cells.reshape(nearest.shape) + nearest).clip(0, 255).astype(np.uint8)


def _cells(picture: Bytes, side: int) -> Bytes:
    """(H, W, C) to (H / side, W / side, side * side * C), channels (row, column, colour)."""
    height, width, colours = picture.shape
    cells = picture.reshape(height // side, side, width // side, side, colours).transpose(0, 2, 1, 3, 4)
    return cells.reshape(height // side, width // side, -1)
