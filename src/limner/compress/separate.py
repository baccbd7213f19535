"""Make a generator separable: choose ranks by output error, then distil layer by layer, end to end, through rounding.

The dense network is the teacher throughout, so no truth is needed, only pictures like those it will see.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from limner.compress.decompose import cheaper_rank, full_rank, output_error, rank_for, refit, separated
from limner.compress.steps import Separable, StepNetwork, quantize_steps, weights
from limner.config import QuantizeConfig, Section
from limner.errors import UsageError

Verdict = Literal["separable", "dense"]
Advance = Callable[[int, int], None]


class SeparateConfig(Section):
    """Knobs of `limner separate`."""

    rank: int = Field(default=0, ge=0, description="terms of every layer; 0: the fewest that reach max_error")
    max_error: float = Field(default=0.1, gt=0, lt=1, description="output error of a layer, as a share of its variance")
    crop: int = Field(default=48, ge=8, description="side of the input crop, pixels")
    batch: int = Field(default=8, ge=1)
    calibration_crops: int = Field(default=16, ge=1, description="crops that ranks and grids are chosen on")
    layer_steps: int = Field(default=60, ge=0, description="steps of distillation of each layer by itself")
    steps: int = Field(default=2000, ge=0, description="steps of distillation end to end")
    rounding_steps: int = Field(default=500, ge=0, description="further ones through the rounding")
    lr: float = Field(default=1e-3, gt=0)
    seed: int = 0


@dataclass(frozen=True)
class LayerPlan:
    """What becomes of one convolution. `number`: of its step. `error`: share of its output's variance, before
    distillation. Pairs are dense, then as terms. `macs`: per input pixel. Times in ms of the layer alone, between two
    pointwise convolutions of three channels, on the fastest engine that runs it; None when not measured.
    """

    number: int
    name: str
    shape: str
    terms: int
    error: float
    macs: tuple[float, float]
    parameters: tuple[int, int]
    dense_ms: float | None = None
    separable_ms: float | None = None
    verdict: Verdict = "separable"
    engines: tuple[str, str] = ("", "")
    reason: str = ""

    def kept(self, reason: str) -> LayerPlan:
        """The same layer, dense."""
        return replace(self, verdict="dense", reason=reason)

    def timed(self, dense_ms: float, separable_ms: float, engines: tuple[str, str] = ("", "")) -> LayerPlan:
        """With times and what ran; dense when the terms would not be faster."""
        found = replace(self, dense_ms=dense_ms, separable_ms=separable_ms, engines=engines)
        return found if separable_ms < dense_ms else found.kept("separable would be slower on this machine")


@torch.no_grad()
def plan(network: StepNetwork, low: Tensor, config: SeparateConfig) -> tuple[list[LayerPlan], dict[int, Separable]]:
    """What each convolution can become, judged on the pictures `low` (N, 3, h, w), and the fitted terms by step.

    Pointwise and grouped convolutions stay. Raises UsageError that names the layer when config.rank is out of range.
    """
    plans: list[LayerPlan] = []
    fitted: dict[int, Separable] = {}
    values, sides = network.eval().values(low), network.resolutions()
    for number, (step, part) in enumerate(zip(network.steps, network.parts, strict=True), 1):
        if not isinstance(part, nn.Conv2d):
            continue
        found = _fitted(part, values[step.inputs[0]], config, step.name)
        plans.append(_described(number, step.name, part, found, sides[number] ** 2))
        if plans[-1].verdict == "separable" and found is not None:
            fitted[number] = found[0]
    return plans, fitted


def _fitted(conv: nn.Conv2d, given: Tensor, config: SeparateConfig, name: str) -> tuple[Separable, float] | None:
    if conv.kernel_size[0] == 1 or conv.groups > 1:
        return None
    if not config.rank:
        return rank_for(conv, given, config.max_error)
    layer, wanted = separated(conv, config.rank, name), conv(given)
    refit(layer, given, wanted)
    return layer, output_error(layer, given, wanted)


def _described(
    number: int, name: str, conv: nn.Conv2d, found: tuple[Separable, float] | None, area: float
) -> LayerPlan:
    side, dense = conv.kernel_size[0], weights(conv) * area
    shape = f"{side}x{side}, {conv.in_channels} -> {conv.out_channels}" + (
        f", {conv.groups} groups" * (conv.groups > 1)
    )
    own = conv.weight.numel() + conv.out_channels
    if found is None:
        plan = LayerPlan(number, name, shape, 0, 0.0, (dense, dense), (own, own))
        return plan.kept(_why_dense(conv))
    layer, error = found
    kernels, terms = weights(layer), len(layer.spread)
    parameters = kernels + sum(conv.bias.numel() for pair in layer.terms() for conv in pair if conv.bias is not None)
    plan = LayerPlan(number, name, shape, terms, error, (dense, kernels * area), (own, parameters))
    return plan if terms <= cheaper_rank(conv) else plan.kept(f"{terms} terms cost more than the dense kernel")


def _why_dense(conv: nn.Conv2d) -> str:
    if conv.kernel_size[0] == 1:
        return "is pointwise already"
    if conv.groups > 1:
        return "is grouped already"
    return (
        f"no cheaper sum of terms is within the error (exact at {full_rank(conv)}, cheaper up to {cheaper_rank(conv)})"
    )


def replaced(network: StepNetwork, layers: Mapping[int, Separable]) -> StepNetwork:
    """A copy of `network` with these steps replaced."""
    changed = copy.deepcopy(network)
    for number, layer in layers.items():
        changed.with_part(number, copy.deepcopy(layer))
    return changed


def distil_layers(
    student: StepNetwork, teacher: StepNetwork, low: Tensor, config: SeparateConfig, advance: Advance = lambda *_: None
) -> None:
    """Fit every separable layer, in order, to the teacher's output of that layer, given what the layers before it make
    of `low` by now: so that a layer also mends the errors of those before (He et al. 2017, Channel Pruning, eq. 5).
    """
    wanted = teacher.values(low)
    layers = [(n, part) for n, part in enumerate(student.parts, 1) if isinstance(part, Separable)]
    for done, (number, part) in enumerate(layers, 1):
        with torch.no_grad():
            given = student.values(low)[student.steps[number - 1].inputs[0]]
        refit(part, given, wanted[number].detach())
        _descend(part, given, wanted[number].detach(), config)
        advance(done, len(layers))


def _descend(part: Separable, given: Tensor, wanted: Tensor, config: SeparateConfig) -> None:
    """Adam on both factors; what it ends with is kept only if it beats the least-squares fit."""
    before, error = copy.deepcopy(part.state_dict()), output_error(part, given, wanted)
    optimizer = torch.optim.Adam(part.parameters(), config.lr)
    for step in range(config.layer_steps):
        rows = torch.arange(step * config.batch, (step + 1) * config.batch) % len(given)
        optimizer.zero_grad()
        F.mse_loss(part(given[rows]), wanted[rows]).backward()
        optimizer.step()
    if output_error(part, given, wanted) > error:
        part.load_state_dict(before)


def distil(
    student: nn.Module,
    teacher: nn.Module,
    batches: Callable[[int], Tensor],
    steps: int,
    lr: float,
    advance: Advance = lambda *_: None,
) -> None:
    """Train `student` to paint what `teacher` paints of batches(step) (N, 3, h, w): L1, Adam, a cosine to zero.

    Ends in eval mode. A fake-quantized student learns through the rounding (straight-through).
    """
    learned = [each for each in student.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(learned, lr, betas=(0.9, 0.99))
    student.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
        low = batches(step)
        with torch.no_grad():
            wanted = teacher(low)
        optimizer.zero_grad()
        F.l1_loss(student(low), wanted).backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        advance(step + 1, steps)
    student.eval()


def quantized(network: StepNetwork, low: Tensor) -> StepNetwork:
    """On integer grids that training leaves as calibrated: values that are added must keep the grid they share."""
    return quantize_steps(network, low, QuantizeConfig(learn_grids=False))


def check_ranks(plans: Sequence[LayerPlan], config: SeparateConfig) -> None:
    """Raises UsageError when config.rank is given and there is no dense layer that it could apply to."""
    if config.rank and not any(plan.terms for plan in plans):
        raise UsageError(f"rank {config.rank}: the network has no dense convolution wider than 1x1 to separate.")
