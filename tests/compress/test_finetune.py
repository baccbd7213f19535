"""Training through the rounding: the run's own loop and adversary, resumable, and nearer to the float network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from painting_kit import make_icons, tiny_painting
from training_kit import tiny

from limner import bundle
from limner.compress.finetune import finetune_painter, folder_of, painting_calibration, rounding_plan
from limner.compress.quantize import quantize, quantize_painter, quantized_layers
from limner.config import QuantizeConfig, RunConfig, UpscalerConfig
from limner.errors import LimnerError
from limner.export.pack import pack
from limner.models.discriminator import Discriminator
from limner.models.painter import Painter
from limner.models.upscaler import Upscaler
from limner.train import checkpoint
from limner.train.loop import Learner, learning_rate, train
from limner.train.runs import load_painter
from limner.train.step import generator_loss

COARSE = {"weight_bits": 3, "calibration_crops": 8, "lr": 2e-3, "distill": 1.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A painter trained for a moment, with an adversary from the first step on."""
    folder = tmp_path_factory.mktemp("rounding")
    train(painting(folder), make_icons(folder / "icons"), folder / "run")
    return folder / "run"


def painting(folder: Path, **quantize: object) -> RunConfig:
    return tiny_painting(
        "direct",
        folder / "icons",
        adversarial={"start_share": 0.0},
        loss={"best_of": 1},
        quantize=COARSE | quantize,
    )


def finetuned(run: Path, config: RunConfig) -> Painter:
    return finetune_painter(config, load_painter(run)[1], run, run.with_name("icons"))


@torch.no_grad()
def gap(network: Painter, run: Path) -> float:
    """RMS difference from the float painter on what it was calibrated with."""
    noise, text = painting_calibration(run)
    return float((network(noise, text) - load_painter(run)[1].fold()(noise, text)).square().mean().sqrt())


def weights(folder: Path, part: str) -> dict[str, torch.Tensor]:
    found = checkpoint.load(folder)
    assert found is not None
    return checkpoint.section(found[0], part)


def test_training_through_the_rounding_brings_a_painter_nearer_to_the_float_one(run: Path) -> None:
    config = painting(run.parent, images=160, adversarial=0.0)
    rounded = quantize_painter(load_painter(run)[1], *painting_calibration(run), config.quantize)
    trained = finetuned(run, config)
    assert gap(trained, run) < 0.8 * gap(rounded, run)
    assert len(quantized_layers(trained)) == len(quantized_layers(rounded))
    assert not weights(folder_of(rounding_plan(config, True), run), "critic")


def test_the_adversary_goes_on_from_the_critic_of_the_run(run: Path) -> None:
    config = painting(run.parent, images=8, distill=0.5)
    finetuned(run, config)
    folder = folder_of(rounding_plan(config, True), run)
    before, after = weights(run, "critic"), weights(folder, "critic")
    steps = [float((after[name] - before[name]).abs().max()) for name in before]
    assert 0 < max(steps) < 3 * config.adversarial.lr  # one step of Adam; a new critic would be far away
    line = json.loads((folder / "stats.jsonl").read_text("utf-8").splitlines()[0])
    assert {"pixel", "adversarial", "critic"} <= line.keys()


@pytest.mark.slow
def test_an_interrupted_rounding_resumes_to_the_same_weights(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = painting(run.parent, images=32)
    folder = folder_of(rounding_plan(config, True), run)
    whole = {n: w.clone() for n, w in finetuned(run, config).state_dict().items()}
    for path in folder.glob("checkpoint*"):
        path.unlink()
    save = Learner.save

    def save_and_die(learner: Learner[Painter], out: Path, images: int) -> None:
        save(learner, out, images)
        raise KeyboardInterrupt

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(Learner, "save", save_and_die)
        finetuned(run, config)
    resumed = finetuned(run, config).state_dict()
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())


