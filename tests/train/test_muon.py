"""Muon: the orthogonal step evens out the spectrum; small parameters take Adam's step; its state survives a resume."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limner.train import checkpoint
from limner.train.muon import Muon, is_matrix, orthogonalize


@pytest.mark.parametrize("shape", [(32, 32), (64, 18), (16, 288)])
def test_orthogonalize_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) @ torch.diag(
        torch.logspace(-1, 1, shape[1])
    )
    values = torch.linalg.svdvals(orthogonalize(matrix))
    assert values.quantile(0.1) > 0.5
    assert values.max() < 1.4
    assert torch.linalg.svdvals(matrix).max() > 10


def test_matrices_are_orthogonalized_together_as_alone() -> None:
    matrices = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(1))
    alone = torch.stack([orthogonalize(matrix) for matrix in matrices])
    torch.testing.assert_close(orthogonalize(matrices), alone, atol=1e-5, rtol=1e-4)


def test_depthwise_kernels_and_biases_are_no_matrices() -> None:
    assert not is_matrix(torch.zeros(64, 1, 3, 3))
    assert not is_matrix(torch.zeros(64))
    assert is_matrix(torch.zeros(32, 3, 3, 3))
    assert is_matrix(torch.zeros(48, 32, 1, 1))


def test_other_parameters_step_as_adam_does() -> None:
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 9)) for _ in range(2))
    muon, adam = Muon([ours], 0.01, betas=(0.9, 0.99)), torch.optim.Adam([theirs], 0.01, betas=(0.9, 0.99))
    for step in range(5):
        for parameter, optimizer in ((ours, muon), (theirs, adam)):
            parameter.grad = torch.sin(parameter.detach() * (3 + step))
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert not torch.allclose(ours, torch.linspace(-1, 1, 9), atol=1e-3)


def fit(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int, start: int = 0) -> float:
    loss = torch.zeros(())
    for step in range(start, start + steps):
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(step))
        loss = (network(x) - x.flip(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_it_learns_and_resumes_to_the_same_weights() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
    whole = Muon(network.parameters(), 0.004)
    first = fit(network, whole, 1)
    fit(network, whole, 9, start=1)
    saved = checkpoint.optimizer_tensors(whole, "optimizer")
    saved = {name: value.clone() for name, value in saved.items()}
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    assert fit(network, whole, 60, start=10) < 0.5 * first
    expected = {name: value.clone() for name, value in network.state_dict().items()}

    network.load_state_dict(weights)
    resumed = Muon(network.parameters(), 0.004)
    checkpoint.restore_optimizer(resumed, saved, "optimizer")
    fit(network, resumed, 60, start=10)
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_maps_from_a_text_vector_are_too_large() -> None:
    assert is_matrix(torch.zeros(512, 512, 1, 1))
    assert not is_matrix(torch.zeros(2048, 256, 1, 1))
