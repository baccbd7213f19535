"""A BERT-like encoder as ONNX: float, or with weights of 8 and 4 bits that are multiplied in float.

Written node by node like the picture networks: the exporter of torch leaves mask and shape arithmetic in the graph that
the engines neither fuse nor fold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from transformers import BertModel

OPSET = 20
WEIGHT_PEAK = 127
GROUP = 16  # numbers of a token's vector that share a step
MASKED = np.float32(-1e4)

Weights = Literal["float", "int8"]
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Linear:
    """weight (out, in), bias (out,)."""

    weight: Array
    bias: Array


@dataclass(frozen=True)
class Norm:
    scale: Array
    shift: Array
    epsilon: float


@dataclass(frozen=True)
class Layer:
    """One transformer block; `inward` makes queries, keys and values at once, queries already scaled."""

    inward: Linear
    outward: Linear
    attention_norm: Norm
    widen: Linear
    narrow: Linear
    norm: Norm


@dataclass(frozen=True)
class Encoder:
    """Weights of a BERT-like encoder. `tokens` (V, width), `positions` (P, width) with the segment's vector added."""

    tokens: Array
    positions: Array
    norm: Norm
    layers: tuple[Layer, ...]
    heads: int

    @property
    def width(self) -> int:
        return self.tokens.shape[1]

    @property
    def parameters(self) -> int:
        """Numbers that ship."""
        parts = [self.tokens, self.positions, self.norm.scale, self.norm.shift]
        for layer in self.layers:
            for linear in (layer.inward, layer.outward, layer.widen, layer.narrow):
                parts += [linear.weight, linear.bias]
            for norm in (layer.attention_norm, layer.norm):
                parts += [norm.scale, norm.shift]
        return sum(part.size for part in parts)

    def cut(self, max_tokens: int) -> Encoder:
        """The same encoder for at most that many tokens."""
        return replace(self, positions=self.positions[:max_tokens])


def read(network: BertModel) -> Encoder:
    """The weights of a BertModel as they go into a graph."""
    embeddings, heads = network.embeddings, network.config.num_attention_heads
    segment = _numpy(embeddings.token_type_embeddings.weight)[0]
    return Encoder(
        tokens=_numpy(embeddings.word_embeddings.weight),
        positions=_numpy(embeddings.position_embeddings.weight) + segment,
        norm=_norm(embeddings.LayerNorm),
        layers=tuple(_layer(layer, heads) for layer in network.encoder.layer),
        heads=heads,
    )