def test_pack_trains_a_painter_through_the_rounding(run: Path, tmp_path: Path) -> None:
    knobs = ["quantize.images=80", "quantize.distill=1.0", "quantize.adversarial=0.0", "quantize.weight_bits=3"]
    knobs += ["quantize.lr=2e-3", "pack.max_gap=200"]
    first = pack(run, tmp_path / "first", [], None, knobs)
    assert isinstance(first, bundle.PainterManifest)
    assert first.scores["int8_gap"] < first.scores["int8_gap_untrained"]
    assert all(errors["int8"] < 0.5 for errors in first.scores["parity"].values())
    with pytest.raises(LimnerError, match=r"int8 pictures differ by .* train through the rounding"):
        pack(run, tmp_path / "second", [], None, [*knobs, "pack.max_gap=1e-9"])
    assert pack(run, tmp_path / "again", [], None, knobs).files == first.files


def test_other_settings_and_more_training_get_a_folder_of_their_own(run: Path) -> None:
    plain, other = (rounding_plan(painting(run.parent, images=n)) for n in (8, 16))
    assert folder_of(plain, run) != folder_of(other, run)
    assert folder_of(plain, run) == folder_of(rounding_plan(painting(run.parent, images=8)), run)
    gated = plain.model_copy(update={"pack": plain.pack.model_copy(update={"max_gap": 1.0})})
    assert folder_of(gated, run) == folder_of(plain, run)


@pytest.mark.parametrize(
    ("quantize", "seasoned", "weight", "start"),
    [({}, True, 0.5, 0.0), ({"adversarial": 0.0}, True, 0.0, 0.0), ({"adversarial": 0.1}, False, 0.1, 0.6)],
)
def test_the_plan_takes_the_adversary_of_the_run_unless_told(
    quantize: dict[str, object], seasoned: bool, weight: float, start: float, tmp_path: Path
) -> None:
    config = tiny_painting("direct", tmp_path / "icons", quantize={"images": 800, "distill": 0.3, **quantize})
    plan = rounding_plan(config, seasoned)
    assert (plan.adversarial.weight, plan.adversarial.start_share) == (weight, start)
    assert plan.loss.distill == 0.3
    assert plan.loss.alphas == config.loss.alphas


def test_an_upscaler_keeps_one_level_and_may_gain_an_adversary() -> None:
    plan = rounding_plan(tiny(quantize={"images": 80, "adversarial": 0.005}))
    assert (plan.model.levels, plan.loss.alphas, plan.loss.l2_share) == (1, (1.0,), 1.0)
    assert plan.adversarial.weight == 0.005


def test_the_rate_falls_to_nothing_after_a_run_at_a_constant_one() -> None:
    plan = rounding_plan(tiny(train={"lr": 4e-4, "lr_final": 4e-4}, quantize={"images": 80, "lr": 2e-4}))
    assert learning_rate(plan.train, 80) < 0.01 * learning_rate(plan.train, 16)


def test_the_adversary_reaches_every_weight_through_the_rounding() -> None:
    torch.manual_seed(0)
    low, high = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    network = quantize(Upscaler(UpscalerConfig(scale=2, width=16, depth=2)), low, QuantizeConfig()).train()
    generator_loss(Discriminator(8), network(low), high).backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.slow
def test_an_upscaler_is_packed_after_adversarial_rounding(pictures: Path, tmp_path: Path) -> None:
    knobs = {"images": 32, "adversarial": 0.005, "distill": 0.5}
    config = tiny(quantize=knobs, adversarial={"width": 4, "start_share": 0.0}, pack={"max_drop": 90, "min_gain": -90})
    train(config, pictures, tmp_path / "run")
    pack(tmp_path / "run", tmp_path / "bundle", [pictures])
    (stats,) = (tmp_path / "run" / "int8").glob("*/stats.jsonl")
    assert "adversarial" in json.loads(stats.read_text("utf-8").splitlines()[0])
