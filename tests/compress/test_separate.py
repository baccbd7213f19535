"""Decomposition is exact at full rank and least-squares below; imported networks compute what the originals do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from separable_kit import Dense, Odd, dense
from torch import nn

from limner.compress import importing
from limner.compress.decompose import cheaper_rank, decouple, full_rank, output_error, recompose, refit, separated
from limner.compress.separate import SeparateConfig, distil, distil_layers, plan, quantized, replaced
from limner.compress.steps import Separable
from limner.errors import LimnerError, UsageError


def conv(inputs: int, outputs: int, side: int = 3) -> nn.Conv2d:
    torch.manual_seed(1)
    return nn.Conv2d(inputs, outputs, side, padding=side // 2)


@pytest.mark.parametrize(("inputs", "outputs", "side"), [(3, 16, 3), (8, 4, 3), (5, 7, 5)])
def test_full_rank_is_exact(inputs: int, outputs: int, side: int) -> None:
    layer, x = conv(inputs, outputs, side), torch.rand(2, inputs, 9, 11)
    terms = separated(layer, full_rank(layer))
    torch.testing.assert_close(recompose(*decouple(layer.weight, full_rank(layer))), layer.weight, atol=1e-6, rtol=0)
    torch.testing.assert_close(terms(x), layer(x), atol=1e-5, rtol=0)


def test_each_term_lessens_the_error_by_its_singular_value() -> None:
    layer = conv(4, 16)
    matrices = layer.weight.detach().permute(1, 0, 2, 3).reshape(4, 16, 9)
    values = torch.linalg.svdvals(matrices)
    for rank in range(1, 9):
        left = (recompose(*decouple(layer.weight.detach(), rank)) - layer.weight.detach()).square().sum()
        assert float(left) == pytest.approx(float(values[:, rank:].square().sum()), rel=1e-4)


def test_the_cheapest_rank_that_does_not_pay() -> None:
    layer = conv(16, 32)
    rank = cheaper_rank(layer)
    cost = [16 * terms * (9 + 32) for terms in (rank, rank + 1)]
    assert cost[0] < layer.weight.numel() <= cost[1]


def test_refitting_beats_the_kernel_alone_on_what_it_is_fed() -> None:
    layer, x = conv(8, 16), torch.rand(4, 8, 12, 12).cumsum(3) / 12
    terms = separated(layer, 1)
    before = output_error(terms, x, layer(x))
    refit(terms, x, layer(x).detach())
    assert output_error(terms, x, layer(x)) < 0.9 * before


@pytest.mark.parametrize("rank", [-1, 0, 10])
def test_a_rank_out_of_range_names_the_layer(rank: int) -> None:
    with pytest.raises(UsageError, match=r"layer 'body.0': rank -?\d+ is out of range: a 3x3 kernel with 16 outputs"):
        separated(conv(8, 16), rank, "body.0")


@pytest.mark.parametrize("network", [Dense(), Odd(), nn.Conv2d(3, 3, 3, padding=1)])
def test_an_imported_network_computes_the_same(network: nn.Module) -> None:
    x = torch.rand(1, 3, 12, 14)
    steps = importing.from_torch(network.eval(), "it")
    torch.testing.assert_close(steps(x), network(x), atol=1e-6, rtol=0)
    assert steps.parameters_shipped() >= sum(w.numel() for w in network.parameters()) - 8


def test_reach_and_work() -> None:
    steps = importing.from_torch(dense(), "it")
    assert (steps.scale, steps.radius) == (2, 4)
    assert steps.macs_per_pixel() == 9 * (3 * 16 + 2 * 16 * 16 + 16 * 12)


def test_a_factory_with_weights(tmp_path: Path) -> None:
    weights = {key: value + 0.01 for key, value in dense().state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors")
    steps = importing.read("separable_kit:dense", tmp_path / "w.safetensors")
    network = dense()
    network.load_state_dict(weights)
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(steps(x), network(x), atol=1e-6, rtol=0)
    save_file({**weights, "tail.bias": torch.zeros(3)}, tmp_path / "bad.safetensors")
    with pytest.raises(LimnerError, match=r"key 'tail.bias' is \(3,\) there and \(12,\) in the module"):
        importing.read("separable_kit:dense", tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("separable_kit:gated", r"layer '.*' uses the operator \w+, which cannot be separated"),
        ("separable_kit:strided", r"layer '1' has a stride or dilation other than 1"),
        ("separable_kit:absent", r"cannot be imported .*absent"),
        ("no_such_package:make", r"cannot be imported .*no_such_package"),
        ("separable_kit", r"neither an ONNX file nor package.module:factory"),
        ("absent.onnx", r"absent.onnx: cannot be read"),
        ("separable_kit:Broken", r"raised TypeError .*it is called without arguments"),
        ("builtins:dict", r"gives a dict, not a torch.nn.Module"),
    ],
)
def test_what_cannot_be_read(source: str, sentence: str) -> None:
    with pytest.raises(LimnerError, match=sentence):
        importing.read(source)


def test_an_input_that_is_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "gray.onnx"
    torch.onnx.export(nn.Conv2d(1, 3, 3), (torch.rand(1, 1, 8, 8),), str(path), input_names=["depth"], dynamo=False)
    with pytest.raises(LimnerError, match=r"gray.onnx: its input is 'depth' \(1, 1, 8, 8\), not a float picture"):
        importing.read(str(path))
    with pytest.raises(LimnerError, match="does not run on a picture"):
        importing.from_torch(nn.Linear(3, 3), "it")
    with pytest.raises(LimnerError, match=r"makes \(1, 5, 16, 16\) of a picture"):
        importing.from_torch(nn.Conv2d(3, 5, 1), "it")


def test_distillation_brings_the_student_nearer() -> None:
    torch.manual_seed(0)
    teacher, low = importing.from_torch(dense(), "it"), torch.rand(4, 3, 16, 16)
    config = SeparateConfig(rank=2, layer_steps=5, batch=2)
    plans, fitted = plan(teacher, low, config)
    assert [p.terms for p in plans] == [2, 2, 2, 2]
    student = replaced(teacher, fitted)

    def gap() -> float:
        with torch.no_grad():
            return float((student(low) - teacher(low)).square().mean())

    start = gap()
    distil_layers(student, teacher, low, config)
    layerwise = gap()
    assert layerwise < start
    distil(student, teacher, lambda _: low, 20, 1e-3)
    assert gap() < layerwise
    integer = quantized(student, low)
    with torch.no_grad():
        assert float((integer(low) - student(low)).abs().mean()) < 0.01


def test_layers_that_would_cost_more_stay_dense() -> None:
    teacher, low = importing.from_torch(dense(), "it"), torch.rand(2, 3, 16, 16)
    plans, fitted = plan(teacher, low, SeparateConfig(rank=9))
    assert fitted == {} and all("cost more than the dense kernel" in p.reason for p in plans)
    plans, fitted = plan(teacher, low, SeparateConfig(max_error=1e-9))
    assert fitted == {} and all(p.verdict == "dense" for p in plans)


def test_a_sum_of_terms_has_the_shape_of_the_layer() -> None:
    layer = Separable(*decouple(torch.rand(6, 4, 3, 3), 2), torch.zeros(6))
    assert layer(torch.rand(2, 4, 7, 5)).shape == (2, 6, 7, 5)
