"""The page's files: complete, in two languages, allowed by their own policy, and without a word from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_kit import Running, configured, make_zoo, serving

from limner.server import page

FOLDER = Path(page.__file__).parent


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(configured(make_zoo(tmp_path_factory.mktemp("zoo")), page=True)) as server:
        yield server


def text(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def test_the_server_gives_the_page(running: Running) -> None:
    answer = running.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text == text("index.html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_every_file_that_the_page_names_is_there(running: Running) -> None:
    named = set(re.findall(r'(?:src|href)="(page/[\w.]+)"', text("index.html")))
    assert named == {"page/icon.svg", "page/style.css", "page/app.js"}
    for name in (*named, "page/words.js", "page/settings.json"):
        assert running.get(f"/{name}").status_code == 200, name


def test_a_file_that_did_not_change_is_not_sent_again(running: Running) -> None:
    first = running.get("/page/app.js")
    again = running.get("/page/app.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_page_learns_what_it_may_offer(running: Running) -> None:
    told = running.get("/page/settings.json").json()
    assert (told["feedback"], told["keys"], told["pictures"]) == (False, False, 10)
    assert told["uploadBytes"] == running.service.config.limits.upload_bytes


def test_a_server_may_have_no_page(tmp_path: Path) -> None:
    with serving(configured(make_zoo(tmp_path), page=False), wait=False) as server:
        assert server.get("/").status_code == 404


def test_nothing_comes_from_elsewhere() -> None:
    for name in page.TYPES:
        addresses = set(re.findall(r"https?://[^\s\"']+", text(name))) - {"http://www.w3.org/2000/svg"}
        assert addresses == set(), name
        assert "@import" not in text(name)


def test_nothing_is_inline_that_the_policy_would_block() -> None:
    html = text("index.html")
    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>|<style\b|\sstyle=|\son\w+=|javascript:", html) == []
    assert re.findall(r"\beval\(|innerHTML|new Function|insertAdjacentHTML", text("app.js")) == []


def languages() -> dict[str, dict[str, str]]:
    parts = re.findall(r"^  (\w\w): \{\n(.*?)^  \},", text("words.js"), re.DOTALL | re.MULTILINE)
    return {name: dict(re.findall(r'^    (\w+): "(.*)",$', body, re.MULTILINE)) for name, body in parts}


def test_both_languages_say_the_same() -> None:
    words = languages()
    assert set(words) == {"en", "zh"}
    assert words["en"].keys() == words["zh"].keys()
    for key, english in words["en"].items():
        assert set(re.findall(r"\{\d\}", english)) == set(re.findall(r"\{\d\}", words["zh"][key])), key


def test_every_word_is_used_and_every_used_word_is_there() -> None:
    html, script, known = text("index.html"), text("app.js"), set(languages()["en"])
    used = set(re.findall(r'data-(?:t|label|placeholder)="(\w+)"', html))
    used |= {word for each in re.findall(r"\bt\(([^)]*)\)", script) for word in re.findall(r'"(\w+)"', each)}
    assert used <= known
    quoted = used | set(re.findall(r'"(\w+)"', script))
    assert known - quoted == set()


def test_every_control_has_a_name() -> None:
    html = text("index.html")
    labelled = set(re.findall(r'for="([\w-]+)"', html))
    for tag in re.findall(r"<(?:input|select|textarea|progress|output)\b[^>]*>", html):
        id = re.search(r'id="([\w-]+)"', tag)
        assert "data-label=" in tag or (id and id[1] in labelled), tag
    for attributes, inside in re.findall(r"<button\b([^>]*)>(.*?)</button>", html):
        assert "data-t=" in attributes + inside or "data-label=" in attributes or 'id="language"' in attributes


def test_ids_are_unique_and_those_the_script_asks_for_exist() -> None:
    ids = re.findall(r'\sid="([\w-]+)"', text("index.html"))
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'\$\("([\w-]+)"\)', text("app.js"))) <= set(ids)
