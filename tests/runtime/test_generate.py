"""Painters: seeds, batches, engines, text, sizes, transparency, and a sentence for every bad request."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painter_kit import LEVELS, WORDS, corrupted, make_icon_upscaler, make_painter, make_text_bundle

import limner
from limner import bundle
from limner.errors import LimnerError, UsageError
from limner.runtime import alpha, provenance
from limner.runtime.batched import pieces
from limner.runtime.generate import MAX_PICTURES, MAX_SEED, Painter, Request, away, grid, noise
from limner.runtime.painters import Upscaler
from limner.runtime.text import TextStates


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("zoo")
    for factor in (2, 4):
        make_icon_upscaler(place / f"icons-x{factor}", scale=factor)
    return make_painter(place / "icons")


@pytest.fixture(scope="module")
def painter(folder: Path) -> Painter:
    return Painter.load(folder, threads=2)


@pytest.fixture
def requests() -> list[Request]:
    return [Request(f"a {word} cat", seed) for seed, word in enumerate(WORDS[:11])]


def on_gray(pictures: Any) -> np.ndarray:
    """Pictures laid over gray, as floats in 0..255: straight colours under little alpha count for little."""
    stacked = np.asarray(pictures, np.float32)
    return 128 + (stacked[..., :3] - 128) * stacked[..., 3:] / 255


# ------------------------------------------------------------------------------------------------------------- noise


def test_noise_stays_as_it_is() -> None:
    """Golden numbers: another noise would change every picture ever painted."""
    golden = [2.1195695, -0.9792867, -0.8205889, 1.1362687, -0.667998]
    np.testing.assert_allclose(noise(7, (5,)), golden, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(noise(7, (5,)), noise(7, (2, 3)).ravel()[:5])


def test_noise_is_standard_normal_and_a_seed_of_its_own() -> None:
    many = np.stack([noise(seed, (8, 8, 4)) for seed in range(200)])
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02
    assert abs(np.corrcoef(many[0].ravel(), many[1].ravel())[0, 1]) < 0.3
    assert abs((np.abs(many) > 2).mean() - 0.0455) < 0.005
    assert (noise(MAX_SEED, (3, 3, 1)) != noise(MAX_SEED - 1, (3, 3, 1))).all()


# ---------------------------------------------------------------------------------------------------------- pictures


def test_the_same_request_gives_the_same_picture(painter: Painter) -> None:
    first, again, other = (painter.paint_array("a red cat", seed=seed, moderation="off")[0] for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert np.abs(on_gray(first) - on_gray(other)).mean() > 5
    assert first.shape == (64, 64, 4) and first.dtype == np.uint8


def test_seeds_count_up(painter: Painter) -> None:
    several = painter.paint("a red cat", n=3, seed=7, moderation="off")
    assert [image.info["seed"] for image in several] == [7, 8, 9]
    assert {(image.mode, image.size) for image in several} == {("RGBA", (64, 64))}
    np.testing.assert_array_equal(several[2], painter.paint_array("a red cat", seed=9, moderation="off")[0])


def test_without_a_seed_one_is_drawn_and_told(painter: Painter) -> None:
    first, second = (painter.paint("a red cat", moderation="off")[0] for _ in range(2))
    assert first.info["seed"] != second.info["seed"]
    np.testing.assert_array_equal(first, painter.paint_array("a red cat", seed=first.info["seed"], moderation="off")[0])


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("precision", ["int8", "float"])
def test_a_batch_changes_nothing(folder: Path, engine: str, precision: str, requests: list[Request]) -> None:
    """Bit for bit, for every size of batch and number of threads."""
    lone = Painter.load(folder, engine, precision, threads=1)
    alone = [lone.paint_batch([request])[0] for request in requests]
    for threads in (1, 2):
        batched = Painter.load(folder, engine, precision, threads)
        for count in (2, 7, 11):
            np.testing.assert_array_equal(batched.paint_batch(requests[:count]), alone[:count])


def test_compiling_again_changes_nothing(folder: Path, requests: list[Request]) -> None:
    """OpenVINO's own streams sometimes fail here."""
    first, *others = (Painter.load(folder, threads=2).paint_batch(requests[:4]) for _ in range(4))
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_engines_agree_to_rounding(folder: Path, painter: Painter, requests: list[Request]) -> None:
    other = Painter.load(folder, "onnxruntime")
    gap = np.abs(on_gray(painter.paint_batch(requests)) - on_gray(other.paint_batch(requests)))
    assert gap.mean() < 1
    fused = Painter.load(folder, "fused")
    assert fused.engine == "openvino"
    np.testing.assert_array_equal(fused.paint_batch(requests), painter.paint_batch(requests))


