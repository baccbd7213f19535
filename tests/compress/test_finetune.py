"""Training through the rounding: the run's own loop and adversary, resumable, and nearer to the float network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from painting_kit import make_icons, tiny_painting
from training_kit import tiny

from limner import bundle
from limner.compress import finetune
from limner.compress.finetune import finetune_painter, folder_of, painting_calibration, rounding_plan
from limner.compress.quantize import quantize_painter
from limner.config import RunConfig
from limner.errors import LimnerError
from limner.export.pack import pack
from limner.models.painter import Painter
from limner.train import checkpoint
from limner.train.loop import load_painter, train

COARSE = ["quantize.weight_bits=4", "quantize.activation_bits=5", "pack.max_gap=200"]


def painting_run(folder: Path, **changes: dict[str, object]) -> Path:
    """A painter trained for a moment, with an adversary from the first step on."""
    data = make_icons(folder / "icons")
    sections: dict[str, dict[str, object]] = {"adversarial": {"start_share": 0.0}, "loss": {"best_of": 1}}
    config = tiny_painting("direct", data, **sections | changes)
    train(config, data, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painting_run(tmp_path_factory.mktemp("rounding"))


def rounding(run: Path, **quantize: object) -> RunConfig:
    coarse = {"weight_bits": 4, "activation_bits": 5, "calibration_crops": 8, "lr": 2e-3, **quantize}
    return tiny_painting("direct", run.with_name("icons"), quantize=coarse, adversarial={"start_share": 0.0})


@torch.no_grad()
def gap(network: Painter, run: Path) -> float:
    """RMS difference from the float painter on noise that it was calibrated with."""
    noise, text = painting_calibration(run)
    exact = load_painter(run)[1].fold()(noise, text)
    return float((network(noise, text) - exact).square().mean().sqrt())


def finetuned(run: Path, config: RunConfig) -> Painter:
    return finetune_painter(config, load_painter(run)[1], run, run.with_name("icons"))


def test_training_through_the_rounding_brings_a_painter_nearer_to_the_float_one(run: Path) -> None:
    config = rounding(run, images=160, distill=1.0, adversarial=0.0)
    rounded = quantize_painter(load_painter(run)[1], *painting_calibration(run), config.quantize)
    assert gap(finetuned(run, config), run) < 0.6 * gap(rounded, run)
