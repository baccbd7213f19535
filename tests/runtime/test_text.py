"""Prompts to vectors: what comes out, what is refused, what is warned of."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from text_kit import WIDTH, make_text_bundle

from limner import bundle
from limner.errors import LimnerError, UsageError
from limner.runtime import text
from limner.runtime.text import ENGINES, TextEncoder, checked

PROMPTS = ["a red apple", "the small blue house with a cat and a dog", "pear"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TextEncoder:
    return TextEncoder.load(folder)


def test_states_mask_and_pooled(encoder: TextEncoder) -> None:
    found = encoder.encode(PROMPTS)
    assert found.mask.sum(1).tolist() == [5, 12, 3]
    assert found.states.shape == (3, 12, WIDTH)
    assert (found.states.dtype, found.mask.dtype, found.pooled.dtype) == (np.float32, bool, np.float32)
    assert (found.states[~found.mask] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(found.pooled, axis=1), 1, rtol=1e-5)
    mean = found.states[0, :5].mean(0)
    np.testing.assert_allclose(found.pooled[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_words_and_their_order_count(encoder: TextEncoder) -> None:
    pooled = encoder.encode(["a red apple", "a blue apple", "an apple a red"]).pooled
    likeness = pooled @ pooled.T
    assert likeness[np.triu_indices(3, 1)].max() < 0.999


def test_a_prompt_does_not_depend_on_the_others_of_the_call(folder: Path, encoder: TextEncoder) -> None:
    alone = TextEncoder.load(folder).encode(PROMPTS[:1])
    together = encoder.encode(PROMPTS)
    assert (alone.states == together.states[:1, : alone.states.shape[1]]).all()
    assert (alone.pooled == together.pooled[:1]).all()


def test_engines_agree(folder: Path) -> None:
    a, b = (TextEncoder.load(folder, engine=name).encode(PROMPTS) for name in ("openvino", "onnxruntime"))
    assert np.abs(a.states - b.states).max() < 1e-4
    assert (a.mask == b.mask).all()


def test_integers_keep_what_a_prompt_means() -> None:
    exact, quick = (TextEncoder.load(engine=engine) for engine in ("openvino", "openvino-int8"))
    prompts = [
        "a red apple, flat style",
        "an orange cat face",
        "scissors",
        "a birthday cake, fluent style, flat colours",
    ]
    assert exact.hash == quick.hash
    assert (exact.encode(prompts).pooled * quick.encode(prompts).pooled).sum(1).min() > 0.9995
    alone = TextEncoder.load(engine="openvino-int8").encode(prompts[:1])
    assert (alone.pooled == quick.encode(prompts).pooled[:1]).all()


def test_fitted_pads_and_cuts(encoder: TextEncoder) -> None:
    found = encoder.encode(PROMPTS)
    short, long = found.fitted(4), found.fitted(20)
    assert (short.states == found.states[:, :4]).all()
    assert short.mask.sum() == 11
    assert (long.states[:, :12] == found.states).all()
    assert not long.mask[:, 12:].any()
    assert not long.states[:, 12:].any()
    assert (short.pooled == found.pooled).all()


def test_the_hash_is_that_of_the_graph(folder: Path, encoder: TextEncoder) -> None:
    assert encoder.hash == bundle.sha256(folder / "int8.onnx")
    assert (encoder.width, encoder.max_tokens) == (WIDTH, 16)


def test_recent_prompts_are_not_run_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "CACHED_PROMPTS", 2)
    encoder, runs = TextEncoder.load(folder), []
    inner = encoder._run
    monkeypatch.setattr(encoder, "_run", lambda ids: runs.append(ids.shape[1]) or inner(ids))
    for prompt in ("cat", "a dog", "cat", "the red house", "a dog"):
        encoder.encode([prompt])
    assert runs == [3, 4, 5, 4]  # "a dog" was the oldest when the third prompt came


def test_changing_a_result_does_not_change_the_cache(encoder: TextEncoder) -> None:
    first = encoder.encode(["a green pear"])
    kept = first.states.copy()
    first.states[:] = 0
    assert (encoder.encode(["a green pear"]).states == kept).all()


def test_many_threads_share_one_encoder(folder: Path, encoder: TextEncoder) -> None:
    prompts = [f"a {colour} {thing}" for colour in ("red", "green", "blue") for thing in ("cat", "dog", "pear")] * 4
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda prompt: TextEncoder.encode(encoder, [prompt]).pooled[0], prompts))
    true = TextEncoder.load(folder).encode(prompts).pooled
    assert (np.stack(found) == true).all()


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("", "prompt is empty: describe the picture in a few words."),
        (" \n\t", "prompt is empty: describe the picture in a few words."),
        (7, "prompt is of type int, not text: describe the picture in words."),
        (b"cat", "prompt is of type bytes, not text: describe the picture in words."),
        ("a\x00cat", "prompt has the control character U+0000 at position 2: remove it."),
        ("cat\x1b[31m", "prompt has the control character U+001B at position 4: remove it."),
        ("\ud800cat", "prompt has the control character U+D800 at position 1: remove it."),
        ("cat " * 3000, "prompt has 12000 characters: shorten it to 10000 or fewer."),
    ],
)
def test_what_is_no_prompt_is_refused(prompt: str, sentence: str, encoder: TextEncoder) -> None:
    for call in (lambda: encoder.encode(["cat", prompt]), lambda: encoder.warnings(prompt), lambda: checked(prompt)):
        with pytest.raises(UsageError) as refused:
            call()
        assert str(refused.value) == sentence


def test_a_prompt_needs_a_word_and_a_caption_does_not(encoder: TextEncoder) -> None:
    assert checked("?! cat") == "?! cat"
    with pytest.raises(UsageError, match=r"prompt '\?!' has no word in it: describe the picture in words\."):
        checked("?!")
    assert encoder.encode(["?!"]).mask.sum() == 4


@pytest.mark.parametrize("prompts", [[], "a red apple"])
def test_prompts_come_as_a_list(prompts: list[str], encoder: TextEncoder) -> None:
    with pytest.raises(UsageError, match="give a list of one text or more"):
        encoder.encode(prompts)


def test_a_good_prompt_has_no_warning(encoder: TextEncoder) -> None:
    assert encoder.warnings("a small red apple, flat style") == []


def test_a_long_prompt_is_cut_with_a_warning_that_says_where(encoder: TextEncoder) -> None:
    prompt = "a red cat " * 5 + "and a dog"
    (warning,) = encoder.warnings(prompt)
    assert warning == "prompt is over the limit of 16 tokens: 'cat and a dog' at its end is not read; shorten it."
    assert encoder.encode([prompt]).mask.sum() == 16


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("eine rote Katze", "looks German"),
        ("красный кот", "is written in Cyrillic letters"),
        ("jqxv wvkzj", "consists mostly of unknown words"),
        ("☃ € cat 猫 犬 鳥", "is written in Chinese or Japanese letters"),
    ],
)
def test_another_language_gives_a_warning(prompt: str, reason: str, encoder: TextEncoder) -> None:
    (warning,) = encoder.warnings(prompt)
    assert warning == f"prompt {reason}, but the text model reads en: the picture may not match it."


def test_unknown_engine_and_impossible_threads(folder: Path) -> None:
    with pytest.raises(UsageError, match="unknown engine 'onnx'"):
        TextEncoder.load(folder, engine="onnx")
    with pytest.raises(UsageError, match="threads=-1 is impossible"):
        TextEncoder.load(folder, threads=-1)


def test_a_broken_tokenizer_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "tokenizer.json"
    bad.write_text(json.dumps({"model": "none"}))
    opened = bundle.read(folder, bundle.TextManifest)
    files = {"int8.onnx": folder / "int8.onnx", "tokenizer.json": bad}
    bundle.write(tmp_path / "broken", opened.manifest, files)
    with pytest.raises(LimnerError, match=r"tokenizer\.json: is no tokenizer .*; pack the bundle again"):
        TextEncoder.load(tmp_path / "broken")


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_broken_graph_is_one_sentence(engine: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "int8.onnx").write_bytes(b"not a graph")
    opened = bundle.read(folder, bundle.TextManifest)
    files = {"int8.onnx": tmp_path / "int8.onnx", "tokenizer.json": folder / "tokenizer.json"}
    bundle.write(tmp_path / "broken", opened.manifest, files)
    with pytest.raises(LimnerError, match=r"int8\.onnx: the text graph cannot be run"):
        TextEncoder.load(tmp_path / "broken", engine=engine)


def test_the_shipped_bundle_knows_likeness_and_is_small() -> None:
    encoder = TextEncoder.load()
    assert bundle.read("text-minilm").bytes < 12_500_000
    prompts = ["a small dog", "a tiny puppy", "an automobile on the road", "a car", "a red apple", "a green apple"]
    likeness = np.asarray(encoder.encode(prompts).pooled @ encoder.encode(prompts).pooled.T)
    np.fill_diagonal(likeness, -1)
    assert likeness.argmax(1).tolist() == [1, 0, 3, 2, 5, 4]
    assert encoder.warnings("a steampunk zeppelin over the mountains, watercolour") == []
    assert encoder.warnings("eine rote Katze")
