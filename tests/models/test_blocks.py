from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from limner.models.blocks import FoldableConv2d, block, fold, folded_together

SHAPES = [(8, 8, 3, 1), (8, 8, 3, 8), (8, 8, 5, 8), (8, 12, 1, 1), (16, 16, 3, 4), (3, 8, 3, 1)]


def scrambled(conv: FoldableConv2d) -> FoldableConv2d:
    """Branches that start at zero would fold trivially: give every parameter a value."""
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return conv


@pytest.mark.parametrize(("inputs", "outputs", "kernel", "groups"), SHAPES)
def test_branches_fold_exactly(inputs: int, outputs: int, kernel: int, groups: int) -> None:
    torch.manual_seed(0)
    conv = scrambled(FoldableConv2d(inputs, outputs, kernel, groups))
    x = torch.randn(2, inputs, 11, 9)
    kernels = conv.branch_kernels()
    assert len(kernels) > 1
    branches = [F.conv2d(x, k, padding=kernel // 2, groups=groups) for k in kernels]
    apart = torch.stack(branches).sum(0) + conv.bias[:, None, None]
    assert torch.allclose(conv.fold()(x), apart, atol=1e-5)
    assert torch.allclose(conv.fold()(x), conv(x), atol=1e-5)


def test_alike_layers_fold_together_as_alone() -> None:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(*(scrambled(FoldableConv2d(8, 8, 3, groups)) for groups in (1, 8, 1, 8, 8)))
    x = torch.randn(1, 8, 7, 7)
    alone = layers(x)
    alone.sum().backward()
    gradients = [parameter.grad for parameter in layers.parameters()]
    layers.zero_grad()
    with folded_together(layers):
        together = layers(x)
    together.sum().backward()
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    for parameter, gradient in zip(layers.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-4, rtol=1e-3)
    assert all(layer.ready is None for layer in layers), "a step must not see the kernels of the one before"


def test_identity_branch_passes_the_input() -> None:
    conv = FoldableConv2d(6, 6, 3, groups=6)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.zero_()
    x = torch.randn(1, 6, 5, 5)
    assert torch.equal(conv(x), x)


def test_every_branch_learns() -> None:
    conv = FoldableConv2d(8, 8, 3)
    conv(torch.randn(1, 8, 6, 6)).square().sum().backward()
    for name, parameter in conv.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", ["separable", "grouped", "dense"])
def test_kinds_share_an_interface(kind: str) -> None:
    layer = block(kind, 32, 3)  # type: ignore[arg-type]
    x = torch.randn(1, 32, 7, 7)
    before = layer(x)
    assert before.shape == x.shape
    assert before.min() >= 0
    assert torch.allclose(fold(layer)(x), before, atol=1e-5)


def test_separable_is_smaller_than_grouped_than_dense() -> None:
    sizes = [
        sum(p.numel() for p in block(k, 64, 3, branches=False).parameters()) for k in ("separable", "grouped", "dense")
    ]
    assert sizes[0] < sizes[1] < sizes[2]


def test_impossible_groups_are_named() -> None:
    with pytest.raises(ValueError, match="groups"):
        FoldableConv2d(8, 8, 3, groups=3)
