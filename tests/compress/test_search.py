"""The search's book-keeping, on studies in memory and in SQLite, without training anything."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from training_kit import tiny

from limner.compress import search
from limner.compress.search import Figures
from limner.config import parse
from limner.errors import LimnerError, UsageError

FACTS = {"space": {"model.width": [16, 32]}, "budget": 100}


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'study.sqlite'}"


def test_the_space_is_the_default_with_changes() -> None:
    space = search.parse_space(["model.width=24,40", "model.kind=", "quantize.per_channel=true,false"], tiny())
    assert space["model.width"] == (24, 40)
    assert space["quantize.per_channel"] == (True, False)
    assert "model.kind" not in space and "model.depth" in space


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        ("model.widht=16", "settings have no key 'model.widht'"),
        ("modle.width=16", "settings have no key 'modle.width'"),
        ("model.width", "write it as section.key=value,value"),
        ("model.width=16,wide", "--space: model.width"),
        ("quantize.weight_bits=9", "--space: quantize.weight_bits"),
    ],
)
def test_a_bad_space_names_the_key(pair: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        search.parse_space([pair], tiny())


def test_a_study_is_resumed_and_another_space_is_refused(tmp_path: Path) -> None:
    study = search.open_study(url(tmp_path), "mine", FACTS)
    search.run(study, lambda trial: Figures(trial.suggest_float("x", 0, 1), 1.0, 1.0), 2)
    assert len(search.open_study(url(tmp_path), "mine", FACTS).trials) == 2
    other = {**FACTS, "space": {"model.width": [16, 48]}}
    with pytest.raises(UsageError, match=r"study 'mine' searches another space .*32.*48.*choose another --study"):
        search.open_study(url(tmp_path), "mine", other)
    assert search.open_study(url(tmp_path), "new", other).trials == []


def test_a_study_that_is_not_ours(tmp_path: Path) -> None:
    optuna.create_study(storage=url(tmp_path), study_name="theirs").optimize(lambda _: 1.0, n_trials=1)
    with pytest.raises(UsageError, match="has other objectives"):
        search.open_study(url(tmp_path), "theirs", FACTS)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("sqlite:////nowhere/at/all/study.sqlite", "database cannot be reached"),
        ("oracle9://me:secret@host/db", "cannot be reached|driver"),
        ("not a url", "database cannot be reached"),
    ],
)
def test_a_database_that_cannot_be_reached(address: str, sentence: str) -> None:
    with pytest.raises(LimnerError, match=sentence) as raised:
        search.open_study(address, "mine", FACTS)
    assert "secret" not in str(raised.value)


def test_the_median_rule_compares_with_trials_that_are_as_fast() -> None:
    study = optuna.create_study(directions=search.DIRECTIONS)
    for ratio, quality in ((0.5, 28.0), (0.6, 29.0), (0.7, 30.0), (0.8, 31.0), (3.0, 35.0)):
        trial = study.ask()
        search.note(trial, ratio, 100, quality)
        study.tell(trial, (quality, ratio, 1.0))
    trials = study.trials
    assert search.hopeless(trials, 9, 1.0, 100, 29.4)
    assert not search.hopeless(trials, 9, 1.0, 100, 29.6)
    assert not search.hopeless(trials, 9, 0.7, 100, 1.0), "only three are as fast"
    assert not search.hopeless(trials, 9, 1.0, 200, 1.0), "none has come so far"
    assert not search.hopeless(trials, 0, 0.8, 100, 1.0), "not against itself"


def test_the_front_its_recipes_and_its_plot(tmp_path: Path) -> None:
    base, study = tiny(), search.open_study(url(tmp_path), "mine", FACTS)
    space = {"model.width": (16, 32, 48)}
    figures = {16: Figures(28, 0.5, 9e3), 32: Figures(29, 0.9, 2e4), 48: Figures(28.5, 1.4, 4e4)}
    study.enqueue_trial({"model.width": 48})
    search.propose_base(study, base, space)
    for width in (16, 32, 16):
        study.enqueue_trial({"model.width": width})
    search.run(study, lambda trial: figures[search.suggest(trial, space)["model.width"]], 4)
    found = search.points(study)
    assert [(point.settings["model.width"], point.best) for point in found] == [(32, True), (48, False), (16, True)]
    paths = search.write_recipes(base, found, tmp_path / "front")
    configs = [parse(json.loads(path.read_text()), str(path)) for path in paths]
    assert [config.model.width for config in configs] == [32, 16]
    assert {config.train.images for config in configs} == {base.train.images}
    search.plot(found, tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    assert search.twin(study, {"model.width": 48}) is not None and search.twin(study, {"model.width": 64}) is None


def test_what_was_tried_is_skipped_and_does_not_count(tmp_path: Path) -> None:
    study, space = (
        search.open_study(url(tmp_path), "mine", FACTS, seed=0),
        {"model.width": (16, 32), "model.depth": (2, 3)},
    )
    ended = []

    def objective(trial: optuna.Trial) -> Figures:
        chosen = search.suggest(trial, space)
        if search.twin(study, chosen):
            trial.set_user_attr(search.SKIPPED, True)
            search.vary(study, chosen, space)
            raise search.Skipped
        return Figures(chosen["model.width"], 1.0, 1.0)

    for _ in range(5):
        study.enqueue_trial({"model.width": 16, "model.depth": 2})
    search.run(study, objective, 4, lambda: ended.append(1))
    settings = [(point.settings["model.width"], point.settings["model.depth"]) for point in search.points(study)]
    assert sorted(settings) == [(16, 2), (16, 3), (32, 2), (32, 3)]
    assert len(ended) == 4 and search.counts(study)["pruned"] >= 4
    before = len(study.trials)
    search.vary(study, {"model.width": 16, "model.depth": 2}, space)
    assert len(study.trials) == before, "nothing is left to try"


def test_a_failure_is_marked_and_a_dead_trial_is_taken_up(tmp_path: Path) -> None:
    study = search.open_study(url(tmp_path), "mine", FACTS)

    def fails(trial: optuna.Trial) -> Figures:
        raise LimnerError("the loss is nan")

    search.run(study, fails, 2)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL"]
    assert study.trials[0].user_attrs["reason"] == "the loss is nan"
    waiting = optuna.trial.TrialState.WAITING
    again = optuna.trial.create_trial(state=waiting, system_attrs={"failed_trial": 0, "retry_history": [0]})
    study.add_trial(again)
    assert search.first_number(study.ask()) == 0
    assert search.first_number(study.ask()) == 3
    assert search.counts(study) == {"fail": 2, "running": 2}


def test_an_interrupted_trial_waits_to_be_taken_up(tmp_path: Path) -> None:
    study = search.open_study(url(tmp_path), "mine", FACTS)

    def interrupted(trial: optuna.Trial) -> Figures:
        trial.suggest_categorical("model.width", [16, 32])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search.run(study, interrupted, 2)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "WAITING"]
    again = study.ask()
    assert search.first_number(again) == 0
    assert again.suggest_categorical("model.width", [16, 32]) == study.trials[0].params["model.width"]


def test_what_the_recipe_is_now_comes_first() -> None:
    base = tiny()
    study = optuna.create_study(directions=search.DIRECTIONS)
    search.propose_base(study, base, {"model.width": (16, 32), "model.kind": ("dense", "separable")})
    assert study.ask().suggest_categorical("model.width", (16, 32)) == 16
    other = optuna.create_study(directions=search.DIRECTIONS)
    search.propose_base(other, base, {"model.width": (32,)})
    assert other.trials == []
