"""From a folded network to ONNX: a float graph, or an integer one with QuantizeLinear / DequantizeLinear pairs.

Written node by node rather than traced: the engines' fast paths depend on the exact pattern (uint8 channels-last at
both ends, one grid per edge, clamp before the pixel shuffle, integer bias), and the pattern is short.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from limner.compress.quantize import QuantConv2d, quantized_layers
from limner.config import UpscalerConfig
from limner.models.upscaler import Upscaler, shipped_order

OPSET, OPSET_INT4 = 17, 21
Convolution = nn.Conv2d | QuantConv2d
ACTIVATIONS = nn.ReLU | nn.ReLU6 | nn.LeakyReLU


class Writer:
    """Collects nodes and constants; every method returns the name of the value it makes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def nibbles(self, value: NDArray[np.int8]) -> str:
        """A constant of ONNX's INT4, two to the byte; the graph then needs `versions` as they are with it."""
        name = f"c{len(self.constants)}"
        self.constants.append(helper.make_tensor(name, TensorProto.INT4, value.shape, value.ravel().tolist()))
        return name

    def versions(self) -> dict[str, Any]:
        """Operator set and format that the graph needs: the oldest ones that do."""
        packed = any(constant.data_type == TensorProto.INT4 for constant in self.constants)
        opset, ir = (OPSET_INT4, 10) if packed else (OPSET, 8)
        return {"opset_imports": [helper.make_opsetid("", opset)], "ir_version": ir}

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def convolution(self, x: str, conv: Convolution, inputs: NDArray[np.intp] | None = None) -> str:
        """A convolution; `inputs` reorders the input channels of its weight."""
        weight = _numpy(conv.weight)
        weight = weight if inputs is None else weight[:, inputs]
        assert conv.bias is not None
        if isinstance(conv, QuantConv2d):
            x, weight_name, bias_name = self._integer(x, conv, weight)
        else:
            weight_name, bias_name = self.constant(weight), self.constant(_numpy(conv.bias))
        size, margin, stride = weight.shape[-1], int(conv.padding[0]), int(conv.stride[0])
        steps = {"strides": [stride, stride]} if stride > 1 else {}
        return self.node(
            "Conv",
            x,
            weight_name,
            bias_name,
            kernel_shape=[size, size],
            pads=[margin] * 4,
            group=conv.groups,
            **steps,
        )

    def _integer(self, x: str, conv: QuantConv2d, weight: NDArray[np.float32]) -> tuple[str, str, str]:
        assert conv.bias is not None
        scale, step = np.float32(conv.input_scale.item()), _numpy(conv.weight_scale())
        integers = np.rint(weight / step[:, None, None, None]).clip(-conv.weight_peak, conv.weight_peak)
        zeros = np.zeros(len(step), np.int8)
        held = self.nibbles if conv.packed else self.constant
        weight_name = self.node(
            "DequantizeLinear", held(integers.astype(np.int8)), self.constant(step), held(zeros), axis=0
        )
        bias = np.rint(_numpy(conv.bias).astype(np.float64) / (scale * step)).astype(np.int32)
        bias_name = self.node(
            "DequantizeLinear",
            self.constant(bias),
            self.constant(scale * step),
            self.constant(zeros.astype(np.int32)),
            axis=0,
        )
        return self.grid(x, scale, conv.input_zero, conv.input_range()), weight_name, bias_name

    def activation(self, x: str, kind: nn.ReLU | nn.ReLU6 | nn.LeakyReLU) -> str:
        if isinstance(kind, nn.LeakyReLU):
            return self.node("LeakyRelu", x, alpha=kind.negative_slope)
        if isinstance(kind, nn.ReLU6):
            return self.node("Clip", x, self.constant(np.float32(0)), self.constant(np.float32(6)))
        return self.node("Relu", x)

    def grid(self, x: str, scale: np.float32, zero: int, bounds: tuple[int, int]) -> str:
        """Round `x` to an 8-bit grid on which `zero` stands for 0.0; narrower grids are clipped first."""
        dtype = np.int8 if bounds[0] < 0 else np.uint8
        limits = np.iinfo(dtype)
        if bounds != (limits.min, limits.max):
            low, high = (self.constant(np.float32(scale * (bound - zero))) for bound in bounds)
            x = self.node("Clip", x, low, high)
        grid = self.constant(scale), self.constant(dtype(zero))
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, *grid), *grid)


