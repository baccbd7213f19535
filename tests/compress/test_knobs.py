"""Every knob of the quantizer reaches the graph, and the engines compute what torch does with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from pydantic import ValidationError

from limner.compress.quantize import QuantConv2d, integer_layers, quantize, quantize_painter, quantized_layers
from limner.config import PainterConfig, QuantizeConfig, UpscalerConfig
from limner.errors import UsageError
from limner.export.graph import build
from limner.export.painter_graph import build_painter
from limner.models.painter import Painter, Text
from limner.models.upscaler import Upscaler
from limner.runtime.backends import BACKENDS, open_engine
from limner.train.samples import paint


def network(**model: object) -> Upscaler:
    torch.manual_seed(0)
    return Upscaler(UpscalerConfig.model_validate({"width": 16, "depth": 2, "scale": 2, **model})).eval()


def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).mul(255).round().div(255)


def quantized(config: QuantizeConfig, **model: object) -> Upscaler:
    return quantize(network(**model), pictures(), config).eval()


def graph(config: QuantizeConfig, **model: object) -> onnx.GraphProto:
    return build(quantized(config, **model), "net").graph


def constants(of: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in of.initializer}


def kernels(of: onnx.GraphProto) -> list[np.ndarray]:
    """The integer kernels, in the order they run."""
    values, made = constants(of), {node.output[0]: node for node in of.node}
    return [values[made[node.input[1]].input[0]] for node in of.node if node.op_type == "Conv"]


def zeros(of: onnx.GraphProto) -> list[np.ndarray]:
    """The zero point of every input grid."""
    values = constants(of)
    return [values[node.input[2]] for node in of.node if node.op_type == "QuantizeLinear"]


@pytest.mark.parametrize("bits", [8, 7, 4, 2])
def test_weight_bits(bits: int) -> None:
    largest = max(int(np.abs(kernel.astype(int)).max()) for kernel in kernels(graph(QuantizeConfig(weight_bits=bits))))
    assert largest == 2 ** (bits - 1) - 1


def test_activation_bits() -> None:
    clips = [node for node in graph(QuantizeConfig(activation_bits=6)).node if node.op_type == "Clip"]
    whole = [node for node in graph(QuantizeConfig()).node if node.op_type == "Clip"]
    assert len(clips) - len(whole) == len(quantized_layers(quantized(QuantizeConfig())))


def test_per_channel() -> None:
    def scales(per_channel: bool) -> list[int]:
        layers = quantized_layers(quantized(QuantizeConfig(per_channel=per_channel)))
        return [len(layer.weight_scale().unique()) for layer in layers]

    assert min(scales(True)) > 1
    assert set(scales(False)) == {1}


def test_symmetric() -> None:
    around_zero, own = zeros(graph(QuantizeConfig())), zeros(graph(QuantizeConfig(symmetric=False)))
    assert {int(zero) for zero in around_zero} == {0}
    assert any(zero.dtype == np.int8 for zero in around_zero)
    assert all(zero.dtype == np.uint8 for zero in own)
    assert any(0 < zero < 255 for zero in own)


def test_a_zero_point_of_its_own_wastes_no_levels() -> None:
    values = torch.cat([torch.rand(5000) - 0.1, torch.tensor([-0.1, 0.9])])
    gaps = []
    for symmetric in (True, False):
        layer = QuantConv2d(torch.nn.Conv2d(1, 1, 1), QuantizeConfig(activation_bits=4, symmetric=symmetric)).eval()
        layer.calibrate(values, "minmax")
        gaps.append(float((layer._codes(values[None]) * layer.input_scale - values).square().mean()))
    assert gaps[1] < 0.5 * gaps[0]


def test_a_learned_grid_keeps_its_zero_point() -> None:
    net, x = quantized(QuantizeConfig(symmetric=False)), pictures()
    with torch.no_grad():
        assert torch.allclose(net.train()(x), net.eval()(x), atol=1e-5)


def test_float_layers() -> None:
    kept = graph(QuantizeConfig(float_layers=("trunk.0.*", "tail")))
    made = {node.output[0]: node.op_type for node in kept.node}
    weights = [made.get(node.input[1], "float") for node in kept.node if node.op_type == "Conv"]
    assert weights == ["DequantizeLinear", "float", "float", "DequantizeLinear", "DequantizeLinear", "float"]


@pytest.mark.parametrize(("kind", "node"), [("relu", "Relu"), ("relu6", "Clip"), ("leaky", "LeakyRelu")])
def test_activation(kind: str, node: str) -> None:
    float_graph = build(network(activation=kind).fold(), "net").graph
    assert sum(each.op_type == node for each in float_graph.node) == 3


def test_packed() -> None:
    packed = build(quantized(QuantizeConfig(weight_bits=4, packed=True)), "net")
    held = build(quantized(QuantizeConfig(weight_bits=4)), "net")
    kinds = {each.data_type for each in packed.graph.initializer}
    assert TensorProto.INT4 in kinds
    assert TensorProto.INT8 not in {each.data_type for each in packed.graph.initializer if len(each.dims) == 4}
    assert packed.ByteSize() < held.ByteSize()


@pytest.mark.parametrize(
    ("knobs", "model"),
    [
        ({"symmetric": False}, {}),
        ({"symmetric": False, "activation_bits": 6, "per_channel": False}, {}),
        ({"float_layers": ("head.*", "trunk.1.1")}, {}),
        ({"weight_bits": 4, "packed": True}, {}),
        ({}, {"activation": "relu6"}),
        ({}, {"activation": "leaky"}),
    ],
)
def test_engines_agree_with_torch(knobs: dict[str, object], model: dict[str, object], tmp_path: Path) -> None:
    net = quantized(QuantizeConfig.model_validate(knobs), **model)
    onnx.save(build(net, "net"), tmp_path / "net.onnx")
    low = np.random.default_rng(3).integers(0, 256, (20, 24, 3), np.uint8)
    for engine in BACKENDS:
        found = open_engine(engine, tmp_path / "net.onnx", 1).session(20, 24)(low[None])[0]
        assert np.abs(found.astype(int) - paint(net, low)).mean() < 0.1, engine


def test_painters_have_the_same_knobs() -> None:
    torch.manual_seed(0)
    shape = {"widths": (16, 16), "down": (0,), "middle": 1, "up": (1,), "condition": 16, "memory": 8, "noise": 4}
    painter = Painter(PainterConfig.model_validate({**shape, "size": 32, "attention": ()}), 12)
    text = Text(torch.randn(2, 6, 12), torch.ones(2, 6), torch.randn(2, 12))
    config = QuantizeConfig(weight_bits=4, packed=True, symmetric=False, float_layers=("heads.*",))
    model = build_painter(quantize_painter(painter, torch.randn(2, 4, 8, 8), text, config), "net", 6)
    assert TensorProto.INT4 in {each.data_type for each in model.graph.initializer}
    assert any(0 < zero < 255 for zero in zeros(model.graph))
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == len(quantized_layers(painter))


def test_what_cannot_be_is_refused_by_name() -> None:
    folded = network().fold()
    with pytest.raises(UsageError, match=r"float_layers: no layer is called 'trunk\.9\.\*': choose among head\.0"):
        integer_layers(folded, ("trunk.9.*",))
    with pytest.raises(UsageError, match="leaves no layer to be integer"):
        integer_layers(folded, ("*",))
    with pytest.raises(ValidationError, match="packed=true needs weight_bits of 4 or fewer, not 7"):
        QuantizeConfig(packed=True)
