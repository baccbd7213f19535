"""What the seed decides: direction and shade, with greys and alpha left alone."""

from __future__ import annotations

import pytest
import torch

from limner.data.painting import may_be_mirrored
from limner.data.records import Record
from limner.train.vary import DARKEST, LIGHTEST, shaded, varied


def picture() -> torch.Tensor:
    """(1, 4, 8, 8): something red on the left, half transparent."""
    x = torch.zeros(1, 4, 8, 8)
    x[:, 0, :, :3], x[:, 3, :, :3] = 0.4, 0.5
    return x


def noise(facing: float, tone: float) -> torch.Tensor:
    """(1, 3, 4, 4) of which the last channels have these means, in standard deviations."""
    draw = torch.zeros(1, 3, 4, 4)
    draw[:, 1], draw[:, 2] = facing / 4, tone / 4
    return draw


@pytest.mark.parametrize(("facing", "free", "side"), [(1.0, True, 7), (-1.0, True, 0), (1.0, False, 0)])
def test_the_sign_says_which_way_it_faces(facing: float, free: bool, side: int) -> None:
    changed = varied(picture(), noise(facing, 0.0), torch.tensor([free]))
    assert (changed[0, 3, :, side] == 0.5).all() and (changed[0, 3, :, 7 - side] == 0).all()


def test_the_other_latent_turns_the_hue() -> None:
    warm, cool = (varied(picture(), noise(-0.5, tone), torch.tensor([True]))[0, :3, 0, 0] for tone in (-2.0, 2.0))
    assert (warm - cool).abs().max() > 0.05
    assert warm.argmax() == cool.argmax() == 0, "red stays red"


def test_greys_and_alpha_stay() -> None:
    grey = torch.rand(3, 1, 4, 4).expand(3, 4, 4, 4).contiguous()
    changed = shaded(grey, torch.tensor([-0.26, 0.0, 0.26]), torch.ones(3))
    torch.testing.assert_close(changed, grey, rtol=0, atol=1e-3)


def test_premultiplied_colours_stay_below_alpha() -> None:
    x = torch.rand(16, 4, 8, 8)
    x[:, :3] *= x[:, 3:]
    changed = varied(x, torch.randn(16, 4, 8, 8), torch.ones(16, dtype=torch.bool))
    assert (changed[:, :3] <= changed[:, 3:]).all() and changed.min() >= 0
    assert (changed[:, :3].mean() / x[:, :3].mean()).item() == pytest.approx((DARKEST + LIGHTEST) / 2, abs=0.06)


@pytest.mark.parametrize(
    ("name", "category", "free"),
    [("dog", "animals", True), ("left arrow", "objects", False), ("flag: Kenya", "flags/country-flag", False)],
)
def test_what_has_two_sides_is_not_mirrored(name: str, category: str, free: bool) -> None:
    extra = {"name": name, "category": category}
    record = Record("x.png", name, "x", "CC0-1.0", "here", "flat", None, extra, lambda: b"")
    assert may_be_mirrored(record, ("flags", "symbols")) == free
