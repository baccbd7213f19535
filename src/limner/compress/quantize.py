"""Integer arithmetic, simulated: calibrate, fake-quantize, fine-tune through the rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limner.config import QuantizeConfig
from limner.errors import UsageError
from limner.models.depthwise import conv2d
from limner.models.painter import Painter, Text
from limner.models.upscaler import Upscaler

SAMPLES = 200_000  # activations looked at per layer while calibrating
CLIPS = torch.linspace(0.3, 1.0, 36)
SAMPLED = 8  # of so many pictures one tells the gradient of an input's step


class _Codes(torch.autograd.Function):
    """x as integers of a grid, with the gradients of rounding for x and for the step (Esser et al. 2020, eq. 3).

    (x, step, low, high, share): `low` and `high` count from the integer of 0.0; `share` scales the step's gradient. One
    picture in eight tells that: it is one number a layer, and of all it would cost as much as everything else here.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int, high: int, share: float) -> Tensor:
        ctx.save_for_backward(x, step)
        ctx.bounds, ctx.share = (low, high), share
        return (x * step.reciprocal()).round_().clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, step = ctx.saved_tensors
        (low, high), above = ctx.bounds, gradients[0] / step
        ends = float(step) * (low - 0.5), float(step) * (high + 0.5)
        inside = torch.ops.aten.hardtanh_backward(above, x, *ends)
        if not ctx.needs_input_grad[1]:
            return inside, None, None, None, None
        few = max(1, len(x) // SAMPLED)
        steps = x[:few].float() / step
        # q - x / step inside the range, q outside of it
        slope = steps.round().clamp_(low, high) - torch.where((steps > low - 0.5) & (steps < high + 0.5), steps, 0)
        change = (above[:few] * slope).sum() * (len(x) / few * ctx.share)
        return inside, change.reshape(step.shape), None, None, None


class QuantConv2d(nn.Module):
    """A convolution on integers in disguise: input and weight are rounded to their grids, the sum stays float.

    Weights: symmetric, one scale per output channel (or one in all), recomputed from the weight in every step.
    Input: one step. Where nothing negative was seen the grid is unsigned with zero point 0; otherwise signed around 0
    (config.symmetric), or unsigned with a zero point of its own. Calibration sets it; training may then scale it by
    exp(`stretch`) (learned step size, Esser et al. 2020, eq. 3).
    Gradients pass the rounding unchanged and stop outside the range (straight-through, Bengio et al. 2013; Jacob et
    al. 2018, section 3).
    """

    def __init__(self, conv: nn.Conv2d, config: QuantizeConfig) -> None:
        super().__init__()
        self.stride, self.padding, self.groups = conv.stride, conv.padding, conv.groups
        self.weight, self.bias = conv.weight, conv.bias
        self.per_channel, self.symmetric = config.per_channel, config.symmetric
        self.weight_peak, self.packed = 2 ** (config.weight_bits - 1) - 1, config.packed
        self.activation_bits = config.activation_bits
        self.calibrated = nn.Parameter(torch.tensor(1.0), requires_grad=False)
        self.stretch = nn.Parameter(torch.tensor(0.0), requires_grad=config.learn_grids)
        self.signed = nn.Parameter(torch.tensor(0.0), requires_grad=False)
        self.zero = nn.Parameter(torch.tensor(0.0), requires_grad=False)

    @property
    def input_scale(self) -> Tensor:
        """Step of the input grid, a scalar."""
        return self.calibrated * self.stretch.exp()

    @property
    def input_zero(self) -> int:
        """The integer that stands for 0.0."""
        return int(self.zero.item())

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
        return self._through_integers(x) if self.training else self._simulated(x)

    def _simulated(self, x: Tensor) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, self.input_scale.item(), self.input_zero, *self.input_range())
        zero = torch.zeros(self.weight.shape[0], dtype=torch.int32, device=x.device)
        weight = torch.fake_quantize_per_channel_affine(
            self.weight, self.weight_scale(), zero, 0, -self.weight_peak, self.weight_peak
        )
        return F.conv2d(x, weight, self._rounded_bias(), self.stride, self.padding, groups=self.groups)  # type: ignore[arg-type]

    def _through_integers(self, x: Tensor) -> Tensor:
        """The same with gradients. Integers of 8 bits are exact in bfloat16, so mixed precision keeps the grids."""
        scale = self.weight_scale()
        steps = self.weight / scale[:, None, None, None]
        weight = steps + (steps.round().clamp(-self.weight_peak, self.weight_peak) - steps).detach()
        sums = conv2d(self._codes(x), weight, None, self.stride, self.padding, self.groups)  # type: ignore[arg-type]
        scale, bias = (self.input_scale.detach() * scale)[:, None, None].to(sums.dtype), self._rounded_bias()
        return sums * scale if bias is None else torch.addcmul(bias[:, None, None].to(sums.dtype), sums, scale)

    def _codes(self, x: Tensor) -> Tensor:
        """The integers of the input, less that of 0.0."""
        low, high = (end - self.input_zero for end in self.input_range())
        # Without this factor the gradient of the step grows with the number of pixels (Esser et al. 2020, section 2.2).
        share = 1 / math.sqrt(x.numel() * self.input_range()[1])
        return _Codes.apply(x, self.input_scale, low, high, share)  # type: ignore[no-any-return]

    def _rounded_bias(self) -> Tensor | None:
        """The bias on the grid of the integer sums. Left out, its error flips roundings in every layer that follows."""
        if self.bias is None:
            return None
        step = self.input_scale.detach() * self.weight_scale()
        return self.bias + ((self.bias / step).round() * step - self.bias).detach()

    @torch.no_grad()
    def calibrate(self, seen: Tensor, method: str) -> None:
        """Set the input grid from a flat sample of float inputs: full range, or the clip of least squared error."""
        bottom, top = seen.min().clamp_max(0), seen.max().clamp_min(0)
        own_zero = bool(bottom < 0) and not self.symmetric
        self.signed.fill_(float(bottom < 0 and self.symmetric))
        low, high = self.input_range()
        if own_zero:
            peak = (top - bottom) / high
            self.zero.fill_(float((-bottom / peak).round()))
        else:
            peak = torch.maximum(top / high, bottom / low if low else torch.zeros_like(top))
            self.zero.zero_()
        # Zeros fit any grid; on the finest one the bias of a layer that is fed nothing else would not fit 32 bits.
        self.calibrated.copy_(peak if peak > 1e-8 else torch.full_like(peak, 1 / high))
        if method == "mse":
            self.calibrated.fill_(self._least_error(seen))

    def _least_error(self, seen: Tensor) -> float:
        low, high = self.input_range()
        scales = (CLIPS.to(seen) * self.calibrated).tolist()
        rounded = (torch.fake_quantize_per_tensor_affine(seen, s, self.input_zero, low, high) for s in scales)
        errors = torch.stack([(each - seen).square().mean() for each in rounded])
        return scales[int(errors.argmin())]


