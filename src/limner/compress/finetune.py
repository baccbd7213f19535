"""Quantization-aware training: the same loop, on the folded network with its fake-quantized convolutions."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from limner.compress.quantize import quantize
from limner.config import LossConfig, RunConfig
from limner.data.batches import CropSampler, decode_all
from limner.data.records import load_split
from limner.errors import LimnerError
from limner.models.upscaler import Upscaler
from limner.train import checkpoint
from limner.train.loop import CALIBRATION, fit, launch, teacher_of, validation_pairs
from limner.train.objectives.upscale import Upscale

FOLDER = "int8"


def calibration(run: Path) -> Tensor:
    """The low-resolution crops kept with a run, (N, 3, h, w) float in 0..1."""
    path = run / CALIBRATION
    if not path.is_file():
        raise LimnerError(f"{path}: missing; run `limner train` with the same settings again, it writes it first.")
    return load_file(path)["low"].float().div(255)


def finetune(config: RunConfig, network: Upscaler, run: Path, data: Path) -> Upscaler:
    """Quantize `network` (branches not folded) and train it config.quantize.images crops through the rounding.

    Checkpoints go to `run`/int8; an interrupted call resumes. Returns the averaged fake-quantized network.
    """
    quantized = quantize(network, calibration(run), config.quantize)
    plan = rounding_plan(config)
    out = run / FOLDER
    done = checkpoint.load(out)
    if done and done[1]["images"] >= plan.train.images:
        checkpoint.load_weights(quantized, checkpoint.section(done[0], "ema"), str(out))
        return quantized.eval()
    out.mkdir(exist_ok=True)
    fabric = launch(plan.train)
    torch.manual_seed(plan.train.seed)
    pictures = decode_all(load_split(data, "train", config.data))
    sampler = CropSampler(pictures, config.model.scale, plan.train, config.degrade, fabric.device)
    objective = Upscale(plan, sampler, validation_pairs(config, data), fabric.device, teacher_of(plan, fabric.device))
    return fit(fabric, plan, quantized, objective, out).eval()


def rounding_plan(config: RunConfig) -> RunConfig:
    """The run that fine-tunes the integer network: shorter, gentler, squared error, one level."""
    images = config.quantize.images
    pace = {"images": images, "lr": config.quantize.lr, "warmup": min(config.train.warmup, images // 10)}
    change = {"seed": config.train.seed + 1, "init": None, "optimizer": "adamw"}
    train = config.train.model_copy(update=pace | change)
    loss = LossConfig(pixel=config.loss.pixel, alphas=(1.0,), l2_share=1.0, distill=config.loss.distill)
    model = config.model.model_copy(update={"levels": 1})
    return config.model_copy(update={"train": train, "loss": loss, "model": model})
