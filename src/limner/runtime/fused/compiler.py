"""From a bundle's int8 graph to a plan, or a few words why there is none.

The nodes are followed once, in their order. What stands between the picture and its first grid, beside the network
(the enlarged picture) and behind it (pixel shuffle) is run on a probe; what stands between is a chain of integer
convolutions, and becomes layers: Conv on grids, [* scale + shift], [+ a tensor], [Relu or Clip], QuantizeLinear. Scales
and shifts (FiLM) are parts of a second input, one number a channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limner.runtime.fused import probe, reader
from limner.runtime.fused.plan import Convolution, Layer, Modulation, Plan, Residual, Unsupported
from limner.runtime.fused.reader import Node

CHANNEL_STEP = 16
MOST_CHANNELS = 1024
MOST_SCALE = 8
UNSHUFFLES = (1, 2)
COLOURS = (3, 4)
KERNELS = (1, 3, 5)
WEIGHT_PEAK = 127
MOST_STAGES = 256
MULTIPLIER_STEPS = 2.0**22
LEAST_ON_GRID = 2.0**-10  # at most 1/32 of a step
TO_UINT8 = 2  # ONNX's number of the type


def load(path: Path) -> Plan:
    """The plan of an ONNX file. Raises Unsupported for what the fused engine cannot run, a broken file included."""
    try:
        return compile_graph(reader.read(path))
    except reader.Unreadable as error:
        raise Unsupported(f"the file cannot be planned: {error}") from None
    except OSError as error:
        raise Unsupported(f"the file cannot be read: {error.strerror}") from None


def compile_graph(graph: reader.Graph) -> Plan:
    """The plan of a graph. Raises Unsupported."""
    if unknown := sorted({node.kind for node in graph.nodes} - KNOWN):
        raise Unsupported(f"operator{'s' * (len(unknown) > 1)} {', '.join(unknown)}")
    if len(graph.inputs) not in (1, 2) or len(graph.outputs) != 1:
        raise Unsupported(f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs instead of one each")
    compiler = _Compiler(graph)
    for node in graph.nodes:
        compiler.follow(node)
    return compiler.plan(graph.outputs[0])


@dataclass(frozen=True)
class _Edge:
    """Tensor number `tensor` and its grid: values are (byte - zero) * scale."""

    tensor: int
    channels: int
    scale: float
    zero: int


@dataclass(frozen=True, eq=False)
class _Integers:
    """A constant on a grid with zero point 0: codes * scale; the scale is one number, or one per item of axis 0."""

    codes: NDArray[Any]
    scale: NDArray[np.float64]


@dataclass(frozen=True)
class _Film:
    """Values start..start + size of the second input, plus a number."""

    start: int
    size: int
    plus: float = 0.0


@dataclass(frozen=True, eq=False)
class _Sum:
    """A convolution's result, not yet rounded: (sums * step + residual + picture) * factor + offset, then clipped.

    `step`: float64 (out,), the value of one unit of the integer sums. `picture`: what was added of the probe's run.
    With `scale` and `shift` the first term is sums * step * scale + shift.
    """

    source: _Edge
    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    groups: int
    step: NDArray[np.float64]
    residual: _Edge | None = None
    picture: NDArray[Any] | None = None
    scale: _Film | None = None
    shift: _Film | None = None
    factor: float = 1.0
    offset: float = 0.0
    low: float = -math.inf
    high: float = math.inf

    @property
    def clipped(self) -> bool:
        return self.low > -math.inf or self.high < math.inf

    def clip(self, low: float, high: float) -> _Sum:
        """Limited further: to low <= high."""
        return replace(self, low=min(max(self.low, low), high), high=max(min(self.high, high), low))


_Value = NDArray[Any] | _Edge | _Integers | _Sum | _Film | None


class _Compiler:
    """Values by name while the nodes are followed, and the stages found so far."""

    def __init__(self, graph: reader.Graph) -> None:
        name, *film = graph.inputs
        self._probe = probe.picture(_colours(graph.shapes[name]))
        self._values: dict[str, _Value] = {**graph.constants, name: self._probe, "": None}
        self._values |= {each: _film(graph.shapes[each]) for each in film}
        self._layers: list[Layer] = []
        self._modulations: list[Modulation] = []
        self._rounded: dict[tuple[str, float, int], _Edge] = {}
        self._cells = self._probe.shape[1:3]
        self._tail: _Sum | None = None

    def follow(self, node: Node) -> None:
        """Work out what one node makes. Raises Unsupported."""
        several = len(node.outputs) != 1 and node.kind != "Split"
        if several or any(name not in self._values for name in node.inputs):
            raise Unsupported(f"operator {node.kind} with inputs that nothing makes, or several outputs")
        arguments = [self._values[name] for name in node.inputs]
        try:
            with np.errstate(all="ignore"):
                made = _split(node, *arguments) if node.kind == "Split" else [self._made(node, arguments)]
                self._values |= {name: value for name, value in zip(node.outputs, made, strict=True) if name}
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError):
            raise Unsupported(f"operator {node.kind} with inputs or attributes of another kind") from None

    def _made(self, node: Node, arguments: list[_Value]) -> _Value:
        if node.kind == "QuantizeLinear":
            return self._quantized(node.inputs[0], *arguments)
        if node.kind == "DequantizeLinear":
            return _dequantized(node, *arguments)
        if node.kind == "Cast" and isinstance(arguments[0], _Sum):
            return self._painted(node, arguments[0])
        active = node.kind == "Conv" or any(isinstance(value, _Sum | _Edge) for value in arguments)
        if node.kind == "Add" and not active and any(isinstance(value, _Film) for value in arguments):
            return _raised(*arguments)
        if active and node.kind in _STEPS:
            return _STEPS[node.kind](node, *arguments)
        return probe.run(node, [_array(value) for value in arguments])

    def _quantized(self, name: str, value: _Value, scale: _Value, zero: _Value = None) -> _Edge:
        """The picture itself, or the result of a new layer."""
        step, point = float(_scale(scale).item()), _zero(zero)
        if isinstance(value, np.ndarray):
            edge, self._cells = _picture(self._probe, value, step, point), value.shape[2:]
            return edge
        if (name, step, point) not in self._rounded:
            layer, total = _layer(_sum(value), step, point), _sum(value)
            self._layers.append(layer)
            if total.scale and total.shift:
                where = Modulation(total.scale.start, total.shift.start, total.scale.plus, step / total.factor)
                self._modulations.append(where)
            self._rounded[name, step, point] = _Edge(len(self._layers), layer.outputs, step, point)
        return self._rounded[name, step, point]

    def _painted(self, node: Node, total: _Sum) -> NDArray[np.int64]:
        """The clamped sum becomes bytes: from here on the probe carries each value's own number."""
        if node.attributes.get("to") != TO_UINT8 or (total.low, total.high, total.offset) != (0.0, 255.0, 0.5):
            raise Unsupported("an end other than + 0.5, clip to 0..255, cast to uint8")
        if self._tail is not None or total.picture is None or total.residual is not None or total.scale:
            raise Unsupported("an end without the enlarged picture, or two ends")
        if total.picture.shape != (1, len(total.step), *self._cells):
            raise Unsupported("an enlarged picture of another size than the network's result")
        self._tail = total
        return np.arange(total.picture.size).reshape(total.picture.shape)

    def plan(self, output: str) -> Plan:
        """The whole, after every node; `output`: name of the graph's result. Raises Unsupported."""
        result = self._values.get(output)
        if self._tail is None or not isinstance(result, np.ndarray):
            raise Unsupported("no end that gives bytes")
        colours = self._probe.shape[3]
        order = _shuffle(result, self._cells, colours)
        unshuffle, side = probe.HEIGHT // self._cells[0], math.isqrt(len(order) // colours)
        _check_enlarged(self._tail, order, self._probe, side // unshuffle)
        tail = _stage(self._tail, self._tail.step * self._tail.factor)
        tail = replace(tail, weight=tail.weight[order], bias=tail.bias[order], multiplier=tail.multiplier[order])
        plan = Plan(tuple(self._layers), tail, side // unshuffle, unshuffle, colours, tuple(self._modulations))
        _check(plan)
        return plan


def _array(value: _Value) -> NDArray[Any]:
    if not isinstance(value, np.ndarray):
        raise ValueError("a constant is missing")
    return value


def _sum(value: _Value) -> _Sum:
    if not isinstance(value, _Sum):
        raise Unsupported("a step that follows no convolution")
    return value


def _scale(value: _Value) -> NDArray[np.float64]:
    scale = _array(value).astype(np.float64)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise Unsupported("a scale that is no positive number")
    return scale


def _zero(value: _Value) -> int:
    """The zero point of an activation, as stored: signed bytes are kept plus 128."""
    point = np.zeros((), np.uint8) if value is None else _array(value)
    if point.dtype not in (np.uint8, np.int8):
        raise Unsupported(f"activations of type {point.dtype}")
    stored = int(point.item()) + (128 if point.dtype == np.int8 else 0)
    if stored not in (0, 128):
        raise Unsupported(f"a zero point of {point.item()} ({point.dtype})")
    return stored


def _dequantized(node: Node, value: _Value, scale: _Value, zero: _Value = None) -> _Edge | _Integers:
    step = _scale(scale)
    if isinstance(value, _Edge):
        if (value.scale, value.zero) != (float(step.item()), _zero(zero)):
            raise Unsupported("QuantizeLinear and DequantizeLinear of different grids")
        return value
    per_channel = step.size > 1
    if (zero is not None and _array(zero).any()) or (per_channel and node.attributes.get("axis") != 0):
        raise Unsupported("weights on another grid than one symmetric scale per output channel")
    return _Integers(_array(value), step.reshape(-1) if per_channel else step.reshape(()))


def _film(shape: tuple[int | None, ...]) -> _Film:
    if len(shape) != 4 or shape[0] not in (None, 1) or not shape[1] or shape[2:] != (1, 1):
        raise Unsupported(f"a second input of shape {shape}, which is no FiLM of (1, values, 1, 1)")
    return _Film(0, shape[1])


def _split(node: Node, value: _Value, sizes: _Value = None) -> list[_Value]:
    """The second input in parts, one for each output."""
    parts = [int(size) for size in _array(sizes).tolist()]
    if not isinstance(value, _Film) or node.attributes.get("axis") != 1 or min(parts) < 1 or sum(parts) != value.size:
        raise Unsupported("a Split of something else than the FiLM input")
    starts = value.start + np.cumsum([0, *parts[:-1]])
    return [replace(value, start=int(start), size=size) for start, size in zip(starts, parts, strict=True)]


def _raised(left: _Value, right: _Value) -> _Film:
    part, number = (left, right) if isinstance(left, _Film) else (right, left)
    assert isinstance(part, _Film)
    return replace(part, plus=part.plus + float(_array(number).item()))


def _colours(shape: tuple[int | None, ...]) -> int:
    if len(shape) != 4 or shape[3] not in COLOURS:
        raise Unsupported(f"an input of shape {shape}, which is no picture of {COLOURS[0]} or {COLOURS[1]} channels")
    return int(shape[3])


def _picture(pixels: NDArray[np.uint8], value: NDArray[Any], scale: float, zero: int) -> _Edge:
    """The first grid must give back the picture's own bytes, as pixels or as cells of pixels."""
    unshuffle = probe.HEIGHT // value.shape[2]
    if unshuffle not in UNSHUFFLES:
        raise Unsupported("a network that works neither on pixels nor on cells of 2 x 2")
    cells = probe.space_to_depth(pixels.transpose(0, 3, 1, 2), unshuffle)
    if zero or value.shape != cells.shape or not (np.rint(value / np.float32(scale)) == cells).all():
        raise Unsupported("a network whose input is not the bytes of the picture, (row, column, colour)")
    return _Edge(0, cells.shape[1], scale, 0)


def _convolved(node: Node, source: _Value, weight: _Value, bias: _Value = None) -> _Sum:
    if not (isinstance(source, _Edge) and isinstance(weight, _Integers)):
        raise Unsupported("a convolution that is not integer")
    codes, groups = weight.codes, int(node.attributes.get("group", 1))  # type: ignore[arg-type]
    if codes.dtype != np.int8 or codes.ndim != 4 or np.abs(codes.astype(np.int16)).max(initial=0) > WEIGHT_PEAK:
        raise Unsupported(f"weights that are no int8 kernels within +-{WEIGHT_PEAK}")
    _check_geometry(node, codes.shape, groups, source.channels)
    step = np.broadcast_to(source.scale * weight.scale, len(codes))
    folded = _bias(bias, step) - source.zero * codes.sum((1, 2, 3), dtype=np.int64)
    _check_range(codes, folded)
    return _Sum(source, codes, folded.astype(np.int32), groups, step)


def _check_geometry(node: Node, shape: tuple[int, ...], groups: int, channels: int) -> None:
    outputs, per_group, kernel, across = shape
    known = {"group", "kernel_shape", "pads", "strides", "dilations", "auto_pad"}
    wanted = {"kernel_shape": (kernel,) * 2, "pads": (kernel // 2,) * 4, "strides": (1, 1), "dilations": (1, 1)}
    usual = {"kernel_shape": (kernel,) * 2, "pads": (0,) * 4, "strides": (1, 1), "dilations": (1, 1)}
    if kernel != across or kernel not in KERNELS:
        raise Unsupported(f"a kernel of {across} x {kernel}")
    if node.attributes.keys() - known or node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise Unsupported("a convolution with unknown attributes")
    if any(node.attributes.get(key, usual[key]) != value for key, value in wanted.items()):
        raise Unsupported("a convolution with stride, dilation or uneven padding")
    if groups < 1 or outputs % groups or per_group * groups != channels or not 0 < outputs <= MOST_CHANNELS:
        raise Unsupported(f"a convolution of {channels} to {outputs} channels in {groups} groups")


def _bias(bias: _Value, step: NDArray[np.float64]) -> NDArray[np.int64]:
    """In units of the integer sums; a float bias is rounded to them."""
    if bias is None:
        return np.zeros(len(step), np.int64)
    if isinstance(bias, _Integers) and np.allclose(bias.scale, step, rtol=1e-5, atol=0):
        units: NDArray[Any] = bias.codes
    else:
        units = (bias.codes * bias.scale if isinstance(bias, _Integers) else _array(bias)) / step
    if units.shape != step.shape or not (np.abs(units) < 2**31).all():
        raise Unsupported("a bias that does not fit 32 bits per channel")
    return np.rint(units).astype(np.int64)


def _check_range(weight: NDArray[np.int8], bias: NDArray[np.int64]) -> None:
    largest = np.abs(weight.astype(np.int64)).sum((1, 2, 3)) * 255 + np.abs(bias)
    if largest.max(initial=0) >= 2**31:
        raise Unsupported("sums that may not fit 32 bits")


def _relu(_: Node, value: _Value) -> _Sum:
    return _sum(value).clip(0.0, math.inf)


def _clip(_: Node, value: _Value, low: _Value = None, high: _Value = None) -> _Sum:
    limits = [float(_array(limit).item()) if limit is not None else None for limit in (low, high)]
    bottom, top = -math.inf if limits[0] is None else limits[0], math.inf if limits[1] is None else limits[1]
    if not bottom <= top:
        raise Unsupported("a Clip with its limits exchanged")
    return _sum(value).clip(bottom, top)


def _scaled(_: Node, left: _Value, right: _Value) -> _Sum:
    total, factor = (right, left) if isinstance(right, _Sum) else (left, right)
    total = _sum(total)
    if isinstance(factor, _Film):
        return _modulated(total, factor)
    _check_modulated(total)
    number = float(_array(factor).item())
    if total.clipped or not (math.isfinite(number) and number > 0):
        raise Unsupported("a Mul behind a Clip or by no positive number")
    return replace(total, factor=total.factor * number, offset=total.offset * number)


def _modulated(total: _Sum, scale: _Film) -> _Sum:
    plain = total.scale is None and total.residual is None and total.picture is None and not total.clipped
    if not plain or total.factor != 1 or total.offset or scale.size != len(total.step):
        raise Unsupported("FiLM elsewhere than right behind a convolution, or of another number of channels")
    return replace(total, scale=scale)


def _check_modulated(total: _Sum) -> None:
    if total.scale and not total.shift:
        raise Unsupported("a FiLM scale without its shift")


def _added(_: Node, left: _Value, right: _Value) -> _Sum:
    """A number, the enlarged picture, a tensor, or the shift of a FiLM."""
    total, other = (right, left) if isinstance(right, _Sum) else (left, right)
    total = _sum(total)
    if isinstance(other, _Film):
        return _shifted(total, other)
    _check_modulated(total)
    if total.clipped:
        raise Unsupported("an Add behind a Relu or Clip")
    if isinstance(other, np.ndarray) and other.size == 1:
        return replace(total, offset=total.offset + float(other.item()))
    if total.factor != 1 or total.offset or total.picture is not None or total.residual is not None:
        raise Unsupported("two tensors added to one convolution, or one added behind a Mul")
    if isinstance(other, _Edge) and other.channels == len(total.step):
        return replace(total, residual=other)
    return replace(total, picture=_array(other))


def _shifted(total: _Sum, shift: _Film) -> _Sum:
    if total.scale is None or total.shift or total.clipped or shift.plus or shift.size != len(total.step):
        raise Unsupported("a FiLM shift without its scale, or of another number of channels")
    return replace(total, shift=shift)


_STEPS: dict[str, Callable[..., _Sum]] = {
    "Conv": _convolved,
    "Relu": _relu,
    "Clip": _clip,
    "Mul": _scaled,
    "Add": _added,
}
KNOWN = {*_STEPS, *probe.OPERATORS, "QuantizeLinear", "DequantizeLinear", "Cast", "Split"}


def _layer(total: _Sum, scale: float, zero: int) -> Layer:
    """The convolution that QuantizeLinear ends."""
    if total.picture is not None or total.offset:
        raise Unsupported("a picture or a number added in the middle of the network")
    _check_modulated(total)
    step = scale / total.factor
    stage = _stage(total, total.step / step)
    residual = total.residual
    if residual is not None:
        _check_multiplier(np.float64(residual.scale / step))
    added = residual and Residual(residual.tensor, residual.zero, np.float32(residual.scale / step))
    low, high = (int(np.clip(np.rint(limit / scale) + zero, 0, 255)) for limit in (total.low, total.high))
    return Layer(**vars(stage), zero_out=zero, low=low, high=high, residual=added, film=total.scale is not None)


def _stage(total: _Sum, multiplier: NDArray[np.float64]) -> Convolution:
    _check_multiplier(multiplier)
    # Where a residual, FiLM or the picture is added, the kernels round in another way, and the grid gains nothing.
    alone = total.residual is None and total.scale is None and total.picture is None
    exact = _on_grid(multiplier) if alone else multiplier
    source = total.source
    return Convolution(source.tensor, source.zero, total.weight, total.bias, exact.astype(np.float32), total.groups)


def _on_grid(multiplier: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiples of 2**-22: the kernels scale and round such sums with one instruction (csrc/kernels.h).

    Of results within 256 steps that moves none by more than 256 * 2**-23 / multiplier steps; smaller multipliers, such
    as those of channels without weights, stay what they are.
    """
    near = np.rint(multiplier * MULTIPLIER_STEPS) / MULTIPLIER_STEPS
    return np.where(multiplier < LEAST_ON_GRID, multiplier, near)


def _check_multiplier(multiplier: NDArray[np.float64] | np.float64) -> None:
    """Far from where float32 loses bits or overflows, so that no sum becomes infinite or undefined."""
    if not ((multiplier > 2.0**-100) & (multiplier < 2.0**60)).all():
        raise Unsupported("scales too far apart for float32")


def _shuffle(result: NDArray[Any], cells: tuple[int, ...], colours: int) -> NDArray[np.intp]:
    """For each (row, column, colour) of a cell the tail's channel, from what the end of the graph did to the probe.

    `result`: (1, H * side, W * side, colours), the numbers that `_painted` gave; `cells`: (H, W).
    """
    side = result.shape[1] // cells[0]
    channels, places = colours * side**2, math.prod(cells)
    if result.shape != (1, cells[0] * side, cells[1] * side, colours) or result.size != channels * places:
        raise Unsupported(f"an end that makes {result.shape} of {cells} places")
    order = result[0, :side, :side].ravel() // places
    if not (np.sort(order) == np.arange(channels)).all():
        raise Unsupported("an end that is no pixel shuffle")
    numbers = np.arange(result.size).reshape(channels, *cells)
    if not (_laid_out(numbers[order], side, colours) == result[0]).all():
        raise Unsupported("an end that is no pixel shuffle")
    return order


def _laid_out(values: NDArray[Any], side: int, colours: int) -> NDArray[Any]:
    """(side * side * colours, H, W), channels (row, column, colour), to (H * side, W * side, colours)."""
    _, height, width = values.shape
    cells = values.reshape(side, side, colours, height, width).transpose(3, 0, 4, 1, 2)
    return cells.reshape(height * side, width * side, colours)


def _check_enlarged(tail: _Sum, order: NDArray[np.intp], pixels: NDArray[np.uint8], scale: int) -> None:
    assert tail.picture is not None
    colours = pixels.shape[3]
    enlarged = _laid_out(tail.picture[0, order] * tail.factor, math.isqrt(len(order) // colours), colours)
    nearest = pixels[0].repeat(scale, 0).repeat(scale, 1)
    if enlarged.shape != nearest.shape or not np.allclose(enlarged, nearest, rtol=0, atol=1e-3):
        raise Unsupported("a residual other than the nearest pixel of the picture")


def _check(plan: Plan) -> None:
    """What the kernels ask of a plan as a whole."""
    if not 0 < len(plan.layers) < MOST_STAGES:
        raise Unsupported(f"{len(plan.layers)} layers")
    if not 1 <= plan.scale <= MOST_SCALE or plan.tail.kernel != 1 or plan.tail.groups != 1:
        raise Unsupported(f"a tail that is no 1 x 1 convolution with a scale of 1 to {MOST_SCALE}")
    for layer in plan.layers:
        parts = (layer.outputs,) if layer.kind != "grouped" else (layer.outputs // layer.groups, layer.weight.shape[1])
        if any(part % CHANNEL_STEP for part in parts):
            raise Unsupported(f"a width of {parts[0]} channels, which is no multiple of {CHANNEL_STEP}")
