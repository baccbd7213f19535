"""`limner search` from its command line: real trials of tiny networks, the front, a second call that resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from commandline import limner
from training_kit import tiny

from limner.compress import search
from limner.export import trials
from limner.export.trials import Search
from limner.train.runs import read_config

# Everything of the default space but the width is fixed; four steps of training.
FIXED = tuple(f"--space={key}=" for key in search.DEFAULT_SPACE if key != "model.width")
TINY = ("model.depth=2", "model.levels=1", "loss.alphas=[1.0]", "train.batch=4", "train.crop=16", "quantize.images=0")
KNOBS = (*FIXED, "--space=model.width=16,32", *(f"--set={pair}" for pair in TINY), "--set=data.validation_fraction=0.3")


def words(pictures: Path, out: Path) -> list[str]:
    return ["search", "photo-x4", f"--data={pictures}", f"--out={out}", f"--eval={pictures}", "--images=16", *KNOBS]


def test_a_search_resumes_and_ends_with_a_front(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found"
    assert limner(*words(pictures, out), "--trials=2", "--seed=1") == 0
    assert "dB" in capsys.readouterr().out
    points = json.loads((out / "front.json").read_text())
    assert points and any(point["front"] for point in points)
    assert all(point["ratio"] > 0 and point["bytes"] > 1000 and 5 < point["quality"] < 60 for point in points)
    assert (out / "front.png").stat().st_size > 1000 and "<svg" in (out / "front.html").read_text()
    recipes = sorted((out / "front").glob("*.json"))
    assert len(recipes) == sum(point["front"] for point in points)
    run = tmp_path / "run"
    assert limner("train", str(recipes[0]), f"--data={pictures}", f"--out={run}", "--dry-run") == 0
    capsys.readouterr()
    assert limner(*words(pictures, out), "--trials=0", "--json=-") == 0
    assert json.loads(capsys.readouterr().out) == points
    assert limner(*words(pictures, out), "--trials=0", "--space=model.width=16,48") == 2
    assert "searches another space" in capsys.readouterr().err


def plan(pictures: Path, out: Path, **changes: object) -> Search:
    base = tiny(model={"levels": 1}, loss={"alphas": (1.0,)}, quantize={"images": 0})
    return Search(base, {"model.width": (16,)}, pictures, (pictures,), out, images=16, repeats=1, **changes)  # type: ignore[arg-type]


def test_settings_that_exclude_each_other_end_the_trial(pictures: Path, tmp_path: Path) -> None:
    study = optuna.create_study(directions=search.DIRECTIONS)
    space = {"model.width": (24,), "model.kind": ("grouped",)}
    asked = Search(tiny(), space, pictures, (pictures,), tmp_path, images=8)
    search.run(study, lambda trial: trials.objective(asked, study, trial), 1)
    assert study.trials[0].state.name == "PRUNED"
    assert "group_width" in study.trials[0].user_attrs["reason"]
    assert all(trial.user_attrs["skipped"] for trial in study.trials)


def test_networks_that_are_too_slow_are_not_trained(pictures: Path, tmp_path: Path) -> None:
    study = optuna.create_study(directions=search.DIRECTIONS)
    asked = plan(pictures, tmp_path, most_ratio=1e-9)
    search.run(study, lambda trial: trials.objective(asked, study, trial), 1)
    assert study.trials[0].state.name == "PRUNED" and study.trials[0].user_attrs["ratio"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_hopeless_trial_stops_at_its_first_look(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = optuna.create_study(directions=search.DIRECTIONS)
    looks = []
    monkeypatch.setattr(search, "hopeless", lambda *given: looks.append(given[3]) or True)
    asked = plan(pictures, tmp_path)
    search.run(study, lambda trial: trials.objective(asked, study, trial), 1)
    assert study.trials[0].state.name == "PRUNED"
    assert looks == [4] and list(study.trials[0].user_attrs["seen"]) == ["4"]


def test_a_trial_that_prunes_ships_the_smaller_network(pictures: Path, tmp_path: Path) -> None:
    study = optuna.create_study(directions=search.DIRECTIONS)
    asked = replace(plan(pictures, tmp_path), space={"model.depth": (4,), "prune.ratio": (0.0, 0.3, 0.9)})
    for ratio in (0.0, 0.3, 0.9):
        study.enqueue_trial({"prune.ratio": ratio})
    search.run(study, lambda trial: trials.objective(asked, study, trial), 3)
    whole, smaller, least = study.trials
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert "cannot be brought to" in least.user_attrs["reason"]
    assert smaller.user_attrs["parameters"] < whole.user_attrs["parameters"] and smaller.values[2] < whole.values[2]
    assert list(whole.user_attrs["seen"]) == ["4", "8", "12", "16"]
    assert list(smaller.user_attrs["seen"]) == ["4", "8", "12"]
    assert read_config(tmp_path / "trials" / "0001" / "pruned").train.images == 4


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        (["--storage=sqlite:////nowhere/at/all.sqlite"], 1, "the database cannot be reached"),
        (["--space=model.widht=3"], 2, "settings have no key 'model.widht'"),
        (["--eval=nowhere"], 1, "nowhere: no such folder"),
    ],
)
def test_bad_requests(
    more: list[str], code: int, sentence: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert limner(*words(pictures, tmp_path / "found"), *more) == code
    assert sentence in capsys.readouterr().err
    assert limner("search", "icons", *words(pictures, tmp_path / "found")[2:]) == 2


def test_train_says_what_is_wrong_with_a_file_of_settings(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text("{")
    for name, sentence in (("absent.json", "cannot be read"), (str(tmp_path / "bad.json"), "is not JSON")):
        assert limner("train", name, f"--data={pictures}", "--out=x", "--dry-run") in (1, 2)
        assert sentence in capsys.readouterr().err
