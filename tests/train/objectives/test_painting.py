"""Every objective of painters on real (tiny) data: it learns, resumes to the same weights, says what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from painting_kit import make_icons, tiny_painting

from limner.data.painting import PaintingSampler
from limner.data.records import load_split
from limner.errors import LimnerError
from limner.recipes import tuned
from limner.train import checkpoint
from limner.train.loop import train
from limner.train.objectives.match import own_half
from limner.train.objectives.painting import style_words
from limner.train.runs import load_encoder, load_painter, load_run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_icons(tmp_path_factory.mktemp("painting") / "icons")


def stats(run: Path, key: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text("utf-8").splitlines()]
    return [line[key] for line in lines if key in line]


@pytest.fixture(scope="module")
def encoder(data: Path) -> Path:
    run = data.with_name("match")
    train(tiny_painting("match", data, train={"images": 160, "lr": 4e-3, "batch": 8}), data, run)
    return run


def test_the_encoder_learns_which_caption_belongs(encoder: Path) -> None:
    losses = stats(encoder, "contrastive")
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert 0 <= stats(encoder, "retrieved")[-1] <= 1
    assert load_encoder(encoder)(torch.rand(2, 4, 64, 64), torch.rand(2, 12)).shape == (2, 2)


def test_a_direct_painter_learns_and_shows_it(data: Path, encoder: Path) -> None:
    match = {"run": str(encoder), "weight": 0.01, "features": 0.01}
    run = data.with_name("direct")
    config = tiny_painting(
        "direct", data, match=match, adversarial={"weight": 0}, train={"images": 240, "lr": 2e-3, "sample_every": 240}
    )
    train(config, data, run)
    pixel = stats(run, "pixel")
    assert sum(pixel[-5:]) < 0.6 * sum(pixel[:5])
    assert {"match", "features"} <= json.loads((run / "stats.jsonl").read_text().splitlines()[0]).keys()
    assert (run / "samples" / "000000000240.png").is_file()
    assert json.loads((run / "text.json").read_text())["styles"] == {"flat": "flat style"}


def test_the_adversary_learns_in_mixed_precision(data: Path, tmp_path: Path) -> None:
    """Its gradients at the picture and its penalties are taken beside the backward pass, which Fabric must allow."""
    config = tiny_painting("direct", data, adversarial={"start_share": 0.0, "penalty_every": 2, "cell": 2})
    train(tuned(config, train={"precision": "bf16-mixed"}), data, tmp_path / "run")
    for name in ("adversarial", "critic", "r1", "mismatch"):
        assert len(stats(tmp_path / "run", name)) == 4


@pytest.mark.parametrize("kind", ["direct", "gan", "flow"])
def test_an_interrupted_run_ends_with_the_same_weights(
    kind: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_painting(kind, data, adversarial={"start_share": 0.0, "penalty_every": 2})
    train(config, data, tmp_path / "whole")
    draw = PaintingSampler.batch

    def stopped(self: PaintingSampler, step: int, *share: int) -> object:
        if step == 3:
            raise KeyboardInterrupt
        return draw(self, step, *share)

    monkeypatch.setattr(PaintingSampler, "batch", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(config, data, tmp_path / "broken")
    monkeypatch.setattr(PaintingSampler, "batch", draw)
    train(config, data, tmp_path / "broken")
    ours, theirs = (checkpoint.load(tmp_path / name) for name in ("broken", "whole"))
    assert ours is not None
    assert theirs is not None
    assert any(key.startswith("critic") for key in ours[0]) == (kind != "flow")
    for key, value in ours[0].items():
        assert torch.equal(value, theirs[0][key]), key


def test_a_student_starts_from_its_teacher_and_learns_its_pairs(data: Path, tmp_path: Path) -> None:
    teacher, pairs, run = (tmp_path / name for name in ("teacher", "pairs", "student"))
    train(tiny_painting("flow", data, train={"images": 8}), data, teacher)
    train(tiny_painting("pairs", data, pairs={"teacher": str(teacher)}), data, pairs)
    config = tiny_painting(
        "student",
        data,
        pairs={"folder": str(pairs)},
        train={"images": 8, "lr": 1e-9, "lr_final": 0, "init": str(teacher)},
    )
    train(config, data, run)
    student, taught = load_painter(run)[1], load_painter(teacher)[1].fold()
    for (name, ours), theirs in zip(student.named_parameters(), taught.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name, atol=1e-5, rtol=0)
    assert stats(run, "pixel")[0] < 0.3


def test_a_student_without_pairs_is_told_so(data: Path, tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match=r"set pairs\.folder"):
        train(tiny_painting("student", data), data, tmp_path / "run")


def test_vectors_of_another_width_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match=r"have 12 numbers, text\.width is 384"):
        train(tiny_painting("direct", data, text={"width": 384}), data, tmp_path / "run")


def test_runs_of_another_kind_are_refused(data: Path, encoder: Path) -> None:
    with pytest.raises(LimnerError, match="holds a PicturePrompt"):
        load_painter(encoder)
    with pytest.raises(LimnerError, match="not a Upscaler"):
        load_run(encoder)


def test_losses_learn_from_one_half_of_the_groups(data: Path) -> None:
    from limner.evaluate.judges import half_of

    records = load_split(data, "train", tiny_painting("direct", data).data)
    assert own_half(records) == [record for record in records if half_of(record.group) == "a"]


def test_style_words_are_what_follows_the_name(data: Path) -> None:
    records = load_split(data, "train", tiny_painting("direct", data).data)
    assert style_words(records) == {"flat": "flat style"}


def test_keys_younger_than_a_run_do_not_stop_it(data: Path, tmp_path: Path) -> None:
    config, run = tiny_painting("direct", data, train={"images": 8}), tmp_path / "run"
    train(config, data, run)
    stored = json.loads((run / "config.json").read_text())
    del stored["flow"], stored["adversarial"]["mismatch"]
    (run / "config.json").write_text(json.dumps(stored))
    with pytest.raises(LimnerError, match=r"train\.lr"):
        train(tiny_painting("direct", data, train={"images": 8, "lr": 0.1}, flow={"steps": 12}), data, run)
    with pytest.raises(
        LimnerError, match=r"flow\.steps"
    ):  # the kit's 2 is not the default that the run is taken to have
        train(config, data, run)
    train(tiny_painting("direct", data, train={"images": 8}, flow={"steps": 12}), data, run)
