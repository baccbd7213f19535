"""From a language model to a bundle: what is written works and says what it is; what is bad is refused whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from text_kit import WIDTH, save_model, wordpiece

from limner import bundle
from limner.errors import LimnerError, UsageError
from limner.runtime.text import TextEncoder
from limner.text.distill import Polish
from limner.text.encoder import FrozenEncoder
from limner.text.pack import Plan, pack

CAPTIONS = [
    f"a {size} {colour} {thing}"
    for size in ("small", "flat")
    for colour in ("red", "green", "blue")
    for thing in ("apple", "pear", "cat", "dog", "house")
]
HELD = [
    "the red cat",
    "a blue house with a dog",
    "pixel art apple",
    "a pear",
    "green",
    "dog and cat",
    "the art",
    "in it",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "bert", "bert")


@pytest.fixture
def plan() -> Plan:
    return Plan("tiny", captions=CAPTIONS, texts=["it is on the art"], held=HELD, max_tokens=12)


def test_a_whole_model_is_packed_nearly_unchanged(model: Path, plan: Plan, tmp_path: Path) -> None:
    made = pack(model, tmp_path / "tiny", plan, tmp_path / "run")
    original, encoder = FrozenEncoder.load(model, 12), TextEncoder.load(tmp_path / "tiny")
    assert (encoder.width, encoder.max_tokens) == (WIDTH, 12)
    a, b = original.encode(CAPTIONS), encoder.encode(CAPTIONS)
    assert (a.mask == b.mask).all()
    assert (a.pooled * b.pooled).sum(1).mean() > 0.97
    scores = made.manifest.scores
    assert scores["parity"] > 0.999
    assert 0.97 < scores["fidelity"]["cosine"] < 1
    assert made.manifest.recipe == {
        "layers": [], "vocabulary": wordpiece().get_vocab_size(), "captions": 30, "texts": 1, "polish_steps": 0,
    }  # fmt: skip


def test_fewer_layers_and_words_make_it_smaller(model: Path, plan: Plan, tmp_path: Path) -> None:
    small = replace(plan, keep=(0, 2), vocabulary=95, polish=Polish(steps=6), min_cosine=0.3)
    stages: list[tuple[str, int, int]] = []
    whole = pack(model, tmp_path / "whole", plan, tmp_path / "run")
    made = pack(model, tmp_path / "small", small, tmp_path / "run", lambda *tick: stages.append(tick))
    assert made.bytes < 0.8 * whole.bytes
    assert made.manifest.parameters < whole.manifest.parameters
    assert {stage for stage, _, _ in stages} == {"polish", "measure"}
    assert stages[-1] == ("measure", 8, 8)
    assert bundle.read(tmp_path / "small", bundle.TextManifest).manifest.recipe["layers"] == [0, 2]


def test_the_same_command_goes_on_from_its_checkpoint(model: Path, plan: Plan, tmp_path: Path) -> None:
    small = replace(plan, keep=(0, 2), polish=Polish(steps=4), min_cosine=0.3)
    first = pack(model, tmp_path / "first", small, tmp_path / "run")
    stages: list[str] = []
    again = pack(model, tmp_path / "again", small, tmp_path / "run", lambda stage, *_: stages.append(stage))
    assert "polish" not in stages
    assert again.manifest.files == first.manifest.files


def test_a_bundle_below_the_gate_is_not_written(model: Path, plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match=r"tiny: has a mean cosine of 0\.\d+ with the original, less than 0\.99999"):
        pack(model, tmp_path / "tiny", replace(plan, min_cosine=0.99999), tmp_path / "run")
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"captions": (), "keep": (0,)}, "fewer layers or words need captions to learn from"),
        ({"held": HELD[:3]}, "3 held-out texts cannot be measured"),
        ({"keep": (0, 7)}, "layers [0, 7] are impossible: name some of 0 to 2, in order."),
    ],
)
def test_a_plan_that_cannot_be(
    change: dict[str, object], sentence: str, model: Path, plan: Plan, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as refused:
        pack(model, tmp_path / "tiny", replace(plan, **change), tmp_path / "run")  # pyright: ignore[reportArgumentType]
    assert sentence in str(refused.value)


def test_models_of_other_families(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match="is of type 'gpt2'; only models of type 'bert' can be packed"):
        pack(save_model(tmp_path / "gpt", "gpt"), tmp_path / "tiny", plan, tmp_path / "run")


def test_states_outside_the_limit_are_the_same_as_for_the_cut_text(model: Path, plan: Plan, tmp_path: Path) -> None:
    pack(model, tmp_path / "tiny", plan, tmp_path / "run")
    found = TextEncoder.load(tmp_path / "tiny").encode(["a red cat and a blue dog " * 4])
    assert found.mask.sum() == 12
    assert np.isfinite(found.states).all()
