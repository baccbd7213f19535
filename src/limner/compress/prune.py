"""Structured pruning: whole blocks, then whole channels, those that the pictures miss least.

Our networks are uniform (one width, or one expansion), and so is what is cut from them: the result is an ordinary
network with smaller settings, which trains, quantizes and ships like any other.

A block is as dispensable as the pictures stay the same without it, measured end to end. A channel is as dispensable as
what reads it fluctuates little: Var(x_c) * |W_c|^2; what it gives on average goes into the bias of what reads it (An et
al. 2024, FLAP, eq. 5 and 8). Which layers have to lose the same channels is torch-pruning's finding (Fang et al. 2023,
DepGraph).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from limner.config import RunConfig
from limner.errors import LimnerError, UsageError
from limner.models.blocks import FoldableConv2d
from limner.models.painter import Block, Painter, Text
from limner.models.upscaler import Upscaler

STEP = 16  # channels that the engines compute at once
CROPS = 16  # calibration pictures that are looked at
Cost = Callable[[RunConfig], float]


@dataclass(frozen=True)
class Candidate:
    """A smaller network, folded. `error`: RMS difference of its pictures from the whole one's, in last bits."""

    config: RunConfig
    network: nn.Module
    cost: float
    error: float


class Prunable(Protocol):
    """A folded network, and what may be taken from it.

    `sizes`: widths it may have, its own first; `blocks`: how many blocks there are, `least`: how many must stay.
    """

    @property
    def config(self) -> RunConfig: ...
    @property
    def network(self) -> nn.Module: ...
    @property
    def sizes(self) -> tuple[int, ...]: ...
    @property
    def blocks(self) -> int: ...
    @property
    def least(self) -> int: ...

    def paint(self, network: nn.Module) -> Tensor:
        """Its pictures of what calibration keeps."""
        ...

    def shape(self, size: int, removed: Sequence[int]) -> RunConfig:
        """The settings of a network of that size without those blocks."""
        ...

    def bypass(self, network: nn.Module, block: int) -> None:
        """Let a block pass its input on, in place; all blocks keep their numbers."""
        ...

    def cut(self, size: int, removed: Sequence[int]) -> nn.Module:
        """A copy of that size without those blocks, folded."""
        ...


