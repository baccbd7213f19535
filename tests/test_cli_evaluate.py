"""`limner evaluate`, through tiny bundles and a folder of small pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from commandline import limner
from kit import make_bundle, photo
from PIL import Image

import limner as package
from limner import bundle
from limner.evaluate.report import evaluate, to_json
from limner.evaluate.sets import open_set


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    make_bundle(folder / "photo-x2", scale=2)
    make_bundle(folder / "photo-x4", scale=4)
    return folder


@pytest.fixture
def data(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two test sets where `limner evaluate` looks for them."""
    monkeypatch.setattr(bundle, "ZOO", zoo)
    monkeypatch.setenv("LIMNER_DATA", str(tmp_path))
    for name, seed in (("A/1.png", 1), ("A/2.png", 2), ("B/3.png", 3)):
        path = tmp_path / "sr/test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(66, 75, seed)).save(path)
    return tmp_path


def test_the_table_has_every_set_and_bundle(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("evaluate", "photo-x2", "photo-x4", "--threads", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split("│")[1:-1] for line in lines if "│ x" in line]
    assert [[cell.strip() for cell in row[:3]] for row in rows] == [
        [name, scale, label]
        for scale, own in (("x2", "photo-x2"), ("x4", "photo-x4"))
        for name in "AB"
        for label in ("bicubic", own)
    ]


def test_the_figures_are_those_of_the_report(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "photo-x2", "--set", str(data / "sr/test/B"), "--threads", "1", "--json", "-"]
    assert limner(*words, "--engine", "onnxruntime", "--precision", "float", "--downsampler", "decimate") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["name"], entry["engine"], entry["precision"]) == ("photo-x2", "onnxruntime", "float")
    upscaler = package.load("photo-x2", engine="onnxruntime", precision="float", threads=1)
    rows = evaluate(upscaler.upscale, [open_set(data / "sr/test/B")], 2, "decimate")
    assert entry["rows"] == to_json(rows)


def test_json_goes_to_a_file_beside_the_table(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("evaluate", "photo-x4", "--threads", "1", "--json", str(data / "scores.json")) == 0
    assert "photo-x4" in capsys.readouterr().out
    (entry,) = json.loads((data / "scores.json").read_text())
    assert [(row["set"], row["pictures"]) for row in entry["rows"]] == [("A", 2), ("B", 1)]
    assert [path.name for path in data.iterdir() if path.name.startswith(".")] == []


def test_a_run_folder_is_scored_in_torch(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nearest:
        scale, channels = 2, 3

        def __call__(self, low: np.ndarray) -> np.ndarray:
            return low.repeat(2, 0).repeat(2, 1)

    (data / "run").mkdir()
    (data / "run/config.json").write_text("{}")
    opened: list[Path] = []
    parity = ModuleType("limner.export.parity")  # the real one would load torch, and has tests of its own
    monkeypatch.setattr(parity, "torch_painter", lambda run: opened.append(run) or Nearest(), raising=False)
    monkeypatch.setitem(sys.modules, parity.__name__, parity)
    assert limner("evaluate", str(data / "run"), "--json", "-") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert opened == [data / "run"]
    assert (entry["engine"], entry["precision"]) == ("torch", "float")
    assert entry["rows"] == to_json(evaluate(Nearest(), [open_set(data / "sr/test" / name) for name in "AB"], 2))


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["photo-x4", "--downsampler", "bicubc"], 2, "unknown downsampler 'bicubc': did you mean 'bicubic'?"),
        (["photo-x4", "--set", "absent"], 1, "absent: no such folder"),
        (["photo-x4", "--engine", "tensorrt"], 2, "unknown engine 'tensorrt'"),
        (["photo-x9"], 2, "unknown model 'photo-x9'"),
        (["photo-x4", "--threads", "1", "--json", "absent/scores.json"], 1, "absent/scores.json: cannot be written"),
    ],
)
def test_bad_requests(
    words: list[str], code: int, sentence: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert limner("evaluate", *words) == code
    assert f"error: {sentence}" in capsys.readouterr().err


def test_without_test_sets_it_says_where_they_could_be(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIMNER_DATA", str(tmp_path / "absent"))
    assert limner("evaluate", "photo-x4") == 1
    assert "no test sets there; name one with --set DIR" in capsys.readouterr().err
