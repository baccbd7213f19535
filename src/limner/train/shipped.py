"""Weights out of a bundle, so that what ships can be trained on: from its float graph, or else from its integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from limner import bundle
from limner.config import PainterConfig
from limner.errors import LimnerError
from limner.models.painter import Painter, Text
from limner.train.grow import Folded

if TYPE_CHECKING:
    import onnx


def kernels(shipped: bundle.Bundle[Any]) -> list[Folded]:
    """Kernel (out, in / groups, k, k) and bias (out,) of every convolution, float32, in the order of the graph.

    Integers, where there is no float graph, become what they stand for: the network as rounded.
    """
    import onnx  # part of the extra `compress`, which only this way of starting needs

    graph = onnx.load(shipped.graph("float" if "float" in shipped.manifest.graphs else "int8")).graph
    held = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    made = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    return [(_meant(conv.input[1], held, made), _meant(conv.input[2], held, made)) for conv in convs]


def _meant(name: str, held: dict[str, np.ndarray], made: dict[str, onnx.NodeProto]) -> Tensor:
    """A constant, or the integers that a DequantizeLinear node scales along their first axis."""
    if name in held:
        return torch.from_numpy(held[name].copy())
    integers, scale, zero = (held[each] for each in made[name].input)
    along = (-1, *(1,) * (integers.ndim - 1))
    steps = (integers.astype(np.float32) - zero.astype(np.float32).reshape(along)) * scale.reshape(along)
    return torch.from_numpy(steps)


def painter(shipped: bundle.Bundle[bundle.PainterManifest]) -> Painter:
    """The painter of a bundle. Raises LimnerError without a recipe, or when the graph has other layers than it says."""
    recipe, stated = shipped.manifest.recipe, kernels(shipped)
    if not {"painter", "text"} <= recipe.keys():
        raise LimnerError(f"{shipped.folder}: its manifest has no recipe of a painter; start from a run folder.")
    shape = PainterConfig.model_validate(recipe["painter"]).model_copy(update={"timed": False})
    network = Painter(shape, recipe["text"]["width"])
    layers = in_order(network)
    shapes = [tuple(layer.weight.shape) for layer in layers]
    if shapes != [tuple(kernel.shape) for kernel, _ in stated]:
        raise LimnerError(f"{shipped.folder}: its graph has other layers than its recipe; start from a run folder.")
    with torch.no_grad():
        for layer, (kernel, bias) in zip(layers, stated, strict=True):
            layer.weight.copy_(kernel)
            assert layer.bias is not None
            layer.bias.copy_(bias)
    return network


@torch.no_grad()
def in_order(network: Painter) -> list[nn.Conv2d]:
    """The convolutions as they run, which is the order of the graph."""
    found: list[nn.Conv2d] = []
    hooks = [conv.register_forward_hook(lambda *_, conv=conv: found.append(conv)) for conv in network.convolutions()]
    grid, width = network.config.grids[0], network.text_width
    text = Text(torch.zeros(1, 1, width), torch.ones(1, 1), torch.zeros(1, width))
    network(torch.zeros(1, network.config.noise, grid, grid), text)
    for hook in hooks:
        hook.remove()
    return found