def test_any_number_of_threads_at_once(painter: Painter, requests: list[Request]) -> None:
    expected = painter.paint_batch(requests)
    with ThreadPoolExecutor(4) as pool:
        for index, picture in enumerate(pool.map(lambda each: painter.paint_batch([each])[0], requests * 3)):
            np.testing.assert_array_equal(picture, expected[index % len(requests)])


def test_a_bad_request_leaves_the_others(painter: Painter) -> None:
    """What a server does: prepare each, paint those that are fine."""
    good = painter.prepare(Request("a red cat", 1))
    with pytest.raises(UsageError):
        painter.prepare(Request("", 1))
    np.testing.assert_array_equal(
        painter.paint_prepared([good])[0], painter.paint_array("a red cat", seed=1, moderation="off")[0]
    )
    assert painter.paint_prepared([]) == []


def test_levels_grow_to_the_picture(painter: Painter) -> None:
    request = Request("a red cat", 3)
    shown = list(painter.levels(request))
    assert [each.shape for each in shown] == [(side, side, 4) for side in (*LEVELS, 64)]
    np.testing.assert_array_equal(shown[-1], painter.paint_batch([request])[0])


def test_alpha_gain_makes_outlines_firm(folder: Path, painter: Painter) -> None:
    opened = bundle.read(folder, bundle.PainterManifest)
    firmer = Painter(bundle.Bundle(folder, opened.manifest.model_copy(update={"alpha_gain": 8.0})), "auto", "int8", 2)
    asked = [painter.prepare(Request("a red cat", seed)) for seed in range(3)]
    soft, firm = painter.run_network(asked), firmer.run_network(asked)
    np.testing.assert_array_equal(firm, alpha.firm(soft, 8.0))
    assert (firm != soft).any()
    for mine, plain in zip(firmer.run_levels(asked)[:-1], painter.run_levels(asked)[:-1], strict=True):
        np.testing.assert_array_equal(mine, plain)


def test_a_seed_moves_what_a_prompt_says(folder: Path, painter: Painter) -> None:
    opened = bundle.read(folder, bundle.PainterManifest)
    varied = Painter(bundle.Bundle(folder, opened.manifest.model_copy(update={"variety": 0.3})), "auto", "int8", 2)
    plain, moved = ([each.prepare(Request("a red cat", seed)) for seed in (1, 2)] for each in (painter, varied))
    for before, after in zip(plain, moved, strict=True):
        np.testing.assert_array_equal(before.noise, after.noise)
        np.testing.assert_array_equal(before.states, after.states)
        assert np.linalg.norm(after.pooled) == pytest.approx(1, abs=1e-6)
        assert before.pooled @ after.pooled == pytest.approx((1 + 0.3**2) ** -0.5, abs=0.15)  # nearly a right angle
    np.testing.assert_array_equal(plain[0].pooled, plain[1].pooled)
    assert np.abs(moved[0].pooled - moved[1].pooled).max() > 0.01
    again = varied.prepare(Request("a red cat", 1))
    np.testing.assert_array_equal(again.pooled, moved[0].pooled)


def test_pieces_are_powers_of_two_and_cover_the_batch() -> None:
    assert pieces(1, 2) == [1]
    assert pieces(32, 2) == [8, 8, 8, 8]
    assert pieces(7, 2) == [4, 4]
    assert pieces(9, 1) == [8, 1]
    for count in range(1, 70):
        for threads in (1, 2, 3, 8):
            sizes = pieces(count, threads)
            assert sum(sizes[:-1]) < count <= sum(sizes) and len(sizes) >= min(count, threads, 2)


# -------------------------------------------------------------------------------------------------------------- text


def test_words_matter(painter: Painter) -> None:
    red, blue = (painter.paint_array(f"a {word} cat", seed=1, moderation="off") for word in ("red", "blue"))
    assert np.abs(on_gray(red) - on_gray(blue)).mean() > 3


def test_a_style_is_words_at_the_end(painter: Painter) -> None:
    def painted(prompt: str, style: str | None = None) -> np.ndarray:
        return painter.paint_array(prompt, seed=1, style=style, moderation="off")

    assert painter.styles == ("flat", "pixel")
    np.testing.assert_array_equal(painted("a red cat", "flat"), painted("a red cat, flat style"))
    np.testing.assert_array_equal(painted("a red cat, flat style", "flat"), painted("a red cat, flat style"))
    assert (painted("a red cat") != painted("a red cat", "flat")).any()


