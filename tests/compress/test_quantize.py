from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from limner.compress.quantize import QuantConv2d, _Codes, centre, quantize, quantized_layers
from limner.config import QuantizeConfig, UpscalerConfig
from limner.models.upscaler import Upscaler


def network(**knobs: object) -> Upscaler:
    torch.manual_seed(0)
    return Upscaler(UpscalerConfig.model_validate({"width": 16, "depth": 3, "scale": 2, **knobs})).eval()


def pictures() -> torch.Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)).mul(255).round().div(255)


@torch.no_grad()
def error(config: QuantizeConfig) -> float:
    """RMS difference between the float and the quantized network."""
    x, net = pictures(), network()
    true = net(x)
    return float((quantize(net, x, config)(x) - true).square().mean().sqrt())


def test_eight_bits_are_close_and_fewer_are_worse() -> None:
    errors = [error(QuantizeConfig(weight_bits=bits, activation_bits=bits)) for bits in (8, 6, 4)]
    assert errors[0] < 0.02
    assert errors == sorted(errors)


@pytest.mark.parametrize("kind", ["separable", "grouped", "dense"])
@torch.no_grad()
def test_centring_leaves_the_network_as_it_is_and_sums_around_zero(kind: str) -> None:
    net, x = network(kind=kind, group_width=8).fold(), pictures()
    for layer in net.convolutions():
        assert layer.bias is not None
        layer.bias += 0.5
    true, means = net(x), list[torch.Tensor]()
    centre(net, x)
    assert torch.allclose(net(x), true, atol=1e-5)
    for first, second in pairwise(net.convolutions()):
        if first.groups > 1:
            second.register_forward_pre_hook(lambda _, args: means.append(args[0].mean((0, 2, 3))))
    net(x)
    assert len(means) == (0 if kind == "dense" else 3)
    assert all(mean.abs().max() < 1e-5 for mean in means)


@pytest.mark.parametrize(("low", "high"), [(0, 15), (-8, 7), (-3, 12)])
def test_rounding_has_the_gradients_of_the_learned_step(low: int, high: int) -> None:
    """Esser et al. 2020, eq. 3, against finite differences where rounding is held: x for the step, 1 for x inside."""
    x = torch.linspace(-2.07, 3.03, 101)[None].requires_grad_()  # one picture
    step = torch.tensor(0.15, requires_grad=True)
    above = torch.linspace(0.5, 1.5, 101)
    whole = (x / step).round().clamp(low, high).detach()
    codes = _Codes.apply(x, step, low, high, 0.5)
    assert isinstance(codes, torch.Tensor)
    assert torch.equal(codes, whole)
    (codes * step.detach() * above).sum().backward()
    inside = (x / step).round().clamp(low, high) == (x / step).round()
    assert x.grad is not None and step.grad is not None
    assert torch.allclose(x.grad, torch.where(inside, above, 0))
    slope = torch.where(inside, whole - (x / step), whole)
    assert step.grad.item() == pytest.approx(0.5 * float((above * slope).sum().detach()), rel=1e-4)


def test_a_scale_per_channel_beats_one_for_all() -> None:
    assert error(QuantizeConfig()) < error(QuantizeConfig(per_channel=False))


@torch.no_grad()
def test_weights_and_inputs_lie_on_their_grids() -> None:
    net, x = network(), pictures()
    quantize(net, x, QuantizeConfig())
    seen: list[torch.Tensor] = []
    for layer in quantized_layers(net):
        steps = layer.weight / layer.weight_scale()[:, None, None, None]
        assert steps.round().abs().max() <= 63
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(x)
    assert any(layer.signed.item() for layer in quantized_layers(net)), "depthwise outputs are signed"
    for layer, values in zip(quantized_layers(net), seen, strict=True):
        low, high = layer.input_range()
        outside = ((values / layer.input_scale > high + 1) | (values / layer.input_scale < low - 1)).float().mean()
        assert outside < 0.02


def test_first_layer_takes_bytes_exactly() -> None:
    net = quantize(network(), pictures(), QuantizeConfig())
    assert quantized_layers(net)[0].input_scale.item() == pytest.approx(1 / 255)
    assert quantized_layers(net)[0].input_range() == (0, 255)


def test_least_squares_clip_beats_full_range_on_outliers() -> None:
    values = torch.cat([torch.rand(20_000), torch.tensor([6.0])])
    gaps = []
    for method in ("minmax", "mse"):
        layer = QuantConv2d(torch.nn.Conv2d(1, 1, 1), QuantizeConfig(activation_bits=4))
        layer.calibrate(values, method)
        low, high = layer.input_range()
        rounded = torch.fake_quantize_per_tensor_affine(values, layer.input_scale.item(), 0, low, high)
        gaps.append(float((rounded - values).square().mean()))
    assert gaps[1] < 0.5 * gaps[0]


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_the_bias_of_a_layer_that_is_fed_zeros_fits_32_bits(method: str) -> None:
    layer = QuantConv2d(torch.nn.Conv2d(4, 4, 1), QuantizeConfig())
    layer.calibrate(torch.zeros(100), method)
    assert layer.bias is not None
    steps = layer.bias / (layer.input_scale * layer.weight_scale())
    assert steps.abs().max() < 2**31


def test_gradients_pass_the_rounding() -> None:
    net, x = quantize(network(), pictures(), QuantizeConfig()), pictures()
    net.train()(x).square().mean().backward()
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_a_few_steps_through_the_rounding_repair_two_bit_damage() -> None:
    x, net = pictures(), network()
    with torch.no_grad():
        true = net(x)
    quantize(net, x, QuantizeConfig(weight_bits=3))
    before = (net(x) - true).square().mean().item()
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 3e-3)
    for _ in range(60):
        loss = (net(x) - true).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (net(x) - true).square().mean().item() < 0.5 * before


def test_grids_are_learned_towards_less_error() -> None:
    torch.manual_seed(0)
    layer = QuantConv2d(torch.nn.Conv2d(1, 1, 1), QuantizeConfig(activation_bits=4)).train()
    values = torch.rand(1, 1, 64, 64)
    layer.calibrate(values.flatten(), "minmax")
    layer.calibrated.mul_(3.0)  # three times too coarse
    optimizer = torch.optim.Adam([layer.stretch], 0.05)
    wide = float(layer.input_scale)
    for _ in range(60):
        loss = (layer._codes(values) * layer.input_scale.detach() - values).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert layer.input_scale.item() < 0.5 * wide


def test_learned_and_fixed_grids_round_alike() -> None:
    net, x = quantize(network(), pictures(), QuantizeConfig()), pictures()
    with torch.no_grad():
        assert torch.allclose(net.train()(x), net.eval()(x), atol=1e-5)
    fixed = quantize(network(), x, QuantizeConfig(learn_grids=False))
    assert not any(layer.stretch.requires_grad for layer in quantized_layers(fixed))


@pytest.mark.parametrize("symmetric", [True, False])
def test_mixed_precision_keeps_the_grids(symmetric: bool) -> None:
    """The float sums of bfloat16 are as coarse as their inputs, yet nearer to the integers than those are to float."""
    net, x = network(), pictures()
    with torch.no_grad():
        exact = net(x)
        quantize(net, x, QuantizeConfig(symmetric=symmetric))
        true = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net.train()(x)
    assert (mixed - true).square().mean() < (true - exact).square().mean()


def test_gradients_in_mixed_precision_point_the_same_way() -> None:
    x, found = pictures(), []
    for mixed in (False, True):
        net = quantize(network(), x, QuantizeConfig()).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = net(x).square().mean()
        loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert torch.cosine_similarity(*found, dim=0) > 0.98
