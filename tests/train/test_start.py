"""Runs that begin with weights that exist: painters of another depth, and what ships."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from limner import bundle
from limner.config import CodeConfig, PainterConfig
from limner.errors import LimnerError
from limner.models.coder import Coder
from limner.models.painter import Painter, Text
from limner.runtime.batched import Network
from limner.train import shipped
from limner.train.start import begin_as, warm_start

SHAPE = PainterConfig(widths=(16, 16, 32), down=(0, 1), middle=1, condition=16, memory=8, noise=4, pyramid=True)


def painter(**changes: object) -> Painter:
    return Painter(PainterConfig.model_validate(SHAPE.model_dump() | changes), 12).eval()


def feeds(network: Painter) -> tuple[torch.Tensor, Text]:
    draw = torch.Generator().manual_seed(0)
    grid, width = network.config.grids[0], network.text_width
    shapes = (2, network.config.noise, grid, grid), (2, 16, width), (2, width)
    noise, states, pooled = (torch.randn(shape, generator=draw) for shape in shapes)
    return noise, Text(states, torch.ones(2, 16), pooled / pooled.norm(dim=1, keepdim=True))


@torch.no_grad()
@pytest.mark.parametrize("deeper", [{"middle": 2}, {"down": (1, 1)}, {"up": (2, 4)}, {"thoughts": 2}])
def test_a_deeper_painter_begins_as_the_same_one(deeper: dict[str, object]) -> None:
    small, large = painter(), painter(**deeper)
    begin_as(large, small, "small")
    torch.testing.assert_close(large(*feeds(large)), small(*feeds(small)))


@torch.no_grad()
def test_a_painter_without_its_middle_keeps_every_other_block() -> None:
    whole, less = painter(), painter(middle=0)
    torch.nn.init.zeros_(whole.middle[0].narrow.weight)  # type: ignore[union-attr, arg-type]
    torch.nn.init.zeros_(whole.middle[0].narrow.bias)  # type: ignore[union-attr, arg-type]
    begin_as(less, whole, "whole")
    torch.testing.assert_close(less(*feeds(less)), whole(*feeds(whole)))


def test_a_coder_begins_with_the_trunk_of_what_ships() -> None:
    source = shipped.painter(bundle.read("icons", bundle.PainterManifest))
    coder = Coder(CodeConfig(), source.config, source.text_width)
    warm_start(coder, "icons")
    ours = coder.painter.state_dict()
    assert all(torch.equal(weight, ours[name]) for name, weight in source.state_dict().items())


@torch.no_grad()
def test_the_painter_that_ships_comes_back_from_its_integers() -> None:
    """Within what rounding the activations costs: the bundle's own engine paints nearly the same pictures."""
    source = bundle.read("icons", bundle.PainterManifest)
    network = shipped.painter(source).eval()
    noise, text = feeds(network)
    given = {"noise": noise.permute(0, 2, 3, 1), **text._asdict()}
    painted = Network("onnxruntime", source.graph("int8"), 1).run(
        {name: np.ascontiguousarray(feed.numpy()) for name, feed in given.items()}, ("y",)
    )[0]
    ours = (network(noise, text).permute(0, 2, 3, 1).clamp(0, 1) * 255).numpy()
    assert np.abs(ours - painted).mean() < 4
    again = Painter(network.config, 384)
    warm_start(again, "icons")
    torch.testing.assert_close(again(noise, text), network(noise, text))


def test_a_graph_that_is_not_of_its_recipe_is_refused() -> None:
    source = bundle.read("icons", bundle.PainterManifest)
    recipe = source.manifest.recipe | {"painter": source.manifest.recipe["painter"] | {"middle": 2}}
    other = bundle.Bundle(source.folder, source.manifest.model_copy(update={"recipe": recipe}))
    with pytest.raises(LimnerError, match="other layers than its recipe"):
        shipped.painter(other)


def test_a_bundle_without_a_recipe_is_refused() -> None:
    source = bundle.read("icons", bundle.PainterManifest)
    bare = bundle.Bundle(source.folder, source.manifest.model_copy(update={"recipe": {}}))
    with pytest.raises(LimnerError, match="no recipe of a painter"):
        shipped.painter(bare)
