"""A network of steps as ONNX, in the bundle's form: channels last, bytes at both ends of the integer graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from limner.compress.quantize import QuantConv2d
from limner.compress.steps import Concat, Enlarge, Grid, Scale, Separable, Shuffle, Step, StepNetwork, Sum
from limner.export.graph import OPSET, Writer


def build_steps(network: StepNetwork, name: str) -> onnx.ModelProto:
    """ONNX of a StepNetwork: input "x" (1, height, width, 3), output "y" (1, height * s, width * s, 3), RGB.

    Float network: float32 in and out, 0..1, not clipped. From `quantize_steps`: uint8 in and out, 0..255.
    """
    integer = any(isinstance(each, QuantConv2d) for each in network.modules())
    end = _end(network)
    w = Writer()
    x = w.node("Mul", w.node("Cast", "x", to=TensorProto.FLOAT), w.constant(np.float32(1 / 255))) if integer else "x"
    values = {0: w.node("Transpose", x, perm=[0, 3, 1, 2])}
    for number in _needed(network, end.value):
        step, part = network.steps[number - 1], network.parts[number - 1]
        values[number] = _WRITERS[type(part)](w, part, [values[each] for each in step.inputs])
    y = values[end.value]
    if end.nearest is not None:
        y = w.node("Add", y, w.node("Gather", values[0], w.constant(end.nearest), axis=1))
    y = _bytes(w, y) if integer else y
    if end.shuffle is not None:
        y = w.node("DepthToSpace", y, blocksize=end.shuffle.ratio, mode=end.shuffle.order)
    w.nodes.append(helper.make_node("Transpose", [y], ["y"], name="y", perm=[0, 2, 3, 1]))
    return _model(w, name, network.scale, TensorProto.UINT8 if integer else TensorProto.FLOAT)


class _End(NamedTuple):
    """How a network ends: to value number `value` the picture's plane `nearest` of each channel is added, then comes
    the `shuffle`. Clamping before the shuffle moves bytes, not floats, and is what the fused engine plans.
    """

    value: int
    nearest: NDArray[np.int64] | None = None
    shuffle: Shuffle | None = None


def _needed(network: StepNetwork, value: int) -> list[int]:
    """Numbers of the steps that a value depends on, itself included, in order."""
    found, waiting = set(), [value]
    while waiting:
        number = waiting.pop()
        if number and number not in found:
            found.add(number)
            waiting += network.steps[number - 1].inputs
    return sorted(found)


def _end(network: StepNetwork) -> _End:
    steps, parts, last = network.steps, list(network.parts), len(network.steps)
    plain = _End(last)
    if isinstance(parts[-1], Shuffle) and parts[-1].ratio == network.scale:
        return _End(steps[-1].inputs[0], None, parts[-1])
    if not isinstance(parts[-1], Sum) or len(set(steps[-1].inputs)) < 2:
        return plain
    for shuffled, enlarged in (steps[-1].inputs, steps[-1].inputs[::-1]):
        if _is_picture(network, enlarged) and shuffled:
            found = _anchored(network, shuffled)
            if found is not None:
                return found
    return plain


def _is_picture(network: StepNetwork, number: int) -> bool:
    """The picture itself, or the picture enlarged to the output's size."""
    if number == 0:
        return network.scale == 1
    return isinstance(network.parts[number - 1], Enlarge) and network.steps[number - 1].inputs == (0,)


def _anchored(network: StepNetwork, number: int) -> _End | None:
    part, scale = network.parts[number - 1], network.scale
    places = np.arange(3 * scale**2)
    if isinstance(part, Shuffle) and part.ratio == scale:
        nearest = places // scale**2 if part.order == "CRD" else places % 3
        return _End(network.steps[number - 1].inputs[0], nearest, part)
    return _End(number, places) if scale == 1 else None


