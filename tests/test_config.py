from __future__ import annotations

import pytest

from limner.config import PainterConfig, merge, override, parse
from limner.errors import UsageError
from limner.recipes import RECIPES, icons_direct, photo_x4, tuned


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_are_whole_and_survive_json(name: str) -> None:
    config = RECIPES[name]()
    assert parse(config.model_dump(mode="json"), name) == config


@pytest.mark.parametrize("name", [name for name in sorted(RECIPES) if name.startswith("photo")])
def test_shipped_recipes_leave_out_share_alike_and_research_pictures(name: str) -> None:
    assert {"by-sa", "non-commercial"} <= set(RECIPES[name]().data.exclude_licenses)


def test_unknown_key_names_its_path() -> None:
    with pytest.raises(UsageError, match=r"train\.learning_rate"):
        override(photo_x4(), ["train.learning_rate=1"])
    with pytest.raises(UsageError, match=r"run\.toml: unknown key 'model\.heads'"):
        merge(photo_x4(), {"model": {"heads": 2}}, "run.toml")
    with pytest.raises(UsageError, match="no section"):
        override(photo_x4(), ["trane.lr=1"])


def test_values_are_checked_and_typed() -> None:
    config = override(photo_x4(), ["train.lr=5e-4", "model.kind=dense", "train.teacher=none", "loss.alphas=[0.5, 1.0]"])
    assert config.train.lr == 5e-4
    assert config.model.kind == "dense"
    assert config.loss.alphas == (0.5, 1.0)
    with pytest.raises(UsageError, match=r"model\.width"):
        override(photo_x4(), ["model.width=0"])
    with pytest.raises(UsageError, match=r"section\.key=value"):
        override(photo_x4(), ["train.lr"])


def test_sections_must_agree() -> None:
    with pytest.raises(UsageError, match=r"loss\.alphas"):
        override(photo_x4(), ["model.levels=3"])
    with pytest.raises(UsageError, match=r"multiple of model\.unshuffle"):
        override(photo_x4(), ["model.unshuffle=2", "train.crop=47"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("painter.down=[1]", r"3 widths need 2 entries each in down and up"),
        ("painter.size=40", r"size=40 is not a multiple of 16"),
        ("painter.attention=[3]", r"names a level that is not among 0 to 2"),
        ("painter.heads=3", r"heads=3 does not divide"),
        ("loss.alphas=[1.0]", r"loss\.alphas has 1 weights for pictures of \(8, 16, 32, 64\) pixels"),
        ("painter.timed=true", r"timed=true is for flows"),
        ("objective=flow", r"a flow needs painter\.timed=true and painter\.noise=64"),
        ("objective=upscale", r"objective='upscale' is not one of task='generate'"),
    ],
)
def test_painters_must_be_possible(change: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        override(icons_direct(), [change])


def test_levels_of_a_painter() -> None:
    assert PainterConfig().grids == (16, 8, 4)
    assert PainterConfig().sides == (8, 16, 32, 64)
    assert PainterConfig(cell=2, widths=(16,) * 4, down=(0,) * 3, up=(1,) * 3).sides == (8, 16, 32, 64)
    assert PainterConfig(cell=2, widths=(16,) * 2, down=(0,), up=(1,)).sides == (16, 32, 64)
    assert PainterConfig(size=128, cell=8, widths=(16,), down=(), up=(), attention=()).sides == (16, 32, 64, 128)


def test_tuned_replaces_keys_and_checks_them() -> None:
    assert tuned(photo_x4(), model={"depth": 4}).model.depth == 4
    assert tuned(photo_x4(), model={"depth": 4}).model.width == photo_x4().model.width
    with pytest.raises(ValueError, match="levels"):
        tuned(photo_x4(), model={"depth": 1})
