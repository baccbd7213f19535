"""Tables of prompts: new wording, held-out concepts, and combinations that no training picture shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import judging_kit
import numpy as np
import pytest

from limner.data.records import Record
from limner.errors import LimnerError
from limner.evaluate.probes import COLOURS, palette
from limner.evaluate.prompts import (
    colour_prompts,
    concept_prompts,
    style_phrases,
    style_prompts,
    thing_of,
    wordings,
)

PHRASES = {"flat": "flat vector style", "pixel": "pixel art tile", "3d": "glossy 3d render"}


def record(name: str, style: str = "flat", group: str = "", **extra: object) -> Record:
    columns = {"name": name, "keywords": [*name.split(), "fruit"], "skin_tone": ""} | extra
    text = f"{name}, {PHRASES[style]}"
    return Record(f"{style}/{name}", text, group or name, "MIT", "", style, "train", columns, bytes)


def shares(**parts: float) -> np.ndarray:
    return np.array([parts.get(colour, 0.0) for colour in COLOURS])


ORCHARD = [record(name, style) for name in ("apple", "green pear", "plum") for style in ("flat", "pixel")]


def test_things_and_styles_are_read_from_the_captions() -> None:
    assert thing_of(record("pedestal n (floor)")) == "pedestal n"
    assert thing_of(replace(ORCHARD[0], extra={}, text="a big barn, at night")) == "a big barn"
    assert style_phrases(ORCHARD) == {"flat": PHRASES["flat"], "pixel": PHRASES["pixel"]}
    assert style_phrases([replace(ORCHARD[0], text="unrelated words")]) == {"flat": "flat"}


def test_judges_learn_three_wordings() -> None:
    given, thing, prompt = wordings(record("apple"), PHRASES, shares(red=0.8, green=0.1))
    assert (given, thing) == ("apple, flat vector style", "apple")
    assert "red apple" in prompt and PHRASES["flat"] in prompt and prompt != given
    assert wordings(record("apple"), PHRASES, shares(red=0.8)) == (given, thing, prompt)
    assert "red" not in wordings(record("apple"), PHRASES, shares(red=0.4, green=0.4))[2]
    assert "green green" not in wordings(record("green pear"), PHRASES, shares(green=0.9))[2]
    frames = {
        wordings(record(name), PHRASES, shares())[2].replace(name, "") for name in ("fig", "plum", "kiwi", "lime")
    }
    assert len(frames) > 1


def test_concepts_are_worded_anew_and_point_to_their_picture() -> None:
    records = [
        record(f"{chr(97 + i)}{chr(97 + j)}pple", style) for i in range(8) for j in range(8) for style in PHRASES
    ]
    prompts = concept_prompts(records, "seen", 60)
    captions = {each.text for each in records}
    assert len(prompts) == 60
    for prompt in prompts:
        assert prompt.text not in captions
        assert prompt.reference is not None
        source = records[prompt.reference]
        assert source.extra["name"] in prompt.text and PHRASES[source.style] in prompt.text
        assert (prompt.group, prompt.style, prompt.kind) == (source.group, source.style, "seen")
    assert any("(fruit)" in prompt.text for prompt in prompts)  # a keyword that the name does not hold
    assert Counter(prompt.style for prompt in prompts) == dict.fromkeys(PHRASES, 20)
    assert concept_prompts(records, "seen", 60) == prompts != concept_prompts(records, "seen", 60, seed=1)


def test_versions_of_a_thing_in_one_style_come_once() -> None:
    tones = [record(f"hand {tone}", group="hand") for tone in ("light", "medium", "dark")]
    assert len(concept_prompts([*tones, record("apple")], "unseen", 4)) == 2


def test_a_single_colour_word_becomes_a_probe() -> None:
    prompts = concept_prompts(ORCHARD, "seen", 6)
    assert {prompt.colour for prompt in prompts if "pear" in prompt.text} == {"green"}
    assert {prompt.colour for prompt in prompts if "apple" in prompt.text} == {""}


def test_colours_that_no_picture_shows_are_combined() -> None:
    records = [
        record("apple"),
        record("apple", "pixel"),
        record("green pear"),
        record("green pear", "pixel"),
        record("plum"),
    ]
    palettes = np.array([shares(red=0.9), shares(red=0.5, green=0.2), *[shares(green=0.9)] * 2, shares(purple=0.9)])
    prompts = colour_prompts(records, palettes, 100)
    assert {prompt.thing for prompt in prompts} == {"apple"}  # the pear names a colour, the plum has one picture
    assert {prompt.colour for prompt in prompts} == {"orange", "yellow", "blue", "purple", "pink", "brown"}
    for prompt in prompts:
        assert f" {prompt.colour} apple" in prompt.text and prompt.reference is None
        assert "a orange" not in prompt.text
    assert len(colour_prompts(records, palettes, 4)) == 4


def test_colours_that_a_caption_names_are_not_free() -> None:
    records = [record("apple"), replace(record("apple", "pixel"), text="apple, blue ribbon")]
    prompts = colour_prompts(records, np.array([shares(red=0.9)] * 2), 100)
    assert "blue" not in {prompt.colour for prompt in prompts}


def test_styles_in_which_a_thing_has_no_picture_are_combined() -> None:
    records = [*ORCHARD, record("barn", "3d"), record("big barn", "pixel"), record("apple pie", "3d")]
    prompts = style_prompts(records, 100)
    found = {(prompt.thing, prompt.style) for prompt in prompts}
    assert ("plum", "3d") in found and ("barn", "flat") in found
    assert ("barn", "pixel") not in found  # the big barn shows one
    assert ("apple", "3d") not in found  # the pie names it
    assert not {each for each in found if each[0] == "green pear"}
    for prompt in prompts:
        assert PHRASES[prompt.style] in prompt.text


def test_versions_share_what_styles_they_have() -> None:
    records = [record("grinning face", group="g"), record("smiling face", "pixel", group="g"), record("barn", "3d")]
    assert {(p.thing, p.style) for p in style_prompts(records, 99) if "face" in p.thing} == {
        ("grinning face", "3d"),
        ("smiling face", "3d"),
    }


def test_no_free_combination_is_an_error() -> None:
    with pytest.raises(LimnerError, match="no combination style x object is free"):
        style_prompts([record("apple")], 10)
    with pytest.raises(LimnerError, match="no combination colour x object is free"):
        colour_prompts([record("apple")], np.array([shares(red=0.9)]), 10)


def test_toys_give_all_they_can() -> None:
    records, pictures = judging_kit.toys("train", 0)
    assert len(concept_prompts(records, "seen", 1000)) == len(records)
    with pytest.raises(LimnerError):  # every toy names its colour
        colour_prompts(records, palette(pictures), 10)
