"""The painter's graphs compute what torch computes, on every engine, for any number of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from limner.compress.quantize import QuantConv2d, quantize_painter
from limner.config import PainterConfig, QuantizeConfig
from limner.export.painter_graph import build_painter
from limner.models.painter import Painter, Text
from limner.runtime.batched import GRAPHS, Network

WIDTH, TOKENS = 12, 6
OUTPUTS = ("y8", "y16", "y32", "y")
SHAPES = [
    {},
    {"memory": 0, "attention": (), "kernel": 5},
    {"attention": (0, 1, 2), "heads": 2, "down": (0, 0), "middle": 0},
    {"pyramid": True, "head_kernel": 3},
    {"kind": "dense", "expansion": 1, "mood": True},
    {"mood": True, "code": 4, "thoughts": 2},
]


def painter(**changes: object) -> Painter:
    torch.manual_seed(0)
    small = {"widths": (16, 16, 32), "down": (1, 1), "middle": 1, "up": (2, 1), "condition": 16, "memory": 8}
    return Painter(PainterConfig.model_validate({**small, "noise": 4, **changes}), WIDTH).eval()


def feeds(count: int) -> dict[str, np.ndarray]:
    draws = np.random.default_rng(count)
    mask = np.ones((count, TOKENS), np.float32)
    mask[:, 4:] = 0
    states = draws.standard_normal((count, TOKENS, WIDTH), np.float32) * mask[..., None]
    pooled = states.sum(1) / np.linalg.norm(states.sum(1), axis=1, keepdims=True)
    noise = draws.standard_normal((count, 16, 16, 4), np.float32)
    return {"noise": noise, "states": states, "mask": mask, "pooled": pooled}


def tensors(found: dict[str, np.ndarray]) -> tuple[torch.Tensor, Text]:
    noise = torch.from_numpy(found["noise"]).permute(0, 3, 1, 2)
    return noise, Text(*(torch.from_numpy(found[name]) for name in Text._fields))


@torch.no_grad()
def pictures(net: Painter, found: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [picture.permute(0, 2, 3, 1).numpy() for picture in net.levels(*tensors(found))]


def saved(net: Painter, folder: Path) -> Path:
    onnx.save(build_painter(net, "net", TOKENS), folder / "net.onnx")
    return folder / "net.onnx"


@pytest.mark.parametrize("engine", GRAPHS)
@pytest.mark.parametrize("changes", SHAPES)
def test_float_graph_equals_torch(engine: str, changes: dict[str, object], tmp_path: Path) -> None:
    net = painter(**changes)
    network = Network(engine, saved(net, tmp_path), 1)
    for count in (1, 3):
        given = network.run(feeds(count), OUTPUTS)
        for ours, theirs in zip(given, pictures(net, feeds(count)), strict=True):
            assert ours.shape == theirs.shape
            assert np.abs(ours - theirs).max() < 2e-5


@pytest.mark.parametrize("engine", GRAPHS)
@pytest.mark.parametrize("changes", SHAPES)
def test_integer_graph_equals_fake_quantized_torch(engine: str, changes: dict[str, object], tmp_path: Path) -> None:
    net = quantize_painter(painter(**changes), *tensors(feeds(8)), QuantizeConfig()).eval()
    given = Network(engine, saved(net, tmp_path), 1).run(feeds(2), OUTPUTS)
    for ours, theirs in zip(given, pictures(net, feeds(2)), strict=True):
        assert ours.dtype == np.uint8
        assert np.abs(ours - np.floor(theirs * 255 + 0.5).clip(0, 255)).mean() < 0.3


@pytest.mark.parametrize("pyramid", [False, True])
def test_the_finest_picture_alone_is_the_same_picture(pyramid: bool, tmp_path: Path) -> None:
    net = painter(pyramid=pyramid)
    graph = build_painter(net, "net", TOKENS, levels=False)
    assert [each.name for each in graph.graph.output] == ["y"]
    onnx.save(graph, tmp_path / "alone.onnx")
    given = Network("openvino", tmp_path / "alone.onnx", 1).run(feeds(2), ("y",))[0]
    assert np.abs(given - pictures(net, feeds(2))[-1]).max() < 2e-5


def test_every_convolution_is_an_integer_one_on_its_own_grid() -> None:
    net = quantize_painter(painter(), *tensors(feeds(8)), QuantizeConfig())
    layers = [module for module in net.modules() if isinstance(module, QuantConv2d)]
    assert not any(isinstance(module, torch.nn.Conv2d) for module in net.modules())
    assert len({float(layer.input_scale) for layer in layers}) > len(layers) // 2
    model = build_painter(net, "net", TOKENS)
    assert sum(node.op_type == "Conv" for node in model.graph.node) == len(layers)
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == len(layers)


def test_quantizing_costs_little() -> None:
    net = painter()
    exact = pictures(net, feeds(4))[-1]
    rounded = pictures(quantize_painter(painter(), *tensors(feeds(8)), QuantizeConfig()).eval(), feeds(4))[-1]
    assert np.abs(rounded - exact).mean() < 0.05 * exact.std()


def test_the_graph_says_what_the_manifest_promises() -> None:
    graph = build_painter(painter(), "net", TOKENS).graph
    shapes = {each.name: [d.dim_value or d.dim_param for d in each.type.tensor_type.shape.dim] for each in graph.input}
    assert shapes == {
        "noise": ["N", 16, 16, 4],
        "states": ["N", TOKENS, WIDTH],
        "mask": ["N", TOKENS],
        "pooled": ["N", WIDTH],
    }
    assert [each.name for each in graph.output] == ["y", "y32", "y16", "y8"]
