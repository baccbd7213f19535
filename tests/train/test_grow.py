"""A larger upscaler begins as the function of the smaller one."""

from __future__ import annotations

import pytest
import torch

from limner.config import UpscalerConfig
from limner.models.upscaler import Upscaler
from limner.train.grow import folded_kernels, grow


def network(**changes: object) -> Upscaler:
    return Upscaler(UpscalerConfig.model_validate({"scale": 2, "width": 16, "depth": 2, "levels": 1} | changes)).eval()


@pytest.mark.parametrize("kind", ["separable", "grouped", "dense"])
@pytest.mark.parametrize("larger", [{"depth": 4}, {"width": 32}, {"width": 32, "depth": 3}])
def test_a_larger_network_paints_the_same(kind: str, larger: dict[str, int]) -> None:
    torch.manual_seed(0)
    small, large = network(kind=kind), network(kind=kind, **larger)
    x = torch.rand(1, 3, 12, 9)
    with torch.no_grad():
        assert (small(x) - large(x)).abs().max() > 1e-3
        taken = grow(large, folded_kernels(small))
        assert taken == len(small.convolutions())
        torch.testing.assert_close(large(x), small(x), rtol=0, atol=1e-5)


def test_expanded_blocks_grow() -> None:
    torch.manual_seed(0)
    small, large = network(expansion=2), network(expansion=2, width=32, depth=3)
    x = torch.rand(1, 3, 12, 9)
    with torch.no_grad():
        assert grow(large, folded_kernels(small)) == len(small.convolutions())
        torch.testing.assert_close(large(x), small(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("larger", [{"kernel": 5}, {"kernel": 7, "width": 32, "depth": 3}])
def test_smaller_kernels_become_the_middle_of_larger_ones(larger: dict[str, int]) -> None:
    torch.manual_seed(0)
    small, large = network(), network(**larger)
    x = torch.rand(1, 3, 12, 9)
    with torch.no_grad():
        assert grow(large, folded_kernels(small)) == len(small.convolutions())
        torch.testing.assert_close(large(x), small(x), rtol=0, atol=1e-5)


def test_new_channels_learn() -> None:
    torch.manual_seed(0)
    large = network(width=32)
    grow(large, folded_kernels(network()))
    large(torch.rand(1, 3, 8, 8)).square().sum().backward()
    tail = large.tail.weight.grad
    assert tail is not None
    assert tail[:, 16:].abs().max() > 0


def test_another_scale_keeps_its_own_tail() -> None:
    small, large = network(), network(scale=4, depth=3)
    tail = large.tail.folded_kernel()
    assert grow(large, folded_kernels(small)) == len(small.convolutions()) - 1
    torch.testing.assert_close(large.tail.folded_kernel(), tail)


def test_another_kind_is_not_taken() -> None:
    dense = network(kind="dense")
    before = [kernel for kernel, _ in folded_kernels(dense)][1]
    grow(dense, folded_kernels(network()))
    torch.testing.assert_close(folded_kernels(dense)[1][0], before)