def build(network: Upscaler, name: str) -> onnx.ModelProto:
    """ONNX of a folded Upscaler: input "x" (1, height, width, C), output "y" (1, height * s, width * s, C).

    C = 3: RGB; 4: RGBA with premultiplied alpha. Float network: float32 in and out, 0..1, not clipped. Network from
    `quantize`: uint8 in and out, 0..255.
    Height and width are dynamic and must be multiples of config.unshuffle.
    """
    integer = bool(quantized_layers(network))
    w = Writer()
    picture = _enter(w, integer)
    cell, colours = network.config.unshuffle, network.config.channels
    cells = w.node("SpaceToDepth", picture, blocksize=cell) if cell > 1 else picture
    order = np.array(shipped_order(cell, colours)) if cell > 1 else None
    features = cells
    for step in _steps(network):
        if isinstance(step, ACTIVATIONS):
            features = w.activation(features, step)
        else:
            features = w.convolution(features, step, order)
            order = None
    enlarged = w.node("Gather", cells, w.constant(_nearest(network.config.scale, cell, colours)), axis=1)
    _leave(w, w.node("Add", features, enlarged), network.config, integer)
    return _model(w, name, network.config, TensorProto.UINT8 if integer else TensorProto.FLOAT)


def _steps(network: Upscaler) -> list[Convolution | nn.ReLU | nn.ReLU6 | nn.LeakyReLU]:
    parts = nn.ModuleList([network.head, network.trunk, network.tail])
    return [module for module in parts.modules() if isinstance(module, nn.Conv2d | QuantConv2d | ACTIVATIONS)]


def _enter(w: Writer, integer: bool) -> str:
    x = "x"
    if integer:
        x = w.node("Mul", w.node("Cast", x, to=TensorProto.FLOAT), w.constant(np.float32(1 / 255)))
    return w.node("Transpose", x, perm=[0, 3, 1, 2])


def _nearest(scale: int, cell: int, colours: int) -> NDArray[np.int64]:
    """For each channel (row, column, colour) of the shuffled output, the channel of the unshuffled input below it."""
    side = scale * cell
    row, column, colour = np.meshgrid(np.arange(side), np.arange(side), np.arange(colours), indexing="ij")
    return ((row // scale * cell + column // scale) * colours + colour).ravel()


def _leave(w: Writer, y: str, config: UpscalerConfig, integer: bool) -> None:
    """Clamp to bytes before the shuffle: what moves at full resolution is uint8, in rows of contiguous pixels."""
    if integer:
        y = w.node("Add", w.node("Mul", y, w.constant(np.float32(255))), w.constant(np.float32(0.5)))
        y = w.node("Clip", y, w.constant(np.float32(0)), w.constant(np.float32(255)))
        y = w.node("Cast", y, to=TensorProto.UINT8)
    scale, side = config.scale, config.scale * config.unshuffle
    y = w.node("Transpose", y, perm=[0, 2, 3, 1])
    y = w.node("Reshape", y, w.constant(np.array([0, 0, 0, side, side * config.channels], np.int64)))
    y = w.node("Transpose", y, perm=[0, 1, 3, 2, 4])
    shape = w.node("Mul", w.node("Shape", "x"), w.constant(np.array([1, scale, scale, 1], np.int64)))
    w.nodes.append(helper.make_node("Reshape", [y, shape], ["y"], name="y"))


def _model(w: Writer, name: str, config: UpscalerConfig, dtype: int) -> onnx.ModelProto:
    scale, colours = config.scale, config.channels
    x = helper.make_tensor_value_info("x", dtype, [1, "height", "width", colours])
    y = helper.make_tensor_value_info("y", dtype, [1, f"height*{scale}", f"width*{scale}", colours])
    graph = helper.make_graph(w.nodes, name, [x], [y], w.constants)
    model = helper.make_model(graph, producer_name="limner", **w.versions())
    onnx.checker.check_model(model, full_check=True)
    return model


@torch.no_grad()
def _numpy(values: torch.Tensor) -> NDArray[np.float32]:
    return values.detach().cpu().float().numpy()
