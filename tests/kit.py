"""Shared test kit: small valid upscaler bundles with random seeded weights, built without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from limner import bundle

ACTIVATION_STEP = 0.02
SIGNED_ZERO = 128
# Like a trained network, the trunk adds a few percent to the enlarged picture.
RESIDUAL_GAIN = 0.06


class GraphBuilder:
    """Collects ONNX nodes and constants; every method returns the name of its result."""

    def __init__(self, seed: int, quantize: bool) -> None:
        self.random = np.random.default_rng(seed)
        self.quantize = quantize
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def activation(self, x: str, step: float = ACTIVATION_STEP, zero: int = 0) -> str:
        """Fake quantization of an activation (int8 graphs only)."""
        if not self.quantize:
            return x
        scale, zero_point = self.constant(np.float32(step)), self.constant(np.uint8(zero))
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, scale, zero_point), scale, zero_point)

    def conv(self, x: str, channels: int, out: int, kernel: int, *, groups: int = 1, gain: float = 1.0) -> str:
        fan_in = channels // groups * kernel**2
        weight = self.random.normal(0, gain / fan_in**0.5, (out, channels // groups, kernel, kernel))
        bias = self.constant(self.random.normal(0, 0.01, out).astype(np.float32))
        filters = self._weight(weight.astype(np.float32))
        return self.op("Conv", x, filters, bias, pads=[kernel // 2] * 4, kernel_shape=[kernel] * 2, group=groups)

    def _weight(self, weight: NDArray[np.float32]) -> str:
        if not self.quantize:
            return self.constant(weight)
        step = (np.abs(weight).max((1, 2, 3)) / 63).astype(np.float32)
        codes = np.rint(weight / step[:, None, None, None]).astype(np.int8)
        zero = self.constant(np.zeros(len(step), np.int8))
        return self.op("DequantizeLinear", self.constant(codes), self.constant(step), zero, axis=0)

    def model(self, scale: int) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "y"
        kind = TensorProto.UINT8 if self.quantize else TensorProto.FLOAT
        taken = helper.make_tensor_value_info("x", kind, [1, "height", "width", 3])
        given = helper.make_tensor_value_info("y", kind, [1, f"height*{scale}", f"width*{scale}", 3])
        graph = helper.make_graph(self.nodes, "upscaler", [taken], [given], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def upscaler_graph(
    *, int8: bool, scale: int = 2, multiple: int = 1, width: int = 16, depth: int = 2, seed: int = 0
) -> onnx.ModelProto:
    """A separable trunk at 1/multiple of the input resolution, plus the nearest-neighbour residual."""
    g = GraphBuilder(seed, int8)
    picture = "x"
    if int8:
        picture = g.op("Mul", g.op("Cast", "x", to=TensorProto.FLOAT), g.constant(np.float32(1 / 255)))
    planes = g.op("Transpose", picture, perm=[0, 3, 1, 2])
    if multiple > 1:
        planes = g.op("SpaceToDepth", planes, blocksize=multiple)
    y = _trunk(g, planes, 3 * multiple**2, width, depth)
    y = g.conv(y, width, 3 * (scale * multiple) ** 2, 1, gain=RESIDUAL_GAIN)
    y = g.op("Add", y, g.op("Gather", planes, g.constant(_nearest(scale, multiple)), axis=1))
    _shuffle(g, _to_uint8(g, y) if int8 else y, scale * multiple)
    return g.model(scale)


def _trunk(g: GraphBuilder, planes: str, channels: int, width: int, depth: int) -> str:
    y = g.activation(planes, 1 / 255)
    y = g.activation(g.op("Relu", g.conv(y, channels, width, 3, gain=2**0.5)))
    for _ in range(depth):
        y = g.activation(g.conv(y, width, width, 3, groups=width), zero=SIGNED_ZERO)
        y = g.activation(g.op("Relu", g.conv(y, width, width, 1, gain=2**0.5)))
    return y


def _nearest(scale: int, multiple: int) -> NDArray[np.int64]:
    """Input plane of every output plane, both in the order row, column, colour, of a nearest-neighbour enlargement."""
    side = range(scale * multiple)
    cells = [i // scale * multiple + j // scale for i in side for j in side]
    return np.array([3 * cell + colour for cell in cells for colour in range(3)])


def _to_uint8(g: GraphBuilder, y: str) -> str:
    y = g.op("Add", g.op("Mul", y, g.constant(np.float32(255))), g.constant(np.float32(0.5)))
    return g.op("Cast", g.op("Clip", y, g.constant(np.float32(0)), g.constant(np.float32(255))), to=TensorProto.UINT8)


def _shuffle(g: GraphBuilder, y: str, block: int) -> None:
    """(1, block*block*3, h, w) to (1, h*block, w*block, 3) for any h and w."""
    y = g.op("Transpose", y, perm=[0, 2, 3, 1])
    size = g.op("Shape", y)
    height, width = (g.op("Slice", size, *(g.constant(np.array([k])) for k in (axis, axis + 1))) for axis in (1, 2))
    one, many, rest = (g.constant(np.array(value)) for value in ([1], [block], [3 * block]))
    y = g.op("Reshape", y, g.op("Concat", one, height, width, many, rest, axis=0))
    y = g.op("Transpose", y, perm=[0, 1, 3, 2, 4])
    scaled = [g.op("Mul", side, many) for side in (height, width)]
    g.op("Reshape", y, g.op("Concat", one, *scaled, g.constant(np.array([3])), axis=0))


def receptive_radius(multiple: int, depth: int) -> int:
    """Each 3x3 layer reaches one cell of `multiple` pixels; the cell itself adds multiple - 1."""
    return multiple * (depth + 1) + multiple - 1


def make_bundle(
    folder: Path, *, scale: int = 2, multiple: int = 1, width: int = 16, depth: int = 2, seed: int = 0
) -> Path:
    """Write a valid bundle with a float and an int8 graph of the same random weights. Returns `folder`.

    `multiple`: 1 or 2 (the trunk then works on 2x2 pixel-unshuffled input). `width`, `depth`: of the trunk.
    """
    shape = {"scale": scale, "multiple": multiple, "width": width, "depth": depth, "seed": seed}
    drafts = folder.with_name(f"{folder.name}-drafts")
    drafts.mkdir(parents=True, exist_ok=True)
    for precision, int8 in (("float", False), ("int8", True)):
        onnx.save(upscaler_graph(int8=int8, **shape), drafts / f"{precision}.onnx")
    files = {f"{precision}.onnx": drafts / f"{precision}.onnx" for precision in ("float", "int8")}
    return bundle.write(folder, _manifest(folder.name, scale, multiple, depth), files).folder


def _manifest(name: str, scale: int, multiple: int, depth: int) -> bundle.UpscalerManifest:
    return bundle.UpscalerManifest(
        name=name,
        description="random weights for tests",
        scale=scale,
        multiple=multiple,
        radius=receptive_radius(multiple, depth),
        graphs={
            "float": bundle.Graph(file="float.onnx", dtype="float32"),
            "int8": bundle.Graph(file="int8.onnx", dtype="uint8"),
        },
        license="Apache-2.0",
        sources=(bundle.Source(source="noise", license="CC0-1.0", pictures=1),),
        parameters=1000,
        macs_per_pixel=1000.0,
        files={},
    )


def photo(height: int, width: int, seed: int = 0, dtype: type = np.uint8) -> NDArray[Any]:
    """A smooth random picture with some edges and grain, (height, width, 3), over the whole range of `dtype`."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = sum(np.sin(x * a + y * b + p)[..., None] * c for (a, b, p), c in _waves(random))
    edges = ((x // 17 + y // 23) % 2)[..., None] * random.uniform(-0.3, 0.3, 3)
    grain = random.normal(0, 0.02, (height, width, 3))
    top = np.iinfo(dtype).max
    return np.rint((0.5 + waves + edges + grain).clip(0, 1) * top).astype(dtype)


def _waves(random: np.random.Generator) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    return [(random.uniform(-0.3, 0.3, 3) * (1, 1, 20), random.uniform(-0.15, 0.15, 3)) for _ in range(4)]
