"""What the judges study, and the command that trains them on a folder of pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import judging_kit
import pytest
from PIL import Image

from limner.cli import judging
from limner.config import DataConfig
from limner.errors import LimnerError
from limner.evaluate.judges import half_of
from limner.evaluate.study import Judged, chosen, lessons_of

JUDGES: tuple[Judged, ...] = ("features", "matcher")
SHIPPED = DataConfig(exclude_licenses=("by-sa",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 toys: every fourth under share-alike terms, every fifth held out."""
    records, pictures = judging_kit.toys("train", 0)
    lines = []
    for i, (record, picture) in enumerate(zip(records[:24], pictures, strict=False)):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        columns = {"file_name": f"{i}.png", "text": record.text, "group": record.group, "style": record.style}
        terms = {"license": "MIT" if i % 4 else "CC-BY-SA-4.0", "split": "train" if i % 5 else "validation"}
        lines.append(json.dumps(columns | terms))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_the_matcher_learns_what_no_loss_may(folder: Path) -> None:
    features, matcher = chosen("features", folder, SHIPPED), chosen("matcher", folder, SHIPPED)
    assert {each.split for each in features + matcher} == {"train"}
    assert {each.license for each in features} == {"MIT"}
    assert {half_of(each.group) for each in features} == {"a", "b"}
    assert {half_of(each.group) for each in matcher if each.license == "MIT"} == {"b"}
    assert {half_of(each.group) for each in matcher if each.license != "MIT"} == {"a", "b"}


def test_lessons_have_one_wording_for_features_and_three_for_the_matcher(folder: Path) -> None:
    features, matcher = (
        lessons_of(which, chosen(which, folder, SHIPPED), judging_kit.embed, folder / "cache") for which in JUDGES
    )
    assert features.wordings.shape[1] == 1 and matcher.wordings.shape[1] == 3
    assert features.pictures.shape == (len(features.wordings), 64, 64, 3)
    assert features.style_names == ("dotted", "solid")
    assert len(list((folder / "cache").iterdir())) == 2


def test_nothing_to_learn_from_is_an_error(folder: Path) -> None:
    with pytest.raises(LimnerError, match="0 training pictures for the judge"):
        chosen("features", folder, DataConfig(exclude_licenses=("MIT", "CC")))


def test_the_command_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["features", "--data", str(tmp_path), "--text", str(tmp_path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["judging", *words])
    with pytest.raises(SystemExit) as stop:
        judging.main()
    output = capsys.readouterr()
    assert stop.value.code in (1, 2) and output.out == ""
    assert output.err.startswith("error: ") and len(output.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
