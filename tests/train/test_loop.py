"""The loop on real pictures: it learns, it resumes to the same weights after kill -9, it stops on NaN."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from training_kit import TWO_PROCESSES, start, tiny

from limner.config import PainterConfig
from limner.data.records import load_split
from limner.errors import LimnerError
from limner.models.painter import Painter, Text
from limner.models.upscaler import Upscaler
from limner.train import checkpoint
from limner.train.loop import Learner, critic_rate, launch, learning_rate, train, upscaling
from limner.train.runs import load_run
from limner.train.start import begin_as


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoint.load(run)
    assert found is not None
    return found[0]


def stats(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "stats.jsonl").read_text("utf-8").splitlines()]


def test_a_run_learns_and_leaves_its_record(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny(train={"images": 800, "lr": 3e-3, "warmup": 40, "log_every": 80, "sample_every": 400}), pictures, run)
    losses = [line["pixel"] for line in stats(run) if "pixel" in line]
    assert np.mean(losses[5:8]) < 0.8 * losses[0]
    assert all(line["psnr_y"] > 10 for line in stats(run) if "psnr_y" in line)
    assert sorted(p.name for p in (run / "samples").iterdir()) == ["000000000400.png", "000000000800.png"]
    config, network = load_run(run)
    assert config.model.width == 16
    assert network(torch.rand(1, 3, 8, 8)).shape == (1, 3, 32, 32)
    assert json.loads((run / "sources.json").read_text())["sources"][0]["pictures"] >= 1


def test_kill_nine_resumes_to_the_same_weights(pictures: Path, tmp_path: Path) -> None:
    config = tiny(train={"images": 240}, adversarial={"weight": 0.01, "width": 4, "start_share": 0.2})
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(config, pictures, whole).wait(timeout=120) == 0
    process = start(config, pictures, broken)
    for _ in range(1200):
        if (found := broken / "checkpoint.json").exists() and json.loads(found.read_text())["images"] >= 40:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stopped = json.loads((broken / "checkpoint.json").read_text())["images"]
    assert 40 <= stopped < 240, "killed too late to test anything"
    assert start(config, pictures, broken).wait(timeout=120) == 0
    ours, theirs = weights(broken), weights(whole)
    assert ours.keys() == theirs.keys()
    assert any(key.startswith("critic") for key in ours)
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key
    seen = [line["images"] for line in stats(broken) if "pixel" in line]
    assert seen == sorted(set(seen))
    assert seen == [line["images"] for line in stats(whole) if "pixel" in line]


@pytest.mark.slow
def test_two_processes_learn_as_one(pictures: Path, tmp_path: Path) -> None:
    config = tiny(train={"images": 400, "log_every": 4, "channels_last": False, "accelerator": "cpu"})
    one, two = tmp_path / "one", tmp_path / "two"
    assert start(config, pictures, one).wait(timeout=300) == 0
    assert start(config, pictures, two, *TWO_PROCESSES).wait(timeout=300) == 0
    single = [line["pixel"] for line in stats(one) if "pixel" in line]
    double = [line["pixel"] for line in stats(two) if "pixel" in line]
    assert len(single) == len(double) == 100
    assert np.abs(np.array(single) - np.array(double)).max() < 1e-4


def test_nan_stops_with_a_sentence_and_keeps_the_last_good_checkpoint(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(LimnerError, match=r"lower train\.lr"):
        train(tiny(train={"lr": 1e30, "clip": 0, "warmup": 0, "images": 400}), pictures, run)
    found = checkpoint.load(run)
    assert found is None or all(value.isfinite().all() for value in found[0].values())


@pytest.mark.parametrize(("precision", "inside"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_precision_reaches_every_layer(pictures: Path, tmp_path: Path, precision: str, inside: torch.dtype) -> None:
    config = tiny(train={"precision": precision})
    fabric = launch(config.train)
    objective = upscaling(config, load_split(pictures, "train", config.data), pictures, tmp_path, fabric)
    network = Upscaler(config.model)
    seen: list[torch.dtype] = []
    network.trunk[0].register_forward_hook(lambda module, given, made: seen.append(made.dtype))
    learner = Learner(fabric, config, network, objective)
    loss = learner.learn(objective.batch(0, 0, 1), 0)["pixel"]
    assert seen == [inside]
    assert loss.dtype == torch.float32, "the loss is summed up in full precision"
    assert network.tail.weight.dtype == torch.float32


def test_other_settings_do_not_resume(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny(), pictures, run)
    with pytest.raises(LimnerError, match=r"model\.depth"):
        train(tiny(model={"depth": 3}), pictures, run)


def test_a_run_starts_from_another(pictures: Path, tmp_path: Path) -> None:
    train(tiny(), pictures, tmp_path / "x4")
    config = tiny(model={"scale": 2}, train={"init": str(tmp_path / "x4"), "images": 4, "lr": 1e-9, "lr_final": 0})
    train(config, pictures, tmp_path / "x2")
    before, after = weights(tmp_path / "x4"), weights(tmp_path / "x2")
    key = "ema.trunk.0.0.weight"
    assert torch.allclose(before[key], after[key], atol=1e-6)
    assert before["ema.tail.weight"].shape != after["ema.tail.weight"].shape


def test_a_teacher_pulls_the_student(pictures: Path, tmp_path: Path) -> None:
    train(tiny(), pictures, tmp_path / "teacher")
    plain = tiny(train={"teacher": None})
    taught = tiny(train={"teacher": str(tmp_path / "teacher")}, loss={"distill": 1.0})
    train(plain, pictures, tmp_path / "plain")
    train(taught, pictures, tmp_path / "taught")
    assert not torch.equal(
        weights(tmp_path / "plain")["ema.tail.weight"], weights(tmp_path / "taught")["ema.tail.weight"]
    )


def test_a_critic_may_learn_before_it_is_listened_to(pictures: Path, tmp_path: Path) -> None:
    knobs = {"weight": 0.01, "width": 4, "start_share": 0.25, "head_start": 0.5}
    train(tiny(train={"images": 32, "log_every": 4}, adversarial=knobs), pictures, tmp_path / "run")
    lines = [line for line in stats(tmp_path / "run") if "pixel" in line]
    shares = [(line["images"] - 4) / 32 for line in lines]
    assert [("critic" in line, "adversarial" in line) for line in lines] == [(s >= 0.25, s >= 0.75) for s in shares]


def test_a_critic_begins_with_that_of_another_run(pictures: Path, tmp_path: Path) -> None:
    knobs = {"weight": 0.01, "width": 4, "start_share": 0.0}
    train(tiny(train={"images": 32}, adversarial=knobs), pictures, tmp_path / "first")
    kept = checkpoint.section(checkpoint.load(tmp_path / "first")[0], "critic")  # type: ignore[index]
    further = {**knobs, "init": str(tmp_path / "first"), "lr": 1e-9}
    train(tiny(train={"images": 4}, adversarial=further), pictures, tmp_path / "next")
    found = checkpoint.section(checkpoint.load(tmp_path / "next")[0], "critic")  # type: ignore[index]
    assert kept.keys() == found.keys()
    assert all(torch.allclose(found[name], kept[name], atol=1e-6) for name in kept)
    train(tiny(train={"images": 4}), pictures, tmp_path / "none")
    with pytest.raises(LimnerError, match="no critic there"):
        train(tiny(adversarial={**further, "init": str(tmp_path / "none")}), pictures, tmp_path / "lost")


def test_the_rate_of_a_critic_falls_where_it_shall() -> None:
    level = tiny(train={"images": 100}, adversarial={"lr": 0.4})
    falling = tiny(train={"images": 100}, adversarial={"lr": 0.4, "lr_final": 0.2})
    assert [critic_rate(level, images) for images in (0, 50, 100)] == pytest.approx([0.4, 0.4, 0.4])
    assert [critic_rate(falling, images) for images in (0, 50, 100)] == pytest.approx([0.4, 0.3, 0.2])


def test_schedule_warms_up_and_ends_at_the_end() -> None:
    plan = tiny(train={"images": 1000, "warmup": 100, "lr": 1.0, "lr_final": 0.0}).train
    rates = [learning_rate(plan, images) for images in range(0, 1001, 4)]
    assert rates[0] < 0.1
    assert max(rates) > 0.95
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)
    assert rates[len(rates) // 2] == pytest.approx(0.5, abs=0.01)


def test_dropout_and_multiscale_run(pictures: Path, tmp_path: Path) -> None:
    train(tiny(model={"dropout": 0.2}, train={"multiscale": True, "crop": 8}), pictures, tmp_path / "run")
    assert all(np.isfinite(line["pixel"]) for line in stats(tmp_path / "run") if "pixel" in line)


def test_a_pyramid_begins_as_the_coarsest_picture_of_another_painter() -> None:
    shape = PainterConfig(widths=(16, 16, 32), condition=16, memory=8, noise=4)
    whole, pyramid = Painter(shape, 12), Painter(shape.model_copy(update={"pyramid": True}), 12)
    begin_as(pyramid, whole, "whole")
    assert all(not pyramid.heads[side].weight.any() for side in ("16", "32", "64"))
    torch.testing.assert_close(pyramid.heads["8"].weight, whole.heads["8"].weight)
    torch.nn.init.ones_(pyramid.heads["64"].weight)  # type: ignore[arg-type]
    further = Painter(pyramid.config, 12)
    begin_as(further, pyramid, "pyramid")
    torch.testing.assert_close(further.heads["64"].weight, pyramid.heads["64"].weight)


def test_larger_heads_begin_as_the_same_painter() -> None:
    shape = PainterConfig(widths=(16, 16, 32), condition=16, memory=8, noise=4, pyramid=True)
    small, large = Painter(shape, 12), Painter(shape.model_copy(update={"head_kernel": 3}), 12)
    begin_as(large, small, "small")
    draw = torch.Generator().manual_seed(0)
    noise, states, pooled = (torch.randn(shape, generator=draw) for shape in ((2, 4, 16, 16), (2, 6, 12), (2, 12)))
    text = Text(states, torch.ones(2, 6), pooled)
    torch.testing.assert_close(large(noise, text), small(noise, text))
    assert large.heads["64"].weight.shape == (64, 16, 3, 3)
