"""A user's own generator, from an ONNX file or from a torch module, as a `StepNetwork`."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from limner.compress.steps import Concat, Enlarge, Scale, Shuffle, Step, StepNetwork, Sum
from limner.errors import LimnerError, UsageError

PROBE = 16
MOST_SCALE = 8
KNOWN = "convolutions, activations, additions, concatenations, pixel shuffles, nearest enlargements, constant factors"


def read(source: str, weights: Path | None = None) -> StepNetwork:
    """A network from an ONNX file, or from `package.module:factory` (imported and called) with safetensors `weights`.

    It must map pictures (N, 3, H, W), RGB in 0..1, to pictures a whole number of times larger. Raises LimnerError that
    names the layer or the weight at fault.
    """
    if source.endswith(".onnx"):
        if weights is not None:
            raise UsageError(f"{source} holds its weights: leave out --weights.")
        return from_onnx(_loaded(Path(source)), source)
    return from_torch(_built(source, weights), source)


def _loaded(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except OSError as error:
        raise LimnerError(f"{path}: cannot be read ({error.strerror}); give an ONNX file.") from None
    except Exception as error:  # protobuf, the checker and external data each have errors of their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LimnerError(f"{path}: is no valid ONNX graph ({reason:.160}); export it again.") from None
    return model


def _built(source: str, weights: Path | None) -> nn.Module:
    module, colon, name = source.partition(":")
    if not (module and colon and name):
        raise UsageError(f"{source!r} is neither an ONNX file nor package.module:factory; give one of them.")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 -- as python -m does
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise LimnerError(f"{source}: cannot be imported ({error}); check the name and PYTHONPATH.") from None
    finally:
        sys.path.pop(0)
    try:
        network = factory()
    except Exception as error:  # the user's own code
        raise LimnerError(
            f"{source}: raised {type(error).__name__} ({error!s:.160}); it is called without arguments."
        ) from None
    if not isinstance(network, nn.Module):
        raise LimnerError(f"{source}: gives a {type(network).__name__}, not a torch.nn.Module; name another factory.")
    if weights is not None:
        _fill(network, weights)
    return network.eval()


def _fill(network: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise LimnerError(f"{path}: cannot be read as safetensors ({error}); give the weights of the module.") from None
    own = network.state_dict()
    for key in sorted(own.keys() | tensors.keys()):
        ours, theirs = (tuple(side[key].shape) if key in side else None for side in (own, tensors))
        if ours != theirs:
            raise LimnerError(
                f"{path}: key {key!r} is {theirs or 'missing'} there and {ours or 'missing'} in the module; "
                "give the weights that belong to it."
            )
    network.load_state_dict(tensors)


def from_torch(network: nn.Module, source: str) -> StepNetwork:
    """Any torch module of the known layers, by way of ONNX."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path, picture = Path(folder) / "network.onnx", torch.rand(1, 3, PROBE, PROBE)
        try:
            torch.onnx.export(network, (picture,), str(path), input_names=["picture"], opset_version=17, dynamo=False)
        except Exception as error:  # whatever the user's forward raises
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise LimnerError(
                f"{source}: does not run on a picture (1, 3, {PROBE}, {PROBE}) ({reason:.160}); only generators that "
                "take an RGB picture can be separated."
            ) from None
        return from_onnx(_loaded(path), source)


class _Layer(NamedTuple):
    """A node with its constants at hand. `label`: how to name it to the user."""

    node: onnx.NodeProto
    constants: dict[str, NDArray[Any]]
    label: str

    def attribute(self, name: str, default: Any = None) -> Any:
        found = [helper.get_attribute_value(each) for each in self.node.attribute if each.name == name]
        return found[0] if found else default

    def constant(self, index: int) -> NDArray[Any] | None:
        names = self.node.input
        return self.constants.get(names[index]) if index < len(names) else None

    def refuse(self, what: str) -> LimnerError:
        return LimnerError(f"{self.label} {what}.")


