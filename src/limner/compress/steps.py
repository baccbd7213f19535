"""A generator as a list of steps: what `limner separate` can read, change, quantize and write back.

Convolutions, activations, sums, concatenations, pixel shuffles, enlargements and constant factors; nothing else.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limner.compress.quantize import QuantConv2d
from limner.config import QuantizeConfig
from limner.models.depthwise import Conv2d

PICTURE = 0
SAMPLES = 200_000  # values looked at per grid while calibrating
Order = Literal["CRD", "DCR"]


class Grid(QuantConv2d):
    """The 8-bit grid of a tensor that is added to a convolution's result; calibrated like a convolution's input."""

    def __init__(self, config: QuantizeConfig) -> None:
        super().__init__(nn.Conv2d(1, 1, 1), config)
        self.weight.requires_grad_(False)
        assert self.bias is not None
        self.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.input_scale.item(), 0, *self.input_range())


class Sum(nn.Module):
    """The sum of two tensors of one shape. `second`: Identity in float, a Grid in integers; `gridded`: the operand."""

    def __init__(self, gridded: int = 1) -> None:
        super().__init__()
        self.gridded = gridded
        self.second: nn.Module = nn.Identity()

    def forward(self, *tensors: Tensor) -> Tensor:
        return tensors[1 - self.gridded] + self.second(tensors[self.gridded])


class Concat(nn.Module):
    """Channels side by side."""

    def forward(self, *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, 1)


class Shuffle(nn.Module):
    """Pixel shuffle (Shi et al. 2016, eq. 4). `order`: of the channels, CRD as in torch (colour first), or DCR."""

    def __init__(self, ratio: int, order: Order) -> None:
        super().__init__()
        self.ratio, self.order = ratio, order

    def forward(self, x: Tensor) -> Tensor:
        if self.order == "CRD":
            return F.pixel_shuffle(x, self.ratio)
        batch, channels, height, width = x.shape
        colours, side = channels // self.ratio**2, self.ratio
        cells = x.reshape(batch, side, side, colours, height, width).permute(0, 3, 4, 1, 5, 2)
        return cells.reshape(batch, colours, height * side, width * side)


class Enlarge(nn.Module):
    """The nearest pixel, `ratio` times larger."""

    def __init__(self, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=float(self.ratio), mode="nearest")


class Scale(nn.Module):
    """Times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Separable(nn.Module):
    """A sum of depthwise + pointwise terms in the place of a dense convolution: (N, in, H, W) -> (N, out, H, W).

    `depthwise` (terms, in, k, k), `pointwise` (terms, out, in) as `decompose.decouple` gives them, `bias` (out,).
    """

    def __init__(self, depthwise: Tensor, pointwise: Tensor, bias: Tensor) -> None:
        super().__init__()
        terms, inputs, kernel, _ = depthwise.shape
        outputs = pointwise.shape[1]
        self.spread = nn.ModuleList(
            Conv2d(inputs, inputs, kernel, padding=kernel // 2, groups=inputs) for _ in range(terms)
        )
        self.mix = nn.ModuleList(nn.Conv2d(inputs, outputs, 1) for _ in range(terms))
        self.sums = nn.ModuleList(Sum(gridded=0) for _ in range(terms - 1))
        self.load(depthwise, pointwise, bias)

    @torch.no_grad()
    def load(self, depthwise: Tensor, pointwise: Tensor, bias: Tensor) -> None:
        """Take these kernels; the first term carries the bias."""
        for term, (spread, mix) in enumerate(self.terms()):
            assert spread.bias is not None and mix.bias is not None
            spread.weight.copy_(depthwise[term][:, None])
            mix.weight.copy_(pointwise[term][:, :, None, None])
            spread.bias.zero_()
            mix.bias.copy_(bias if term == 0 else torch.zeros_like(bias))

    def terms(self) -> Iterator[tuple[nn.Conv2d, nn.Conv2d]]:
        yield from zip(self.spread, self.mix, strict=True)  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        parts = [mix(spread(x)) for spread, mix in self.terms()]
        total = parts[0]
        for part, add in zip(parts[1:], self.sums, strict=True):
            total = add(total, part)
        return total


class Step(NamedTuple):
    """One value of a network. `inputs`: numbers of the values it is made of; 0 is the picture, n the n-th step's."""

    name: str
    inputs: tuple[int, ...]


class StepNetwork(nn.Module):
    """(N, 3, H, W) in 0..1 -> (N, 3, H * scale, W * scale), not clipped: the last step's value.

    `parts` are the modules of `steps`, in the same order.
    """

    def __init__(self, steps: Iterable[Step], parts: Iterable[nn.Module], scale: int = 1) -> None:
        super().__init__()
        self.steps, self.parts, self.scale = list(steps), nn.ModuleList(parts), scale

    def forward(self, x: Tensor) -> Tensor:
        return self.values(x)[-1]

    def values(self, x: Tensor) -> list[Tensor]:
        """The picture and every step's value."""
        found = [x]
        for step, part in zip(self.steps, self.parts, strict=True):
            found.append(part(*(found[number] for number in step.inputs)))
        return found

    def resolutions(self) -> list[float]:
        """How many pixels each value has on a side, per pixel of the input."""
        found = [1.0]
        for step, part in zip(self.steps, self.parts, strict=True):
            larger = part.ratio if isinstance(part, Shuffle | Enlarge) else 1
            found.append(found[step.inputs[0]] * larger)
        return found

    @property
    def radius(self) -> int:
        """Receptive field radius in input pixels, rounded up."""
        reach, sides = [0.0], self.resolutions()
        for number, (step, part) in enumerate(zip(self.steps, self.parts, strict=True), 1):
            own = _margin(part) / sides[number]
            reach.append(max(reach[value] for value in step.inputs) + own)
        return math.ceil(reach[-1] - 1e-9)

    def macs_per_pixel(self) -> float:
        """Multiply-accumulates per input pixel."""
        sides = self.resolutions()
        return sum(weights(part) * sides[number] ** 2 for number, part in enumerate(self.parts, 1))

    def parameters_shipped(self) -> int:
        """Weights and biases of all convolutions."""
        return sum(conv.weight.numel() + conv.weight.shape[0] for conv in convolutions(self))

    def with_part(self, number: int, part: nn.Module) -> None:
        """Replace the module of step `number` (from 1)."""
        self.parts[number - 1] = part


def convolutions(module: nn.Module) -> list[nn.Conv2d | QuantConv2d]:
    """All convolutions below `module`, in the order they run."""
    return [each for each in module.modules() if isinstance(each, nn.Conv2d | QuantConv2d) and not _is_grid(each)]


def _is_grid(module: nn.Module) -> bool:
    return isinstance(module, Grid)


def weights(module: nn.Module) -> int:
    """Multiply-accumulates per pixel of the module's result."""
    return sum(conv.weight.numel() for conv in convolutions(module))


def _margin(part: nn.Module) -> int:
    return max((conv.weight.shape[-1] // 2 for conv in convolutions(part)), default=0)


@torch.no_grad()
def quantize_steps(network: StepNetwork, low: Tensor, config: QuantizeConfig) -> StepNetwork:
    """A copy on integer grids, calibrated on pictures `low` (N, 3, h, w) in 0..1.

    Every convolution's input, and what is added to a convolution's result, has a grid of its own; equal values get
    equal grids, because they are calibrated on the same sample.
    """
    quantized = copy.deepcopy(network).eval()
    seen = _samples(quantized, low)
    _replace(quantized, seen, config)
    for step, part in zip(quantized.steps, quantized.parts, strict=True):
        for conv in _readers(part) if PICTURE in step.inputs else []:
            conv.calibrated.fill_(1 / 255)
            conv.signed.fill_(0.0)
    return quantized


def _readers(part: nn.Module) -> list[QuantConv2d]:
    """The convolutions that read a part's own input."""
    if isinstance(part, Separable):
        return [conv for conv in part.spread if isinstance(conv, QuantConv2d)]
    return [part] if isinstance(part, QuantConv2d) else []


def _samples(network: nn.Module, low: Tensor) -> dict[nn.Module, Tensor]:
    """A flat sample of the input of every convolution, and of every Identity that may become a grid."""
    seen: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        flat = args[0].detach().flatten()
        seen[module] = flat[:: max(1, flat.numel() // SAMPLES)]

    watched = [each for each in network.modules() if isinstance(each, nn.Conv2d | nn.Identity)]
    hooks = [each.register_forward_pre_hook(keep) for each in watched]
    network(low)
    for hook in hooks:
        hook.remove()
    return seen


def _replace(module: nn.Module, seen: dict[nn.Module, Tensor], config: QuantizeConfig) -> None:
    for name, child in module.named_children():
        if child in seen:
            new = QuantConv2d(child, config) if isinstance(child, nn.Conv2d) else Grid(config)
            new.calibrate(seen[child], config.calibration)
            setattr(module, name, new)
        else:
            _replace(child, seen, config)
