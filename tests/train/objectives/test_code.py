"""Codes of pictures: the coder decodes them, a painter learns to recall them, and begins with the coder's trunk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from painting_kit import PAINTER, make_icons, tiny_painting
from training_kit import TWO_PROCESSES, start

from limner.config import RunConfig
from limner.errors import LimnerError, UsageError
from limner.models.coder import Coder, PictureEncoder
from limner.models.painter import Painter, Text
from limner.recipes import tuned
from limner.train.loop import train
from limner.train.runs import load_network, load_painter
from limner.train.start import painter_in

CODED = {**PAINTER, "code": 4, "thoughts": 1, "memory": 16, "mood": True, "noise": 4}


@pytest.fixture(scope="module")
def icons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_icons(tmp_path_factory.mktemp("coded") / "icons")


def config(kind: str, icons: Path, code: dict[str, object] | None = None, **train: object) -> RunConfig:
    return tiny_painting(
        "direct",
        icons,
        top={"objective": kind},
        painter=CODED,
        adversarial={"weight": 0.0},
        code=code or {},
        train=train,
    )


def losses(run: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text("utf-8").splitlines()]
    return [line[name] for line in lines if name in line]


@pytest.fixture(scope="module")
def coder(icons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("coder") / "code"
    train(config("code", icons, images=320, lr=3e-3, sample_every=160), icons, run)
    return run


def test_a_coder_learns_to_decode(coder: Path) -> None:
    found = losses(coder, "pixel")
    assert sum(found[-4:]) < 0.7 * sum(found[:4])
    assert (coder / "samples" / "000000000320.png").exists()
    assert losses(coder, "l1")


def test_codes_are_bounded_and_of_the_coarsest_grid(icons: Path) -> None:
    settings = config("code", icons)
    encoder = PictureEncoder(settings.code, settings.painter)
    codes = encoder(1000 * torch.rand(3, 4, 64, 64))
    assert codes.shape == (3, 4, 4, 4)
    assert codes.abs().max() <= 2


def test_jitter_is_for_training_alone(icons: Path) -> None:
    settings = config("code", icons)
    coder = Coder(settings.code, settings.painter, settings.text.width)
    pictures, noise = torch.rand(2, 4, 64, 64), torch.randn(2, 4, 16, 16)
    text = text_of(settings)
    assert not torch.equal(coder(pictures, noise, text), coder(pictures, noise, text))
    coder.eval()
    assert torch.equal(coder(pictures, noise, text), coder(pictures, noise, text))


def text_of(settings: RunConfig) -> Text:
    width, tokens = settings.text.width, settings.text.tokens
    return Text(
        torch.randn(2, tokens, width), torch.ones(2, tokens), torch.nn.functional.normalize(torch.randn(2, width))
    )


def test_a_painter_recalls_codes_and_keeps_the_trunk(coder: Path, icons: Path, tmp_path: Path) -> None:
    run = tmp_path / "recall"
    settings = config("recall", icons, {"run": str(coder)}, images=640, lr=1e-2, init=str(coder))
    train(settings, icons, run)
    found = losses(run, "code")
    assert sum(found[-4:]) < 0.8 * sum(found[:4])
    _, painter = load_painter(run)
    trunk = painter_in(str(coder))
    torch.testing.assert_close(painter.middle.state_dict(), trunk.middle.state_dict())
    assert not torch.equal(painter.recall.weight, trunk.recall.weight)


def test_a_painter_goes_on_from_what_it_recalls(coder: Path, icons: Path, tmp_path: Path) -> None:
    train(config("recall", icons, {"run": str(coder)}, init=str(coder)), icons, tmp_path / "recall")
    settings = config("direct", icons, images=8, lr=1e-9, init=str(tmp_path / "recall"))
    train(settings, icons, tmp_path / "direct")
    before, after = (load_network(tmp_path / name, Painter)[1] for name in ("recall", "direct"))
    torch.testing.assert_close(after.imagine.weight, before.imagine.weight, atol=1e-6, rtol=0)


def test_every_stage_trains_its_own_part(coder: Path, icons: Path, tmp_path: Path) -> None:
    def moved(before: Painter, after: Painter) -> set[str]:
        old = dict(before.named_parameters())
        return {name.split(".")[0] for name, weight in after.named_parameters() if not torch.equal(weight, old[name])}

    settings = config("recall", icons, {"run": str(coder)}, images=16, lr=1e-2, init=str(coder))
    train(settings, icons, tmp_path / "recall")
    trunk = painter_in(str(coder))
    assert moved(trunk, load_painter(tmp_path / "recall")[1]) == {"recall", "thoughts", "imagine", "mood"}
    train(config("code", icons, images=16, lr=1e-2, init=str(coder)), icons, tmp_path / "code")
    assert {"recall", "thoughts", "imagine"}.isdisjoint(moved(trunk, painter_in(str(tmp_path / "code"))))


def test_codes_for_a_trunk_that_paints_already(coder: Path, icons: Path, tmp_path: Path) -> None:
    settings = config("code", icons, {"decoder": False}, images=160, lr=3e-3, init=str(coder))
    train(settings, icons, tmp_path / "code")
    before, after = (load_network(run, Coder)[1] for run in (coder, tmp_path / "code"))
    torch.testing.assert_close(after.painter.state_dict(), before.painter.state_dict(), atol=0, rtol=0)
    assert not torch.equal(after.encoder.leave.weight, before.encoder.leave.weight)


@pytest.mark.slow
def test_every_stage_runs_in_two_processes(icons: Path, tmp_path: Path) -> None:
    code, recall, vivid = (tmp_path / name for name in ("code", "recall", "vivid"))
    critic = {"weight": 0.5, "start_share": 0.0, "versions": 1.0, "places": True}
    stages = (
        (config("code", icons), code),
        (config("recall", icons, {"run": str(code)}, init=str(code)), recall),
        (tuned(config("direct", icons, init=str(recall), precision="bf16-mixed"), adversarial=critic), vivid),
    )
    for settings, run in stages:
        assert start(settings, icons, run, *TWO_PROCESSES).wait(timeout=300) == 0
    assert losses(vivid, "critic") and losses(recall, "code")
    assert load_painter(vivid)[0].objective == "direct"


def test_a_recall_without_its_coder(coder: Path, icons: Path, tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match=r"code\.run"):
        train(config("recall", icons), icons, tmp_path / "none")
    other = tiny_painting(
        "direct",
        icons,
        top={"objective": "recall"},
        painter={**CODED, "memory": 24},
        adversarial={"weight": 0.0},
        code={"run": str(coder)},
    )
    with pytest.raises(LimnerError, match="another painter"):
        train(other, icons, tmp_path / "other")


def test_a_code_needs_channels(icons: Path) -> None:
    with pytest.raises((UsageError, ValueError), match="code"):
        tiny_painting("direct", icons, top={"objective": "code"}, painter={**CODED, "code": 0})
