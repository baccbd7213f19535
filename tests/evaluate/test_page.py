"""The page is one file, whatever stands in its texts; the report of a bundle says what was measured."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from commandline import limner
from kit import make_bundle, photo
from painter_kit import make_painter
from PIL import Image

from limner import bundle
from limner.evaluate import dossier, page
from limner.evaluate.page import Content, Dot, Grid, Pair

VOID = {"meta", "img", "input"}


class Checked(HTMLParser):
    """Counts elements and makes sure that every one is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_everything_is_inside_and_escaped() -> None:
    pair = Pair("<b>cat</b>", photo(40, 50), photo(40, 50), ("a & b", "'after'"))
    dots = [Dot("one", 1.0, 30.0), Dot("<two>", 2.0, 31.0, 3.0, best=False)]
    grids = [Grid("Speed", ["engine", "ms"], [["<script>", "1.50"]])]
    text = page.html(Content("A <title>", "lead", {"KB": "12"}, [pair], dots, ("ms", "dB"), grids, "end"))
    checked = Checked(text)
    assert checked.seen.count("img") == 2 and checked.seen.count("circle") == 2
    assert all(source.startswith("data:image/webp;base64,") for source in checked.sources)
    assert "<script>" not in text and "<two>" not in text and "&lt;b&gt;cat" in text
    assert "<td class=n>1.50</td>" in text


def test_large_pictures_are_cut_to_their_middle() -> None:
    picture = np.zeros((900, 700, 3), np.uint8)
    text = page.html(Content("t", "l", pairs=[Pair("c", picture, picture)]))
    assert "aspect-ratio:640/640" in text


def test_dots_lie_where_their_figures_are() -> None:
    text = page.scatter([Dot("fast", 1.0, 30.0), Dot("good", 10.0, 32.0), Dot("middle", 10**0.5, 31.0)], "ms", "dB")
    places = [(float(x), float(y)) for x, y in re.findall(r"cx='([\d.]+)' cy='([\d.]+)'", text)]
    fast, good, middle = places
    assert fast[0] < middle[0] < good[0] and fast[1] > middle[1] > good[1]
    assert middle[0] == pytest.approx((fast[0] + good[0]) / 2, abs=0.2), "the axis is logarithmic"
    assert page.scatter([Dot("alone", 1.0, 1.0)], "ms", "dB").count("<circle") == 1


def test_the_report_of_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "ZOO", tmp_path / "none")
    folder, truths = make_bundle(tmp_path / "tiny", scale=2), tmp_path / "truths"
    truths.mkdir()
    Image.fromarray(photo(64, 72)).save(truths / "truth.png")
    Image.fromarray(photo(30, 40)).save(tmp_path / "mine.png")
    out = tmp_path / "page.html"
    words = ("report", str(folder), "--out", str(out), "--picture", str(tmp_path / "mine.png"), "--eval", str(truths))
    assert limner(*words, "--repeats", "1") == 0
    text = out.read_text("utf-8")
    assert Checked(text).seen.count("figure") == 2
    for wanted in ("Latency by engine", "openvino", "Quality", "truths", "mine.png", "KB, int8 graph", "Apache-2.0"):
        assert wanted in text


def test_the_report_of_a_painter_slides_between_float_and_int8(tmp_path: Path) -> None:
    folder, out = make_painter(tmp_path / "icons"), tmp_path / "page.html"
    assert limner("report", str(folder), "--out", str(out), "--prompt", "a red cat", "--repeats", "1") == 0
    text = out.read_text("utf-8")
    assert Checked(text).seen.count("img") == 2
    assert "a red cat, seed 1" in text and "ms from prompt to picture" in text


def test_the_report_of_a_search(tmp_path: Path) -> None:
    points = '[{"trial": 3, "front": true, "ms": 1.5, "parameters": 9, "quality": 28.1, "ratio": 0.4, "bytes": 900}]'
    (tmp_path / "front.json").write_text(points)
    assert limner("report", str(tmp_path), "--out", str(tmp_path / "page.html")) == 0
    text = (tmp_path / "page.html").read_text("utf-8")
    Checked(text)
    assert "28.100" in text and "0.400" in text


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["BUNDLE"], 2, "there is nothing to show"),
        (["absent/deep/bundle"], 1, "absent/deep/bundle"),
        (["BUNDLE", "--eval", "nowhere"], 1, "nowhere: no such folder"),
        (["SEARCH"], 1, "is not what limner search writes"),
    ],
)
def test_bad_requests(
    words: list[str], code: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bundle(tmp_path / "tiny")
    (tmp_path / "front.json").write_text("[]")
    here = {"BUNDLE": str(tmp_path / "tiny"), "SEARCH": str(tmp_path)}
    out = tmp_path / "page.html"
    assert limner("report", *(here.get(word, word) for word in words), "--out", str(out)) == code
    assert sentence in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(28.1, 31.9, ["29", "30", "31"]), (29.61, 29.64, ["29.61", "29.62", "29.63", "29.64"])],
)
def test_ticks_are_round(low: float, high: float, wanted: list[str]) -> None:
    text = page.scatter([Dot("a", 0.25, low), Dot("b", 4.0, high)], "ms", "dB")
    assert all(f">{tick}<" in text for tick in [*wanted, "0.5", "1", "2"])
    near = page.scatter([Dot("a", 28.0, low), Dot("b", 140.0, high)], "ms", "dB")
    assert all(f">{tick}<" in near for tick in ("50", "100", "150"))


def test_only_bundles_with_the_same_test_pictures_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "ZOO", tmp_path)
    own = {"scores": {"psnr_y": 30.0}}
    for name, sets in (("mine", ["Set5"]), ("rival", ["Set5"]), ("other", ["icons"])):
        manifest = make_bundle(tmp_path / name, scale=2) / "manifest.json"
        content = json.loads(manifest.read_text("utf-8"))
        content["name"] = name
        content["scores"] = {"fidelity": {"int8": [{"set": each, **own} for each in sets]}}
        manifest.write_text(json.dumps(content), "utf-8")
    mine = bundle.read("mine", bundle.UpscalerManifest).manifest
    assert [name for name in bundle.zoo() if dossier._is_rival(name, mine)] == ["rival"]
