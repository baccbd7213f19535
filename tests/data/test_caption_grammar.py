from __future__ import annotations

import pytest

from limner.data.grammar import STYLES, Subject, article, describe, is_plural, subject, with_article
from limner.data.records import Caption, Record, from_columns


def record(name: str | None, category: str = "", style: str = "", text: str = "", **extra: object) -> Record:
    columns = {"name": name, "category": category, "style": style, "text": text, **extra}
    return from_columns("00.png", {key: value for key, value in columns.items() if value is not None}, "group", bytes)


def told(name: str, category: str = "", style: str = "", **extra: object) -> Subject:
    found = subject(record(name, category, style, **extra))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "category", "style", "first"),
    [
        ("keycap: #", "symbols/keycap", "noto", "keycap #"),
        ("flag: são tomé & príncipe", "flags/country-flag", "noto", "flag of são tomé and príncipe"),
        ("woman bowing: medium skin tone", "people-body/person", "noto", "woman bowing with medium skin tone"),
        ("man: bald", "people-body/person", "noto", "man, bald"),
        ("woman with cane: dark skin tone, facing right", "", "noto", "woman with cane, dark skin tone, facing right"),
        ("family: man, woman, boy", "people-body/family", "noto", "family, man, woman and boy"),
        ("woman’s “boot”", "", "noto", 'woman\'s "boot"'),
        ("castile and le\ufffdn flag", "", "openmoji-color", "castile and len flag"),
        ("boots iron", "armour", "dcss", "iron boots"),
        ("elven buckler", "armour", "dcss", "elven buckler"),
        ("2 shot special", "items", "cdda-ultica", "2 shot special"),
        ("brick gray (wall)", "dungeon/wall", "dcss", "gray brick wall"),
        ("tree lightred (trees)", "dungeon/trees", "dcss", "light red tree"),
        ("grass nw (floor grass)", "dungeon/floor/grass", "dcss", "grass north-west floor"),
        ("kobold f (base)", "character part/base", "dcss", "female kobold"),
        ("blinking", "item/scroll", "dcss", "blinking scroll"),
        ("02", "item/gold", "dcss", "gold"),
        ("pants pants baby blue", "items", "cdda-ultica", "baby blue pants"),
        ("mon zombie spitter", "monsters", "cdda-ultica", "zombie spitter"),
        ("tire iron", "items", "cdda-ultica", "tire iron"),
        ("cocos (keeling) islands", "flags/country-flag", "noto", "cocos (keeling) islands"),
        ("  Red_Apple \x07", "", "", "red apple"),
    ],
)
def test_names_become_english(name: str, category: str, style: str, first: str) -> None:
    assert told(name, category, style).names[0] == first


def test_the_data_s_own_order_of_words_is_kept_as_a_second_wording() -> None:
    assert told("boots iron", "armour", "dcss").names == ("iron boots", "boots iron")
    assert told("blue heart", "", "noto").names == ("blue heart",)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("red_apple-03.png", "red apple"),
        ("fruit/GreenPear_1.jpg", "green pear"),
        ("cats/IMG_0032.jpg", "cats"),
        ("train/000123.png", None),
        ("a1b2c3d4e5.png", None),
        ("data.zip/0001.webp", None),
    ],
)
def test_without_columns_a_telling_file_or_folder_name_serves(file: str, name: str | None) -> None:
    found = subject(from_columns(file, {}, "group", bytes))
    assert (found and found.names[0]) == name


def test_a_long_text_of_a_person_has_no_template() -> None:
    assert subject(record(None, text="A quiet street in the rain with two lamps and a dog.")) is None
    short = subject(record(None, text="red apple"))
    assert short is not None
    assert short.names == ("red apple",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("apple", "an apple"), ("unicorn", "a unicorn"), ("umbrella", "an umbrella"), ("hourglass", "an hourglass"),
        ("one-piece swimsuit", "a one-piece swimsuit"), ("x-ray", "an x-ray"), ("mp5", "an mp5"),
        ("8 ball", "an 8 ball"),
        ("skis", "skis"), ("chopsticks", "chopsticks"), ("glass", "a glass"), ("octopus", "an octopus"),
        ("lens", "a lens"), ("bread", "bread"), ("drop of blood", "a drop of blood"),
        ("revolving hearts", "revolving hearts"),
        ("person lifting weights", "a person lifting weights"), ("flag of chad", "the flag of chad"),
        ("mrs. claus", "mrs. claus"), ("drowning", "drowning"), ("uninhabited island", "an uninhabited island"),
    ],
)  # fmt: skip
def test_articles(name: str, expected: str) -> None:
    assert with_article(name) == expected


