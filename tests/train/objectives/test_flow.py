"""Flow matching: the sampler follows the network's picture, guidance pushes away from no text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from limner.config import FlowConfig, PainterConfig
from limner.models.painter import Text
from limner.train.objectives.flow import dropped, sample

SHAPE = PainterConfig(noise=64, timed=True)


def text(count: int = 2) -> Text:
    return Text(torch.ones(count, 3, 4), torch.ones(count, 3), torch.ones(count, 4))


class Knowing(nn.Module):
    """Sees a flat picture: bright with text, dark without."""

    def __init__(self, bright: float, dark: float) -> None:
        super().__init__()
        self.bright, self.dark, self.calls = bright, dark, 0

    def forward(self, noise: Tensor, text: Text, time: Tensor) -> Tensor:
        self.calls += 1
        level = torch.where(text.mask.sum(1) > 0, self.bright, self.dark)
        return level[:, None, None, None].expand(-1, 4, 64, 64)


@pytest.mark.parametrize("steps", [1, 5])
def test_the_sampler_ends_at_the_predicted_picture(steps: int) -> None:
    net = Knowing(0.6, 0.1)
    pictures = sample(net, torch.randn(2, 64, 16, 16), text(), SHAPE, FlowConfig(steps=steps, guidance=1))
    torch.testing.assert_close(pictures, torch.full((2, 4, 64, 64), 0.6))
    assert net.calls == steps


def test_guidance_moves_away_from_no_text() -> None:
    def painted(guidance: float) -> float:
        plan = FlowConfig(steps=2, guidance=guidance)
        return float(sample(Knowing(0.5, 0.4), torch.randn(1, 64, 16, 16), text(1), SHAPE, plan).mean())

    assert painted(0) == pytest.approx(0.4, abs=1e-5)
    assert painted(3) == pytest.approx(0.7, abs=1e-5)


def test_dropped_rows_have_no_text() -> None:
    found = dropped(text(), torch.tensor([True, False]))
    assert [part[0].abs().sum().item() for part in found] == [0, 0, 0]
    assert all(torch.equal(part[1], whole[1]) for part, whole in zip(found, text(), strict=True))
