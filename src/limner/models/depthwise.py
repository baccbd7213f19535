"""Depthwise convolutions whose training costs what their arithmetic does: gradients by a compiled loop (csrc/).

Torch computes a depthwise layer's output quickly and its gradients slowly: in bfloat16 on a CPU the backward pass of a
5x5 layer takes twenty times its forward pass. Here the gradient of the input is one more forward pass, with the kernel
turned, and that of the kernel a loop of our own. Without the library, or for what it does not do, torch does all.
"""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ABI = 1
KERNELS, CHANNELS = (3, 5, 7), 16  # as in csrc/depthwise.cpp
POINTER, SIZE = ctypes.c_void_p, ctypes.c_int64
Sides = int | tuple[int, ...]


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sides = 1, padding: Sides = 0, groups: int = 1
) -> Tensor:
    """`torch.nn.functional.conv2d`, with faster gradients where each channel is convolved with a kernel of its own.

    (N, C, H, W), weight (C', C / groups, k, k), bias (C',) -> (N, C', H', W'), under autocast too. What a depthwise
    layer gives here has first derivatives only.
    """
    if torch.is_grad_enabled() and groups == len(weight) > 1 and _keeps_size(weight, stride, padding):
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if runs_here(x, weight):
            return _Depthwise.apply(x, weight, bias)  # type: ignore[no-any-return]
    return F.conv2d(x, weight, bias, stride, padding, groups=groups)  # type: ignore[arg-type]


class Conv2d(nn.Conv2d):
    """A plain layer on `conv2d` above."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode != "zeros" or self.dilation != (1, 1) or isinstance(self.padding, str):
            return super()._conv_forward(input, weight, bias)
        return conv2d(input, weight, bias, self.stride, self.padding, self.groups)


def runs_here(x: Tensor, weight: Tensor) -> bool:
    """Whether the compiled loop makes the gradients for this input and depthwise kernel."""
    known = weight.shape[-1] in KERNELS and len(weight) % CHANNELS == 0 and x.dtype in (torch.bfloat16, torch.float32)
    ours = x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last) and len(weight) == x.shape[1]
    return known and ours and library() is not None


def _keeps_size(weight: Tensor, stride: Sides, padding: Sides) -> bool:
    side = weight.shape[-1]
    return weight.shape[-2] == side and stride in (1, (1, 1)) and padding in (side // 2, (side // 2, side // 2))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        own = weight.to(x.dtype)
        ctx.save_for_backward(x, own)
        ctx.kernel_type = weight.dtype
        offset = None if bias is None else bias.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x, own, offset, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # pyright: ignore
        x, weight = ctx.saved_tensors
        gradient = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        of_input = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(2, 3)
            of_input = F.conv2d(gradient, turned, padding=weight.shape[-1] // 2, groups=len(weight))
        if any(ctx.needs_input_grad[1:]):
            of_weight, of_bias = (part.to(ctx.kernel_type) for part in kernel_gradient(x, gradient, weight.shape[-1]))
        return of_input, of_weight, of_bias if ctx.needs_input_grad[2] else None


def kernel_gradient(x: Tensor, gradient: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """What the kernel (C, 1, k, k) and the bias (C,) get, in float: sums over pictures and pixels.

    `x`, `gradient`: (N, C, H, W) of one type, channels last. Pictures are shared by as many threads as torch may use,
    and added up in their order, so that one number of threads always gives the same bits.
    """
    count, channels = x.shape[:2]
    threads = min(torch.get_num_threads(), count)
    bounds = [count * part // threads for part in range(threads + 1)]
    sums = torch.empty(threads, kernel * kernel + 1, channels)
    parts = [(x[first:last], gradient[first:last]) for first, last in pairwise(bounds)]
    if threads == 1:
        _sum_into(sums[0], x, gradient, kernel)
    else:
        list(_pool(threads).map(lambda own, part: _sum_into(own, part[0], part[1], kernel), sums, parts))
    total = sums.sum(0)
    return total[:-1].T.reshape(channels, 1, kernel, kernel), total[-1]


def _sum_into(sums: Tensor, x: Tensor, gradient: Tensor, kernel: int) -> None:
    count, channels, height, width = x.shape
    sizes = (SIZE(size) for size in (count, height, width, channels))
    found = library()
    assert found is not None
    half = int(x.dtype == torch.bfloat16)
    failed = found.ld_gradient(
        POINTER(x.data_ptr()), POINTER(gradient.data_ptr()), half, kernel, *sizes, POINTER(sums.data_ptr())
    )
    if failed:
        raise MemoryError


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "depthwise")


@cache
def library() -> ctypes.CDLL | None:
    """The compiled loop, or None where it was not built or is of another version."""
    for path in sorted(Path(__file__).parent.glob("_depthwise.*")):
        try:
            found = ctypes.CDLL(str(path))
            if found.ld_abi() == ABI:
                return found
        except (OSError, AttributeError):
            continue
    return None
