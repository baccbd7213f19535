"""What pruning takes is what the pictures miss least, and what is left is an ordinary network."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from limner.compress.prune import (
    Prunable,
    PrunablePainter,
    PrunableUpscaler,
    best_within,
    refuse_unless_it_ships,
    removal_order,
    share_kept,
    trainable,
)
from limner.config import RunConfig
from limner.errors import LimnerError, UsageError
from limner.models.painter import Painter, Text
from limner.models.upscaler import Upscaler
from limner.recipes import icons_direct, icons_match, photo_x4, tuned


def pictures() -> Tensor:
    return torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def upscaling(**model: object) -> PrunableUpscaler:
    torch.manual_seed(0)
    shape = {"width": 48, "depth": 4, "scale": 2, **model}
    config = tuned(photo_x4(), model=shape)
    return PrunableUpscaler(config, Upscaler(config.model).eval(), pictures())


def painting(**painter: object) -> PrunablePainter:
    shape = {"widths": (16, 32), "down": (1,), "middle": 2, "up": (2,), "condition": 16, "memory": 8, "noise": 4}
    config = tuned(
        icons_direct(),
        painter={**shape, "size": 32, **painter},
        text={"width": 12, "tokens": 6},
        loss={"alphas": (1.0,) * 4},
    )
    torch.manual_seed(0)
    network = Painter(config.painter, 12)
    text = Text(torch.randn(3, 6, 12), torch.ones(3, 6), torch.nn.functional.normalize(torch.randn(3, 12)))
    return PrunablePainter(config, network, torch.randn(3, 4, 8, 8), text)


def blocks(config: RunConfig) -> float:
    """A cost: blocks, a little less for narrow ones."""
    model, painter = config.model, config.painter
    if config.task == "upscale":
        return model.depth * model.width
    return (sum(painter.down) + painter.middle + sum(painter.up)) * painter.expansion


SHAPES = {"kind": "dense"}, {"width": 40}, {"expansion": 2}
MADE = [upscaling, *(partial(upscaling, **shape) for shape in SHAPES), painting]


@pytest.mark.parametrize("make", MADE)
@torch.no_grad()
def test_a_cut_network_is_that_of_its_smaller_settings(make: object) -> None:
    prunable: Prunable = make()  # type: ignore[operator]
    size, removed = prunable.sizes[1], [1]
    config, folded = prunable.shape(size, removed), prunable.cut(size, removed)
    network = trainable(config, folded)
    if isinstance(network, Upscaler):
        assert network.config == config.model and config.model.width % 16 == 0
        assert network.fold().parameters_shipped() < Upscaler(prunable.config.model).fold().parameters_shipped()
    else:
        assert isinstance(network, Painter)
        assert network.config == config.painter
        assert network.parameters_shipped() == Painter(config.painter, 12).parameters_shipped()
    assert torch.allclose(prunable.paint(network.eval()), prunable.paint(folded), atol=1e-4)


@pytest.mark.parametrize("make", [upscaling, painting])
@torch.no_grad()
def test_without_blocks_it_paints_what_bypassing_them_paints(make: object) -> None:
    prunable: Prunable = make()  # type: ignore[operator]
    bypassed = prunable.cut(prunable.sizes[0], [])
    for block in (0, 2):
        prunable.bypass(bypassed, block)
    cut = prunable.cut(prunable.sizes[0], [0, 2])
    assert torch.allclose(prunable.paint(cut), prunable.paint(bypassed), atol=1e-5)
    assert not torch.allclose(prunable.paint(cut), prunable.paint(prunable.network), atol=1e-3)


@torch.no_grad()
def test_channels_that_are_constant_go_first_and_are_not_missed() -> None:
    prunable, constant = upscaling(kind="dense", depth=2), torch.arange(0, 48, 3)
    for conv in prunable.network.convolutions()[:-1]:
        assert conv.bias is not None
        conv.weight[constant] = 0
        conv.bias[constant] = torch.rand(16)
    cut = prunable.cut(32, [])
    inner = (..., slice(8, -8), slice(8, -8))  # zeros around the picture are not constant
    assert torch.allclose(prunable.paint(cut)[inner], prunable.paint(prunable.network)[inner], atol=1e-4)


@torch.no_grad()
def test_the_block_that_does_nothing_goes_first() -> None:
    prunable = painting()
    prunable.bypass(prunable.network, 3)
    order = removal_order(prunable)
    assert order[0] == 3
    assert len(order) == prunable.blocks - prunable.least == len(set(order))
    assert removal_order(prunable, lambda taken: len(taken) == 2) == order[:2]


@pytest.mark.parametrize("make", [upscaling, painting])
def test_the_best_within_the_limit(make: object) -> None:
    prunable: Prunable = make()  # type: ignore[operator]
    limit = 0.7 * blocks(prunable.config)
    found = best_within(prunable, blocks, limit, "blocks")
    assert found.cost == blocks(found.config) <= limit
    slack = best_within(prunable, blocks, 0.9 * blocks(prunable.config), "blocks")
    assert 0 < slack.error <= found.error


def test_grouped_networks_lose_blocks_only() -> None:
    prunable = upscaling(kind="grouped")
    assert prunable.sizes == (48,)
    assert best_within(prunable, blocks, 100, "blocks").config.model.depth == 2


def test_impossible_requests_are_refused_with_the_figures() -> None:
    with pytest.raises(UsageError, match=r"cannot be brought to 1 blocks: its smallest form takes 32"):
        best_within(upscaling(), blocks, 1, "blocks")
    with pytest.raises(UsageError, match=r"takes 192 blocks as it is, and 500 are allowed"):
        best_within(upscaling(), blocks, 500, "blocks")
    for ratio in (-0.1, 0.0, 1.0, float("nan")):
        with pytest.raises(UsageError, match="must be between 0 and 1"):
            share_kept(ratio, 1.0)
    with pytest.raises(LimnerError, match="a run of 'match' does not ship"):
        refuse_unless_it_ships(icons_match())
