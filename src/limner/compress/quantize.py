"""Integer arithmetic, simulated: calibrate, fake-quantize, fine-tune through the rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limner.config import QuantizeConfig
from limner.models.painter import Painter, Text
from limner.models.upscaler import Upscaler

SAMPLES = 200_000  # activations looked at per layer while calibrating
CLIPS = torch.linspace(0.3, 1.0, 36)


class QuantConv2d(nn.Module):
    """A convolution on integers in disguise: input and weight are rounded to their grids, the sum stays float.

    Weights: symmetric, one scale per output channel (or one in all), recomputed from the weight in every step.
    Input: one step; unsigned (zero point 0) when nothing negative was seen, symmetric signed otherwise. Calibration
    sets it; training may then scale it by exp(`stretch`) (learned step size, Esser et al. 2020, eq. 3).
    Gradients pass the rounding unchanged and stop outside the range (straight-through, Bengio et al. 2013; Jacob et
    al. 2018, section 3).
    """

    def __init__(self, conv: nn.Conv2d, config: QuantizeConfig) -> None:
        super().__init__()
        self.stride, self.padding, self.groups = conv.stride, conv.padding, conv.groups
        self.weight, self.bias = conv.weight, conv.bias
        self.per_channel = config.per_channel
        self.weight_peak = 2 ** (config.weight_bits - 1) - 1
        self.activation_bits = config.activation_bits
        self.calibrated = nn.Parameter(torch.tensor(1.0), requires_grad=False)
        self.stretch = nn.Parameter(torch.tensor(0.0), requires_grad=config.learn_grids)
        self.signed = nn.Parameter(torch.tensor(0.0), requires_grad=False)

    @property
    def input_scale(self) -> Tensor:
        """Step of the input grid, a scalar."""
        return self.calibrated * self.stretch.exp()

    def input_range(self) -> tuple[int, int]:
        """Smallest and largest integer of the input grid."""
        if self.signed.item():
            return -(2 ** (self.activation_bits - 1)), 2 ** (self.activation_bits - 1) - 1
        return 0, 2**self.activation_bits - 1

    @torch.no_grad()
    def weight_scale(self) -> Tensor:
        """Step of every output channel, (out,)."""
        peak = self.weight.detach().abs().amax((1, 2, 3))
        peak = peak if self.per_channel else peak.max().expand_as(peak)
        return (peak / self.weight_peak).clamp_min(1e-8).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.input_range()
        x = self._rounded_input(x, low, high)
        zero = torch.zeros(self.weight.shape[0], dtype=torch.int32, device=x.device)
        weight = torch.fake_quantize_per_channel_affine(
            self.weight, self.weight_scale(), zero, 0, -self.weight_peak, self.weight_peak
        )
        return F.conv2d(x, weight, self._rounded_bias(), self.stride, self.padding, groups=self.groups)  # type: ignore[arg-type]

    def _rounded_input(self, x: Tensor, low: int, high: int) -> Tensor:
        if not (self.training and self.stretch.requires_grad):
            return torch.fake_quantize_per_tensor_affine(x, self.input_scale.item(), 0, low, high)
        # Without this factor the gradient of the step grows with the number of pixels (Esser et al. 2020, section 2.2).
        share = 1 / math.sqrt(x.numel() * high)
        scale, zero = self.input_scale.reshape(1), x.new_zeros(1)
        round_learnably = torch.ops.aten._fake_quantize_learnable_per_tensor_affine
        return round_learnably(x, scale, zero, low, high, share)

    def _rounded_bias(self) -> Tensor | None:
        """The bias on the grid of the integer sums. Left out, its error flips roundings in every layer that follows."""
        if self.bias is None:
            return None
        step = self.input_scale.detach() * self.weight_scale()
        return self.bias + ((self.bias / step).round() * step - self.bias).detach()

    @torch.no_grad()
    def calibrate(self, seen: Tensor, method: str) -> None:
        """Set the input grid from a flat sample of float inputs: full range, or the clip of least squared error."""
        self.signed.fill_(float(seen.min() < 0))
        low, high = self.input_range()
        peak = torch.maximum(seen.max() / high, seen.min() / low if low else seen.new_zeros(())).clamp_min(1e-8)
        self.calibrated.fill_(float(peak))
        if method == "mse":
            self.calibrated.fill_(float(_least_error(seen, peak, low, high)))


def _least_error(seen: Tensor, peak: Tensor, low: int, high: int) -> Tensor:
    scales = CLIPS.to(seen) * peak
    errors = [
        (torch.fake_quantize_per_tensor_affine(seen, float(s), 0, low, high) - seen).square().mean() for s in scales
    ]
    return scales[int(torch.stack(errors).argmin())]


def quantize(network: Upscaler, low: Tensor, config: QuantizeConfig) -> Upscaler:
    """Fold `network`, put every shipped convolution on integer grids and calibrate them, in place.

    `low`: calibration pictures (N, 3, h, w) in 0..1. The first layer's grid is that of 8-bit pictures, exactly.
    """
    network.fold()
    seen = _inputs(network, low)
    _replace(network, config)
    convs = quantized_layers(network)
    for conv, sample in zip(convs, seen, strict=True):
        conv.calibrate(sample, config.calibration)
    convs[0].calibrated.data.fill_(1 / 255)
    convs[0].stretch.requires_grad_(False)
    return network


@torch.no_grad()
def quantize_painter(painter: Painter, noise: Tensor, text: Text, config: QuantizeConfig) -> Painter:
    """Fold `painter`, put every convolution on integer grids and calibrate them on (noise, text), in place.

    The residual sums, FiLM and the products of attention stay in float.
    """
    painter.fold().eval()
    seen: dict[nn.Module, Tensor] = {}
    hooks = [conv.register_forward_pre_hook(partial(_keep, seen)) for conv in painter.convolutions()]
    painter(noise, text)
    for hook in hooks:
        hook.remove()
    samples = {name: seen[module] for name, module in painter.named_modules() if module in seen}
    _replace(painter, config)
    for name, sample in samples.items():
        painter.get_submodule(name).calibrate(sample, config.calibration)  # type: ignore[operator]
    return painter


def _keep(seen: dict[nn.Module, Tensor], conv: nn.Module, args: tuple[Tensor, ...]) -> None:
    seen[conv] = _sample(args[0])


def _replace(module: nn.Module, config: QuantizeConfig) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, QuantConv2d(child, config))
        else:
            _replace(child, config)


@torch.no_grad()
def _inputs(network: Upscaler, low: Tensor) -> list[Tensor]:
    """A flat sample of the inputs of every shipped convolution, in the order they run."""
    convs = network.convolutions()
    seen: list[Tensor] = []
    hooks = [conv.register_forward_pre_hook(lambda _, args: seen.append(_sample(args[0]))) for conv in convs]
    network.eval()(low)
    for hook in hooks:
        hook.remove()
    return seen


def _sample(values: Tensor) -> Tensor:
    flat = values.detach().flatten()
    return flat[:: max(1, flat.numel() // SAMPLES)]


def quantized_layers(network: nn.Module) -> Sequence[QuantConv2d]:
    """The integer convolutions of a quantized network, in the order they run."""
    return [module for module in network.modules() if isinstance(module, QuantConv2d)]
