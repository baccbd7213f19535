"""The graph computes what torch computes, in float exactly, in few bits nearly; masks mask."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch
from text_kit import WIDTH, bert

from limner.runtime.text import ENGINES
from limner.text import graph
from limner.text.graph import packed, rounded, unpacked

IDS = np.array([[2, 9, 30, 17, 25, 3]], np.int64)


@pytest.fixture(scope="module")
def network() -> object:
    return bert(80)


def opened(network: object, folder: Path, engine: str, weights: Literal["float", "int8"]) -> object:
    onnx.save(graph.build(graph.read(network), "t", weights), folder / "g.onnx")  # type: ignore[arg-type]
    return ENGINES[engine](folder / "g.onnx", 1)


def true(network: object) -> np.ndarray:
    with torch.no_grad():
        return network(input_ids=torch.from_numpy(IDS)).last_hidden_state[0].numpy()  # type: ignore[operator]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_float_graph_matches_torch(engine: str, network: object, tmp_path: Path) -> None:
    states, pooled = opened(network, tmp_path, engine, "float")(IDS)  # type: ignore[operator]
    np.testing.assert_allclose(states, true(network), atol=2e-5)
    mean = states.mean(0)
    np.testing.assert_allclose(pooled, mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_few_bits_cost_little(engine: str, network: object, tmp_path: Path) -> None:
    states, _ = opened(network, tmp_path, engine, "int8")(IDS)  # type: ignore[operator]
    assert 0.97 < cosine(states, true(network)) < 0.999999


def test_padding_changes_nothing_and_its_states_are_zero(network: object, tmp_path: Path) -> None:
    import onnxruntime

    onnx.save(graph.build(graph.read(network), "t", "float"), tmp_path / "g.onnx")  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
    alone = session.run(None, {"ids": IDS, "mask": np.ones_like(IDS)})
    wide = np.pad(IDS, ((0, 0), (0, 4)), constant_values=7)
    mask = np.pad(np.ones_like(IDS), ((0, 0), (0, 4)))
    states, pooled = session.run(None, {"ids": wide, "mask": mask})
    np.testing.assert_allclose(states[:, :6], alone[0], atol=1e-5)
    np.testing.assert_allclose(pooled, alone[1], atol=1e-5)
    assert (states[:, 6:] == 0).all()


def test_weights_are_stored_in_few_bits(network: object) -> None:
    model = graph.build(graph.read(network), "t")  # type: ignore[arg-type]
    large = [each for each in model.graph.initializer if np.prod(each.dims) >= WIDTH * WIDTH]
    assert {onnx.TensorProto.DataType.Name(each.data_type) for each in large} == {"INT8", "UINT8"}


def test_eight_bits_round_to_half_a_step() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (5, 40)).astype(np.float32)
    integers, step = rounded(weight)
    assert np.abs(integers).max() == 127
    assert (np.abs(integers * step - weight) <= step / 2 * 1.0001).all()


def test_four_bits_round_to_a_step_and_rounding_again_changes_nothing() -> None:
    table = np.random.default_rng(0).normal(0, 1, (7, 64)).astype(np.float32)
    table[3] = 0
    levels, step = packed(table)
    assert levels.shape == (7, 32)
    once = unpacked(levels, step)
    assert (once[3] == 0).all()
    assert np.abs(once - table).max() <= np.abs(step.astype(np.float32)).max() * 1.01
    assert np.linalg.norm(once - table) < 0.12 * np.linalg.norm(table)
    assert (unpacked(*packed(once)) == once).all()
