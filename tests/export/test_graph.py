"""The graph computes what torch computes, on every backend, and stays integer where it says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from limner.compress.quantize import quantize
from limner.config import QuantizeConfig, UpscalerConfig
from limner.export.graph import build
from limner.models.upscaler import Upscaler
from limner.runtime.backends import BACKENDS, Session, open_engine
from limner.train.samples import paint

SHAPES: list[dict[str, object]] = [
    {"scale": 4},
    {"scale": 3, "kind": "dense"},
    {"scale": 2, "unshuffle": 2, "kernel": 5},
    {"scale": 2, "kind": "grouped", "unshuffle": 2},
]


def network(**knobs: object) -> Upscaler:
    torch.manual_seed(0)
    return Upscaler(UpscalerConfig.model_validate({"width": 16, "depth": 3, **knobs})).eval()


def picture(height: int = 18, width: int = 22) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def tensor(low: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(low).permute(2, 0, 1)[None].float() / 255


def opened(net: Upscaler, folder: Path, engine: str, height: int, width: int) -> Session:
    path = folder / "graph.onnx"
    onnx.save(build(net, "net"), path)
    return open_engine(engine, path, threads=1).session(height, width)


@pytest.mark.parametrize("engine", sorted(BACKENDS))
@pytest.mark.parametrize("knobs", SHAPES)
def test_float_graph_matches_torch(engine: str, knobs: dict[str, object], tmp_path: Path) -> None:
    net, low = network(**knobs).fold(), picture()
    session = opened(net, tmp_path, engine, *low.shape[:2])
    with torch.no_grad():
        true = net(tensor(low)).permute(0, 2, 3, 1).numpy()
    assert np.abs(session(low[None].astype(np.float32) / 255) - true).max() < 2e-5


@pytest.mark.parametrize("engine", sorted(BACKENDS))
@pytest.mark.parametrize("knobs", SHAPES)
def test_integer_graph_matches_fake_quantized_torch(engine: str, knobs: dict[str, object], tmp_path: Path) -> None:
    low = picture()
    net = quantize(network(**knobs), tensor(low), QuantizeConfig())
    session = opened(net, tmp_path, engine, *low.shape[:2])
    gap = np.abs(session(low[None])[0].astype(int) - paint(net, low))
    # ONNX Runtime rounds where torch does; OpenVINO fuses some roundings, and random gains amplify it.
    assert gap.mean() < (0.01 if engine == "onnxruntime" else 0.6)
    assert (gap > 3).mean() < 0.02


def test_any_size_runs(tmp_path: Path) -> None:
    net = quantize(network(), tensor(picture()), QuantizeConfig())
    for height, width in ((8, 30), (31, 9)):
        session = opened(net, tmp_path, "openvino", height, width)
        assert session(picture(height, width)[None]).shape == (1, height * 4, width * 4, 3)


def test_every_convolution_is_integer() -> None:
    """A snapshot of the pattern the engines fuse: a silent fall-back to float would show here."""
    model = build(quantize(network(), tensor(picture()), QuantizeConfig()), "net")
    made_by = {output: node for node in model.graph.node for output in node.output}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convs) == 1 + 2 * 3 + 1
    for conv in convs:
        kinds = [made_by[name].op_type for name in conv.input]
        assert kinds == ["DequantizeLinear"] * 3
        assert made_by[made_by[conv.input[0]].input[0]].op_type == "QuantizeLinear"
    tail = [n.op_type for n in model.graph.node if n.op_type in ("Clip", "Cast", "Transpose", "Reshape")]
    assert tail[-6:] == ["Clip", "Cast", "Transpose", "Reshape", "Transpose", "Reshape"], "bytes move, not floats"
    types = {i.name: i.type.tensor_type.elem_type for i in [*model.graph.input, *model.graph.output]}
    assert types == {"x": onnx.TensorProto.UINT8, "y": onnx.TensorProto.UINT8}


def test_weights_use_seven_bits() -> None:
    model = build(quantize(network(), tensor(picture()), QuantizeConfig()), "net")
    integers = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    kernels = [array for array in integers if array.ndim == 4]
    assert kernels
    assert all(np.abs(kernel).max() <= 63 for kernel in kernels)
