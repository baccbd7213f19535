from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from limner.config import UpscalerConfig
from limner.models.discriminator import Discriminator
from limner.models.upscaler import Upscaler, level_scales, shuffle


def network(**knobs: object) -> Upscaler:
    torch.manual_seed(0)
    return Upscaler(UpscalerConfig.model_validate({"width": 16, "depth": 4, **knobs})).eval()


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("unshuffle", [1, 2])
@pytest.mark.parametrize("kind", ["separable", "grouped", "dense"])
def test_shapes_and_folding(scale: int, unshuffle: int, kind: str) -> None:
    net, x = network(scale=scale, unshuffle=unshuffle, kind=kind), torch.rand(2, 3, 8, 12)
    before = net(x)
    assert before.shape == (2, 3, 8 * scale, 12 * scale)
    assert torch.allclose(net.fold()(x), before, atol=1e-5)


def test_an_expanded_block_starts_near_its_input_and_folds() -> None:
    net, x = network(expansion=3), torch.rand(2, 3, 8, 12)
    assert [conv.outputs for conv in net.convolutions()[1:4]] == [48, 48, 16]  # type: ignore[union-attr]
    features = net.head(x)
    assert (net.trunk[0](features) - features).abs().mean() < features.abs().mean()
    before = net(x)
    assert torch.allclose(net.fold()(x), before, atol=1e-5)


def test_levels_run_coarse_to_fine_and_end_at_forward() -> None:
    net, x = network(levels=3, depth=6), torch.rand(1, 3, 8, 8)
    pictures = net.levels(x)
    assert [p.shape[-1] // 8 for p in pictures] == level_scales(4, 3) == [1, 2, 4]
    assert torch.allclose(pictures[-1], net(x), atol=1e-6)


def test_folding_drops_auxiliary_heads() -> None:
    net = network()
    assert len(net.heads) == 1
    shipped = net.parameters_shipped()
    net.fold()
    assert len(net.heads) == 0
    assert sum(p.numel() for p in net.parameters()) == shipped


def test_zero_network_is_the_enlarged_input() -> None:
    net, x = network(unshuffle=2), torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        for parameter in net.tail.parameters():
            parameter.zero_()
    assert torch.allclose(net(x), F.interpolate(x, scale_factor=4.0, mode="nearest"))


def test_shuffle_orders_channels_row_column_colour() -> None:
    channels = torch.arange(12.0).reshape(1, 12, 1, 1)
    assert shuffle(channels, 2)[0, :, 0, 1].tolist() == [3, 4, 5]
    assert shuffle(channels, 2)[0, :, 1, 0].tolist() == [6, 7, 8]


@pytest.mark.parametrize("knobs", [{}, {"unshuffle": 2}, {"kernel": 5}, {"kind": "dense", "depth": 3}])
def test_radius_bounds_the_receptive_field(knobs: dict[str, object]) -> None:
    net = network(levels=1, **knobs)
    side = 2 * net.radius + 9 + (2 * net.radius + 9) % 2
    x = torch.rand(1, 3, side, side, requires_grad=True)
    centre = side // 2
    net(x)[0, :, centre * 4 : centre * 4 + 4, centre * 4 : centre * 4 + 4].sum().backward()
    assert x.grad is not None
    rows = x.grad[0].abs().sum((0, 2)).nonzero()
    reach = max(centre - int(rows.min()), int(rows.max()) - centre)
    assert reach <= net.radius
    assert reach >= net.radius - 2 * net.config.unshuffle


def test_macs_count_every_shipped_weight_once_per_cell() -> None:
    net = network(unshuffle=2)
    weights = sum(conv.weight.numel() for conv in net.fold().convolutions())
    assert net.macs_per_pixel() == weights / 4


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValidationError, match="levels=4"):
        UpscalerConfig(depth=2, levels=4)
    with pytest.raises(ValidationError, match="group_width"):
        UpscalerConfig(kind="grouped", width=24)
    with pytest.raises(ValidationError, match="expansion=2 is for separable blocks"):
        UpscalerConfig(kind="dense", expansion=2)


def test_discriminator_judges_patches() -> None:
    assert Discriminator(8)(torch.rand(2, 3, 32, 48)).shape == (2, 4, 6)
