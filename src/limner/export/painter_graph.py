"""From a painter to ONNX, float or integer: (noise, states, mask, pooled) -> "y" and the coarser pictures."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from torch import nn

from limner.compress.quantize import QuantConv2d, quantized_layers
from limner.export.graph import Writer
from limner.models.painter import CHANNELS, MASKED, Block, CrossAttention, Painter


def build_painter(painter: Painter, name: str, text_tokens: int, levels: bool = True) -> onnx.ModelProto:
    """ONNX of a folded painter with the inputs and outputs of `bundle.PainterManifest`; N is dynamic.

    Float painter: float32 pictures in 0..1, not clipped. Painter from `quantize_painter`: uint8. `levels`: also give
    the coarser pictures.
    """
    return _Build(painter, text_tokens, levels).model(name)


class _Build:
    """One graph under construction; values are named by strings, layers are taken from `painter`."""

    def __init__(self, painter: Painter, text_tokens: int, levels: bool) -> None:
        self.painter, self.config, self.tokens, self.levels = painter, painter.config, text_tokens, levels
        self.integer = bool(quantized_layers(painter))
        self.w = Writer()
        self.pictures: list[str] = []
        self.coarser = ""  # the last picture of a pyramid

    def model(self, name: str) -> onnx.ModelProto:
        config, width = self.config, self.painter.text_width
        self._paint_all()
        grid = config.grids[0]
        shapes = {
            "noise": [grid, grid, config.noise],
            "states": [self.tokens, width],
            "mask": [self.tokens],
            "pooled": [width],
        }
        taken = [helper.make_tensor_value_info(k, TensorProto.FLOAT, ["N", *shape]) for k, shape in shapes.items()]
        kind = TensorProto.UINT8 if self.integer else TensorProto.FLOAT
        given = [
            helper.make_tensor_value_info(each, kind, ["N", side, side, CHANNELS])
            for each, side in sorted(((each, self._side(each)) for each in self.pictures), key=lambda pair: -pair[1])
        ]
        graph = helper.make_graph(self.w.nodes, name, taken, given, self.w.constants)
        model = helper.make_model(graph, producer_name="limner", **self.w.versions())
        onnx.checker.check_model(model, full_check=True)
        return model

    def _side(self, picture: str) -> int:
        return int(picture[1:]) if len(picture) > 1 else self.config.size

    def _paint_all(self) -> None:
        painter, w = self.painter, self.w
        mood = self._mood()
        films = iter(self._films(mood[0]))
        tokens = w.node("Unsqueeze", w.node("Transpose", "states", perm=[0, 2, 1]), w.ints(3))
        absent = self._absent()
        x, skips = self._conv(w.node("Transpose", "noise", perm=[0, 3, 1, 2]), painter.enter), []
        for stage, shrink in zip(painter.down, painter.shrink, strict=True):
            for block in stage:  # type: ignore[attr-defined]
                x = self._block(x, block, *next(films))
            skips.append(x)
            x = self._conv(x, shrink)
        if self.config.memory:
            x = w.node("Add", x, self._imagined(mood[1]))
        for level in reversed(range(len(self.config.widths))):
            if level < len(skips):
                x = w.node("Add", self._doubled(self._conv(x, painter.grow[level])), skips[level])
            if str(level) in painter.attend:
                x = self._attended(x, painter.attend[str(level)], tokens, absent, self.config.grids[level])  # type: ignore[arg-type]
            blocks = iter(painter.middle if level == len(skips) else painter.up[level])  # type: ignore[arg-type]
            for count, side in painter.plan(level):
                for block in islice(blocks, count):
                    x = self._block(x, block, *next(films))
                if side:
                    self._paint(self._conv(x, painter.heads[str(side)]), side, self.config.grids[level])

    def _conv(self, x: str, conv: nn.Module) -> str:
        assert isinstance(conv, nn.Conv2d | QuantConv2d)
        return self.w.convolution(x, conv)

    def _relu(self, x: str) -> str:
        return self.w.node("Relu", x)

    def _spread(self) -> str:
        shape = self.w.ints(0, self.painter.text_width, 1, 1)
        wide = self.w.node("Reshape", "pooled", shape)
        return self.w.node("Mul", wide, self.w.constant(np.float32(math.sqrt(self.painter.text_width))))

    def _mood(self) -> tuple[str, str]:
        """What the mean of the noise adds to the hidden units before FiLM and before the coarsest level."""
        painter, config, w = self.painter, self.config, self.w
        if not config.mood:
            return "", ""
        mean = w.node("ReduceMean", "noise", axes=[1, 2], keepdims=1)
        mean = w.node("Mul", w.node("Transpose", mean, perm=[0, 3, 1, 2]), w.constant(np.float32(config.grids[0])))
        parts = ["mood_film", "mood_memory"]
        lengths = w.ints(config.condition, config.memory)
        w.nodes.append(helper.make_node("Split", [self._conv(mean, painter.mood), lengths], parts, axis=1))
        return parts[0], parts[1]

    def _hidden(self, layer: nn.Module, mood: str) -> str:
        """What a layer reads from the text, and the mood; before the rectifier."""
        read = self._conv(self._spread(), layer)
        return self.w.node("Add", read, mood) if mood else read

    def _films(self, mood: str) -> list[tuple[str, str]]:
        """(1 + scale, shift) of every block."""
        painter, w = self.painter, self.w
        film = self._conv(self._relu(self._hidden(painter.read, mood)), painter.film)
        halves = [width // 2 for width in painter.film_widths() for _ in range(2)]
        parts = [f"film_{k}" for k in range(len(halves))]
        w.nodes.append(helper.make_node("Split", [film, w.ints(*halves)], parts, name="films", axis=1))
        one = w.constant(np.float32(1))
        return [(w.node("Add", scale, one), shift) for scale, shift in zip(parts[::2], parts[1::2], strict=True)]

    def _block(self, x: str, block: Block, scale: str, shift: str) -> str:
        inner = self.w.node("Add", self.w.node("Mul", x, scale), shift)
        inner = self._relu(self._conv(inner, block.widen))
        if block.depthwise is not None:
            inner = self._relu(self._conv(inner, block.depthwise))
        return self.w.node("Add", self._conv(inner, block.narrow), x)

    def _absent(self) -> str:
        w = self.w
        inverse = w.node("Sub", "mask", w.constant(np.float32(1)))
        return w.node("Unsqueeze", w.node("Mul", inverse, w.constant(np.float32(MASKED))), w.ints(1, 2))

    def _imagined(self, mood: str) -> str:
        painter, grid, w = self.painter, self.config.grids[-1], self.w
        hidden = self._hidden(painter.recall, mood)
        for thought in painter.thoughts:
            hidden = w.node("Add", self._conv(self._relu(hidden), thought), hidden)
        flat = self._conv(self._relu(hidden), painter.imagine)
        shape = w.ints(0, grid, grid, self.config.code or self.config.widths[-1])
        code = w.node("Transpose", w.node("Reshape", flat, shape), perm=[0, 3, 1, 2])
        return self._conv(code, painter.widen) if self.config.code else code

    def _doubled(self, x: str) -> str:
        scales = self.w.constant(np.array([1, 1, 2, 2], np.float32))
        attributes = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        return self.w.node("Resize", x, "", scales, **attributes)

    def _attended(self, x: str, layer: CrossAttention, tokens: str, absent: str, grid: int) -> str:
        w = self.w
        heads, width = layer.heads, layer.leave.weight.shape[0]
        split = w.ints(0, heads, width // heads, -1)
        query, key, value = (
            w.node("Reshape", self._conv(source, conv), split)
            for source, conv in ((x, layer.query), (tokens, layer.key), (tokens, layer.value))
        )
        likeness = w.node("MatMul", w.node("Transpose", query, perm=[0, 1, 3, 2]), key)
        share = w.node("Softmax", w.node("Add", likeness, absent), axis=3)
        mixed = w.node("MatMul", value, w.node("Transpose", share, perm=[0, 1, 3, 2]))
        return w.node("Add", self._conv(w.node("Reshape", mixed, w.ints(0, width, grid, grid)), layer.leave), x)

    def _paint(self, y: str, side: int, grid: int) -> None:
        """What a head gave becomes the picture of that side, an output where it is wanted."""
        wanted = self.levels or side == self.config.size
        if self.config.pyramid:
            self._refine(y, side // grid)
            if wanted:
                self._give("Transpose", self._bytes(self.coarser), side, perm=[0, 2, 3, 1])
        elif wanted:
            self._leave(self._bytes(y), side, grid)

    def _refine(self, y: str, cell: int) -> None:
        """The picture so far, enlarged, plus detail: float, channels first."""
        w = self.w
        y = w.node("DepthToSpace", y, blocksize=cell, mode="DCR") if cell > 1 else y
        if self.coarser:
            scales = w.constant(np.array([1, 1, 2, 2], np.float32))
            larger = w.node("Resize", self.coarser, "", scales, mode="linear")
            y = w.node("Add", y, larger)
        self.coarser = y

    def _bytes(self, y: str) -> str:
        """Clamped and rounded where the graph gives integers."""
        w = self.w
        if not self.integer:
            return y
        y = w.node("Add", w.node("Mul", y, w.constant(np.float32(255))), w.constant(np.float32(0.5)))
        y = w.node("Clip", y, w.constant(np.float32(0)), w.constant(np.float32(255)))
        return w.node("Cast", y, to=TensorProto.UINT8)

    def _leave(self, y: str, side: int, grid: int) -> None:
        """Shuffle what is clamped to bytes already: only bytes are moved at full resolution."""
        w, cell = self.w, side // grid
        y = w.node("Transpose", y, perm=[0, 2, 3, 1])
        y = w.node("Reshape", y, w.ints(0, grid, grid, cell, cell * CHANNELS))
        y = w.node("Transpose", y, perm=[0, 1, 3, 2, 4])
        self._give("Reshape", y, side, w.ints(0, side, side, CHANNELS))

    def _give(self, operator: str, y: str, side: int, *inputs: str, **attributes: Any) -> None:
        """Make what `operator` does to `y` the output of that side."""
        name = "y" if side == self.config.size else f"y{side}"
        self.w.nodes.append(helper.make_node(operator, [y, *inputs], [name], name=name, **attributes))
        self.pictures.append(name)
