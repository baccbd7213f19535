"""The best of several draws of noise is the one that is learned from."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from painting_kit import make_icons, tiny_painting
from torch import Tensor, nn

from limner.config import RunConfig
from limner.data.records import load_split
from limner.errors import LimnerError
from limner.models.painter import Text
from limner.train.objectives.base import Made
from limner.train.objectives.direct import Direct, leading, mixed
from limner.train.objectives.painting import as_text, material
from limner.train.vary import varied


class Echo(nn.Module):
    """Paints the mean of its noise, as a flat picture."""

    def levels(self, noise: Tensor, text: Text, time: Tensor | None = None, until: int | None = None) -> list[Tensor]:
        level = noise.mean((1, 2, 3)).abs().mul(20)[:, None, None, None]
        return [level.expand(-1, 4, side, side) for side in (8, 16, 32, 64) if until is None or side <= until]


@pytest.mark.parametrize("count", [1, 8])
def test_more_draws_come_nearer(count: int, tmp_path: Path) -> None:
    data = make_icons(tmp_path / "icons")
    config = tiny_painting("direct", data, loss={"best_of": count}, adversarial={"weight": 0})
    records = load_split(data, "train", config.data)
    objective = Direct(config, material(config, records, [], tmp_path / "cache", "cpu"), "cpu")
    batch = objective.batch(0, 0, 1)
    torch.manual_seed(0)
    noise = objective._noise(Echo(), as_text(batch), batch)
    gap = (Echo().levels(noise, as_text(batch))[-1].mean((1, 2, 3)) - batch.pictures.mean((1, 2, 3))).abs().mean()
    assert (gap < 0.06) == (count == 8)


def test_the_noise_says_the_look_where_the_caption_does_not() -> None:
    torch.manual_seed(0)
    noise, looks = torch.randn(60, 5, 4, 4), torch.arange(60) % 4 - 1
    led = leading(noise, looks, 3)
    assert torch.equal(led[looks < 0], noise[looks < 0])
    assert torch.equal(led[:, :3].mean((2, 3)).argmax(1)[looks >= 0], looks[looks >= 0])
    assert torch.equal(led.sort(1).values, noise.sort(1).values)  # the same numbers, channels changed


def test_the_critic_is_asked_about_other_versions_too(tmp_path: Path) -> None:
    data = make_icons(tmp_path / "icons")
    config = tiny_painting("direct", data, adversarial={"versions": 0.5, "width": 8})
    records = [
        replace(record, group=record.group.rstrip("bdeglnru")) for record in load_split(data, "train", config.data)
    ]
    objective = Direct(config, material(config, records, [], tmp_path / "cache", "cpu"), "cpu")
    torch.manual_seed(0)
    batch, critic = objective.batch(0, 0, 1), objective.critic()
    made = Made({}, batch.pictures, batch.pictures, batch.pooled, batch.versions)
    found = objective.criticism(critic, made)
    own, version = critic(batch.pictures, torch.stack([batch.pooled, batch.versions]))  # type: ignore[list-item]
    torch.testing.assert_close(found["versions"], 0.5 * F.softplus(version - own).mean())
    assert set(found) == {"mismatch", "versions"} and (version != own).any()
    alone = objective.criticism(critic, made._replace(versions=None))
    torch.testing.assert_close(alone["versions"], torch.tensor(0.5 * math.log(2)))  # nothing to tell apart


def varying(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"vary": True})})


def test_a_varied_target_follows_the_noise(tmp_path: Path) -> None:
    data = make_icons(tmp_path / "icons")
    config = varying(tiny_painting("direct", data, adversarial={"weight": 0}))
    records = load_split(data, "train", config.data)
    objective = Direct(config, material(config, records, [], tmp_path / "cache", "cpu"), "cpu")
    batch, draw = objective.batch(0, 0, 1), objective.noise(objective.config.train.batch)
    assert torch.equal(objective._true(batch, draw), varied(batch.pictures, draw, torch.ones(len(draw)) > 0))
    made = objective.made(Echo(), batch, 0.0)
    assert made.real is not None and not torch.equal(made.real, batch.pictures)


def test_noise_that_cannot_say_all_is_refused(tmp_path: Path) -> None:
    data = make_icons(tmp_path / "icons")
    config = varying(tiny_painting("direct", data, painter={"noise": 1}))
    records = load_split(data, "train", config.data)
    with pytest.raises(LimnerError, match=r"painter\.noise=1: the noise must decide 2 things"):
        Direct(config, material(config, records, [], tmp_path / "cache", "cpu"), "cpu")


def test_captions_between_two() -> None:
    torch.manual_seed(0)
    pooled = torch.nn.functional.normalize(torch.randn(64, 8), dim=1)
    found = mixed(pooled, 0.4)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(64))
    own, other = (found * pooled).sum(1), (found * pooled.roll(-1, 0)).sum(1)
    assert (own > other - 1e-6).all()
    assert (other > (pooled * pooled.roll(-1, 0)).sum(1) - 1e-6).all()
    torch.testing.assert_close(mixed(pooled, 0.0), pooled)
