"""Random plans and unusual graphs for the tests of the fused engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from kit import RESIDUAL_GAIN, SIGNED_ZERO, GraphBuilder, _nearest, _shuffle, _to_uint8
from numpy.typing import NDArray
from onnx import TensorProto, helper

from limner.runtime.fused.plan import Convolution, Layer, Plan, Residual

# (channels, kernel, groups) of one convolution of a trunk; groups 0: depthwise.
Shape = tuple[int, int, int]


def random_plan(
    seed: int,
    shapes: Sequence[Shape] = ((16, 3, 0), (16, 1, 1)),
    *,
    scale: int = 2,
    unshuffle: int = 1,
    colours: int = 3,
    **how: Any,
) -> Plan:
    """A plan of random weights whose activations fill their bytes. `how`: of `_random_layer`."""
    random = np.random.default_rng(seed)
    layers = [_random_layer(random, 0, colours * unshuffle**2, (shapes[0][0], 3, 1), zero=0, **how)]
    for width, kernel, groups in shapes:
        before = layers[-1]
        layer = _random_layer(random, len(layers), before.outputs, (width, kernel, groups), zero=before.zero_out, **how)
        layers.append(_with_residual(random, layer, layers) if how.get("residuals") else layer)
    side = scale * unshuffle
    tail = _random_convolution(
        random, len(layers), layers[-1].outputs, (colours * side**2, 1, 1), layers[-1].zero_out, 90.0
    )
    return Plan(tuple(layers), tail, scale, unshuffle, colours)


def _random_convolution(
    random: np.random.Generator, source: int, inputs: int, shape: Shape, zero: int, spread: float, peak: int = 63
) -> Convolution:
    outputs, kernel, groups = shape
    groups = groups or outputs
    weight = random.integers(-peak, peak + 1, (outputs, inputs // groups, kernel, kernel)).astype(np.int8)
    size = peak * 120 * (weight[0].size / 3) ** 0.5
    bias = random.integers(-int(size), int(size), outputs) - zero * weight.sum((1, 2, 3), dtype=np.int64)
    multiplier = (random.uniform(0.5, 1.5, outputs) * spread / size).astype(np.float32)
    return Convolution(source, zero, weight, bias.astype(np.int32), multiplier, groups)


def _random_layer(
    random: np.random.Generator,
    source: int,
    inputs: int,
    shape: Shape,
    zero: int,
    peak: int = 63,
    film: bool = False,
    residuals: bool = False,
) -> Layer:
    """`peak`: of the weights. `film`: half of the layers get it. `residuals`: read by `random_plan`."""
    conv = _random_convolution(random, source, inputs, shape, zero, 70.0, peak)
    signed = bool(random.integers(2))
    low, high = (0, 255) if signed or random.integers(3) else (int(random.integers(9)), int(random.integers(200, 256)))
    return Layer(
        **vars(conv), zero_out=SIGNED_ZERO if signed else 0, low=low, high=high, film=film and bool(random.integers(2))
    )


def _with_residual(random: np.random.Generator, layer: Layer, layers: list[Layer]) -> Layer:
    if layer.kind == "depthwise":  # the kernels take none there
        return layer
    alike = [number for number, each in enumerate(layers) if each.outputs == layer.outputs]
    if not alike:
        return layer
    chosen = int(random.choice(alike))
    residual = Residual(chosen + 1, layers[chosen].zero_out, np.float32(random.uniform(0.2, 1.4)))
    return Layer(**{**vars(layer), "residual": residual})


def random_film(seed: int, plan: Plan) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """For every FiLM layer scales around 1 and shifts of a few steps."""
    random = np.random.default_rng(seed)
    return [
        (random.normal(1, 0.3, n).astype(np.float32), random.normal(0, 9, n).astype(np.float32))
        for n in (layer.outputs for layer in plan.layers if layer.film)
    ]


def noise(height: int, width: int, seed: int = 0, colours: int = 3) -> NDArray[np.uint8]:
    """A picture (height, width, colours) of random bytes."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, colours), dtype=np.uint8)