def test_a_negative_prompt_turns_the_text_away(painter: Painter) -> None:
    plain, without = (
        painter.paint_array("a red cat", seed=1, negative=word, moderation="off") for word in (None, "house")
    )
    assert np.abs(on_gray(plain) - on_gray(without)).mean() > 1
    same = painter.paint_array("a red cat", seed=1, negative="a red cat", moderation="off")
    assert np.abs(on_gray(plain) - on_gray(same)).mean() < 1


def test_away_keeps_lengths_and_lowers_likeness() -> None:
    random = np.random.default_rng(0)
    states, negative = random.normal(size=(1, 5, 16)).astype(np.float32), random.normal(size=(1, 16))
    negative = (negative / np.linalg.norm(negative)).astype(np.float32)
    pooled = states.mean(1) / np.linalg.norm(states.mean(1))
    text = TextStates(states, np.ones((1, 5), bool), pooled)
    turned = away(text, negative)
    np.testing.assert_allclose(np.linalg.norm(turned.states, axis=2), np.linalg.norm(states, axis=2), rtol=1e-5)
    assert np.linalg.norm(turned.pooled) == pytest.approx(1, abs=1e-5)
    assert (turned.pooled * negative).sum() < (pooled * negative).sum() - 0.2
    # The formula of the docstring, written out.
    added = negative - (pooled * negative).sum() * pooled
    expected = pooled - 0.5 * added
    np.testing.assert_allclose(turned.pooled, expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_allclose(away(text, pooled).states, states, atol=1e-5)


def test_long_and_foreign_prompts_are_painted_with_a_warning(painter: Painter) -> None:
    assert painter.warnings("a red cat") == []
    assert "over the limit of 8 tokens" in painter.warnings(" ".join(WORDS))[0]
    assert painter.paint(" ".join(WORDS), moderation="off")[0].size == (64, 64)
    assert "Chinese" in painter.warnings("红色的苹果")[0]


# -------------------------------------------------------------------------------------------- transparency and sizes


def test_larger_sizes_through_the_upscalers(painter: Painter) -> None:
    """The kit's upscalers repeat pixels, so every size shows the same picture."""
    small, middle, large = (painter.paint_batch([Request("a cat", 1, size=side)])[0] for side in (64, 128, 256))
    assert (middle.shape, large.shape) == ((128, 128, 4), (256, 256, 4))
    sure = small[..., 3] >= 4
    np.testing.assert_array_equal(middle[::2, ::2][sure], small[sure])
    np.testing.assert_array_equal(large[1::4, 3::4][sure], small[sure])


def test_the_photo_upscaler_stands_in_with_a_line_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from kit import make_bundle

    monkeypatch.setattr(bundle, "ZOO", tmp_path)
    make_bundle(tmp_path / "photo-x2", scale=2)
    lone = Painter.load(make_painter(tmp_path / "mine"), threads=1)
    assert lone.paint_batch([Request("a cat", 1, size=128)])[0].shape == (128, 128, 4)
    assert "there is no bundle icons-x2; photo-x2 enlarges instead" in caplog.text
    with pytest.raises(LimnerError, match="size 256 needs the bundle icons-x4: copy it beside"):
        lone.paint_batch([Request("a cat", 1, size=256)])


def test_upscalers_with_alpha_take_pictures(folder: Path) -> None:
    """Straight in, straight out; a picture without alpha gets none."""
    opened = limner.load(folder.parent / "icons-x2", threads=1)
    assert isinstance(opened, Upscaler)
    random = np.random.default_rng(0)
    icon = random.integers(0, 256, (20, 24, 4)).astype(np.uint8)
    icon[..., 3] = 255
    np.testing.assert_array_equal(opened.upscale(icon)[::2, 1::2], icon)
    np.testing.assert_array_equal(opened.upscale(icon[..., :3])[1::2, ::2], icon[..., :3])
    icon[:10, :, 3] = 0
    grown = opened.upscale(icon)
    assert (grown[:20, :, 3] == 0).all() and (grown[20:, :, 3] == 255).all()


def test_a_picture_says_where_it_comes_from(painter: Painter, folder: Path) -> None:
    image = painter.paint("a red cat", seed=5, moderation="off")[0]
    assert b"trainedAlgorithmicMedia" in image.info["xmp"]
    request = Request("a red cat", 5)
    (pixels,) = painter.paint_batch([request])
    from limner import images

    kept, told = (
        provenance.read(images.encode(painter.picture(request, pixels, record_prompt=record), "png"))
        for record in (False, True)
    )
    assert kept is not None and told is not None
    assert (kept.model, kept.seed, kept.prompt) == ("icons", 5, None)
    assert kept.bundle == bundle.sha256(folder / bundle.MANIFEST)
    assert told.prompt == "a red cat"


def test_a_grid_in_rows() -> None:
    pictures = [np.full((3, 3, 4), value, np.uint8) for value in (10, 20, 30)]
    sheet = grid(pictures, columns=2, gap=1)
    assert sheet.shape == (9, 9, 4)
    assert (sheet[1:4, 5:8] == 20).all() and (sheet[5:8, 1:4] == 30).all()
    assert (sheet[5:8, 5:8] == 0).all() and (sheet[0] == 0).all()


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n\t"}, "prompt is empty"),
        ({"prompt": "a" * 20_000}, "prompt has 20000 characters"),
        ({"prompt": "red\x00cat"}, "control character U\\+0000 at position 4"),
        ({"prompt": b"a cat"}, "type bytes, not text"),
        ({"prompt": "?!"}, "has no word in it"),
        ({"negative": ""}, "negative prompt is empty"),
        ({"n": 0}, "n=0 is impossible: ask for 1 to"),
        ({"n": MAX_PICTURES + 1}, "n=1001 is impossible"),
        ({"n": 1.5}, "n=1.5 is impossible"),
        ({"seed": -1}, "seed -1 is impossible: give a whole number from 0"),
        ({"seed": MAX_SEED, "n": 2}, "seed 9223372036854775808 is impossible"),
        ({"seed": 0.5}, "seed 0.5 is impossible"),
        ({"seed": True}, "seed True is impossible"),
        ({"size": 100}, "size 100 is impossible: icons paints 64, 128, 256 pixels a side"),
        ({"style": "flta"}, "unknown style 'flta': did you mean 'flat'\\?"),
        ({"moderation": "high"}, "unknown moderation level 'high'"),
    ],
)
def test_impossible_requests(painter: Painter, wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        painter.paint_array(**{"prompt": "a cat", "moderation": "off", **wrong})


def test_an_unsafe_prompt_is_refused_with_its_category(painter: Painter) -> None:
    with pytest.raises(LimnerError, match="the prompt was flagged as sexual"):
        painter.paint("explicit hardcore porn")
    assert painter.verdict("explicit hardcore porn", "low").flagged
    assert not painter.verdict("explicit hardcore porn", "off").flagged
    assert not painter.verdict("a red cat").flagged


def test_a_painter_needs_its_text_bundle(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "ZOO", tmp_path / "empty")
    lost = corrupted(folder, tmp_path / "lost")
    with pytest.raises(LimnerError, match="lost: its text bundle 'text-kit' is missing; copy that folder beside it"):
        Painter.load(lost)
    make_text_bundle(tmp_path / "text-kit", seed=1)
    with pytest.raises(LimnerError, match="was trained with another text encoder"):
        Painter.load(lost)
    link = bundle.TextLink(bundle="../text-kit", sha256="0" * 64)
    with pytest.raises(LimnerError, match="is missing"):
        Painter.load(corrupted(folder, tmp_path / "out", text=link))


def test_a_manifest_that_does_not_fit_its_graph(folder: Path, tmp_path: Path) -> None:
    make_text_bundle(tmp_path / "text-kit")
    wrong = Painter.load(corrupted(folder, tmp_path / "wrong", noise=(8, 8, 3)))
    with pytest.raises(LimnerError, match=r"int8\.onnx: OpenVINO cannot run the graph"):
        wrong.paint_batch([Request("a cat", 1)])


def test_load_opens_what_the_bundle_is(folder: Path) -> None:
    assert isinstance(limner.load(folder, threads=1), Painter)
    with pytest.raises(LimnerError, match="is a bundle for 'text', which neither paints nor upscales"):
        limner.load(folder.parent / "text-kit")
    with pytest.raises(UsageError, match="unknown engine 'tpu'"):
        Painter.load(folder, engine="tpu")
    with pytest.raises(UsageError, match="unknown precision 'int4'"):
        Painter.load(folder, precision="int4")
    with pytest.raises(UsageError, match="threads=-1 is impossible"):
        Painter.load(folder, threads=-1)
    with pytest.raises(LimnerError, match="is a bundle for 'upscale', not for 'generate'"):
        Painter.load(folder.parent / "icons-x2")
