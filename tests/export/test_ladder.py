"""The ladder: every step of a tiny bundle is there, measured, and held against the step before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commandline import limner
from painter_kit import make_painter
from PIL import Image
from training_kit import tiny

from limner.config import DataConfig
from limner.export import ladder
from limner.export.ladder import Rung, compared
from limner.export.pack import pack
from limner.runtime.generate import Request
from limner.train.loop import train

ENGINES = ("openvino", "onnxruntime")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    noise = np.random.default_rng(0).integers(0, 256, (72, 80, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    return folder


@pytest.fixture(scope="module")
def made(pictures: Path, few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/tiny and its bundle."""
    folder = tmp_path_factory.mktemp("made")
    config = tiny(
        model={"depth": 3}, train={"images": 8}, quantize={"images": 0}, pack={"max_drop": 90, "min_gain": -90}
    )
    config = config.model_copy(update={"name": "tiny"})
    train(config, pictures, folder / "runs" / "tiny")
    pack(folder / "runs" / "tiny", folder / "tiny", [few])
    return folder


def test_every_step_on_every_engine(made: Path, few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("ladder", str(made / "tiny"), "--runs", str(made / "runs"), "--eval", str(few), "--repeats", "1")
    assert limner(*words, "--json", "-") == 0
    rungs = json.loads(capsys.readouterr().out)
    steps = [(rung["step"], rung["engine"]) for rung in rungs]
    assert steps[:2] == [("float", "torch"), ("folded", "torch")]
    assert {("folded", "openvino"), ("folded", "onnxruntime"), ("int8", "openvino")} < set(steps)
    assert rungs[0]["parameters"] > rungs[1]["parameters"] == rungs[-1]["parameters"]
    assert rungs[0]["faster"] is None and abs(rungs[1]["change"]) < 0.01, "folding changes nothing"
    assert all(rung["ms"] > 0 and rung["quality"] > 3 and rung["measure"] == "PSNR Y, dB" for rung in rungs)


def test_without_a_run_the_ladder_begins_folded(made: Path, few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("ladder", str(made / "tiny"), "--eval", str(few), "--repeats", "1", "--markdown")
    assert limner(*words) == 0
    lines = capsys.readouterr().out.splitlines()
    heads, folded, integer = ([cell.strip() for cell in lines[at].split("|")[1:-1]] for at in (0, 2, 3))
    assert heads[:5] == ["bundle", "step", "parameters", "KB", "ms torch"] and len(lines) == 4
    assert folded[:2] == ["tiny", "folded"] and integer[:2] == ["tiny", "int8"]
    assert folded[4] == "" and float(folded[5]) > 0 and folded[10:] == ["", "", ""]
    assert integer[10].endswith("x") and integer[12][0] in "+-"


def test_a_painter_is_measured_by_its_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def judged(paint: Any) -> dict[str, float]:
        (picture,) = paint([Request("a red cat", 1)])
        asked.append(picture.shape)
        return {"own-KID x100": 1.5}

    def by_features(data: Path, judge: Path, config: DataConfig, prompts: int) -> Any:
        assert config.styles == ("noto",) and config.captions is None
        return judged

    monkeypatch.setattr(ladder, "by_features", by_features)
    folder = make_painter(tmp_path / "icons")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["recipe"] = {"data": {"styles": ["noto"], "captions": "captions.jsonl"}}
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    words = ("ladder", str(folder), "--repeats", "1", "--json", "-")
    assert limner(*words, "--data", ".", "--judge", ".") == 0
    rungs = json.loads(capsys.readouterr().out)
    assert [(r["step"], r["engine"]) for r in rungs] == [(s, e) for s in ("float", "int8") for e in ENGINES]
    assert asked == [(64, 64, 4)] * 4 and {r["measure"] for r in rungs} == {"own-KID x100"}
    assert limner(*words) == 2
    assert "a painter is measured with --data DIR and --judge FOLDER" in capsys.readouterr().err


@pytest.fixture(scope="module")
def smaller(made: Path, pictures: Path, few: Path) -> Path:
    """A folder with a bundle `tiny` of one block fewer."""
    config = tiny(
        model={"depth": 2}, train={"images": 8}, quantize={"images": 0}, pack={"max_drop": 90, "min_gain": -90}
    )
    train(config.model_copy(update={"name": "tiny"}), pictures, made / "less" / "run")
    pack(made / "less" / "run", made / "less" / "tiny", [few])
    return made / "less"


def test_a_pruned_bundle_is_measured_beside_the_one_that_ships(
    made: Path, smaller: Path, few: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("ladder", str(made / "tiny"), "--pruned", str(smaller), "--eval", str(few), "--repeats", "1")
    assert limner(*words, "--json", "-") == 0
    rungs = [Rung(**each) for each in json.loads(capsys.readouterr().out)]
    assert list(dict.fromkeys(rung.step for rung in rungs)) == ["folded", "pruned", "int8", "pruned int8"]
    size = {rung.step: rung.parameters for rung in rungs}
    assert size["pruned"] == size["pruned int8"] < size["folded"] == size["int8"]
    quick = {step: min((r for r in rungs if r.step == step), key=lambda r: r.ms) for step in size}
    for step, before in (("pruned", "folded"), ("int8", "folded"), ("pruned int8", "pruned")):
        assert quick[step].faster == pytest.approx(quick[before].ms / quick[step].ms), step


def test_what_is_not_smaller_is_not_pruned(
    made: Path, smaller: Path, few: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert limner("ladder", str(smaller / "tiny"), "--pruned", str(made), "--eval", str(few)) == 1
    assert "no fewer than tiny" in capsys.readouterr().err


def test_each_step_is_held_against_the_fastest_before() -> None:
    def rung(step: str, engine: str, ms: float, size: int, quality: float) -> Rung:
        return Rung("b", step, engine, 1, size, ms, 1.0, quality, "PSNR Y, dB")  # type: ignore[arg-type]

    folded = [rung("folded", "a", 8, 40, 30.0), rung("folded", "b", 4, 40, 30.0)]
    rungs = compared([*folded, rung("int8", "a", 2, 10, 29.9)])
    assert (rungs[0].faster, rungs[2].faster, rungs[2].smaller) == (None, 2.0, 4.0)
    assert rungs[2].change == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["photo-x9"], 2, "unknown model 'photo-x9'"),
        (["BUNDLE"], 2, "no test set to measure quality on"),
        (["BUNDLE", "--runs", "nowhere", "--eval", "FEW"], 1, "is not a run folder"),
    ],
)
def test_bad_requests(
    words: list[str], code: int, sentence: str, made: Path, few: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = {"BUNDLE": str(made / "tiny"), "FEW": str(few)}
    assert limner("ladder", *(here.get(word, word) for word in words)) == code
    assert sentence in capsys.readouterr().err


def test_upscalers_with_alpha_have_one_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 40, 4), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert limner("ladder", "icons-x2", "--eval", str(tmp_path), "--repeats", "1", "--json", "-") == 0
    rungs = json.loads(capsys.readouterr().out)
    assert {rung["step"] for rung in rungs} == {"folded", "int8"}
    assert all(rung["ms"] > 0 and rung["quality"] > 0 for rung in rungs)
