"""The notebooks in examples/ run from top to bottom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from painter_kit import make_icon_upscaler, make_painter, make_text_bundle

from limner import bundle

EXAMPLES = Path(__file__).parents[1] / "examples"


def cells(name: str) -> list[str]:
    book = json.loads((EXAMPLES / name).read_text("utf-8"))
    assert book["nbformat"] == 4
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]


def run(name: str, shorter: dict[str, str] | None = None) -> dict[str, Any]:
    """The names that the cells leave behind. `shorter`: text to replace, so that the run takes seconds."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    left = dict(shorter or {})
    for index, cell in enumerate(cells(name)):
        source = cell
        for old in [old for old in left if old in cell]:
            source = source.replace(old, left.pop(old))
        exec(compile(source, f"{name}[{index}]", "exec"), scope)
    assert not left, f"{name} does not say {list(left)}"
    return scope


@pytest.fixture
def zoo(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A painter of random weights and its text bundle, where none ships."""
    if {"icons", "text-minilm"} <= set(bundle.zoo()):
        return
    folder = tmp_path_factory.mktemp("zoo")
    make_text_bundle(folder / "text-minilm")
    make_painter(folder / "icons")
    make_icon_upscaler(folder / "icons-x4", scale=4)
    monkeypatch.setattr(bundle, "ZOO", folder)


@pytest.mark.usefixtures("zoo")
def test_generate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    left = run("generate.ipynb")
    assert left["large"].size == (256, 256)
    assert [picture.info["seed"] for picture in left["pictures"]] == list(range(7, 15))
    assert (tmp_path / "apple.png").stat().st_size > 500
    printed = capsys.readouterr().out
    assert "trainedAlgorithmicMedia" in printed and "prompt looks German" in printed and "prompt is empty" in printed


@pytest.mark.slow
@pytest.mark.usefixtures("zoo")
def test_train_on_your_own_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shorter = {"IMAGES = 60_000": "IMAGES = 32", '"batch": 16': '"batch": 8', "(24, 48, 64)": "(16, 16, 16)"}
    left = run("train-on-your-own-pictures.ipynb", shorter)
    assert left["manifest"].sources[0].license == "CC0-1.0"
    assert len(left["rows"]) == 16 and left["rows"][0].shape == (64, 64, 4)
    assert (tmp_path / "shape-painter" / "int8.onnx").is_file()


def test_no_outputs_are_kept() -> None:
    """Outputs would show pictures of an older painter, and weigh megabytes."""
    for path in EXAMPLES.glob("*.ipynb"):
        book = json.loads(path.read_text("utf-8"))
        assert all(not cell["outputs"] for cell in book["cells"] if cell["cell_type"] == "code"), path
