"""`limner evaluate` for painters, with judges that hardly learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commandline import limner
from kit import make_bundle
from painter_kit import make_painter, make_text_bundle
from PIL import Image

from limner.config import DataConfig
from limner.evaluate import study
from limner.evaluate.judges import JudgeConfig, embedding


def make_squares(folder: Path) -> Path:
    """As many things as R-precision of 100 takes: 260 to learn from, half of which losses may not see, 110 held out."""
    folder.mkdir()
    rows, rng = [], np.random.default_rng(0)
    for i in range(370):
        picture = np.zeros((64, 64, 4), np.uint8)
        top, left = rng.integers(0, 40, 2)
        picture[top : top + 24, left : left + 24] = (*rng.integers(0, 256, 3), 255)
        Image.fromarray(picture).save(folder / f"{i}.png")
        words = {"file_name": f"{i}.png", "text": f"square {i}, flat style", "name": f"square {i}"}
        rows.append(words | {"group": str(i), "style": "flat", "split": "train" if i < 260 else "validation"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """icons, judges, a painter and its text bundle."""
    folder = tmp_path_factory.mktemp("scoring")
    data = make_squares(folder / "icons")
    make_text_bundle(folder / "text-kit")
    make_painter(folder / "painter", folder / "text-kit")
    text = json.loads((folder / "painter/manifest.json").read_text())["text"]["bundle"]
    config = JudgeConfig(images=64, batch=8, width=4)
    for which in ("features", "matcher"):
        records = study.chosen(which, data, DataConfig())
        lessons = study.lessons_of(which, records, embedding(folder / text, folder), folder)
        study.TRAINERS[which](lessons, config, folder / "judges" / which)
    return folder


def test_a_painter_is_measured_beside_the_baselines(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--data", str(place / "icons"), "--judges", str(place / "judges"), "--json", str(place / "figures.json"))
    assert limner("evaluate", str(place / "painter"), *options) == 0
    figures = json.loads((place / "figures.json").read_text())
    rows = {(row["painter"], row["kind"]): row for row in figures["rows"]}
    assert {"real pictures", "real, shuffled", "retrieval", str(place / "painter")} == {name for name, _ in rows}
    assert rows["real pictures", "seen"]["copies"]["value"] == 1
    assert rows[str(place / "painter"), "seen"]["diversity_pixels"]["value"] > 0
    assert figures["floors"]["unseen"]["pictures"] == rows["real pictures", "unseen"]["prompts"]
    assert "R-prec" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--split", "train"), "split 'train' is impossible"),
        (("--data", "nowhere"), "nowhere: no such data"),
        (("--judges", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_said(
    place: Path, words: tuple[str, str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"--data": str(place / "icons"), "--judges": str(place / "judges")} | {words[0]: words[1]}
    assert limner("evaluate", str(place / "painter"), *(word for pair in options.items() for word in pair)) > 0
    assert reason in capsys.readouterr().err.replace("\n", " ")


def test_painters_and_upscalers_are_not_mixed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_bundle(place / "x2", scale=2)
    assert limner("evaluate", str(place / "painter"), str(place / "x2")) == 2
    assert "evaluate them in two calls" in capsys.readouterr().err.replace("\n", " ")