def from_onnx(model: onnx.ModelProto, source: str) -> StepNetwork:
    """The graph's nodes as steps. Raises LimnerError that names `source` and the layer for what is not supported."""
    graph = model.graph
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    numbers = {_picture(graph, constants, source): 0}
    read_by = Counter(name for node in graph.node for name in node.input)
    steps: list[Step] = []
    parts: list[nn.Module] = []
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = _constant(node)
            continue
        if node.op_type in ("Identity", "Dropout"):
            _alias(node, numbers, constants)
            continue
        layer = _Layer(node, constants, f"{source}: layer {_name(node)!r}")
        if node.op_type not in PARTS:
            raise layer.refuse(f"uses the operator {node.op_type}, which cannot be separated; it must be of {KNOWN}")
        inputs = [numbers[name] for name in node.input if name in numbers]
        if _folded(layer, inputs, parts, read_by):
            numbers[node.output[0]] = inputs[0]
            continue
        parts.append(PARTS[node.op_type](layer, len(inputs)))
        steps.append(Step(_name(node), tuple(inputs)))
        numbers[node.output[0]] = len(steps)
    if not steps or graph.output[0].name not in numbers or numbers[graph.output[0].name] != len(steps):
        raise LimnerError(f"{source}: its output is not what its last layer makes; export the generator alone.")
    network = StepNetwork(steps, parts).eval()
    network.scale = _scale(network, source)
    _choose_grids(network)
    return network


def _folded(layer: _Layer, inputs: list[int], parts: list[nn.Module], read_by: Counter[str]) -> bool:
    """Whether `layer` is a constant factor behind a convolution that nothing else reads: it becomes part of that."""
    if layer.node.op_type != "Mul" or len(inputs) != 1 or not inputs[0]:
        return False
    conv, factor = parts[inputs[0] - 1], _factor(layer)
    alone = max(read_by[name] for name in layer.node.input if name not in layer.constants) == 1
    if not (isinstance(conv, nn.Conv2d) and alone and factor is not None):
        return False
    with torch.no_grad():
        for values in conv.parameters():
            values.mul_(factor)
    return True


def _alias(node: onnx.NodeProto, numbers: dict[str, int], constants: dict[str, NDArray[Any]]) -> None:
    if node.input[0] in numbers:
        numbers[node.output[0]] = numbers[node.input[0]]
    elif node.input[0] in constants:
        constants[node.output[0]] = constants[node.input[0]]


def _picture(graph: onnx.GraphProto, constants: dict[str, NDArray[Any]], source: str) -> str:
    """The name of the only input, after checking that it is a picture."""
    inputs = [each for each in graph.input if each.name not in constants]
    shown = ", ".join(f"{each.name!r} {_shape(each)}" for each in inputs) or "nothing"
    kinds = [each.type.tensor_type.elem_type for each in inputs]
    sides = [each.type.tensor_type.shape.dim for each in inputs]
    if kinds != [TensorProto.FLOAT] or len(sides[0]) != 4 or sides[0][1].dim_value != 3:
        raise LimnerError(
            f"{source}: its input is {shown}, not a float picture (N, 3, height, width); only generators that take an "
            "RGB picture can be separated."
        )
    return inputs[0].name


def _shape(value: onnx.ValueInfoProto) -> str:
    sides = (str(each.dim_value or each.dim_param or "?") for each in value.type.tensor_type.shape.dim)
    return f"({', '.join(sides)})"


def _name(node: onnx.NodeProto) -> str:
    """`body.0` where the weight is called body.0.weight, else the node's own name."""
    for name in node.input[1:2]:
        if node.op_type == "Conv" and name.endswith(".weight"):
            return name.removesuffix(".weight")
    return node.name or node.output[0]


def _constant(node: onnx.NodeProto) -> NDArray[Any]:
    value = helper.get_attribute_value(node.attribute[0])
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


@torch.no_grad()
def _scale(network: StepNetwork, source: str) -> int:
    """The whole factor between output and input pictures."""
    try:
        shape = tuple(network(torch.rand(1, 3, PROBE, PROBE)).shape)
    except RuntimeError as error:
        raise LimnerError(f"{source}: does not run on a picture of {PROBE}x{PROBE} ({error:.120s}).") from None
    scale = shape[2] // PROBE
    if shape != (1, 3, PROBE * scale, PROBE * scale) or not 1 <= scale <= MOST_SCALE:
        raise LimnerError(
            f"{source}: makes {shape} of a picture (1, 3, {PROBE}, {PROBE}), which is no picture a whole number of "
            f"times (1 to {MOST_SCALE}) larger."
        )
    return scale


def _choose_grids(network: StepNetwork) -> None:
    """In a sum of two, the operand that is not a convolution's own result is the one that is stored as integers."""
    for step, part in zip(network.steps, network.parts, strict=True):
        if isinstance(part, Sum):
            convolved = [n > 0 and isinstance(network.parts[n - 1], nn.Conv2d) for n in step.inputs]
            part.gridded = 0 if convolved[1] else 1


