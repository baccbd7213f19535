"""A dense convolution as a sum of depthwise + pointwise terms: from its kernel alone, then from what it is fed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limner.compress.steps import Separable
from limner.errors import UsageError

RIDGE = 1e-5


def full_rank(conv: nn.Conv2d) -> int:
    """Terms that reproduce any kernel of this shape exactly."""
    return min(conv.out_channels, conv.kernel_size[0] ** 2)


def cheaper_rank(conv: nn.Conv2d) -> int:
    """The most terms that cost fewer multiply-accumulates than the dense kernel; 0 when none do."""
    area = conv.kernel_size[0] ** 2
    return max(0, (conv.out_channels * area - 1) // (conv.out_channels + area))


def decouple(kernel: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The `rank` terms nearest to `kernel` (out, in, k, k) in squared error: depthwise (rank, in, k, k) and pointwise
    (rank, out, in), kernel[o, i] = sum_t pointwise[t, o, i] * depthwise[t, i].

    Every input channel's (out, k * k) matrix is cut to its largest singular values, which is the best there is
    (Guo et al. 2018, Network Decoupling, theorem 1 and eq. 4). The values are shared evenly by both factors.
    """
    outputs, inputs, side, _ = kernel.shape
    left, values, right = torch.linalg.svd(kernel.permute(1, 0, 2, 3).reshape(inputs, outputs, -1), full_matrices=False)
    share = values[:, :rank].sqrt()
    pointwise = (left[:, :, :rank] * share[:, None]).permute(2, 1, 0)
    depthwise = (right[:, :rank] * share[:, :, None]).permute(1, 0, 2).reshape(-1, inputs, side, side)
    return depthwise.contiguous(), pointwise.contiguous()


def recompose(depthwise: Tensor, pointwise: Tensor) -> Tensor:
    """The dense kernel (out, in, k, k) that the terms add up to."""
    return torch.einsum("toi,tihw->oihw", pointwise, depthwise)


def separated(conv: nn.Conv2d, rank: int, name: str = "layer") -> Separable:
    """`conv` (dense, stride 1) as `rank` terms. Raises UsageError that names the layer for an impossible rank."""
    if not 1 <= rank <= full_rank(conv):
        side = conv.kernel_size[0]
        raise UsageError(
            f"layer {name!r}: rank {rank} is out of range: a {side}x{side} kernel with {conv.out_channels} outputs has "
            f"1 to {full_rank(conv)} terms."
        )
    return Separable(*decouple(conv.weight.detach(), rank), _bias(conv))


def _bias(conv: nn.Conv2d) -> Tensor:
    return torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()


@torch.no_grad()
def refit(layer: Separable, given: Tensor, wanted: Tensor) -> None:
    """Solve for the pointwise kernels and the bias that give `wanted` (N, out, H, W) from `given` (N, in, H, W) with
    least squared error, the depthwise kernels staying as they are: ridge regression on the pixels.
    """
    spread = torch.cat([conv(given) for conv, _ in layer.terms()], 1).double()
    columns = spread.movedim(1, 0).flatten(1)
    columns = torch.cat([columns, torch.ones_like(columns[:1])])
    normal = columns @ columns.T
    normal += RIDGE * normal.diagonal().mean() * torch.eye(len(normal), dtype=normal.dtype)
    solved = torch.linalg.solve(normal, columns @ wanted.double().movedim(1, 0).flatten(1).T).float()
    inputs, terms = given.shape[1], len(layer.spread)
    pointwise = solved[:-1].reshape(terms, inputs, -1).transpose(1, 2)
    depthwise = torch.stack([conv.weight[:, 0] for conv, _ in layer.terms()])
    layer.load(depthwise, pointwise, solved[-1])


@torch.no_grad()
def output_error(layer: nn.Module, given: Tensor, wanted: Tensor) -> float:
    """Squared error of the layer's output as a share of the variance of `wanted`, per channel mean removed."""
    spread = (wanted - wanted.mean((0, 2, 3), keepdim=True)).square().sum()
    return float((layer(given) - wanted).square().sum() / spread.clamp_min(1e-12))


def rank_for(conv: nn.Conv2d, given: Tensor, most_error: float) -> tuple[Separable, float] | None:
    """The fewest terms whose refitted output error is at most `most_error`, and that error; None when no number of
    terms that is cheaper than the dense kernel reaches it.
    """
    wanted = F.conv2d(given, conv.weight, conv.bias, padding=conv.kernel_size[0] // 2).detach()
    for rank in range(1, min(cheaper_rank(conv), full_rank(conv)) + 1):
        layer = separated(conv, rank)
        refit(layer, given, wanted)
        error = output_error(layer, given, wanted)
        if error <= most_error:
            return layer, error
    return None
