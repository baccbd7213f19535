"""Muon: momentum whose matrix updates are orthogonalized; everything else is stepped by Adam."""

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
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                step = _orthogonal_step if is_matrix(parameter) else _adam_step
                parameter.add_(step(parameter, self.state[parameter], group), alpha=-group["lr"])


def is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter is a kernel large enough for an orthogonal update, and not too large."""
    if parameter.ndim < 2 or parameter.numel() > LARGEST:
        return False
    return min(parameter.shape[0], parameter.numel() // parameter.shape[0]) >= SMALLEST


def orthogonalize(matrix: Tensor) -> Tensor:
    """The nearest matrix with singular values around 1 (0.7 to 1.2): five quintic Newton-Schulz iterations."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def _orthogonal_step(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    gradient = parameter.grad
    assert gradient is not None
    if not state:
        state["momentum"] = torch.zeros_like(parameter)
    state["momentum"].mul_(group["momentum"]).add_(gradient)
    ahead = gradient + group["momentum"] * state["momentum"]
    matrix = ahead.reshape(len(ahead), -1)
    tallness = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
    return group["ratio"] * tallness * orthogonalize(matrix).reshape(parameter.shape)


def _adam_step(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    gradient, (beta1, beta2) = parameter.grad, group["betas"]
    assert gradient is not None
    if not state:
        state |= {"step": torch.zeros(()), "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
    state["step"] += 1
    state["mean"].lerp_(gradient, 1 - beta1)
    state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    count = int(state["step"])
    mean, square = state["mean"] / (1 - beta1**count), state["square"] / (1 - beta2**count)
    return mean / (square.sqrt() + 1e-8)