def painter_trunk(g: TrunkGraph) -> onnx.ModelProto:
    """Two blocks of a painter without attention: widen, FiLM, ReLU; depthwise, ReLU; narrow, FiLM, plus the input."""
    films = g.films(32, 16, 48, 16)
    y, step = g.head, 0.02
    for wide, widened, narrowed in ((32, *films[:2]), (48, *films[2:])):
        inner = g.activation(g.op("Relu", g.modulated(g.conv(y, 16, wide, 1), widened)))
        inner = g.activation(g.op("Relu", g.conv(inner, wide, wide, 3, groups=wide)))
        step *= 1.5
        y = g.activation(g.op("Add", g.modulated(g.conv(inner, wide, 16, 1), narrowed), y), step, zero=SIGNED_ZERO)
    return g.finish(y)


class TrunkGraph(GraphBuilder):
    """An int8 graph whose trunk is written step by step; `finish` adds the tail."""

    def __init__(self, width: int = 16, *, scale: int = 2, multiple: int = 1, colours: int = 3) -> None:
        super().__init__(seed=0, quantize=True)
        self.width, self.scale, self.multiple, self.colours = width, scale, multiple, colours
        self.film_values = 0
        picture = self.op("Mul", self.op("Cast", "x", to=TensorProto.FLOAT), self.constant(np.float32(1 / 255)))
        planes = self.op("Transpose", picture, perm=[0, 3, 1, 2])
        self.planes = self.op("SpaceToDepth", planes, blocksize=multiple) if multiple > 1 else planes
        head = self.conv(self.activation(self.planes, 1 / 255), colours * multiple**2, width, 3, gain=2**0.5)
        self.head = self.activation(self.op("Relu", head))

    def finish(self, y: str, width: int | None = None) -> onnx.ModelProto:
        side = self.scale * self.multiple
        y = self.conv(y, width or self.width, 3 * side**2, 1, gain=RESIDUAL_GAIN)
        places = self.constant(_nearest(self.scale, self.multiple))
        y = self.op("Add", y, self.op("Gather", self.planes, places, axis=1))
        _shuffle(self, _to_uint8(self, y), side)
        return self.model(self.scale)

    def films(self, *widths: int) -> list[tuple[str, str]]:
        """(scale, shift) for each width: parts of the second input, `film`. Scales are stored less one."""
        self.film_values = 2 * sum(widths)
        parts = [f"film{number}" for number in range(2 * len(widths))]
        sizes = self.constant(np.repeat(np.array(widths, np.int64), 2))
        self.nodes.append(helper.make_node("Split", ["film", sizes], parts, axis=1))
        one = self.constant(np.float32(1))
        return [(self.op("Add", one, scale), shift) for scale, shift in zip(parts[::2], parts[1::2], strict=True)]

    def modulated(self, y: str, film: tuple[str, str]) -> str:
        return self.op("Add", self.op("Mul", y, film[0]), film[1])

    def model(self, scale: int) -> onnx.ModelProto:
        model = super().model(scale)
        if self.film_values:
            shape = ["N", self.film_values, 1, 1]
            model.graph.input.append(helper.make_tensor_value_info("film", TensorProto.FLOAT, shape))
        return model

    def end(self, y: str) -> str:
        """Sums in 0..1 to clamped floats in 0..255."""
        y = self.op("Add", self.op("Mul", y, self.constant(np.float32(255))), self.constant(np.float32(0.5)))
        return self.op("Clip", y, self.constant(np.float32(0)), self.constant(np.float32(255)))

    def by_depth_to_space(self, y: str, planes: list[int], mode: str) -> onnx.ModelProto:
        """An end of scale 2 written with DepthToSpace. `planes`: the picture's plane below each channel."""
        y = self.op("Add", y, self.op("Gather", self.planes, self.constant(np.array(planes)), axis=1))
        y = self.op("Cast", self.end(y), to=TensorProto.UINT8)
        self.op("Transpose", self.op("DepthToSpace", y, blocksize=2, mode=mode), perm=[0, 2, 3, 1])
        model = self.model(2)
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[3].dim_value = self.colours
        return model
