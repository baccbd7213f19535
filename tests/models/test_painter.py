"""The painter: its shapes, where the text enters, and how a flow becomes a painter of one step."""

from __future__ import annotations

import copy

import pytest
import torch

from limner.config import PainterConfig
from limner.models.painter import Painter, Text, waves

WIDTH, TOKENS = 12, 6


def config(**changes: object) -> PainterConfig:
    small = {"widths": (16, 16, 32), "down": (1, 0), "middle": 1, "up": (2, 1), "condition": 16, "memory": 8}
    return PainterConfig.model_validate({**small, "noise": 4, **changes})


def painter(**changes: object) -> Painter:
    torch.manual_seed(0)
    return Painter(config(**changes), WIDTH).eval()


def inputs(count: int = 2, noise: int = 4) -> tuple[torch.Tensor, Text]:
    torch.manual_seed(1)
    mask = torch.ones(count, TOKENS)
    mask[:, 4:] = 0
    states = torch.randn(count, TOKENS, WIDTH) * mask[..., None]
    pooled = torch.nn.functional.normalize(states.sum(1), dim=1)
    return torch.randn(count, noise, 16, 16), Text(states, mask, pooled)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"memory": 0, "attention": ()},
        {"kernel": 5, "attention": (0, 2), "heads": 2},
        {"middle": 0, "up": (0, 0)},
        {"pyramid": True},
        {"kind": "dense", "expansion": 1, "mood": True},
        {"code": 4, "thoughts": 2},
    ],
)
def test_every_level_is_a_picture_and_learns(changes: dict[str, object]) -> None:
    net = painter(**changes)
    pictures = net.levels(*inputs())
    assert [tuple(p.shape) for p in pictures] == [(2, 4, side, side) for side in (8, 16, 32, 64)]
    torch.testing.assert_close(net(*inputs()), pictures[-1])
    torch.stack([p.square().mean() for p in pictures]).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_fresh_network_keeps_activations_level() -> None:
    """Twelve blocks deep without normalization, the trunk must neither explode nor vanish."""
    net = painter(down=(3, 3), middle=3, up=(3, 3), widths=(32, 32, 32))
    seen: list[torch.Tensor] = []
    net.up[0][-1].register_forward_hook(lambda *args: seen.append(args[2]))  # type: ignore[index]
    net(*inputs())
    assert 0.3 < seen[0].std() < 5


def test_padding_tokens_change_nothing_and_real_ones_do() -> None:
    net, (noise, text) = painter(), inputs()
    padded = text.states.clone()
    padded[:, 5] = 9.0
    torch.testing.assert_close(net(noise, text._replace(states=padded)), net(noise, text))
    spoken = text.states.clone()
    spoken[:, 0] = 9.0
    assert (net(noise, text._replace(states=spoken)) - net(noise, text)).abs().max() > 1e-3


@pytest.mark.parametrize("part", ["noise", "pooled"])
def test_noise_and_pooled_text_both_matter(part: str) -> None:
    net, (noise, text) = painter(), inputs()
    other = net(-noise, text) if part == "noise" else net(noise, text._replace(pooled=text.pooled.roll(1, 0)))
    assert (other - net(noise, text)).abs().max() > 1e-3


def test_the_mood_is_the_mean_of_the_noise() -> None:
    """It reaches the whole picture; without it, where the noise lies changes only what is near."""
    noise, text = inputs()
    noise = noise - noise.mean((2, 3), keepdim=True)
    for mood in (False, True):
        net = painter(mood=mood)
        seen: list[torch.Tensor] = []
        net.film.register_forward_hook(lambda *args, seen=seen: seen.append(args[2]))
        net(noise, text)
        net(noise.roll(3, 2), text)
        net(noise + 0.1, text)
        torch.testing.assert_close(seen[0], seen[1])
        assert (seen[2] - seen[0]).abs().max() > 1e-3 or not mood


def test_sums_of_pictures_are_float_in_mixed_precision() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        pictures = painter(pyramid=True).levels(*inputs())
    assert {picture.dtype for picture in pictures} == {torch.float32}


def test_folding_fixes_the_time_at_noise_alone() -> None:
    flow = painter(timed=True, noise=64)
    noise, text = inputs(noise=64)
    expected = flow(noise, text, torch.ones(2))
    assert (flow(noise, text, torch.zeros(2)) - expected).abs().max() > 1e-4
    folded = copy.deepcopy(flow).fold()
    torch.testing.assert_close(folded(noise, text), expected)
    assert not any("clock" in name for name, _ in folded.named_parameters())


def test_waves_tell_times_apart() -> None:
    found = waves(torch.linspace(0, 1, 200))
    assert found.shape == (200, 64)
    apart = torch.cdist(found, found) + 10 * torch.eye(200)
    assert apart.min() > 0.1


def test_multiply_accumulates_by_hand() -> None:
    net = painter(widths=(16,), down=(), up=(), middle=1, attention=(), memory=0, condition=8)
    enter, block = 4 * 16 * 256, (16 * 32 * 2 + 9 * 32) * 256
    films = WIDTH * 8 + 8 * 32
    heads = 16 * (4 + 16 + 64) * 256  # pictures of 16, 32 and 64 pixels
    assert net.macs(TOKENS) == enter + block + films + heads
    assert net.parameters_shipped() == sum(p.numel() for p in net.parameters())


def test_a_pyramid_without_detail_is_its_coarsest_picture_enlarged() -> None:
    net = painter(pyramid=True)
    for side in (16, 32, 64):
        torch.nn.init.zeros_(net.heads[str(side)].weight)  # type: ignore[arg-type]
    coarsest, *others = net.levels(*inputs())
    assert coarsest.std() > 0.01
    for picture in others:
        coarsest = torch.nn.functional.interpolate(coarsest, scale_factor=2, mode="bilinear")
        torch.testing.assert_close(picture, coarsest)


def test_coarse_pictures_alone() -> None:
    net = painter()
    whole = net.levels(*inputs())
    for wanted, side in ((1, 8), (3, 32), (4, 64)):
        some = net.levels(*inputs(), None, side)
        assert len(some) == wanted
        torch.testing.assert_close(some[-1], whole[wanted - 1])