def quantize(network: Upscaler, low: Tensor, config: QuantizeConfig) -> Upscaler:
    """Fold `network`, put its shipped convolutions on integer grids and calibrate them, in place.

    `low`: calibration pictures (N, 3, h, w) in 0..1. The first layer's grid is that of 8-bit pictures, exactly.
    Raises UsageError as `integer_layers` does.
    """
    network.fold().eval()
    if config.symmetric:
        centre(network, low)
    _put_on_grids(network, lambda: network(low), config)
    first = network.head[0]
    if isinstance(first, QuantConv2d):
        first.calibrated.data.fill_(1 / 255)
        first.stretch.requires_grad_(False)
    return network


@torch.no_grad()
def centre(network: Upscaler, low: Tensor) -> None:
    """Give what lies between the two layers of a block a mean of 0, in place; the network stays the same.

    A depthwise or grouped layer hands its sums to a 1x1 layer without an activation between them, on a signed grid that
    is best used around 0. Each channel's mean on `low` (N, C, h, w) leaves the bias of the first and enters the second.
    """
    convolutions = network.convolutions()
    # Centring one block changes nothing that another sees, so that one run tells them all.
    means = _inputs(convolutions, lambda: network(low), lambda x: x.mean((0, 2, 3)))
    for first, second in pairwise(convolutions):
        if first.groups > 1 and first.bias is not None and second.bias is not None:
            first.bias.sub_(means[second])
            second.bias.add_(second.weight.flatten(1) @ means[second])


def _inputs(
    layers: Iterable[nn.Module], run: Callable[[], object], keep: Callable[[Tensor], Tensor]
) -> dict[nn.Module, Tensor]:
    """What `keep` makes of the input that reaches each layer in `run`."""
    seen: dict[nn.Module, Tensor] = {}

    def look(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen[layer] = keep(args[0])

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    run()
    for hook in hooks:
        hook.remove()
    return seen


def quantize_painter(painter: Painter, noise: Tensor, text: Text, config: QuantizeConfig) -> Painter:
    """Fold `painter`, put its convolutions on integer grids and calibrate them on (noise, text), in place.

    The residual sums, FiLM and the products of attention stay in float. Raises UsageError as `integer_layers` does.
    """
    painter.fold().eval()
    _put_on_grids(painter, lambda: painter(noise, text), config)
    return painter


def integer_layers(network: nn.Module, float_layers: Sequence[str]) -> list[str]:
    """Names of the convolutions of a folded network that become integer: all but those that a pattern matches.

    Raises UsageError for a pattern that matches no layer, and when no layer would be left.
    """
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    for pattern in float_layers:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(
                f"quantize.float_layers: no layer is called {pattern!r}: choose among {', '.join(names)}, "
                "or write * for any part of a name."
            )
    kept = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in float_layers)]
    if not kept:
        raise UsageError("quantize.float_layers: leaves no layer to be integer: name fewer.")
    return kept


@torch.no_grad()
def _put_on_grids(network: nn.Module, run: Callable[[], object], config: QuantizeConfig) -> None:
    """Replace the convolutions by integer ones, calibrated on what reaches them in `run`."""
    layers = {name: network.get_submodule(name) for name in integer_layers(network, config.float_layers)}
    seen = _inputs(layers.values(), run, _sample)
    for name, layer in layers.items():
        assert isinstance(layer, nn.Conv2d)
        conv = QuantConv2d(layer, config).eval()
        conv.calibrate(seen[layer], config.calibration)
        network.set_submodule(name, conv)


def _sample(values: Tensor) -> Tensor:
    flat = values.detach().flatten()
    return flat[:: max(1, flat.numel() // SAMPLES)]


def quantized_layers(network: nn.Module) -> Sequence[QuantConv2d]:
    """The integer convolutions of a quantized network, in the order they run."""
    return [module for module in network.modules() if isinstance(module, QuantConv2d)]