class PrunableUpscaler:
    """Blocks of the trunk, and the width of the trunk. `low`: calibration pictures (N, C, h, w) in 0..1."""

    def __init__(self, config: RunConfig, network: Upscaler, low: Tensor) -> None:
        self.config, self.low = config, low[:CROPS]
        self.network: Upscaler = copy.deepcopy(network).fold().eval()
        model = config.model
        narrower = range((model.width - 1) // STEP * STEP, 0, -STEP) if model.kind != "grouped" else ()
        self.sizes = (model.width, *narrower)
        self.blocks, self.least = model.depth, model.levels

    def paint(self, network: nn.Module) -> Tensor:
        return network(self.low)

    def shape(self, size: int, removed: Sequence[int]) -> RunConfig:
        change = {"width": size, "depth": self.blocks - len(removed)}
        return self.config.model_copy(update={"model": self.config.model.model_copy(update=change)})

    def bypass(self, network: nn.Module, block: int) -> None:
        assert isinstance(network, Upscaler)
        network.trunk[block] = nn.Identity()

    def cut(self, size: int, removed: Sequence[int]) -> Upscaler:
        network = copy.deepcopy(self.network)
        network.trunk = nn.Sequential(*(b for i, b in enumerate(network.trunk) if i not in removed))
        shape = self.shape(size, removed).model
        network.config = shape.model_copy(update={"levels": 1, "branches": False})
        if size < self.config.model.width:
            mixing = [conv for conv in network.convolutions() if isinstance(conv, nn.Conv2d) and conv.groups == 1]
            share = Fraction(size, self.config.model.width)  # of an expanded block's channels too
            wanted = [(maker, reader, int(maker.out_channels * share)) for maker, reader in pairwise(mixing)]
            narrow(network, (self.low,), wanted)
        return network


class PrunablePainter:
    """Blocks of all levels, and the expansion inside them. `noise`, `text`: what calibration keeps."""

    def __init__(self, config: RunConfig, network: Painter, noise: Tensor, text: Text) -> None:
        self.config, self.noise, self.text = config, noise[:CROPS], Text(*(part[:CROPS] for part in text))
        self.network: Painter = copy.deepcopy(network).fold().eval()
        self.sizes = tuple(range(config.painter.expansion, 0, -1))
        self.blocks, self.least = len(_blocks(self.network)), 1

    def paint(self, network: nn.Module) -> Tensor:
        return network(self.noise, self.text).clamp(0, 1)

    def shape(self, size: int, removed: Sequence[int]) -> RunConfig:
        down, middle, up = (list(part) for part in _kept(self.network, removed))
        change = {"expansion": size, "down": tuple(down), "middle": middle[0], "up": tuple(up)}
        return self.config.model_copy(update={"painter": self.config.painter.model_copy(update=change)})

    @torch.no_grad()
    def bypass(self, network: nn.Module, block: int) -> None:
        assert isinstance(network, Painter)
        narrow = _blocks(network)[block].narrow
        assert narrow.bias is not None
        narrow.weight.zero_()
        narrow.bias.zero_()

    def cut(self, size: int, removed: Sequence[int]) -> Painter:
        network = copy.deepcopy(self.network)
        _drop_blocks(network, removed)
        network.config = self.shape(size, removed).painter
        if size < self.config.painter.expansion:
            blocks = _blocks(network)
            narrow(
                network, (self.noise, self.text), [(b.widen, b.narrow, size * b.narrow.out_channels) for b in blocks]
            )
        return network


def _stages(painter: Painter) -> list[nn.ModuleList]:
    """The stages in the order they run."""
    return [*painter.down, painter.middle, *reversed(painter.up)]  # type: ignore[list-item]


def _blocks(painter: Painter) -> list[Block]:
    return [block for stage in _stages(painter) for block in stage]  # type: ignore[misc]


def _kept(painter: Painter, removed: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """How many blocks stay on the way down, in the middle, and on the way up, fine to coarse."""
    counts, start = [], 0
    for stage in _stages(painter):
        counts.append(sum(index not in removed for index in range(start, start + len(stage))))
        start += len(stage)
    levels = len(painter.down)
    return counts[:levels], counts[levels : levels + 1], counts[levels + 1 :][::-1]


@torch.no_grad()
def _drop_blocks(painter: Painter, removed: Sequence[int]) -> None:
    """Take blocks out, in place, and the part of the FiLM vector that they read."""
    starts = [0]
    for width in painter.film_widths():
        starts.append(starts[-1] + width)
    rows = [row for i in range(len(starts) - 1) if i not in removed for row in range(starts[i], starts[i + 1])]
    index = 0
    for stage in _stages(painter):
        staying = [block for i, block in enumerate(stage, index) if i not in removed]
        index += len(stage)
        del stage[:]
        stage.extend(staying)
    film, bias = painter.film, painter.film.bias
    assert bias is not None
    smaller = nn.Conv2d(film.in_channels, len(rows), 1)
    smaller.weight.copy_(film.weight[rows])
    assert smaller.bias is not None
    smaller.bias.copy_(bias[rows])
    painter.film = smaller


def narrow(network: nn.Module, inputs: tuple[Any, ...], wanted: Sequence[tuple[nn.Conv2d, nn.Conv2d, int]]) -> None:
    """For every (maker, reader, size): leave `size` output channels to the maker, in place.

    The reader is the convolution that mixes them; what stands between works on every channel by itself. `inputs`: of
    the network, its calibration.
    """
    import torch_pruning

    moments = _moments(network, inputs, [reader for _, reader, _ in wanted])
    with torch.enable_grad():  # the graph of dependencies is read off that of the gradients
        graph = torch_pruning.DependencyGraph().build_dependency(network, tuple(map(_first, inputs)))
    for (maker, reader, size), (mean, variance) in zip(wanted, moments, strict=True):
        score = variance * reader.weight.detach().square().sum((0, 2, 3))
        dropped = score.argsort(stable=True)[: maker.out_channels - size].sort().values
        with torch.no_grad():
            assert reader.bias is not None
            reader.bias += reader.weight[:, dropped].sum((2, 3)) @ mean[dropped]
        group = graph.get_pruning_group(maker, torch_pruning.prune_conv_out_channels, dropped.tolist())
        assert graph.check_pruning_group(group)
        group.prune()


def _first(batch: Tensor | Text) -> Tensor | Text:
    """The first item of a batch."""
    return Text(*(part[:1] for part in batch)) if isinstance(batch, Text) else batch[:1]


@torch.no_grad()
def _moments(network: nn.Module, inputs: tuple[Any, ...], readers: Sequence[nn.Conv2d]) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance, over pictures and places, of every channel that reaches a convolution."""
    found: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def note(reader: nn.Module, args: tuple[Tensor, ...]) -> None:
        found[reader] = args[0].mean((0, 2, 3)), args[0].var((0, 2, 3))

    hooks = [reader.register_forward_pre_hook(note) for reader in readers]
    network(*inputs)
    for hook in hooks:
        hook.remove()
    return [found[reader] for reader in readers]


@torch.no_grad()
def removal_order(prunable: Prunable, enough: Callable[[Sequence[int]], bool] = lambda order: False) -> list[int]:
    """Blocks in the order to be taken, up to `enough`: every next one is that whose loss changes the pictures least."""
    true, network = prunable.paint(prunable.network), copy.deepcopy(prunable.network)
    left, order = list(range(prunable.blocks)), list[int]()
    while len(left) > prunable.least and not enough(order):
        errors = {block: _rms(prunable.paint(_without(prunable, network, block)), true) for block in left}
        order.append(min(left, key=errors.__getitem__))
        left.remove(order[-1])
        prunable.bypass(network, order[-1])
    return order


def _without(prunable: Prunable, network: nn.Module, block: int) -> nn.Module:
    trial = copy.deepcopy(network)
    prunable.bypass(trial, block)
    return trial


def _rms(picture: Tensor, true: Tensor) -> float:
    return float((picture - true).square().mean().sqrt()) * 255


@torch.no_grad()
def best_within(
    prunable: Prunable, cost: Cost, limit: float, unit: str, advance: Callable[[], None] = lambda: None
) -> Candidate:
    """The network of least error whose cost is within `limit`: for every size the one that keeps most blocks.

    `cost` of settings, in `unit`s; less with fewer blocks. Raises UsageError when the network costs no more as it is,
    and when its smallest form costs more.
    """
    whole = cost(prunable.config)
    if whole <= limit:
        raise UsageError(
            f"{prunable.config.name}: takes {whole:.3g} {unit} as it is, and {limit:.3g} are allowed; ask for less."
        )
    order = removal_order(prunable, lambda taken: cost(prunable.shape(prunable.sizes[0], taken)) <= limit)
    true, found = prunable.paint(prunable.network), list[Candidate]()
    for size in prunable.sizes:
        removed = _fewest(prunable, order, size, cost, limit)
        if removed is not None:
            config, network = prunable.shape(size, order[:removed]), prunable.cut(size, order[:removed])
            found.append(Candidate(config, network, cost(config), _rms(prunable.paint(network), true)))
        advance()
    if not found:
        least = min(cost(prunable.shape(size, order)) for size in prunable.sizes)
        raise UsageError(
            f"{prunable.config.name}: cannot be brought to {limit:.3g} {unit}: its smallest form takes {least:.3g}; "
            "allow more, or train a smaller network."
        )
    return min(found, key=lambda candidate: candidate.error)


def _fewest(prunable: Prunable, order: Sequence[int], size: int, cost: Cost, limit: float) -> int | None:
    """How many blocks have to go at that size, by bisection; None when all of them are too few."""

    def fits(count: int) -> bool:
        return cost(prunable.shape(size, order[:count])) <= limit

    low, high = 0, len(order)
    if not fits(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low


def trainable(config: RunConfig, folded: nn.Module) -> nn.Module:
    """A network of `config` that computes what `folded` does; training-time branches are new, and count from now on."""
    torch.manual_seed(config.train.seed)
    if isinstance(folded, Painter):
        painter = Painter(config.painter, config.text.width)
        painter.load_state_dict(folded.state_dict())
        return painter
    assert isinstance(folded, Upscaler)
    network = Upscaler(config.model)
    for ours, theirs in zip(network.convolutions(), folded.convolutions(), strict=True):
        assert isinstance(ours, FoldableConv2d) and isinstance(theirs, nn.Conv2d) and theirs.bias is not None
        ours.set_folded(theirs.weight.detach(), theirs.bias.detach())
    return network


def share_kept(ratio: float, whole: float) -> float:
    """What `ratio` of the work taken away leaves. Raises UsageError outside 0..1."""
    if not 0 < ratio < 1:
        raise UsageError(f"ratio={ratio}: must be between 0 and 1, the share of the work to be taken away.")
    return (1 - ratio) * whole


def refuse_unless_it_ships(config: RunConfig) -> None:
    if config.objective not in ("upscale", "direct", "student"):
        raise LimnerError(f"{config.name}: a run of {config.objective!r} does not ship; prune what learned from it.")
