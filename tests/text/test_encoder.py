"""Frozen language models of three families: the vectors torch gives, whatever the batch; one sentence per fault."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from text_kit import WIDTH, save_model
from transformers import AutoModel, ViTConfig, ViTModel

from limner.errors import LimnerError, UsageError
from limner.text.encoder import FrozenEncoder

CAPTIONS = ["a red apple", "the small blue house with a cat and a dog", "pear"]


@pytest.fixture(scope="module", params=["bert", "gpt", "t5"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "bert", "bert")


def test_every_family_gives_states_a_mask_and_unit_vectors(folder: Path) -> None:
    found = FrozenEncoder.load(folder).encode(CAPTIONS)
    lengths = found.mask.sum(1)
    assert lengths[1] > lengths[0] > lengths[2] > 0
    assert found.states.shape == (3, lengths[1], WIDTH)
    assert found.states.dtype == np.float32
    assert (found.states[~found.mask] == 0).all()
    assert np.abs(found.states[found.mask]).max() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(found.pooled, axis=1), 1, rtol=1e-5)
    mean = found.states[1].mean(0)
    np.testing.assert_allclose(found.pooled[1], mean / np.linalg.norm(mean), atol=1e-5)


def test_the_states_are_those_of_the_model_itself(folder: Path) -> None:
    encoder = FrozenEncoder.load(folder)
    network = AutoModel.from_pretrained(folder).eval()
    network = network.get_encoder() if network.config.is_encoder_decoder else network
    with torch.no_grad():
        true = network(input_ids=torch.tensor(encoder.tokens(CAPTIONS[:1]))).last_hidden_state[0]
    np.testing.assert_allclose(encoder.encode(CAPTIONS[:1]).states[0], true, atol=1e-5)


def test_a_caption_does_not_depend_on_the_others_of_the_call(folder: Path) -> None:
    encoder = FrozenEncoder.load(folder)
    alone, together = encoder.encode([CAPTIONS[0]]), encoder.encode(CAPTIONS)
    np.testing.assert_allclose(together.pooled[0], alone.pooled[0], atol=1e-5)
    np.testing.assert_allclose(together.states[0, : alone.states.shape[1]], alone.states[0], atol=1e-5)


def test_nothing_is_trained(folder: Path) -> None:
    assert not any(each.requires_grad for each in FrozenEncoder.load(folder).network.parameters())


def test_captions_are_cut_at_the_limit_of_the_caller_and_of_the_model(bert: Path) -> None:
    long = ["a red apple " * 30]
    assert FrozenEncoder.load(bert, max_tokens=8).encode(long).mask.shape == (1, 8)
    assert FrozenEncoder.load(bert, max_tokens=999).encode(long).mask.shape == (1, 24)


def test_progress_ends_at_the_number_of_captions(bert: Path) -> None:
    seen: list[tuple[int, int]] = []
    FrozenEncoder.load(bert).encode(["cat"] * 70, lambda done, total: seen.append((done, total)))
    assert seen == [(64, 70), (70, 70)]


def test_the_hash_tells_weights_and_limits_apart(bert: Path, tmp_path: Path) -> None:
    hashes = [
        FrozenEncoder.load(bert).hash,
        FrozenEncoder.load(bert, max_tokens=8).hash,
        FrozenEncoder.load(save_model(tmp_path / "other", "bert", seed=1)).hash,
    ]
    assert FrozenEncoder.load(bert).hash == hashes[0]
    assert len(set(hashes)) == 3


def test_an_empty_caption_is_refused(bert: Path) -> None:
    with pytest.raises(UsageError, match="prompt is empty"):
        FrozenEncoder.load(bert).encode(["cat", " "])


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match=r"has no configuration of a text model .*; give a folder that"):
        FrozenEncoder.load(tmp_path)


def test_a_folder_without_weights(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((bert / "config.json").read_text())
    with pytest.raises(LimnerError, match="has no weights of a text model"):
        FrozenEncoder.load(tmp_path)


def test_a_folder_with_half_of_the_weights(bert: Path, tmp_path: Path) -> None:
    for file in bert.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(bert / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "layer.1" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(LimnerError, match=r"has no weights for 'encoder\.layer\.1"):
        FrozenEncoder.load(tmp_path)


def test_a_folder_without_a_tokenizer(bert: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((bert / name).read_bytes())
    with pytest.raises(LimnerError, match="has no tokenizer; give a folder"):
        FrozenEncoder.load(tmp_path)


def test_a_model_of_an_unknown_type(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "abacus"}))
    with pytest.raises(LimnerError, match="abacus"):
        FrozenEncoder.load(tmp_path)


def test_a_vision_model(tmp_path: Path) -> None:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTModel(ViTConfig(image_size=16, patch_size=8, **shape)).save_pretrained(tmp_path)
    with pytest.raises(LimnerError, match="is a model of type 'vit', not a plain text model"):
        FrozenEncoder.load(tmp_path)


def test_an_id_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LimnerError, match="is no folder, and no such model can be fetched"):
        FrozenEncoder.load("nobody/no-such-model")
