"""Convolutions that train with parallel branches and ship as one kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limner.config import Activation, Kind
from limner.models.depthwise import Conv2d, conv2d

# Fixed edge kernels of the edge-oriented block (Zhang et al. 2021, ECBSR, eq. 4-6): Sobel x, Sobel y, Laplacian.
EDGES = torch.tensor(
    [
        [[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]],
        [[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]],
        [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]],
    ]
)
ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=True),
}


class FoldableConv2d(nn.Module):
    """Stride-1, zero-padded convolution whose kernel is a sum of training-time branches.

    All branches are linear and act on the same input, so their kernels add up exactly: the sum is formed on the
    (tiny) weights in every step, and training costs one convolution, not one per branch. Branches: the plain kernel;
    a 1x1; Sobel and Laplacian edges behind a 1x1 (odd kernels of 3 and more); a wide 1x1 before the kernel (dense and
    pointwise); the identity between equal widths, and between others where `passes` says so: a wider layer repeats its
    input, a narrower one takes the first channels. (N, in, H, W) -> (N, out, H, W).
    """

    edges: Tensor
    ready: Tensor | None = None  # the folded kernel, inside `folded_together`

    def __init__(
        self, inputs: int, outputs: int, kernel: int, groups: int = 1, branches: bool = True, passes: bool = False
    ) -> None:
        super().__init__()
        if inputs % groups or outputs % groups:
            raise ValueError(f"{inputs} -> {outputs} channels cannot be split into {groups} groups")
        self.inputs, self.outputs, self.kernel, self.groups = inputs, outputs, kernel, groups
        self.identity = branches and (passes or inputs == outputs)
        fan_in = inputs // groups * kernel * kernel
        # Noise beside the identity is kept small, or dozens of layers multiply it (std 0.5 -> 48 over 33 layers).
        gain = 0.25 if self.identity else math.sqrt(2.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs // groups, kernel, kernel) * gain / math.sqrt(fan_in))
        self.bias = nn.Parameter(torch.zeros(outputs))
        if branches:
            self._add_branches()

    def _add_branches(self) -> None:
        per_group = self.inputs // self.groups
        if self.kernel > 1:
            self.point = nn.Parameter(torch.zeros(self.outputs, per_group))
            self.edge = nn.Parameter(torch.randn(3, self.outputs, per_group) * 0.02 / math.sqrt(per_group))
            self.register_buffer("edges", EDGES.clone(), persistent=False)
        if self.groups == 1:
            self.widen = nn.Parameter(torch.randn(2 * self.inputs, self.inputs) / math.sqrt(self.inputs))
            fan_in = 2 * self.inputs * self.kernel**2
            squeeze = torch.randn(self.outputs, 2 * self.inputs, self.kernel, self.kernel) * 0.1 / math.sqrt(fan_in)
            self.squeeze = nn.Parameter(squeeze)

    def branch_kernels(self) -> list[Tensor]:
        """The kernel of every branch, each (out, in / groups, k, k); their sum is the folded kernel."""
        return [kernels[0] for kernels in _branches([self])]

    def unit_kernel(self) -> Tensor:
        """The kernel that leaves its input as it is."""
        kernel = torch.zeros_like(self.weight)
        channel = torch.arange(self.outputs, device=kernel.device)
        kernel[channel, channel % (self.inputs // self.groups), self.kernel // 2, self.kernel // 2] = 1.0
        return kernel

    def folded_kernel(self) -> Tensor:
        return _folded([self])[0] if self.ready is None else self.ready

    def likeness(self) -> tuple[object, ...]:
        """What layers must have in common to be folded together."""
        return self.weight.shape, self.groups, self.identity, hasattr(self, "point"), hasattr(self, "widen")

    @torch.no_grad()
    def set_folded(self, kernel: Tensor, bias: Tensor) -> None:
        """Become the convolution `kernel`, `bias`: the plain kernel takes what the other branches leave."""
        self.weight += kernel - self.folded_kernel()
        self.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.folded_kernel(), self.bias, padding=self.kernel // 2, groups=self.groups)

    def fold(self) -> nn.Conv2d:
        """A plain convolution that computes the same."""
        conv = Conv2d(
            self.inputs,
            self.outputs,
            self.kernel,
            padding=self.kernel // 2,
            groups=self.groups,
            device=self.bias.device,
        )
        with torch.no_grad():
            conv.weight.copy_(self.folded_kernel())
            if conv.bias is not None:
                conv.bias.copy_(self.bias)
        return conv


def _branches(alike: Sequence[FoldableConv2d]) -> list[Tensor]:
    """The kernels of every branch of layers that are alike, each (layers, out, in / groups, k, k)."""
    first = alike[0]

    def stacked(name: str) -> Tensor:
        return torch.stack([getattr(conv, name) for conv in alike])

    kernels = [stacked("weight")]
    if hasattr(first, "point"):
        kernels.append(_centred(stacked("point")[..., None, None], first.kernel))
        kernels.append(_centred(torch.einsum("leoi,ehw->loihw", stacked("edge"), first.edges), first.kernel))
    if hasattr(first, "widen"):
        kernels.append(torch.einsum("lomhw,lmi->loihw", stacked("squeeze"), stacked("widen")))
    if first.identity:
        kernels.append(first.unit_kernel().expand_as(kernels[0]))
    return kernels


def _centred(kernels: Tensor, size: int) -> Tensor:
    margin = (size - kernels.shape[-1]) // 2
    return F.pad(kernels, (margin,) * 4)


def _folded(alike: Sequence[FoldableConv2d]) -> Tensor:
    """(layers, out, in / groups, k, k)."""
    kernels, *others = _branches(alike)
    for other in others:
        kernels = kernels + other
    return kernels


@contextmanager
def folded_together(module: nn.Module) -> Iterator[None]:
    """Inside, the layers below `module` that are alike have been folded in one go.

    A deep network has dozens of them, and on weights this small a step costs what it is called, not what it computes.
    """
    groups: dict[tuple[object, ...], list[FoldableConv2d]] = {}
    convs = [conv for conv in module.modules() if isinstance(conv, FoldableConv2d)]
    for conv in convs:
        groups.setdefault(conv.likeness(), []).append(conv)
    try:
        for alike in groups.values():
            for conv, kernel in zip(alike, _folded(alike).unbind(), strict=True):
                conv.ready = kernel
        yield
    finally:
        for conv in convs:
            conv.ready = None


def block(
    kind: Kind,
    width: int,
    kernel: int,
    group_width: int = 16,
    branches: bool = True,
    activation: Activation = "relu",
    expansion: int = 1,
) -> nn.Sequential:
    """One trunk block (N, width, H, W) -> same, activation last: depthwise then pointwise, grouped, or dense.

    With an expansion a separable block is an inverted bottleneck (Sandler et al. 2018, section 3.3): widened by a 1x1
    layer and an activation, filtered by channel, narrowed. Its identity branches stand for the shortcut, and fold.
    """
    if expansion > 1:
        wide = width * expansion
        return nn.Sequential(
            FoldableConv2d(width, wide, 1, branches=branches, passes=True),
            ACTIVATIONS[activation](),
            FoldableConv2d(wide, wide, kernel, groups=wide, branches=branches),
            FoldableConv2d(wide, width, 1, branches=branches, passes=True),
            ACTIVATIONS[activation](),
        )
    if kind == "separable":
        depthwise = FoldableConv2d(width, width, kernel, groups=width, branches=branches)
        return nn.Sequential(depthwise, FoldableConv2d(width, width, 1, branches=branches), ACTIVATIONS[activation]())
    groups = width // group_width if kind == "grouped" else 1
    layers: list[nn.Module] = [FoldableConv2d(width, width, kernel, groups, branches)]
    if kind == "grouped":  # without mixing, groups would never see each other
        layers.append(FoldableConv2d(width, width, 1, branches=branches))
    return nn.Sequential(*layers, ACTIVATIONS[activation]())


def fold(module: nn.Module) -> nn.Module:
    """Replace every FoldableConv2d below `module` by its plain convolution, in place; returns the module."""
    for name, child in module.named_children():
        if isinstance(child, FoldableConv2d):
            setattr(module, name, child.fold())
        else:
            fold(child)
    return module
