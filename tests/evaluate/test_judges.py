"""What the judges share: halves, pictures as arrays, the resumable loop, the folder."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import judging_kit
import numpy as np
import pytest
import torch
from PIL import Image

from limner.data.records import Record
from limner.errors import LimnerError
from limner.evaluate.distribution import load_features
from limner.evaluate.judges import (
    ABOUT,
    CHECKPOINT,
    WEIGHTS,
    JudgeConfig,
    Lessons,
    decoded,
    draw,
    embedding,
    half_of,
    lessons,
    on_white,
)
from limner.evaluate.matcher import load_matcher, train_matcher
from limner.runtime.text import TextStates

SMALL = JudgeConfig(images=96, batch=16, width=4, checkpoint_every=32)


def record(picture: np.ndarray, name: str = "a.png") -> Record:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return Record(name, "a", "a", "", "", "", "train", {}, file.getvalue)


def test_the_halves_are_fixed_and_even() -> None:
    groups = [f"group {i}" for i in range(1000)]
    halves = [half_of(group) for group in groups]
    assert halves == [half_of(group) for group in groups]
    assert 450 < halves.count("a") < 550
    assert (half_of("group 0"), half_of("group 1"), half_of("group 2")) == ("b", "b", "b")


def test_transparent_pixels_become_white() -> None:
    picture = np.array([[[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]]], np.uint8)
    np.testing.assert_array_equal(on_white(picture)[0, 0], [[200, 100, 0], [255, 255, 255], [244, 224, 204]])


@pytest.mark.parametrize("shape", [(2, 64, 64, 3), (64, 64, 4)])
def test_other_arrays_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(LimnerError, match=r"must return uint8 of shape \(N, height, width, 4\)"):
        on_white(np.zeros(shape, np.uint8))
    with pytest.raises(LimnerError, match="float32"):
        on_white(np.zeros((2, 64, 64, 4), np.float32))  # type: ignore[arg-type]


def test_pictures_are_decoded_once_and_kept(tmp_path: Path, rng: np.random.Generator) -> None:
    clear, opaque = rng.integers(0, 256, (64, 64, 4), np.uint8), rng.integers(0, 256, (64, 64, 3), np.uint8)
    records = [record(clear), record(opaque)]
    pictures = decoded(records, cache=tmp_path / "cache")
    np.testing.assert_array_equal(pictures[0], clear)
    np.testing.assert_array_equal(pictures[1], np.dstack([opaque, np.full((64, 64), 255)]))
    (kept,) = (tmp_path / "cache").iterdir()
    np.save(kept, pictures[::-1])  # proof that the second call reads the file
    np.testing.assert_array_equal(decoded(records, cache=tmp_path / "cache")[0], pictures[1])
    decoded(records[::-1], cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_pictures_at_fault_are_named(rng: np.random.Generator) -> None:
    with pytest.raises(LimnerError, match=r"wide\.png: 65x64 pixels of uint8 where 64x64"):
        decoded([record(rng.integers(0, 256, (64, 65, 3), np.uint8), "wide.png")])
    broken = replace(record(np.zeros((64, 64, 3), np.uint8), "broken.png"), read=lambda: b"\x89PNG broken")
    with pytest.raises(LimnerError, match=r"broken\.png: "):
        decoded([broken])


def test_lessons_embed_each_wording_once() -> None:
    records, pictures = judging_kit.toys("train", 0)
    asked: list[str] = []

    def embed(captions: list[str]) -> np.ndarray:
        asked.extend(captions)
        return judging_kit.embed(captions)

    found = lessons(records[:3], pictures[:3], [("a", "b"), ("b", "c"), ("a", "a")], embed)  # type: ignore[arg-type]
    assert asked == ["a", "b", "c"]
    assert found.wordings.tolist() == [[0, 1], [1, 2], [0, 0]]
    assert [found.style_names[i] for i in found.styles] == [each.style for each in records[:3]]


def test_a_batch_depends_on_seed_and_step_alone(toy_lessons: Lessons) -> None:
    first, again, next_one = (draw(toy_lessons, SMALL, step) for step in (3, 3, 4))
    assert torch.equal(first.pictures, again.pictures) and torch.equal(first.text, again.text)
    assert not torch.equal(first.pictures, next_one.pictures)
    assert first.pictures.shape == (16, 3, 64, 64)
    assert float(first.pictures.min()) >= 0 and float(first.pictures.max()) <= 1 + 1e-6


def test_augmentation_adds_no_colour(toy_lessons: Lessons) -> None:
    red = replace(toy_lessons, pictures=np.broadcast_to(np.array([255, 0, 0], np.uint8), (16, 64, 64, 3)).copy())
    red = replace(red, wordings=red.wordings[:16], styles=red.styles[:16], groups=red.groups[:16])
    pictures = draw(red, SMALL, 0).pictures
    np.testing.assert_allclose(pictures[:, 0], 1, atol=1e-6)  # red stays red, the rim is white
    np.testing.assert_allclose(pictures[:, 1], pictures[:, 2], atol=1e-6)


class CountingEncoder:
    """An encoder as the text module knows it, which counts what it is asked."""

    hash, width = "f" * 64, 64

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, prompts: Sequence[str], /) -> TextStates:
        self.asked += prompts
        pooled = judging_kit.embed(prompts)
        return TextStates(pooled[:, None], np.ones((len(prompts), 1), bool), pooled)


def test_captions_are_encoded_once_and_kept_on_disk(tmp_path: Path) -> None:
    first, second = CountingEncoder(), CountingEncoder()
    vectors = embedding(first, tmp_path)(["a bee", "a cat", "a bee"])
    np.testing.assert_allclose(vectors, judging_kit.embed(["a bee", "a cat", "a bee"]), rtol=1e-6)
    np.testing.assert_array_equal(embedding(second, tmp_path)(["a cat", "a dog"])[0], vectors[1])
    assert (sorted(first.asked), second.asked) == (["a bee", "a cat"], ["a dog"])
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:200])
    with pytest.raises(LimnerError, match="not a readable file of caption vectors"):
        embedding(second, tmp_path)


class Stopped(Exception):
    pass


def test_an_interrupted_run_ends_with_the_same_weights(toy_lessons: Lessons, tmp_path: Path) -> None:
    def stop(images: int, losses: dict[str, float]) -> None:
        if images >= 80:
            raise Stopped

    whole = train_matcher(toy_lessons, SMALL, tmp_path / "whole")
    with pytest.raises(Stopped):
        train_matcher(toy_lessons, SMALL, tmp_path / "parts", stop)
    assert not (tmp_path / "parts" / ABOUT).exists()
    parts = train_matcher(toy_lessons, SMALL, tmp_path / "parts")
    for (name, ours), theirs in zip(
        parts.network.state_dict().items(), whole.network.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_folders_at_fault_are_named(judge_folder: Path, toy_lessons: Lessons, tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match="no matcher there"):
        load_matcher(tmp_path / "absent")
    with pytest.raises(LimnerError, match="not a feature encoder"):
        load_features(judge_folder / "matcher")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / ABOUT).write_bytes((judge_folder / "matcher" / ABOUT).read_bytes())
    (damaged / WEIGHTS).write_bytes((judge_folder / "matcher" / WEIGHTS).read_bytes()[:5000])
    with pytest.raises(LimnerError, match=f"{WEIGHTS}: not a readable judge"):
        load_matcher(damaged)
    (damaged / CHECKPOINT).write_bytes((judge_folder / "matcher" / CHECKPOINT).read_bytes())
    with pytest.raises(LimnerError, match="weights of another network"):
        train_matcher(toy_lessons, JudgeConfig(images=16, batch=16, width=12), damaged)
