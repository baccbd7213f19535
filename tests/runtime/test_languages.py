"""Which prompts look foreign to a model that reads English, and which do not."""

from __future__ import annotations

import pytest

from limner.runtime.languages import foreign


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("eine rote Katze", "looks German"),
        ("un gato con sombrero rojo", "looks Spanish"),
        ("le chat noir", "looks French"),
        ("una mela rossa", "looks Italian"),
        ("um cachorro vermelho", "looks Portuguese"),
        ("een rode appel", "looks Dutch"),
        ("czerwony kot", "looks Polish"),
        ("kırmızı bir elma", "looks Turkish"),
        ("ett rött äpple", "looks Swedish"),
        ("kucing hitam", "looks Indonesian"),
        ("con mèo màu đỏ", "looks Vietnamese"),
        ("красное яблоко", "is written in Cyrillic letters"),
        ("赤いりんご", "is written in Hiragana letters"),
        ("红色的苹果", "is written in Chinese or Japanese letters"),
        ("빨간 사과", "is written in Hangul letters"),
        ("تفاحة حمراء", "is written in Arabic letters"),
        ("красный кот, flat", "is written in Cyrillic letters"),
    ],
)
def test_foreign(prompt: str, reason: str) -> None:
    assert foreign(prompt, ("en",)) == reason


@pytest.mark.parametrize(
    "prompt",
    [
        "a red apple, flat style",
        "black cat",
        "la la land poster",
        "El Niño storm with lightning",
        "crème brûlée on a plate",
        "a jalapeño and a piñata",
        "hot dog in a bun",
        "a man can do a split",
        "the letter π",
        "house of cards",
        "12 %",
        "no smoking sign",
        "van with a ladder",
        "portrait of the artist in the style of Van Gogh",
    ],
)
def test_english(prompt: str) -> None:
    assert foreign(prompt, ("en",)) == ""


def test_models_of_other_languages_are_not_second_guessed() -> None:
    assert foreign("eine rote Katze", ("en", "de")) == ""
