"""`limner prune`: a smaller run that trains on, packs, and resumes; and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commandline import limner
from painting_kit import make_icons, tiny_painting
from training_kit import tiny

from limner import bundle
from limner.config import RunConfig
from limner.errors import LimnerError
from limner.export import pruned
from limner.export.latency import milliseconds
from limner.export.pack import pack
from limner.export.parity import torch_painter
from limner.export.pruned import prune
from limner.train.blend import blend
from limner.train.loop import train
from limner.train.runs import load_painter, read_config


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pruning") / "whole"
    config = tiny(model={"width": 32, "depth": 3}, quantize={"images": 0}, pack={"max_drop": 90, "min_gain": -90})
    train(config, pictures, folder)
    return folder


def test_a_pruned_run_trains_on_and_ships(run: Path, pictures: Path, tmp_path: Path) -> None:
    words = ("prune", str(run), "--out", str(tmp_path / "small"), "--ratio", "0.5", "--images", "16")
    assert limner(*words) == 0
    config, whole = read_config(tmp_path / "small"), read_config(run)
    assert config.model.depth * config.model.width < whole.model.depth * whole.model.width
    assert (config.train.images, config.loss.distill, config.train.teacher) == (16, 0.5, str(run))
    record = json.loads((tmp_path / "small" / "pruned.json").read_text())
    assert record["after"] <= 0.5 * record["before"]
    assert json.loads((tmp_path / "small" / "checkpoint.json").read_text())["images"] == 16
    assert limner(*words) == 0, "the same command resumes: here there is nothing left to do"
    made = pack(tmp_path / "small", tmp_path / "bundle", [pictures])
    assert isinstance(made, bundle.UpscalerManifest)
    assert made.recipe["train"]["teacher"] == "whole"


def test_it_begins_where_pruning_left_it(run: Path, tmp_path: Path) -> None:
    record = prune(run, tmp_path / "small", ratio=0.2)
    low = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    gap = torch_painter(run)(low).astype(float) - torch_painter(tmp_path / "small")(low)
    assert 0 < np.sqrt(np.square(gap).mean()) < 3 * record["error"] + 1
    assert prune(run, tmp_path / "small", ratio=0.2) == record
    with pytest.raises(LimnerError, match="holds a network pruned with another ratio; choose another --out"):
        prune(run, tmp_path / "small", ratio=0.3)
    with pytest.raises(LimnerError, match="holds something else than a pruned run"):
        prune(run, run, ratio=0.3)


def test_a_time_is_come_down_to(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def timed(config: RunConfig, engine: str, repeats: int) -> float:
        asked.append(f"{engine} {repeats} {config.model.width} {config.model.depth}")
        return config.model.depth * config.model.width / 10

    monkeypatch.setattr(pruned, "milliseconds", timed)
    found = prune(run, tmp_path / "small", target_ms=7.0, engine="openvino", repeats=3)
    assert (found["before"], found["unit"]) == (9.6, "ms")
    assert found["after"] <= 7.0
    assert len(asked) == len(set(asked)), "every size is timed once"
    assert asked[0] == "openvino 3 32 3"


def test_more_work_takes_more_time(tmp_path: Path) -> None:
    small, large = (tiny(model={"width": w, "depth": d, "kind": "dense"}) for w, d in ((16, 2), (64, 6)))
    assert 0 < 2 * milliseconds(small, "openvino", 3) < milliseconds(large, "openvino", 3)
    painter = tiny_painting("direct", tmp_path / "icons")
    assert milliseconds(painter, "auto", 1) > 0


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ((), 2, "give one of --target-ms and --ratio"),
        (("--ratio", "0.5", "--target-ms", "3"), 2, "give one of --target-ms and --ratio"),
        (("--ratio", "1.5"), 2, "ratio=1.5: must be between 0 and 1"),
        (("--ratio", "0.999"), 2, "cannot be brought to"),
        (("--target-ms", "-1"), 2, "target_ms=-1.0: must be above 0"),
        (("--target-ms", "1e6", "--repeats", "1"), 2, "as it is, and 1e+06 are allowed"),
        (("--target-ms", "1", "--engine", "abacus"), 2, "unknown engine 'abacus'"),
    ],
)
def test_impossible_requests(
    run: Path, tmp_path: Path, words: tuple[str, ...], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert limner("prune", str(run), "--out", str(tmp_path / "small"), *words) == code
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("prune", str(tmp_path), "--out", str(tmp_path / "small"), "--ratio", "0.5") == 1
    assert "is not a run folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_painter_is_pruned_trained_on_and_packed(tmp_path: Path) -> None:
    data = make_icons(tmp_path / "icons")
    config = tiny_painting("direct", data, adversarial={"start_share": 0.0}, pack={"max_gap": 200})
    train(config, data, tmp_path / "run")
    assert (
        limner("prune", str(tmp_path / "run"), "--out", str(tmp_path / "small"), "--ratio", "0.3", "--images", "16")
        == 0
    )
    whole, small = load_painter(tmp_path / "run"), load_painter(tmp_path / "small")
    assert small[1].parameters_shipped() < whole[1].parameters_shipped()
    line = json.loads((tmp_path / "small" / "stats.jsonl").read_text().splitlines()[0])
    assert "adversarial" in line
    shutil.copytree(tmp_path / "text-kit", tmp_path / "bundles" / "text-kit")
    assert pack(tmp_path / "small", tmp_path / "bundles" / "icons", []).parameters == small[1].parameters_shipped()


@pytest.mark.slow
def test_a_blended_painter_has_no_critic_and_begins_with_a_new_one(tmp_path: Path) -> None:
    data = make_icons(tmp_path / "icons")
    train(tiny_painting("direct", data, adversarial={"start_share": 0.0}), data, tmp_path / "run")
    blend(tmp_path / "run", tmp_path / "run", tmp_path / "blend", 0.5)
    asked = ["prune", str(tmp_path / "blend"), "--out", str(tmp_path / "small"), "--ratio", "0.3", "--images", "16"]
    assert limner(*asked) == 0
    assert "critic" in json.loads((tmp_path / "small" / "stats.jsonl").read_text().splitlines()[0])