def _layer(layer: Any, heads: int) -> Layer:
    attention = layer.attention.self
    query, key, value = (_linear(part) for part in (attention.query, attention.key, attention.value))
    shrink = np.float32((len(query.weight) // heads) ** -0.5)
    weight = np.concatenate([query.weight * shrink, key.weight, value.weight])
    bias = np.concatenate([query.bias * shrink, key.bias, value.bias])
    return Layer(
        inward=Linear(weight, bias),
        outward=_linear(layer.attention.output.dense),
        attention_norm=_norm(layer.attention.output.LayerNorm),
        widen=_linear(layer.intermediate.dense),
        narrow=_linear(layer.output.dense),
        norm=_norm(layer.output.LayerNorm),
    )


def _linear(module: Any) -> Linear:
    return Linear(_numpy(module.weight), _numpy(module.bias))


def _norm(module: Any) -> Norm:
    return Norm(_numpy(module.weight), _numpy(module.bias), module.eps)


@torch.no_grad()
def _numpy(values: torch.Tensor) -> Array:
    return values.detach().cpu().float().numpy()


def rounded(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """Integers in -127..127 and the step of each row, (rows, 1)."""
    step = np.maximum(np.abs(weight).max(1, keepdims=True), np.float32(1e-12)) / np.float32(WEIGHT_PEAK)
    return np.rint(weight / step).astype(np.int8), step


def packed(table: Array) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """A table (rows, width) in 4 bits: bytes (rows, width / 2), and the steps (rows, width / GROUP) of GROUP numbers.

    The step is the largest number, with its sign, over -8, so that all 16 levels serve. A byte holds column k in its
    low half and column k + width / 2 in its high half.
    """
    cells = table.reshape(len(table), -1, GROUP)
    largest = np.take_along_axis(cells, np.abs(cells).argmax(-1, keepdims=True), -1)
    step = (np.where(largest == 0, 1, largest) / -8).astype(np.float16)
    levels = np.clip(np.rint(cells / step.astype(np.float32)) + 8, 0, 15).astype(np.uint8).reshape(table.shape)
    low, high = np.split(levels, 2, axis=1)
    return np.bitwise_or(low, np.left_shift(high, 4)).astype(np.uint8), step[..., 0].astype(np.float16)


def unpacked(levels: NDArray[np.uint8], step: NDArray[np.float16]) -> Array:
    """What the graph reads from `packed`, (rows, width)."""
    numbers = np.concatenate([levels & 15, levels >> 4], axis=1).astype(np.float32) - 8
    return (numbers.reshape(len(step), -1, GROUP) * step[..., None].astype(np.float32)).reshape(len(step), -1)


class _Writer:
    """Collects nodes and constants; every method returns the name of the value it makes."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def rows(self, table: Array, index: str) -> str:
        """Rows of `table`, by a tensor of indices."""
        if self.weights == "float":
            return self.node("Gather", self.constant(table), index)
        levels, step = packed(table)
        both = self.node("Cast", self.node("Gather", self.constant(levels), index), to=TensorProto.FLOAT)
        high = self.node("Floor", self.node("Mul", both, self.constant(np.float32(1 / 16))))
        low = self.node("Sub", both, self.node("Mul", high, self.constant(np.float32(16))))
        numbers = self.node("Sub", self.node("Concat", low, high, axis=-1), self.constant(np.float32(8)))
        steps = self.node("Cast", self.node("Gather", self.constant(step[..., None]), index), to=TensorProto.FLOAT)
        scaled = self.node("Mul", self.node("Reshape", numbers, self.ints(0, 0, step.shape[1], GROUP)), steps)
        return self.node("Reshape", scaled, self.ints(0, 0, table.shape[1]))

    def linear(self, x: str, linear: Linear) -> str:
        return self.node("Add", self.node("MatMul", x, self._weight(linear.weight)), self.constant(linear.bias))

    def _weight(self, weight: Array) -> str:
        if self.weights == "float":
            return self.constant(np.ascontiguousarray(weight.T))
        integers, step = rounded(weight)
        table = self.constant(np.ascontiguousarray(integers.T))
        zeros = self.constant(np.zeros(len(step), np.int8))
        return self.node("DequantizeLinear", table, self.constant(step[:, 0]), zeros, axis=1)

    def norm(self, x: str, norm: Norm, name: str = "") -> str:
        scale, shift = self.constant(norm.scale), self.constant(norm.shift)
        return self.node("LayerNormalization", x, scale, shift, name=name, axis=-1, epsilon=norm.epsilon)


def build(encoder: Encoder, name: str, weights: Weights = "int8") -> onnx.ModelProto:
    """ONNX: "ids", "mask" (N, L) int64 -> "states" (N, L, width), "pooled" (N, width) float32.

    `pooled` is the mean of the states over the mask, scaled to unit length; states outside the mask are zero.
    `weights`: "int8" rounds every matrix to 8 bits per row, the tokens' vectors to 4. Activations stay float32: rounded
    ones came out slower on OpenVINO (without VNNI), and a step per call would make a prompt depend on its neighbours.
    """
    w = _Writer(weights)
    length = w.node("Shape", "ids", start=1, end=2)
    positions = w.node("Slice", w.constant(encoder.positions[None]), w.ints(0), length, w.ints(1))
    x = w.norm(w.node("Add", w.rows(encoder.tokens, "ids"), positions), encoder.norm)
    present = w.node("Cast", "mask", to=TensorProto.FLOAT)
    absent = w.node("Mul", w.node("Sub", w.constant(np.float32(1)), present), w.constant(MASKED))
    absent = w.node("Unsqueeze", absent, w.ints(1, 2))
    for layer in encoder.layers:
        x = _block(w, x, absent, layer, encoder)
    _leave(w, x, present)
    return _model(w, name, encoder.width)


def _block(w: _Writer, x: str, absent: str, layer: Layer, encoder: Encoder) -> str:
    mixed = _attention(w, w.linear(x, layer.inward), absent, encoder)
    x = w.norm(w.node("Add", x, w.linear(mixed, layer.outward)), layer.attention_norm)
    wide = w.node("Gelu", w.linear(x, layer.widen))
    return w.norm(w.node("Add", x, w.linear(wide, layer.narrow)), layer.norm)


def _attention(w: _Writer, projected: str, absent: str, encoder: Encoder) -> str:
    parts = [f"{projected}_{part}" for part in ("query", "key", "value")]
    w.nodes.append(helper.make_node("Split", [projected], parts, name=f"{projected}_split", axis=-1, num_outputs=3))
    shape = w.ints(0, 0, encoder.heads, encoder.width // encoder.heads)
    query, key, value = (w.node("Reshape", part, shape) for part in parts)
    query, value = (w.node("Transpose", part, perm=[0, 2, 1, 3]) for part in (query, value))
    likeness = w.node("MatMul", query, w.node("Transpose", key, perm=[0, 2, 3, 1]))
    share = w.node("Softmax", w.node("Add", likeness, absent), axis=-1)
    mixed = w.node("Transpose", w.node("MatMul", share, value), perm=[0, 2, 1, 3])
    return w.node("Reshape", mixed, w.ints(0, 0, encoder.width))


def _leave(w: _Writer, x: str, present: str) -> None:
    states = w.node("Mul", x, w.node("Unsqueeze", present, w.ints(2)), name="states")
    # The mean's divisor falls out when the vector is scaled to unit length.
    total = w.node("ReduceSum", states, w.ints(1), keepdims=0)
    length = w.node("ReduceL2", total, w.ints(1), keepdims=1)
    w.node("Div", total, w.node("Max", length, w.constant(np.float32(1e-9))), name="pooled")


def _model(w: _Writer, name: str, width: int) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(each, TensorProto.INT64, ["N", "L"]) for each in ("ids", "mask")]
    outputs = [
        helper.make_tensor_value_info("states", TensorProto.FLOAT, ["N", "L", width]),
        helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["N", width]),
    ]
    graph = helper.make_graph(w.nodes, name, inputs, outputs, w.constants)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9, producer_name="limner")
    onnx.checker.check_model(model, full_check=True)
    return model
