from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_kit import Server, said
from PIL import Image, ImageDraw

from limner.config import DataConfig
from limner.data.caption import PATIENCE, Options, Summary, caption, caption_for, examples, render
from limner.data.endpoint import Endpoint
from limner.data.records import Caption, Record, from_columns, open_records
from limner.data.rewrite import Request
from limner.errors import LimnerError, UsageError

CONFIG = DataConfig()
FRUIT = ("apple", "pear", "plum", "lime", "grape", "mango", "melon", "cherry", "lemon", "peach", "kiwi", "fig")


def ball(code: str) -> bytes:
    picture, file = Image.new("RGBA", (64, 64)), io.BytesIO()
    ImageDraw.Draw(picture).ellipse((8, 8, 55, 55), fill=code)
    picture.save(file, "PNG")
    return file.getvalue()


RED = ball("#d81e28")


def files(names: Sequence[str] = FRUIT, **more: bytes) -> dict[str, bytes]:
    rows = [
        {
            "file_name": f"{name}.png",
            "text": f"{name}, my style",
            "name": name,
            "style": "fluent-flat",
            "category": "f/food-fruit",
        }
        for name in names
    ]
    table = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return {"metadata.jsonl": table, **{f"{name}.png": RED for name in names}, **more}


def fill(folder: Path, contents: Mapping[str, bytes]) -> Path:
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def pack(path: Path, contents: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def rows(table: Path) -> dict[str, list[Caption]]:
    lines = [json.loads(line) for line in table.read_text("utf-8").splitlines()]
    return {row["file_name"]: [Caption(**each) for each in row["captions"]] for row in lines}


def table(path: Path, *lines: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    running.reply = lambda question, number: said(f"a tasty {fact(question)}\n{fact(question)}, tasty")
    yield running
    running.close()


def fact(question: Mapping[str, Any]) -> str:
    return question["messages"][1]["content"].split("\n")[0].removeprefix("subject: ")


def model(server: Server, **options: Any) -> Endpoint:
    return Endpoint(server.url, "m", **{"first_wait": 0.01, "attempts": 2, "workers": 1} | options)


# ---- the table, and what records make of it


def test_a_folder_gets_a_table_and_records_find_it(tmp_path: Path) -> None:
    done = caption(fill(tmp_path, files()), Options())
    assert done == Summary(
        path=str(tmp_path), table=str(tmp_path / "captions.jsonl"), pictures=12, without=0, unusable=0,
        captions=done.captions,
    )  # fmt: skip
    assert done.captions["person"] == 12
    assert done.captions["template"] + done.captions["palette"] == 96
    found = {record.name: record for record in open_records(tmp_path, CONFIG)}["apple.png"]
    assert found.text == "apple, my style"
    assert found.captions[0] == Caption("apple, my style", "person")
    assert list(found.captions[1:]) == rows(tmp_path / "captions.jsonl")["apple.png"]
    assert any("red" in text and origin == "palette" for text, origin in found.captions)
    assert (tmp_path / "metadata.jsonl").read_bytes() == files()["metadata.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".png") == [
        "captions.jsonl",
        "metadata.jsonl",
    ]


def test_an_archive_gets_its_table_beside_it_and_a_tree_finds_both(tmp_path: Path) -> None:
    archive = pack(tmp_path / "sets" / "train.zip", files())
    assert caption(archive, Options(variants=3)).table == str(tmp_path / "sets" / "train.zip.captions.jsonl")
    for opened in (archive, tmp_path / "sets", tmp_path):
        assert [len(record.captions) for record in open_records(opened, CONFIG)] == [4] * 12
    done = caption(tmp_path, Options(variants=2, seed=1))
    assert set(rows(Path(done.table))) == {f"sets/train.zip/{name}.png" for name in FRUIT}
    assert all(4 < len(record.captions) <= 6 for record in open_records(tmp_path, CONFIG))


def test_a_table_inside_an_archive_is_found(tmp_path: Path) -> None:
    line = {"file_name": "fig.png", "captions": [{"text": "my fig", "origin": "person"}]}
    inside = pack(tmp_path / "a.zip", files(("fig",), **{"captions.jsonl": json.dumps(line).encode()}))
    assert Caption("my fig", "person") in open_records(inside, CONFIG)[0].captions
    assert Caption("my fig", "person") in open_records(tmp_path, CONFIG)[0].captions


def test_another_place_for_the_table(tmp_path: Path) -> None:
    data, out = fill(tmp_path / "data", files()), tmp_path / "elsewhere.jsonl"
    caption(data, Options(), out=out)
    assert not (data / "captions.jsonl").exists()
    assert [len(record.captions) for record in open_records(data, CONFIG)] == [1] * 12
    assert [len(record.captions) for record in open_records(data, CONFIG, out)] == [9] * 12
    with pytest.raises(LimnerError, match=r"nowhere\.jsonl: the captions cannot be read"):
        open_records(data, CONFIG, tmp_path / "nowhere.jsonl")
    with pytest.raises(LimnerError, match=r"cannot be written .*choose another place with --out"):
        caption(data, Options(), out=tmp_path / "missing" / "captions.jsonl")


def test_the_same_seed_gives_the_same_table(tmp_path: Path) -> None:
    fill(tmp_path, files())
    texts = []
    for seed in (0, 0, 1):
        caption(tmp_path, Options(seed=seed))
        texts.append((tmp_path / "captions.jsonl").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_without_the_palette_no_colour_is_named(tmp_path: Path) -> None:
    done = caption(fill(tmp_path, files()), Options(palette=False))
    assert set(done.captions) == {"person", "template"}
    assert "red " not in (tmp_path / "captions.jsonl").read_text()


def test_what_persons_and_models_wrote_in_the_table_stays(tmp_path: Path) -> None:
    fill(tmp_path, files(("apple", "pear")))
    held = [
        {"text": "granny's apple", "origin": "person"},
        {"text": "one shiny apple", "origin": "model:old"},
        {"text": "an outdated apple", "origin": "template"},
    ]
    table(tmp_path / "captions.jsonl", {"file_name": "apple.png", "captions": held})
    caption(tmp_path, Options(variants=4))
    kept = rows(tmp_path / "captions.jsonl")
    assert kept["apple.png"][:2] == [Caption("granny's apple", "person"), Caption("one shiny apple", "model:old")]
    assert [each.origin in ("template", "palette") for each in kept["apple.png"][2:]] == [True] * 3
    assert "an outdated apple" not in (tmp_path / "captions.jsonl").read_text()
    first = open_records(tmp_path, CONFIG)[0].captions
    assert [each.text for each in first[:2]] == ["apple, my style", "granny's apple"]


def test_captions_in_the_metadata_are_read(tmp_path: Path) -> None:
    told = from_columns(
        "a.png", {"text": "one", "captions": ["two", {"text": "three", "origin": "template"}, 4]}, "group", bytes
    )
    assert told.captions == (Caption("one", "person"), Caption("two", "person"), Caption("three", "template"))
    assert from_columns("a.png", {"captions": "free text"}, "group", bytes).captions == ()


def listed(*captions: object) -> str:
    return json.dumps({"file_name": "apple.png", "captions": captions})


APPLE = {"file_name": "apple.png", "captions": [{"text": "x", "origin": "person"}]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(APPLE) + '\n{"file_name"', r"captions\.jsonl, line 2: not JSON"),
        ("\n[1]", "line 2: not a JSON object"),
        (json.dumps({"captions": []}), "line 1: no column 'file_name'"),
        (json.dumps({"file_name": "gone.png", "captions": []}), r"line 1: captions for a missing picture 'gone\.png'"),
        (json.dumps({"file_name": "../apple.png", "captions": []}), r"line 1: captions for a missing picture"),
        (f"{json.dumps(APPLE)}\n{json.dumps(APPLE)}", r"line 2: a second line for 'apple\.png'"),
        (json.dumps({"file_name": "apple.png"}), 'line 1: no list "captions"'),
        (listed("x"), 'line 1: a caption needs a "text" and an "origin"'),
        (listed({"text": " ", "origin": "person"}), "line 1: a caption needs"),
        (listed({"text": "x", "origin": "me"}), "line 1: a caption needs"),
        (listed({"text": "x"}), "line 1: a caption needs"),
        (b"\xff\xfe", "not UTF-8|cannot be read as a table"),
    ],
)  # fmt: skip
def test_a_table_at_fault_is_named_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    fill(tmp_path, files(("apple",)))
    (tmp_path / "captions.jsonl").write_bytes(text if isinstance(text, bytes) else text.encode())
    before = (tmp_path / "captions.jsonl").read_bytes()
    for act in (lambda: open_records(tmp_path, CONFIG), lambda: caption(tmp_path, Options())):
        with pytest.raises(LimnerError, match=message) as caught:
            act()
        assert "\n" not in str(caught.value)
    assert (tmp_path / "captions.jsonl").read_bytes() == before


def test_pictures_of_which_nothing_is_known(tmp_path: Path) -> None:
    fill(tmp_path / "some", files(("apple",), **{"0001.png": RED}))
    done = caption(tmp_path / "some", Options())
    assert (done.pictures, done.without) == (2, 1)
    assert "pictures without any" in render(done)
    fill(tmp_path / "none", {"0001.png": RED, "0002.png": RED})
    with pytest.raises(LimnerError, match=r"no picture has a name, a text or a telling file name; .*--vision MODEL"):
        caption(tmp_path / "none", Options())
    assert not (tmp_path / "none" / "captions.jsonl").exists()


def test_bad_requests(tmp_path: Path) -> None:
    fill(tmp_path, files(("apple",)))
    with pytest.raises(UsageError, match="variants=0"):
        caption(tmp_path, Options(variants=0))
    with pytest.raises(LimnerError, match="no such file or folder"):
        caption(tmp_path / "nowhere", Options())
    (tmp_path / "apple.png").write_bytes(b"nonsense")
    with pytest.raises(LimnerError, match=r"apple\.png: not a readable picture"):
        caption(tmp_path, Options())
    assert not (tmp_path / "captions.jsonl").exists()


# ---- drawing a wording


def told(*texts: str) -> Record:
    record = from_columns("a.png", {"text": texts[0] if texts else ""}, "group", bytes)
    extra = tuple(Caption(text, "template") for text in texts[1:])
    return Record(**{**vars(record), "captions": record.captions + extra})


def test_every_wording_comes_once_in_each_round() -> None:
    record = told("a", "b", "c", "d", "e")
    drawn = [caption_for(record, epoch, seed=3) for epoch in range(20)]
    assert all(sorted(drawn[i : i + 5]) == list("abcde") for i in (0, 5, 10, 15))
    assert len({tuple(drawn[i : i + 5]) for i in (0, 5, 10, 15)}) > 1
    assert drawn == [caption_for(record, epoch, seed=3) for epoch in range(20)]
    assert drawn != [caption_for(record, epoch, seed=4) for epoch in range(20)]


def test_the_draw_is_the_same_on_every_machine() -> None:
    assert "".join(caption_for(told("a", "b", "c", "d"), epoch) for epoch in range(8)) == "adcbbdca"


def test_a_record_with_one_or_no_wording() -> None:
    assert [caption_for(told("a"), epoch) for epoch in range(3)] == ["a"] * 3
    assert caption_for(told(), 7) == ""


# ---- models


def test_a_model_rewrites_half_and_templates_keep_the_rest(tmp_path: Path, server: Server) -> None:
    done = caption(fill(tmp_path, files()), Options(variants=4), rewriter=model(server, workers=3))
    assert done.captions["endpoint:m"] == 24
    for name, captions in rows(tmp_path / "captions.jsonl").items():
        fruit = name.removesuffix(".png")
        assert captions[:2] == [Caption(f"a tasty {fruit}", "endpoint:m"), Caption(f"{fruit}, tasty", "endpoint:m")]
        assert len(captions) == 4
        assert "palette" in {each.origin for each in captions[2:]}
    assert server.most_busy <= 3
    facts = server.questions[0]["messages"][1]["content"]
    assert "colour: red" in facts
    assert "style: " in facts
    assert "written by a person: " in facts
    assert not list(tmp_path.glob("*.journal"))


def test_a_model_is_asked_once_for_a_picture(tmp_path: Path, server: Server) -> None:
    fill(tmp_path, files(FRUIT[:3]))
    caption(tmp_path, Options(variants=4), rewriter=model(server))
    before = rows(tmp_path / "captions.jsonl")
    fill(tmp_path, files(FRUIT[:4]))
    caption(tmp_path, Options(variants=4), rewriter=model(server))
    assert len(server.questions) == 4
    after = rows(tmp_path / "captions.jsonl")
    assert {name: after[name] for name in before} == before
    assert [each.origin for each in after["lime.png"][:2]] == ["endpoint:m"] * 2


@pytest.mark.parametrize("rubbish", ["", "Sure!", "no.", "x" * 500, "a green submarine", "12 34 56 %%"])
def test_rubbish_keeps_the_template(tmp_path: Path, server: Server, rubbish: str) -> None:
    server.reply = lambda question, number: said(rubbish if number % 2 else f"a tasty {fact(question)}")
    done = caption(fill(tmp_path, files()), Options(variants=4), rewriter=model(server))
    assert (done.unusable, done.captions["endpoint:m"]) == (6, 6)
    assert "unusable answers" in render(done)
    assert all(len(captions) == 4 for captions in rows(tmp_path / "captions.jsonl").values())


def test_a_model_that_talks_only_rubbish_is_given_up(tmp_path: Path, server: Server) -> None:
    fill(tmp_path, files())
    caption(tmp_path, Options())
    before = (tmp_path / "captions.jsonl").read_bytes()
    server.reply = lambda question, number: said("Sure!")
    with pytest.raises(LimnerError, match=r"endpoint:m: none of its first 8 answers .*'Sure!'; take another model"):
        caption(tmp_path, Options(), rewriter=model(server))
    assert len(server.questions) == PATIENCE
    assert (tmp_path / "captions.jsonl").read_bytes() == before


@pytest.mark.parametrize("workers", [1, 3])
def test_an_endpoint_that_goes_down_loses_nothing(tmp_path: Path, server: Server, workers: int) -> None:
    fill(tmp_path, files())
    answer = server.reply
    server.reply = lambda question, number: answer(question, number) if number < 5 else (503, b"", {})
    with pytest.raises(LimnerError, match=r"answers 503 .*run the same command again"):
        caption(tmp_path, Options(variants=4), rewriter=model(server, workers=workers))
    assert not (tmp_path / "captions.jsonl").exists()
    server.questions.clear()
    server.reply = answer
    caption(tmp_path, Options(variants=4), rewriter=model(server))
    assert len(server.questions) == 12 - 5
    assert all(captions[0].text.startswith("a tasty") for captions in rows(tmp_path / "captions.jsonl").values())
    assert not list(tmp_path.glob("*.journal"))


def test_a_journal_cut_off_in_the_middle_of_a_line_is_used_up_to_there(tmp_path: Path, server: Server) -> None:
    fill(tmp_path, files())
    answer = server.reply
    server.reply = lambda question, number: answer(question, number) if number < 5 else (400, b"", {})
    with pytest.raises(LimnerError, match="answers 400"):
        caption(tmp_path, Options(variants=4), rewriter=model(server))
    journal = tmp_path / "captions.jsonl.journal"
    journal.write_bytes(journal.read_bytes()[:-9])
    server.questions.clear()
    server.reply = lambda question, number: answer(question, number) if number < 3 else (400, b"", {})
    with pytest.raises(LimnerError, match="answers 400"):
        caption(tmp_path, Options(variants=4), rewriter=model(server))
    server.questions.clear()
    server.reply = answer
    caption(tmp_path, Options(variants=4), rewriter=model(server))
    assert len(server.questions) == 12 - 4 - 3


def test_the_journal_of_another_question_stays(tmp_path: Path, server: Server) -> None:
    fill(tmp_path, files())
    answer = server.reply
    server.reply = lambda question, number: answer(question, number) if number < 5 else (400, b"", {})
    with pytest.raises(LimnerError):
        caption(tmp_path, Options(variants=4), rewriter=model(server))
    server.reply = answer
    caption(tmp_path, Options(variants=4), rewriter=Endpoint(server.url, "other"))
    server.questions.clear()
    caption(tmp_path, Options(variants=4), rewriter=model(server))
    assert len(server.questions) == 12 - 5


def test_an_interruption_keeps_what_was_answered(tmp_path: Path) -> None:
    class Interrupted:
        origin, batch, workers = "model:x", 2, 1
        calls = 0
        closed = threading.Event()

        def answers(self, requests: Sequence[Request]) -> list[str]:
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return [request.facts.split("\n")[0].removeprefix("subject: ") + " in a bowl" for request in requests]

        def close(self) -> None:
            self.closed.set()

    fill(tmp_path, files())
    first = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        caption(tmp_path, Options(variants=4), rewriter=first)
    assert first.closed.is_set()
    second = Interrupted()
    second.calls = 10
    caption(tmp_path, Options(variants=4), rewriter=second)
    assert second.calls == 10 + 4
    assert rows(tmp_path / "captions.jsonl")["fig.png"][0] == Caption("fig in a bowl", "model:x")


def test_a_vision_model_sees_only_pictures_without_words(tmp_path: Path, server: Server) -> None:
    server.reply = lambda question, number: said("a red ball\na ball in red\n" * 3)
    fill(tmp_path, files(("apple",), **{"0001.png": RED}))
    done = caption(tmp_path, Options(variants=4), describer=model(server, sees=True))
    assert (done.without, done.captions["vision:m"], len(server.questions)) == (0, 2, 1)
    assert rows(tmp_path / "captions.jsonl")["0001.png"] == [
        Caption("a red ball", "vision:m"),
        Caption("a ball in red", "vision:m"),
    ]
    assert "image_url" in json.dumps(server.questions[0])
    caption(tmp_path, Options(variants=4), describer=model(server, sees=True))
    assert len(server.questions) == 1


def test_examples_write_nothing(tmp_path: Path, server: Server) -> None:
    fill(tmp_path, files())
    drawn = examples(tmp_path, Options(variants=4), rewriter=model(server), count=3)
    assert [len(captions) for _, captions in drawn] == [5] * 3
    assert all(captions[0].origin == "person" and captions[1].origin == "endpoint:m" for _, captions in drawn)
    assert len(server.questions) == 3
    assert not [path for path in tmp_path.iterdir() if "captions" in path.name]