def test_colours_stand_between_article_and_name_but_after_a_size() -> None:
    assert with_article("apple", colour="red") == "a red apple"
    assert with_article("barber pole", colour="orange and white") == "an orange and white barber pole"
    assert with_article("small mantis", colour="green") == "a small green mantis"
    assert with_article("revolving hearts", colour="red") == "red revolving hearts"
    assert article("orange") == "an"
    assert is_plural("boots")
    assert not is_plural("canvas")


def variants(what: Subject, colours: tuple[str, ...] = (), count: int = 8, seed: int = 0) -> list[Caption]:
    return list(describe(what, colours, count, f"{seed} picture"))


@pytest.mark.parametrize("style", sorted(STYLES))
def test_every_style_is_found_by_its_own_name(style: str) -> None:
    for seed in range(20):
        texts = [caption.text for caption in variants(told("apple", "food-drink/food-fruit", style), seed=seed)]
        assert any(f"{style} style" in text for text in texts)
        assert any(text in ("apple", "an apple") for text in texts)
        assert len({text.casefold() for text in texts}) == 8


def test_wordings_vary_over_seeds_and_repeat_for_one() -> None:
    what = told("apple", "food-drink/food-fruit", "fluent-flat", keywords=["fruit", "orchard"])
    assert variants(what, ("red",), seed=3) == variants(what, ("red",), seed=3)
    everything = {caption.text for seed in range(60) for caption in variants(what, ("red",), seed=seed)}
    assert len(everything) > 80
    for text in ("a red apple, flat style", "apple in red", "flat icon of a red apple", "an apple, orchard"):
        assert text in everything


def test_colours_are_marked_and_never_invented() -> None:
    what = told("apple", "food-drink/food-fruit", "fluent-flat")
    for caption in variants(what, ("red",), count=12):
        assert ("red" in caption.text.split() or "red," in caption.text) == (caption.origin == "palette")
    assert {caption.origin for caption in variants(what, ("red",))} == {"palette", "template"}
    assert {caption.origin for caption in variants(what)} == {"template"}


@pytest.mark.parametrize(
    ("name", "category", "style"),
    [
        ("green apple", "food-drink/food-fruit", "noto"),
        ("gold hairpin", "items", "cdda-ultica"),
        ("woman judge", "people-body/person-role", "noto"),
        ("old man", "", ""),
        ("apple", "food-drink/food-fruit", "openmoji-black"),
    ],
)
def test_no_measured_colour_on_coloured_names_people_and_black_drawings(name: str, category: str, style: str) -> None:
    what = told(name, category, style)
    assert not what.paintable
    assert all(caption.origin == "template" and "purple" not in caption.text for caption in variants(what, ("purple",)))


def test_keywords_add_no_colours_no_noise_and_nothing_said_before() -> None:
    words = ["red", "fruit", "apples", "you", "143", "orchard", "x", "ein sehr langer satz", "colorful", "late autumn"]
    assert told("apple", "food-drink/food-fruit", keywords=words).keywords == ("orchard", "late autumn")
    assert told("apple", keywords="harvest; orchard").keywords == ("harvest", "orchard")
    assert told("apple", keywords=None).keywords == ()


def test_kinds_come_from_the_category() -> None:
    assert told("apple", "food-drink/food-fruit").kind == "fruit"
    assert told("elven buckler", "armour", "dcss").kind == "armour"
    assert told("fruit bowl", "food-drink/food-fruit").kind == ""
    assert told("oak", "garden-plants").kind == "garden plant"
    assert told("oak", "misc/0042").kind == ""


def test_an_unknown_style_speaks_for_itself() -> None:
    texts = [caption.text for seed in range(9) for caption in variants(told("apple", style="Water_Colour"), seed=seed)]
    assert any("water colour style" in text for text in texts)
    assert any("water colour picture of" in text for text in texts)


def test_the_style_phrase_of_a_person_s_text_is_used() -> None:
    what = told("apple", style="crayon", text="apple, wax crayon on paper")
    assert what.tail == "wax crayon on paper"
    assert any("wax crayon on paper" in caption.text for caption in variants(what))


def test_one_variant_is_possible_and_many_are_not_padded() -> None:
    assert len(variants(told("apple"), count=1)) == 1
    texts = [caption.text for caption in variants(told("apple"), count=64)]
    assert len(texts) == len(set(texts)) < 64