def _convolution(layer: _Layer, _: int) -> nn.Module:
    weight, bias = layer.constant(1), layer.constant(2)
    if weight is None or weight.ndim != 4:
        raise layer.refuse("has no constant 2D kernel; export the generator with its weights")
    side, groups = weight.shape[-1], int(layer.attribute("group", 1))
    same = [side // 2] * 4
    if weight.shape[2] != side or not side % 2:
        raise layer.refuse(f"has a kernel of {weight.shape[2]}x{side}; only odd square kernels can be separated")
    if any(number != 1 for name in ("strides", "dilations") for number in layer.attribute(name, [1])):
        raise layer.refuse("has a stride or dilation other than 1, which cannot be separated")
    automatic = layer.attribute("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER")
    if not automatic and list(layer.attribute("pads", [0] * 4)) != same:
        raise layer.refuse(f"is not padded by {side // 2} zeros on every side, so its output is smaller than its input")
    conv = nn.Conv2d(weight.shape[1] * groups, weight.shape[0], side, padding=side // 2, groups=groups)
    with torch.no_grad():
        conv.weight.copy_(_tensor(weight))
        assert conv.bias is not None
        conv.bias.copy_(torch.zeros(len(weight)) if bias is None else _tensor(bias))
    return conv


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))


def _leaky(layer: _Layer, _: int) -> nn.Module:
    return nn.LeakyReLU(layer.attribute("alpha", 0.01))


def _prelu(layer: _Layer, _: int) -> nn.Module:
    slope = layer.constant(1)
    if slope is None:
        raise layer.refuse("has no constant slopes; export the generator with its weights")
    module = nn.PReLU(slope.size)
    with torch.no_grad():
        module.weight.copy_(_tensor(slope).flatten())
    return module


def _clip(layer: _Layer, _: int) -> nn.Module:
    low, high = (layer.constant(index) for index in (1, 2))
    bottom = layer.attribute("min", -np.inf) if low is None else low.item()
    top = layer.attribute("max", np.inf) if high is None else high.item()
    if not bottom < top:
        raise layer.refuse(f"clips to {bottom}..{top}, which is empty")
    return nn.Hardtanh(float(bottom), float(top))


def _sum(layer: _Layer, tensors: int) -> nn.Module:
    if tensors != 2:
        raise layer.refuse("adds a constant; fold it into the bias of a convolution")
    return Sum()


def _scaled(layer: _Layer, tensors: int) -> nn.Module:
    factor = _factor(layer)
    if tensors != 1 or factor is None:
        raise layer.refuse("multiplies two tensors (attention or gating), which cannot be separated")
    return Scale(factor)


def _factor(layer: _Layer) -> float | None:
    constants = [each for each in (layer.constant(0), layer.constant(1)) if each is not None]
    return float(constants[0].item()) if len(constants) == 1 and constants[0].size == 1 else None


def _concat(layer: _Layer, tensors: int) -> nn.Module:
    if layer.attribute("axis") not in (1, -3) or tensors != len(layer.node.input):
        raise layer.refuse("joins something else than the channels of tensors")
    return Concat()


def _shuffle(layer: _Layer, _: int) -> nn.Module:
    order = layer.attribute("mode", b"DCR").decode()
    return Shuffle(int(layer.attribute("blocksize")), "CRD" if order == "CRD" else "DCR")


def _enlarge(layer: _Layer, _: int) -> nn.Module:
    scales = next(
        (each for each in (layer.constant(2), layer.constant(1)) if each is not None and each.size == 4), None
    )
    factors = [] if scales is None else [float(each) for each in scales]
    nearest = layer.attribute("mode", b"nearest") == b"nearest"
    if not nearest or factors[:2] != [1, 1] or factors[2] != factors[3] or factors[2] % 1 or factors[2] < 1:
        raise layer.refuse("resizes in another way than by the nearest pixel and a whole factor")
    return Enlarge(int(factors[2]))


PARTS: dict[str, Callable[[_Layer, int], nn.Module]] = {
    "Add": _sum,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _convolution,
    "DepthToSpace": _shuffle,
    "LeakyRelu": _leaky,
    "Mul": _scaled,
    "PRelu": _prelu,
    "Relu": lambda *_: nn.ReLU(),
    "Resize": _enlarge,
    "Sigmoid": lambda *_: nn.Sigmoid(),
    "Tanh": lambda *_: nn.Tanh(),
}
