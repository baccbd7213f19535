"""Start a larger upscaler as the same function as a smaller one, instead of from noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from limner.models.blocks import FoldableConv2d
from limner.models.upscaler import Upscaler

Folded = tuple[Tensor, Tensor]  # kernel (out, in / groups, k, k) and bias (out,)


def folded_kernels(network: Upscaler) -> list[Folded]:
    """Kernel and bias of every convolution that ships, in the order they run."""
    convs = [conv for conv in network.convolutions() if isinstance(conv, FoldableConv2d)]
    return [(conv.folded_kernel().detach(), conv.bias.detach()) for conv in convs]


def grow(network: Upscaler, start: Sequence[Folded]) -> int:
    """Give `network` the kernels of a network of its kind that is as large or smaller; returns how many it took.

    After Chen et al. 2016 (Net2Net), whose wider network copies channels; here the new channels are ignored by the old
    ones (zero columns), which keeps the function exactly and needs no noise to break the symmetry. New blocks are
    identities, which the ReLU before them leaves alone. A smaller kernel becomes the middle of a larger one. The tail
    is taken where the scales agree.
    """
    head, *trunk, tail = network.convolutions()
    body, added = start[1:-1], len(trunk) - (len(start) - 2)
    taken = [_take(conv, kernel) for conv, kernel in zip([head, *trunk], start[:-1], strict=False)]
    for conv in trunk[len(body) :]:
        assert isinstance(conv, FoldableConv2d)
        conv.set_folded(conv.unit_kernel(), torch.zeros_like(conv.bias))
    if added >= 0 and len(tail.weight) == len(start[-1][0]):
        taken.append(_take(tail, start[-1]))
    return sum(taken)


def _take(conv: object, start: Folded) -> bool:
    """Make `start` the first channels of `conv`; False, and nothing changed, where it does not fit."""
    kernel, bias = start
    if not isinstance(conv, FoldableConv2d) or not _fits(conv, kernel):
        return False
    kernel = centred(kernel, conv.weight)
    grown, offset = conv.folded_kernel().detach().clone(), conv.bias.detach().clone()
    outputs, inputs = kernel.shape[:2]
    grown[:outputs] = 0
    grown[:outputs, :inputs] = kernel
    offset[:outputs] = bias
    conv.set_folded(grown, offset)
    return True


def _fits(conv: FoldableConv2d, kernel: Tensor) -> bool:
    """The same kind of convolution, with at least as many channels and as large a kernel (1x1 is a kind of its own)."""
    own, depthwise = conv.weight.shape, kernel.shape[1] == 1 < kernel.shape[0]
    kind = own[1] == kernel.shape[1] if conv.groups > 1 or depthwise else own[1] >= kernel.shape[1]
    pointwise = kernel.shape[-1] == 1
    return kind and own[0] >= kernel.shape[0] and (own[-1] == 1 if pointwise else own[-1] >= kernel.shape[-1])


def centred(kernel: Tensor, like: Tensor) -> Tensor:
    """`kernel` (O, I, k, k) with zeros around it, up to the size of `like`; anything else as it is."""
    around = (like.shape[-1] - kernel.shape[-1]) // 2 if kernel.ndim == like.ndim == 4 else 0
    return F.pad(kernel, (around,) * 4) if around > 0 else kernel
