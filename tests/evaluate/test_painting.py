"""Whole evaluations of toy painters: each fault moves its own figure, the right way, and leaves the others."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import judging_kit
import numpy as np
import pytest
from PIL import Image, ImageFilter
from rich.console import Console

from limner.config import DataConfig
from limner.data.records import Record
from limner.errors import LimnerError
from limner.evaluate.intervals import Interval
from limner.evaluate.judges import half_of
from limner.evaluate.painting import (
    REAL,
    RETRIEVAL,
    SHUFFLED,
    Judges,
    Reference,
    evaluate,
    exhibits,
    floor,
    measure,
    painted,
    retrieval,
    table,
    tables,
    to_json,
)
from limner.evaluate.prompts import Prompt, concept_prompts

Figures = dict[str, Interval]


@pytest.fixture(scope="session")
def prompts(reference: Reference) -> list[Prompt]:
    return concept_prompts(reference.held_out.records, "unseen", 120)


def perfect(texts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """Draws what a prompt says, moved and resized by the seed."""
    return np.array([_drawn(text, np.random.default_rng(seed)) for text, seed in zip(texts, seeds, strict=True)])


def _drawn(text: str, random: np.random.Generator) -> np.ndarray:
    words = text.replace(":", " ").replace(",", " ").split()
    colour, dot = (word for word in words if word in judging_kit.PAINTS)
    (shape,) = (word for word in words if word in judging_kit.SHAPES)
    (style,) = (word for word in words if word in judging_kit.STYLES)
    return judging_kit.icon(shape, colour, dot, style, random)


@pytest.fixture(scope="session")
def good(prompts: list[Prompt], judges: Judges, reference: Reference) -> Figures:
    return measure(painted(perfect, prompts, (0, 1, 2)), prompts, judges, reference)


def figures(pictures: np.ndarray, prompts: list[Prompt], judges: Judges, reference: Reference) -> Figures:
    return measure(pictures[None] if pictures.ndim == 4 else pictures, prompts, judges, reference)


def test_a_perfect_painter_scores_like_real_pictures(
    good: Figures, prompts: list[Prompt], judges: Judges, reference: Reference
) -> None:
    real = figures(np.stack([reference.picture(prompt) for prompt in prompts]), prompts, judges, reference)
    assert good["r_precision"].value == pytest.approx(real["r_precision"].value, abs=0.12)
    assert good["style"].value > 0.9 and good["colour"].value == 1
    assert good["sharpness"].value == pytest.approx(1, abs=0.15)
    assert 0.05 < good["diversity"].value < 1
    assert good["copies_pixels"].value < 0.3
    assert "diversity" not in real


def test_shuffled_prompts_lower_precision_style_and_colour_but_not_the_distances(
    good: Figures, prompts: list[Prompt], judges: Judges, reference: Reference
) -> None:
    pictures = painted(perfect, prompts, (0, 1, 2))
    rolled = figures(np.roll(pictures, 17, axis=1), prompts, judges, reference)
    assert rolled["r_precision"].value < 0.2 * good["r_precision"].value
    assert rolled["style"].value < 0.75 and rolled["colour"].value < 0.7
    for name in ("own_kid", "own_fd", "sharpness", "diversity", "copies"):
        assert rolled[name].value == pytest.approx(good[name].value, rel=0.02, abs=0.003)


def test_noise_raises_sharpness_and_distances(
    good: Figures, prompts: list[Prompt], judges: Judges, reference: Reference, rng: np.random.Generator
) -> None:
    clean = perfect([prompt.text for prompt in prompts], range(len(prompts)))
    clean[..., 3] = 255
    noisy = figures((clean + rng.normal(0, 70, clean.shape)).clip(0, 255).astype(np.uint8), prompts, judges, reference)
    assert noisy["sharpness"].value > 1.2
    assert noisy["own_kid"].value > good["own_kid"].high
    assert noisy["own_fd"].value > good["own_fd"].high
    assert noisy["r_precision"].value < good["r_precision"].low


def test_blur_lowers_sharpness_and_raises_distances(
    good: Figures, prompts: list[Prompt], judges: Judges, reference: Reference
) -> None:
    clean = perfect([prompt.text for prompt in prompts], range(len(prompts)))
    soft = np.array([Image.fromarray(each).filter(ImageFilter.GaussianBlur(3)) for each in clean])
    blurred = figures(soft, prompts, judges, reference)
    assert blurred["sharpness"].value < 0.4
    assert blurred["own_kid"].value > good["own_kid"].high
    assert blurred["own_fd"].value > good["own_fd"].high


def test_dropped_modes_raise_distances_and_ignored_seeds_end_diversity(
    good: Figures, prompts: list[Prompt], judges: Judges, reference: Reference
) -> None:
    few = [prompts[i % 6].text for i in range(len(prompts))]
    collapsed = np.array([perfect(few, [0] * len(few))] * 3)
    dropped = figures(collapsed, prompts, judges, reference)
    assert dropped["own_kid"].value > good["own_kid"].high
    assert dropped["own_fd"].value > good["own_fd"].high
    assert dropped["diversity"].value == dropped["diversity_pixels"].value == 0


def test_copied_pictures_are_counted(prompts: list[Prompt], judges: Judges, reference: Reference) -> None:
    found = figures(
        retrieval(reference.training, judges.embed)([p.text for p in prompts], []), prompts, judges, reference
    )
    assert found["copies"].value == found["copies_pixels"].value == 1
    held_out = figures(np.stack([reference.picture(prompt) for prompt in prompts]), prompts, judges, reference)
    assert held_out["copies"].value < 0.15 and held_out["copies_pixels"].value < 0.15


def test_retrieval_returns_the_picture_of_the_nearest_caption(judges: Judges, reference: Reference) -> None:
    training = reference.training
    pictures = retrieval(training, judges.embed)([record.text for record in training.records[:20]], [0] * 20)
    np.testing.assert_array_equal(pictures, training.pictures[:20])


def test_tables_hold_what_the_matcher_has_not_learned(reference: Reference) -> None:
    training = reference.training
    plain = replace(training, records=[_colourless(record) for record in training.records])
    made = tables(plain, reference.held_out, count=60)
    assert {kind: {prompt.kind for prompt in prompts} for kind, prompts in made.items()} == {
        kind: {kind} for kind in ("seen", "unseen", "colour", "style")
    }
    assert len(made["seen"]) > 20 and {half_of(prompt.group) for prompt in made["seen"]} == {"a"}
    assert {half_of(prompt.group) for prompt in made["unseen"]} == {"a", "b"}


def _colourless(record: Record) -> Record:
    """Its shape and style alone, and only one style for the discs."""
    shape = record.extra["name"].split()[1]
    style = "solid" if shape == "disc" else record.style
    return replace(record, extra={**record.extra, "name": f"{shape} toy"}, text=f"{shape} toy, {style}", style=style)


def test_exhibits_are_one_split_under_the_right_licence(tmp_path: Path) -> None:
    lines = []
    for name, license, split in (("a", "MIT", "train"), ("b", "CC-BY-SA", "train"), ("c", "MIT", "test")):
        Image.fromarray(np.full((64, 64, 4), 9, np.uint8)).save(tmp_path / f"{name}.png")
        columns = {"file_name": f"{name}.png", "text": name, "license": license, "split": split, "style": "s"}
        lines.append(json.dumps(columns))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    shown = exhibits(tmp_path, "train", DataConfig(exclude_licenses=("by-sa",)))
    assert [record.name for record in shown.records] == ["a.png"]
    assert shown.pictures.shape == (1, 64, 64, 4)
    assert shown.styles.tolist() == ["s"]


def test_every_seed_of_every_prompt_is_another(prompts: list[Prompt]) -> None:
    asked: list[int] = []

    def paint(texts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        asked.extend(seeds)
        return np.zeros((len(texts), 64, 64, 4), np.uint8)

    assert painted(paint, prompts[:7], (0, 1, 2)).shape == (3, 7, 64, 64, 4)
    assert len(set(asked)) == 21


def test_the_floor_is_small_and_needs_as_many_pictures(
    prompts: list[Prompt], judges: Judges, reference: Reference
) -> None:
    level = floor(prompts, reference, draws=5)
    blank = figures(np.zeros((len(prompts), 64, 64, 4), np.uint8), prompts, judges, reference)
    assert level.pictures == len(prompts)
    assert level.own_kid.low <= level.own_kid.value <= level.own_kid.high
    assert abs(level.own_kid.value) < 0.1 * blank["own_kid"].value
    assert level.own_fd.value < 0.5 * blank["own_fd"].value


def test_what_is_drawn_of_a_style_depends_on_no_other(reference: Reference) -> None:
    one, other = sorted(set(reference.training.styles.tolist()))[:2]
    alone = reference.sample([one] * 5, seed=3)
    np.testing.assert_array_equal(reference.sample([other, one] * 5, seed=3)[1::2], alone)
    assert set(reference.training.styles[alone]) == {one} and len(set(alone)) == 5
    assert not np.array_equal(reference.sample([one] * 5, seed=4), alone)


def test_the_report_has_baselines_intervals_and_no_strangers_names(
    prompts: list[Prompt], judges: Judges, reference: Reference
) -> None:
    done: list[int] = []
    rows = evaluate({"toy": perfect}, {"unseen": prompts}, judges, reference, (0, 1), lambda: done.append(1))
    by_name = {row.painter: row.figures for row in rows}
    assert list(by_name) == [REAL, SHUFFLED, RETRIEVAL, "toy"]
    assert len(done) == 4
    real, shuffled = by_name[REAL]["r_precision"], by_name[SHUFFLED]["r_precision"]
    assert shuffled.value < 0.1 < real.low < real.value < real.high
    parsed = json.loads(json.dumps(to_json(rows), allow_nan=False))
    assert parsed[3]["painter"] == "toy" and parsed[3]["prompts"] == len(prompts)
    assert parsed[3]["r_precision"]["value"] == round(by_name["toy"]["r_precision"].value, 5)
    console = Console(file=io.StringIO(), width=250)
    console.print(table(rows))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert f"{real.value:.3f} ±{(real.high - real.low) / 2:.3f}" in text
    assert "own-KID" in text
    for borrowed in ("FID", "CLIP", "LPIPS"):
        assert borrowed not in text.upper().replace("FIDELITY", "")


def test_combinations_have_no_real_pictures_and_no_distances(judges: Judges, reference: Reference) -> None:
    made = [
        Prompt(f"{record.text} style", "style", record.group, record.style, "toy")
        for record in reference.held_out.records
    ]
    rows = evaluate({}, {"style": made}, judges, reference)
    assert [row.painter for row in rows] == [RETRIEVAL]
    assert {"own_kid", "own_fd", "colour", "diversity"}.isdisjoint(rows[0].figures)
    assert rows[0].figures["style"].value > 0.8


def test_a_small_table_borrows_rivals_from_the_others(
    prompts: list[Prompt], judges: Judges, reference: Reference
) -> None:
    few = prompts[:40]
    alone = evaluate({"toy": perfect}, {"style": few}, judges, reference, (0,))
    beside = evaluate({"toy": perfect}, {"style": few, "seen": prompts[40:]}, judges, reference, (0,))
    figures = {row.painter: row.figures for row in beside if row.kind == "style"}
    assert all("r_precision" not in row.figures for row in alone)
    whole = measure(painted(perfect, prompts, (0,)), prompts, judges, reference)["r_precision"]
    assert figures["toy"]["r_precision"].value == pytest.approx(whole.value, abs=0.15)
    assert figures[SHUFFLED]["r_precision"].value < 0.2 < figures["toy"]["r_precision"].value


@pytest.mark.parametrize("shape", [(119, 64, 64, 4), (120, 64, 64, 3)])
def test_painters_that_break_their_contract_are_refused(
    shape: tuple[int, ...], prompts: list[Prompt], judges: Judges, reference: Reference
) -> None:
    with pytest.raises(LimnerError, match="for 120 prompts: it must return uint8"):
        evaluate({"bad": lambda texts, seeds: np.zeros(shape, np.uint8)}, {"unseen": prompts}, judges, reference)


def test_an_empty_table_is_an_error(judges: Judges, reference: Reference) -> None:
    with pytest.raises(LimnerError, match="the table of seen prompts is empty"):
        evaluate({}, {"seen": []}, judges, reference)
