"""An average of weights over the steps of a run."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EMA:
    """Averaged copy of a module's parameters: w <- d * w + (1 - d) * p, with d = min(decay, (1 + t) / (10 + t)).

    A decay of 1 gives the mean of all steps, d = t / (t + 1) (stochastic weight averaging, Izmailov et al. 2018,
    algorithm 1, taken at every step): for a rate that does not fall.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {n: p.detach().clone() for n, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = step / (step + 1) if self.decay == 1 else min(self.decay, (1 + step) / (10 + step))
        weights, own = zip(*((self.weights[name], p.detach()) for name, p in module.named_parameters()), strict=True)
        # one call: a painter has 150 small parameters
        torch._foreach_lerp_(weights, own, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Write the averaged weights into `module`."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.weights[name])