def _bytes(w: Writer, y: str) -> str:
    y = w.node("Add", w.node("Mul", y, w.constant(np.float32(255))), w.constant(np.float32(0.5)))
    y = w.node("Clip", y, w.constant(np.float32(0)), w.constant(np.float32(255)))
    return w.node("Cast", y, to=TensorProto.UINT8)


def _convolved(w: Writer, part: Any, given: list[str]) -> str:
    return w.convolution(given[0], part)


def _added(w: Writer, part: Any, given: list[str]) -> str:
    grid, other = given[part.gridded], given[1 - part.gridded]
    if isinstance(part.second, Grid):
        grid = w.grid(
            grid, np.float32(part.second.input_scale.item()), part.second.input_zero, part.second.input_range()
        )
    return w.node("Add", other, grid)


def _separated(w: Writer, part: Any, given: list[str]) -> str:
    total = ""
    for term, (spread, mix) in enumerate(part.terms()):
        result = w.convolution(w.convolution(given[0], spread), mix)
        total = _added(w, part.sums[term - 1], [total, result]) if term else result
    return total


def _constant_slopes(w: Writer, part: Any, given: list[str]) -> str:
    slopes = part.weight.detach().numpy().astype(np.float32)
    return w.node("PRelu", given[0], w.constant(slopes[:, None, None]))


def _clipped(w: Writer, part: Any, given: list[str]) -> str:
    return w.node("Clip", given[0], w.constant(np.float32(part.min_val)), w.constant(np.float32(part.max_val)))


def _enlarged(w: Writer, part: Any, given: list[str]) -> str:
    scales = w.constant(np.array([1, 1, part.ratio, part.ratio], np.float32))
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return w.node("Resize", given[0], "", scales, **how)


_WRITERS: dict[type[nn.Module], Callable[[Writer, Any, list[str]], str]] = {
    nn.Conv2d: _convolved,
    QuantConv2d: _convolved,
    Separable: _separated,
    Sum: _added,
    Concat: lambda w, _, given: w.node("Concat", *given, axis=1),
    Shuffle: lambda w, part, given: w.node("DepthToSpace", given[0], blocksize=part.ratio, mode=part.order),
    Enlarge: _enlarged,
    Scale: lambda w, part, given: w.node("Mul", given[0], w.constant(np.float32(part.factor))),
    nn.ReLU: lambda w, _, given: w.node("Relu", given[0]),
    nn.LeakyReLU: lambda w, part, given: w.node("LeakyRelu", given[0], alpha=part.negative_slope),
    nn.PReLU: _constant_slopes,
    nn.Hardtanh: _clipped,
    nn.Sigmoid: lambda w, _, given: w.node("Sigmoid", given[0]),
    nn.Tanh: lambda w, _, given: w.node("Tanh", given[0]),
}


def _model(w: Writer, name: str, scale: int, dtype: int) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", dtype, [1, "height", "width", 3])
    y = helper.make_tensor_value_info("y", dtype, [1, f"height*{scale}", f"width*{scale}", 3])
    graph = helper.make_graph(w.nodes, name, [x], [y], w.constants)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="limner")
    onnx.checker.check_model(model, full_check=True)
    return model


def alone(part: nn.Module, inputs: int, outputs: int) -> StepNetwork:
    """A small network around one layer: a pointwise convolution on either side, and the picture added; scale 1.

    What two such networks differ in is the layer, on whichever engine runs them. A layer of three inputs reads the
    picture itself.
    """
    steps, parts = [], []
    if inputs != 3:
        steps, parts = [Step("enter", (0,)), Step("relu", (1,))], [nn.Conv2d(3, inputs, 1), nn.ReLU()]
    for name, each in (("layer", part), ("relu", nn.ReLU()), ("leave", nn.Conv2d(outputs, 3, 1))):
        steps.append(Step(name, (len(steps),)))
        parts.append(each)
    return StepNetwork([*steps, Step("y", (0, len(steps)))], [*parts, Sum(gridded=0)]).eval()
