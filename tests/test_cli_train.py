"""`limner train`, `limner pack` and `limner data`: what they resolve, refuse and print."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from commandline import limner
from PIL import Image

from limner.recipes import RECIPES


def dry_run(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert limner("train", *words, "--data", "pictures", "--out", "run", "--dry-run") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return json.loads(printed.out)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_dry_run_prints_the_recipe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run(capsys, name) == RECIPES[name]().model_dump(mode="json")


def test_a_file_overrides_the_recipe_and_a_pair_overrides_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[train]\nlr = 5e-4\nseed = 7\n")
    plain, mine = (
        dry_run(capsys, "photo-x4"),
        dry_run(capsys, "photo-x4", "--config", str(file), "--set", "train.seed=8"),
    )
    assert (mine["train"]["lr"], mine["train"]["seed"]) == (5e-4, 8)
    assert mine | {"train": None} == plain | {"train": None}


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with two bad files."""
    monkeypatch.chdir(tmp_path)
    Path("odd.toml").write_text("lr 3")
    Path("unknown.toml").write_text("speed = 3")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["photo-x44"], 2, "unknown recipe 'photo-x44': did you mean 'photo-x4'?"),
        (["photo-x4", "--set", "train.lrr=1"], 2, "--set: unknown key 'train.lrr'"),
        (["photo-x4", "--set", "model.depth=0"], 2, "--set: model.depth:"),
        (["photo-x4", "--config", "absent.toml"], 1, "absent.toml: cannot be read (No such file or directory)"),
        (["photo-x4", "--config", "odd.toml"], 2, "odd.toml: is not TOML"),
        (["photo-x4", "--config", "unknown.toml"], 2, "unknown.toml: unknown key 'speed'"),
    ],
)
def test_settings_that_are_refused(
    words: list[str],
    code: int,
    sentence: str,
    in_folder: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert limner("train", *words, "--data", "pictures", "--out", "run", "--dry-run") == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {sentence}")


@pytest.mark.parametrize(
    ("words", "extra"),
    [(["train", "photo-x4", "--data", "d", "--out", "o"], "train"), (["pack", "run", "--out", "o"], "compress")],
)
def test_a_missing_extra_says_how_to_install_it(
    words: list[str], extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("limner.train", "limner.export"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert limner(*words) == 2
    assert f"pip install 'limner[{extra}]'" in capsys.readouterr().err


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(path)


def test_data_check_prints_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "a.png", 1)
    save(tmp_path / "b.png", 2)
    assert limner("data", "check", str(tmp_path)) == 0
    assert f"{tmp_path}: 2 pictures" in capsys.readouterr().out
    assert limner("data", "check", str(tmp_path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["sizes"] == {"64x64": 2}


def test_data_check_fails_on_leaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "train/a.png", 1)
    save(tmp_path / "Set5/same.png", 1)
    assert limner("data", "check", str(tmp_path / "train"), "--against", str(tmp_path / "Set5")) == 1
    printed = capsys.readouterr()
    assert "same.png" in printed.out
    assert printed.err.startswith(f"error: {tmp_path / 'train'}: 1 held-out picture also elsewhere")


def test_data_check_fails_on_unreadable_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:50])
    assert limner("data", "check", str(tmp_path), "--json") == 1
    printed = capsys.readouterr()
    assert [each["name"] for each in json.loads(printed.out)["unreadable"]] == ["b.png"]
    assert "1 picture cannot be read" in printed.err


def test_data_check_needs_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("data", "check", str(tmp_path)) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}")


def test_data_shards_hold_the_same_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        save(tmp_path / f"in/{seed}.png", seed)
    assert limner("data", "shards", str(tmp_path / "in"), str(tmp_path / "out"), "--per-shard", "2") == 0
    assert capsys.readouterr().out == f"{tmp_path}/out/000000.tar\n{tmp_path}/out/000001.tar\n"
    assert limner("data", "check", str(tmp_path / "out"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 3
    assert limner("data", "shards", str(tmp_path / "in"), str(tmp_path / "out")) == 1
    assert "holds shards already" in capsys.readouterr().err
