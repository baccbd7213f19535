"""Quantization-aware training: the same loop, on the folded network with its fake-quantized convolutions."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from lightning.fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor, nn

from limner.compress.quantize import quantize, quantize_painter
from limner.config import LossConfig, RunConfig, TrainConfig
from limner.data.batches import CropSampler, decode_all
from limner.data.records import load_split, split_of
from limner.errors import LimnerError
from limner.models.painter import Painter, Text
from limner.models.upscaler import Upscaler
from limner.train import checkpoint
from limner.train.loop import PAINTINGS, VECTORS, fit, launch, open_selected, validation_pairs
from limner.train.objectives.base import Objective
from limner.train.objectives.painting import Painting, material
from limner.train.objectives.upscale import Upscale
from limner.train.runs import CALIBRATION, CONFIG, SOURCES
from limner.train.start import critic_weights, teacher_of

FOLDER = "int8"
Network = TypeVar("Network", bound=nn.Module)


def calibration(run: Path) -> Tensor:
    """The low-resolution crops kept with a run, (N, C, h, w) float in 0..1."""
    return _kept(run)["low"].float().div(255)


def painting_calibration(run: Path) -> tuple[Tensor, Text]:
    """The noise (N, channels, G, G) and text vectors kept with a painter's run."""
    found = _kept(run)
    return found["noise"].permute(0, 3, 1, 2), Text(*(found[name] for name in Text._fields))


def trained_on(run: Path) -> Path:
    """Where a run found its pictures."""
    return Path(json.loads((run / SOURCES).read_text("utf-8"))["data"])


def _kept(run: Path) -> dict[str, Tensor]:
    path = run / CALIBRATION
    if not path.is_file():
        raise LimnerError(f"{path}: missing; run `limner train` with the same settings again, it writes it first.")
    return load_file(path)


def finetune(config: RunConfig, network: Upscaler, run: Path, data: Path) -> Upscaler:
    """Quantize `network` (branches not folded) and train it config.quantize.images crops through the rounding.

    Checkpoints go to a folder below `run`/int8 that belongs to the settings; an interrupted call resumes. Returns the
    averaged fake-quantized network.
    """
    plan = rounding_plan(config, has_critic(run))
    exact = copy.deepcopy(network).fold().eval()

    def objective(fabric: Fabric) -> Upscale:
        pictures = decode_all(load_split(data, "train", config.data), config.model.channels)
        sampler = CropSampler(pictures, config.model.scale, plan.train, config.degrade, fabric.device)
        own = torch.no_grad()(exact.to(fabric.device).__call__)
        teacher = own if plan.quantize.distill else teacher_of(plan, fabric.device)
        return Upscale(plan, sampler, validation_pairs(config, data), fabric.device, teacher)

    return _rounded(plan, quantize(network, calibration(run), config.quantize), run, objective)


def finetune_painter(config: RunConfig, network: Painter, run: Path, data: Path) -> Painter:
    """Quantize `network` (folded in place) and train it config.quantize.images pictures through the rounding.

    The objective is that of the run: its multi-level regression, its adversary (which goes on from the run's critic)
    and its text match; with quantize.distill also the float painter's pictures of the same noise. Else as `finetune`.
    """
    plan = rounding_plan(config, has_critic(run))
    exact = copy.deepcopy(network).fold().eval()

    def objective(fabric: Fabric) -> Objective:
        records = load_split(data, "train", config.data, config.data.captions)
        held = [r for r in open_selected(data, config) if split_of(r, config.data) == "validation"]
        cache = Path(config.text.cache) if config.text.cache else run.parent / VECTORS
        made = PAINTINGS[config.objective](plan, material(plan, records, held, cache, fabric.device), fabric.device)
        if isinstance(made, Painting) and plan.quantize.distill:
            made.teacher = torch.no_grad()(exact.to(fabric.device).levels)
        return made

    return _rounded(plan, quantize_painter(network, *painting_calibration(run), config.quantize), run, objective)


def has_critic(run: Path) -> bool:
    """Whether the adversary of a run was trained and kept."""
    return bool(critic_weights(run))


def rounding_plan(config: RunConfig, seasoned: bool = False) -> RunConfig:
    """The run that fine-tunes the integer network: shorter, gentler; for upscalers squared error at one level.

    `seasoned`: there is a trained critic, which need not wait.
    """
    images, rounding = config.quantize.images, config.quantize
    last = min(config.train.lr_final, TrainConfig().lr_final)  # the constant rate of a run is none for this
    pace = {"images": images, "lr": rounding.lr, "lr_final": last, "warmup": min(config.train.warmup, images // 10)}
    place = {"accelerator": "auto", "devices": 1}  # packing need not be where training was
    change = {"seed": config.train.seed + 1, "init": None, "optimizer": "adamw"}
    weight = config.adversarial.weight if rounding.adversarial is None else rounding.adversarial
    start = {"start_share": 0.0, "head_start": 0.0} if seasoned else {}
    parts = {
        "train": config.train.model_copy(update=pace | place | change),
        "adversarial": config.adversarial.model_copy(update={"weight": weight} | start),
        "loss": config.loss.model_copy(update={"distill": rounding.distill}),
    }
    if config.task == "upscale":
        distill = rounding.distill or config.loss.distill
        parts["loss"] = LossConfig(pixel=config.loss.pixel, alphas=(1.0,), l2_share=1.0, distill=distill)
        parts["model"] = config.model.model_copy(update={"levels": 1})
    return config.model_copy(update=parts)


def _rounded(plan: RunConfig, network: Network, run: Path, objective: Callable[[Fabric], Objective]) -> Network:
    """`network` after the run `plan`, or what an earlier call with the same settings made of it."""
    out = folder_of(plan, run)
    done = checkpoint.load(out)
    if done and done[1]["images"] >= plan.train.images:
        checkpoint.load_weights(network, checkpoint.section(done[0], "ema"), str(out))
        return network.eval()
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(out / CONFIG, plan.model_dump(mode="json"))
    fabric = launch(plan.train)
    torch.manual_seed(plan.train.seed)
    made = objective(fabric)
    return fit(fabric, plan, network, made, out, _critic(plan, run, made)).eval()


def folder_of(plan: RunConfig, run: Path) -> Path:
    """Where the rounding of `run` with these settings is kept: other settings, or more training, get another folder."""
    found = checkpoint.load(run)
    images = found[1]["images"] if found else 0
    settings = plan.model_dump_json(exclude={"pack"})
    return run / FOLDER / hashlib.sha256(f"{images} {settings}".encode()).hexdigest()[:8]


def _critic(plan: RunConfig, run: Path, objective: Objective) -> nn.Module | None:
    weights = critic_weights(run)
    if not (plan.adversarial.weight and weights):
        return None
    critic = objective.critic()
    checkpoint.load_weights(critic, weights, str(run))
    return critic
