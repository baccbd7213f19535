"""Plain operators of a graph, run on a small picture to see what they do.

Pixel shuffle and the enlarged picture can be written in many ways. Rather than to match them all, the compiler runs
them on a probe and looks at the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limner.runtime.fused.plan import Unsupported
from limner.runtime.fused.reader import Node

Array = NDArray[Any]

HEIGHT, WIDTH = 8, 12  # multiples of every unshuffle

# A malformed file could ask for terabytes: no array may have more values than this.
MOST_VALUES = 2**20
# Of two arrays that are combined, the smaller one is a number, a shape or a colour.
MOST_FACTORS = 8

CASTS: dict[int, type[np.generic]] = {1: np.float32, 2: np.uint8, 6: np.int32, 7: np.int64}


def picture(colours: int) -> NDArray[np.uint8]:
    """The probe: (1, HEIGHT, WIDTH, colours), every byte at least once."""
    count = HEIGHT * WIDTH * colours
    return (np.arange(count) * 7 % 256).astype(np.uint8).reshape(1, HEIGHT, WIDTH, colours)


def run(node: Node, arrays: list[Array]) -> Array:
    """What an operator makes of arrays; `arrays`: its inputs. Raises Unsupported for an operator it does not know."""
    if node.kind not in OPERATORS:
        raise Unsupported(f"operator {node.kind}")
    result = OPERATORS[node.kind](node, *arrays)
    if result.size > MOST_VALUES:
        raise Unsupported(f"operator {node.kind} makes more values than a picture could need")
    return result


def _combine(operation: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def combined(_: Node, left: Array, right: Array) -> Array:
        if min(left.size, right.size) > MOST_FACTORS and left.shape != right.shape:
            raise ValueError("two large arrays")
        return operation(left, right)

    return combined


def _reshape(_: Node, x: Array, shape: Array) -> Array:
    """A 0 keeps the side that is there."""
    return x.reshape([x.shape[axis] if side == 0 else side for axis, side in enumerate(shape.tolist())])


def _slice(
    _: Node, x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None
) -> Array:
    chosen = [slice(None)] * x.ndim
    along = range(len(starts)) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    for axis, start, end, stride in zip(along, starts.tolist(), ends.tolist(), strides, strict=True):
        chosen[axis] = slice(start, end, stride)
    return x[tuple(chosen)]


def _gather(node: Node, x: Array, indices: Array) -> Array:
    if x.size * indices.size > MOST_VALUES:
        raise ValueError("too large")
    return np.take(x, indices, int(node.attributes.get("axis", 0)))  # type: ignore[arg-type]


def _depth_to_space(node: Node, x: Array) -> Array:
    """In both orders of channels that ONNX knows: (row, column, colour), and (colour, row, column) for CRD."""
    side = int(node.attributes["blocksize"])  # type: ignore[arg-type]
    batch, channels, height, width = x.shape
    colours = channels // side**2
    if node.attributes.get("mode", "DCR") == "CRD":
        cells = x.reshape(batch, colours, side, side, height, width).transpose(0, 1, 4, 2, 5, 3)
    else:
        cells = x.reshape(batch, side, side, colours, height, width).transpose(0, 3, 4, 1, 5, 2)
    return cells.reshape(batch, colours, height * side, width * side)


def space_to_depth(x: Array, side: int) -> Array:
    """(N, C, H, W) to (N, side * side * C, H / side, W / side), channels (row, column, colour)."""
    batch, colours, height, width = x.shape
    cells = x.reshape(batch, colours, height // side, side, width // side, side).transpose(0, 3, 5, 1, 2, 4)
    return cells.reshape(batch, colours * side**2, height // side, width // side)


OPERATORS: dict[str, Callable[..., Array]] = {
    "Add": _combine(np.add),
    "Cast": lambda node, x: x.astype(CASTS[node.attributes["to"]]),
    "Concat": lambda node, *arrays: np.concatenate(arrays, node.attributes["axis"]),
    "DepthToSpace": _depth_to_space,
    "Gather": _gather,
    "Mul": _combine(np.multiply),
    "Reshape": _reshape,
    "Shape": lambda _, x: np.array(x.shape, np.int64),
    "Slice": _slice,
    "SpaceToDepth": lambda node, x: space_to_depth(x, node.attributes["blocksize"]),
    "Transpose": lambda node, x: x.transpose(node.attributes["perm"]),
}
