"""Muon: momentum whose matrix updates are orthogonalized; everything else is stepped by Adam."""

# torch does not export the _foreach functions that its own optimizers are made of.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
LARGEST = 2**18  # elements above which the iterations cost more than they gain (the maps from a text vector)
SMALLEST = 16  # rows or columns below which a kernel has no spectrum worth evening out (depthwise: 9 columns)


class Muon(torch.optim.Optimizer):
    """Jordan et al. 2024 for kernels, Adam (Kingma & Ba 2015, algorithm 1) for the rest, in one optimizer.

    A kernel (out, in / groups, k, k) counts as the matrix (out, in / groups * k * k). Its step is
    -lr * ratio * sqrt(max(1, rows / columns)) * orthogonalize(G + momentum * M), M being the momentum buffer. Kernels
    with fewer than 16 rows or columns (depthwise) or more than LARGEST elements, biases and all others take Adam's step
    with `lr` alone.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        ratio: float = 2.5,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "ratio": ratio, "momentum": momentum, "betas": betas, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            stepped: list[Tensor] = [parameter for parameter in group["params"] if parameter.grad is not None]
            torch._foreach_mul_(stepped, 1 - group["lr"] * group["weight_decay"])
            kernels: dict[torch.Size, list[Tensor]] = {}
            for parameter in filter(is_matrix, stepped):
                kernels.setdefault(parameter.shape, []).append(parameter)
            for alike in kernels.values():
                _orthogonal_step(alike, [self.state[parameter] for parameter in alike], group)
            if rest := [parameter for parameter in stepped if not is_matrix(parameter)]:
                _adam_step(rest, [self.state[parameter] for parameter in rest], group)


def is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter is a kernel large enough for an orthogonal update, and not too large."""
    if parameter.ndim < 2 or parameter.numel() > LARGEST:
        return False
    return min(parameter.shape[0], parameter.numel() // parameter.shape[0]) >= SMALLEST


def orthogonalize(matrices: Tensor) -> Tensor:
    """(..., M, N): the nearest matrices with singular values around 1 (0.7 to 1.2), by five quintic Newton-Schulz
    iterations (Jordan et al. 2024).
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def _orthogonal_step(kernels: list[Tensor], states: list[dict[str, Any]], group: dict[str, Any]) -> None:
    """Step kernels of one shape together: a deep network has dozens, and each is too small to keep a core busy."""
    for kernel, state in zip(kernels, states, strict=True):
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
    gradients, momenta = _gradients(kernels), [state["momentum"] for state in states]
    torch._foreach_mul_(momenta, group["momentum"])
    torch._foreach_add_(momenta, gradients)
    ahead = torch._foreach_add(gradients, momenta, alpha=group["momentum"])
    matrices = torch.stack([each.reshape(len(each), -1) for each in ahead])
    tallness = max(1.0, matrices.shape[1] / matrices.shape[2]) ** 0.5
    steps = [step.reshape(kernels[0].shape) for step in orthogonalize(matrices)]
    torch._foreach_add_(kernels, steps, alpha=-group["lr"] * group["ratio"] * tallness)


def _adam_step(parameters: list[Tensor], states: list[dict[str, Any]], group: dict[str, Any]) -> None:
    beta1, beta2 = group["betas"]
    for parameter, state in zip(parameters, states, strict=True):
        if not state:
            state.update(step=torch.zeros(()), mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        state["step"] += 1
    gradients, counts = _gradients(parameters), [int(state["step"]) for state in states]
    means, squares = ([state[key] for state in states] for key in ("mean", "square"))
    torch._foreach_lerp_(means, gradients, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
    roots = torch._foreach_sqrt(torch._foreach_div(squares, [1 - beta2**count for count in counts]))
    torch._foreach_add_(roots, 1e-8)
    steps = torch._foreach_div(torch._foreach_div(means, [1 - beta1**count for count in counts]), roots)
    torch._foreach_add_(parameters, steps, alpha=-group["lr"])


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
