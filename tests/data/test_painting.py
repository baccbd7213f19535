"""Batches for painters: a function of (seed, step), every picture once an epoch, alpha premultiplied."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from limner.data.painting import Captions, PaintingSampler, PromptVectors, decode_paintings, wordings
from limner.data.records import Caption, Record
from limner.errors import LimnerError


def record(name: str, captions: tuple[str, ...] = ("a thing",), pixels: np.ndarray | None = None) -> Record:
    file = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 4), np.uint8) if pixels is None else pixels).save(file, "PNG")
    known = tuple(Caption(text, "person") for text in captions)
    first = captions[0] if captions else ""
    return Record(name, first, f"g{name}", "", "", "", None, {}, file.getvalue, known)


def sampler(count: int = 5, batch: int = 4, seed: int = 0) -> PaintingSampler:
    records = [record(str(i), (f"one {i}", f"two {i}")) for i in range(count)]
    captions = Captions(records, seed)
    vectors = PromptVectors(
        np.zeros((2 * count, 3, 2), np.float16),
        np.ones((2 * count, 3), bool),
        np.arange(2 * count, dtype=np.float16)[:, None].repeat(2, 1),
    )
    pictures = np.stack([np.full((16, 16, 4), 10 * i, np.uint8) for i in range(count)])
    return PaintingSampler(records, pictures, captions, vectors, batch)


def shown(batch: torch.Tensor) -> list[int]:
    return (batch[:, 0, 0, 0] * 25.5).round().int().tolist()


def test_pictures_are_premultiplied() -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[..., 0], pixels[..., 3] = 200, 51
    pixels[0, 0] = (255, 255, 255, 0)
    (picture,) = decode_paintings([record("a", pixels=pixels)], 16)
    assert tuple(picture[5, 5]) == (40, 0, 0, 51)
    assert tuple(picture[0, 0]) == (0, 0, 0, 0)


def test_opaque_pictures_get_full_alpha() -> None:
    (picture,) = decode_paintings([record("a", pixels=np.full((16, 16, 3), 7, np.uint8))], 16)
    assert (picture == (7, 7, 7, 255)).all()


def test_every_picture_once_an_epoch_and_another_caption_in_the_next() -> None:
    whole = sampler()
    batches = [whole.batch(step) for step in range(5)]  # 20 pictures: four epochs of five
    seen = [
        (picture, int(row)) for b in batches for picture, row in zip(shown(b.pictures), b.pooled[:, 0], strict=True)
    ]
    for epoch in range(4):
        assert sorted(picture for picture, _ in seen[epoch * 5 : epoch * 5 + 5]) == [0, 1, 2, 3, 4]
    assert set(Counter(seen).values()) == {2}  # two wordings, each in two of four epochs
    assert {row // 1 for _, row in seen} == set(range(10))


def test_a_step_is_a_function_of_seed_and_step() -> None:
    late = sampler().batch(7)
    fresh = sampler()
    fresh.batch(0)
    assert torch.equal(fresh.batch(7).pooled, late.pooled)
    assert not torch.equal(sampler(seed=1).batch(7).pooled, late.pooled)


def test_ranks_share_the_global_batch() -> None:
    whole, parts = sampler().batch(3), [sampler().batch(3, rank, 2) for rank in range(2)]
    assert shown(torch.stack([p.pictures for p in parts], 1).flatten(0, 1)) == shown(whole.pictures)


def test_groups_number_versions_of_one_thing() -> None:
    batch = sampler(count=4).batch(0)
    assert sorted(batch.groups.tolist()) == [0, 1, 2, 3]


def test_captions_of_several_styles_leave_the_look_open() -> None:
    records = [replace(record(style, (f"a cat, {style}", "a cat")), style=style) for style in ("3d", "flat")]
    captions = Captions(records, 0)
    assert captions.open.tolist() == [text == "a cat" for text in captions.texts]
    vectors = PromptVectors(np.zeros((3, 3, 2), np.float16), np.ones((3, 3), bool), np.eye(3, 2, dtype=np.float16))
    drawn = PaintingSampler(records, np.zeros((2, 16, 16, 4), np.uint8), captions, vectors, 2)
    looks = torch.cat([torch.as_tensor(drawn.batch(step).looks) for step in range(2)])  # every wording once
    assert sorted(looks.tolist()) == [-1, -1, 0, 1]


def test_bad_pictures_and_captions_are_named() -> None:
    broken = record("broken.png")
    with pytest.raises(LimnerError, match=r"wide\.png: is 20x16 pixels, not 16x16"):
        decode_paintings([record("wide.png", pixels=np.zeros((16, 20, 4), np.uint8))], 16)
    object.__setattr__(broken, "read", lambda: b"no picture")
    with pytest.raises(LimnerError, match=r"broken\.png: cannot be decoded"):
        decode_paintings([broken], 16)
    with pytest.raises(LimnerError, match=r"mute\.png: has no caption"):
        wordings(record("mute.png", ()))


def test_another_version_is_told_from_the_picture_by_its_caption_alone() -> None:
    records = [replace(record(c, (f"a {c} cat", "a cat")), group="cat") for c in ("red", "blue")]
    records.append(record("dog", ("a dog",)))
    captions = Captions(records, 0)
    rows = np.arange(len(captions.texts), dtype=np.float16)[:, None]
    vectors = PromptVectors(np.zeros((4, 3, 2), np.float16), np.ones((4, 3), bool), rows)
    drawn = PaintingSampler(records, np.zeros((3, 16, 16, 4), np.uint8), captions, vectors, 3)
    own = {"cat": {"a red cat", "a blue cat", "a cat"}, "dog": {"a dog"}}
    told = 0
    for step in range(12):
        batch, (_, pictures) = drawn.batch(step), drawn.rows(step)
        assert batch.versions is not None
        texts = [
            (captions.texts[int(a)], captions.texts[int(b)]) for a, b in zip(batch.pooled, batch.versions, strict=True)
        ]
        for picture, (mine, version) in zip(pictures, texts, strict=True):
            assert (
                version in own[records[picture].group or "dog"] if records[picture].group == "cat" else version == mine
            )
            told += version != mine
            assert version == mine or version not in wordings(records[picture])
    assert told > 3  # a coloured caption of the other cat, where that is what is drawn
