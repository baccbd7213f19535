"""The training loop, to be read from top to bottom. Progress is counted in images; the same command resumes."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import AdamW

from limner.config import RunConfig, TrainConfig
from limner.data.batches import CropSampler, decode_all
from limner.data.records import Record, load_split, open_records, select, split_of
from limner.errors import LimnerError
from limner.models import NETWORKS
from limner.train import checkpoint
from limner.train.ema import EMA
from limner.train.muon import Muon
from limner.train.objectives.base import Made, Objective
from limner.train.objectives.code import Coding, Recall
from limner.train.objectives.direct import Direct
from limner.train.objectives.flow import Flow
from limner.train.objectives.match import Matching, own_half
from limner.train.objectives.painting import Material, Painting, material
from limner.train.objectives.student import Student
from limner.train.objectives.upscale import Upscale
from limner.train.pairs import write_pairs
from limner.train.progress import progress_bar
from limner.train.runs import load_painter, open_run, save_calibration, save_painting_calibration
from limner.train.samples import HeldOut, held_out
from limner.train.start import critic_of, painting_teacher_of, teacher_of, warm_start
from limner.train.step import balanced, discriminator_losses, generator_loss

STATS, VECTORS = "stats.jsonl", "text-vectors.sqlite"
VALIDATION_PICTURES = 16
# fused: one pass over the memory of a parameter instead of ten, 6 % of a painter's step
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adamw": partial(AdamW, fused=True), "muon": Muon}
PAINTINGS: dict[str, Callable[[RunConfig, Material, torch.device], Objective]] = {
    "direct": Direct,
    "flow": Flow,
    "match": Matching,
    "student": Student,
    "code": Coding,
    "recall": Recall,
}
Network = TypeVar("Network", bound=nn.Module)


def train(config: RunConfig, data: Path, out: Path) -> None:
    """Run `config` on the pictures under `data` in the run folder `out`; resumes where an earlier call stopped.

    Raises LimnerError when the data does not do, when `out` holds a run with other settings, or when the loss is NaN.
    """
    # Each stage of a painter trains a part of it: the rest must not be waited for.
    fabric = launch(config.train, partial_use=config.task == "generate")
    records = load_split(data, "train", config.data, config.data.captions)
    records = own_half(records) if config.objective == "match" else records
    if fabric.is_global_zero:
        open_run(config, records, data, out)
    fabric.barrier()
    if config.task == "upscale":
        objective = upscaling(config, records, data, out, fabric)
    else:
        found = painting(config, records, data, out, fabric)
        if config.objective == "pairs":
            write_pairs(config, load_painter(Path(config.pairs.teacher or "")), records, found, out, fabric.device)
            return
        objective = PAINTINGS[config.objective](config, found, fabric.device)
        if isinstance(objective, Painting):
            objective.teacher = painting_teacher_of(config, fabric.device)
    torch.manual_seed(config.train.seed)
    network = NETWORKS[config.objective](config)
    if config.train.init:
        warm_start(network, config.train.init)
    fit(fabric, config, network, objective, out, critic_of(config, objective))


def upscaling(config: RunConfig, records: list[Record], data: Path, out: Path, fabric: Fabric) -> Upscale:
    """Crops of the pictures, held-out pairs, and a teacher where the configuration names one."""
    sampler = CropSampler(
        decode_all(records, config.model.channels), config.model.scale, config.train, config.degrade, fabric.device
    )
    if fabric.is_global_zero:
        save_calibration(config, sampler, out)
    return Upscale(config, sampler, validation_pairs(config, data), fabric.device, teacher_of(config, fabric.device))


def painting(config: RunConfig, records: list[Record], data: Path, out: Path, fabric: Fabric) -> Material:
    """Pictures and text vectors; one process encodes captions that are new, the others then find them."""
    held = [r for r in open_selected(data, config) if split_of(r, config.data) == "validation"]
    cache = Path(config.text.cache) if config.text.cache else out.parent / VECTORS
    with fabric.rank_zero_first():
        found = material(config, records, held, cache, fabric.device)
    if fabric.is_global_zero:
        save_painting_calibration(config, found, out)
    return found


def open_selected(data: Path, config: RunConfig) -> list[Record]:
    """The records of every split that pass the filters."""
    return select(open_records(data, config.data, config.data.captions), config.data)


def launch(config: TrainConfig, partial_use: bool = False) -> Fabric:
    """A Fabric for this process: plain, or DDP when torchrun started several. `partial_use`: a step may leave some
    parameters without gradient.
    """
    world, local = int(os.environ.get("WORLD_SIZE") or config.devices), int(os.environ.get("LOCAL_WORLD_SIZE") or 0)
    if config.batch % world:
        raise LimnerError(f"train.batch={config.batch} cannot be shared by {world} processes: use a multiple.")
    if config.threads:
        torch.set_num_threads(config.threads)
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=local or config.devices,
        num_nodes=world // (local or config.devices),
        strategy=("ddp_find_unused_parameters_true" if partial_use else "ddp") if world > 1 else "auto",
        precision=config.precision,
    )
    fabric.launch()
    return fabric


def fit(
    fabric: Fabric,
    config: RunConfig,
    network: Network,
    objective: Objective,
    out: Path,
    critic: nn.Module | None = None,
) -> Network:
    """Train `network` until config.train.images; returns it on the CPU, in eval mode, with the averaged weights.

    `critic`: the adversary to begin with, where there is one; default: a new one of the objective.
    """
    plan, size = config.train, config.train.batch
    learner = Learner(fabric, config, network, objective, critic)
    step = learner.resume(out) // size
    log = Log(fabric, out, step * size)
    with progress_bar(out.name, plan.images, step * size, fabric.is_global_zero) as advance:
        while step * size < plan.images:
            torch.manual_seed(_seed(plan.seed, step))
            losses = learner.learn(objective.batch(step, fabric.global_rank, fabric.world_size), step)
            step += 1
            images = step * size
            done = images >= plan.images
            log.add(losses)
            if _due(images, size, plan.log_every) or done:
                log.write(images, learning_rate(plan, images), out)
            if (_due(images, size, plan.sample_every) or done) and fabric.is_global_zero:
                log.score(images, objective.validate(learner.averaged(), out / "samples" / f"{images:012d}.png"))
            if _due(images, size, plan.checkpoint_every) or done:
                learner.save(out, images)
            advance(images, log.last)
    return learner.averaged().cpu()


def _seed(*path: int) -> int:
    return int(np.random.SeedSequence(path).generate_state(1)[0])


def _due(images: int, batch: int, every: int) -> bool:
    return images // every > (images - batch) // every


def learning_rate(plan: TrainConfig, images: int) -> float:
    """Linear warm-up, then a cosine from lr to lr_final that ends with the run (Loshchilov & Hutter 2017, eq. 5)."""
    warm = min(1.0, (images + plan.batch) / max(plan.warmup, 1))
    return warm * _cosine(plan.lr, plan.lr_final, images / plan.images)


def critic_rate(config: RunConfig, images: int) -> float:
    """adversarial.lr, or where it is told to fall, the same cosine to its lr_final."""
    knobs = config.adversarial
    return _cosine(knobs.lr, knobs.lr if knobs.lr_final is None else knobs.lr_final, images / config.train.images)


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


class Learner(Generic[Network]):
    """Everything a step changes: the network, its average, the critic, and their optimizers."""

    def __init__(
        self,
        fabric: Fabric,
        config: RunConfig,
        network: Network,
        objective: Objective,
        critic: nn.Module | None = None,
    ) -> None:
        self.fabric, self.config, self.objective = fabric, config, objective
        plan = config.train
        self.memory = torch.channels_last if plan.channels_last else torch.contiguous_format
        self.shadow = copy.deepcopy(network).eval().to(fabric.device)
        self.raw = network.to(memory_format=self.memory)  # type: ignore[call-overload]
        for name, parameter in network.named_parameters():
            if not objective.trains(name):
                parameter.requires_grad_(False)
        optimizer = OPTIMIZERS[plan.optimizer](
            network.parameters(), plan.lr, betas=(0.9, plan.beta2), weight_decay=plan.weight_decay
        )
        self.network, self.optimizer = fabric.setup(network, optimizer)
        for method in objective.methods:
            self.network.mark_forward_method(method)
        self.ema = EMA(self.raw, plan.ema)
        self.critic: nn.Module | None = None
        if config.adversarial.weight:
            self._add_critic(critic or objective.critic())

    def _add_critic(self, critic: nn.Module) -> None:
        optimizer = AdamW(
            critic.parameters(), self.config.adversarial.lr, betas=(0.0, 0.99), weight_decay=0, fused=True
        )
        self.raw_critic = critic.to(memory_format=self.memory)  # type: ignore[call-overload]
        module, self.critic_optimizer = self.fabric.setup(critic, optimizer)
        # Without Fabric's own wrapper (DDP's stays), which forbids autograd.grad in mixed precision.
        self.critic = module._forward_module

    def learn(self, batch: Any, step: int) -> dict[str, Tensor]:
        """One step on the process's share of the global batch; returns detached losses."""
        plan, images = self.config.train, step * self.config.train.batch
        share = images / plan.images
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(plan, images)
        self.network.train()
        knobs = self.config.adversarial
        critic = self.critic if share >= knobs.start_share else None
        # Fabric enters train.precision by itself for `forward` alone, not for the objective's own methods.
        with self.fabric.autocast():
            made = self.objective.made(self.network, batch, share)
            losses = dict(made.losses)
            if critic is not None and share >= knobs.start_share + knobs.head_start:
                losses["adversarial"] = self._fooling(critic, made)
        self.optimizer.zero_grad()
        self.fabric.backward(torch.stack(list(losses.values())).sum())
        if plan.clip:
            self.fabric.clip_gradients(self.network, self.optimizer, max_norm=plan.clip, error_if_nonfinite=False)
        self.optimizer.step()
        self.ema.update(self.raw, step)
        if critic is not None:
            losses |= self._criticize(critic, made, step)
        return {name: loss.detach() for name, loss in losses.items()}

    def _fooling(self, critic: nn.Module, made: Made) -> Tensor:
        assert made.fake is not None and made.real is not None
        knobs, judge = self.config.adversarial, self.objective.judge(critic, made)
        if knobs.balance:
            return balanced(generator_loss(judge, made.fake, made.real), made.losses["pixel"], made.fake, knobs.weight)
        return knobs.weight * generator_loss(judge, made.fake, made.real)

    def _criticize(self, critic: nn.Module, made: Made, step: int) -> dict[str, Tensor]:
        assert made.fake is not None and made.real is not None
        knobs, judge = self.config.adversarial, self.objective.judge(critic, made)
        penalize = step % knobs.penalty_every == 0
        with nullcontext() if penalize else self.fabric.autocast():  # second derivatives are left in float
            losses = discriminator_losses(judge, made.fake, made.real, knobs.gamma, penalize, knobs.penalty_every)
            further = self.objective.criticism(critic, made)
        for group in self.critic_optimizer.param_groups:
            group["lr"] = critic_rate(self.config, step * self.config.train.batch)
        self.critic_optimizer.zero_grad()
        self.fabric.backward(torch.stack([losses.total, *further.values()]).sum())
        self.critic_optimizer.step()
        return {"critic": losses.relativistic, "r1": losses.r1, "r2": losses.r2, **further}

    def averaged(self) -> Network:
        """The network with the averaged weights, in eval mode."""
        self.ema.copy_to(self.shadow)
        return self.shadow

    def save(self, out: Path, images: int) -> None:
        if not self.fabric.is_global_zero:
            return
        tensors = {f"network.{n}": p for n, p in self.raw.named_parameters()}
        tensors |= {f"ema.{n}": p for n, p in self.ema.weights.items()}
        tensors |= checkpoint.optimizer_tensors(self.optimizer.optimizer, "optimizer")
        if self.critic is not None:
            tensors |= {f"critic.{n}": p for n, p in self.raw_critic.named_parameters()}
            tensors |= checkpoint.optimizer_tensors(self.critic_optimizer.optimizer, "critic_optimizer")
        checkpoint.save(out, tensors, {"images": images})

    def resume(self, out: Path) -> int:
        """Load the newest checkpoint in `out`; returns the images it has seen, 0 for a new run."""
        found = checkpoint.load(out)
        if found is None:
            return 0
        tensors, state = found
        checkpoint.load_weights(self.raw, checkpoint.section(tensors, "network"), str(out))
        for name, value in checkpoint.section(tensors, "ema").items():
            self.ema.weights[name].copy_(value)
        checkpoint.restore_optimizer(self.optimizer.optimizer, tensors, "optimizer")
        # A blended run, and what is pruned from one, has no critic: a new one begins.
        if self.critic is not None and (critic := checkpoint.section(tensors, "critic")):
            checkpoint.load_weights(self.raw_critic, critic, str(out))
            checkpoint.restore_optimizer(self.critic_optimizer.optimizer, tensors, "critic_optimizer")
        return int(state["images"])


class Log:
    """stats.jsonl: one line of mean losses per interval. A resumed run drops the lines it is about to repeat."""

    def __init__(self, fabric: Fabric, out: Path, images: int) -> None:
        self.fabric, self.path = fabric, out / STATS
        self.sums: dict[str, list[Tensor]] = {}
        self.last: dict[str, float] = {}
        self.started, self.since = time.perf_counter(), images
        if fabric.is_global_zero and self.path.exists():
            lines = self.path.read_text("utf-8").splitlines()
            kept = [line for line in lines if json.loads(line)["images"] <= images]
            self.path.write_text("".join(line + "\n" for line in kept), "utf-8")

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, loss in losses.items():
            self.sums.setdefault(name, []).append(loss)

    def write(self, images: int, lr: float, out: Path) -> None:
        """Append a line; the mean is over all processes. Raises LimnerError when a loss is not finite."""
        means = {name: self.fabric.all_reduce(torch.stack(values).mean()) for name, values in self.sums.items()}
        self.last = {name: float(value) for name, value in means.items()}  # type: ignore[arg-type]
        self.sums = {}
        bad = [name for name, value in self.last.items() if not math.isfinite(value)]
        if bad:
            raise LimnerError(
                f"{out}: the {bad[0]} loss is {self.last[bad[0]]} at image {images} (lr {lr:.2g}): "
                "lower train.lr or set train.clip; the last checkpoint is from before it."
            )
        rate = (images - self.since) / (time.perf_counter() - self.started)
        self._append({"images": images, "lr": lr, "images_per_s": round(rate, 1), **self.last})

    def score(self, images: int, values: dict[str, float]) -> None:
        self._append({"images": images, **{name: round(value, 4) for name, value in values.items()}})

    def _append(self, line: dict[str, Any]) -> None:
        if self.fabric.is_global_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def validation_pairs(config: RunConfig, data: Path) -> HeldOut:
    """Up to 16 held-out pairs, evenly spread over the validation split; none when there is no such split."""
    records = [record for record in open_selected(data, config) if split_of(record, config.data) == "validation"]
    picks = np.linspace(0, len(records) - 1, min(VALIDATION_PICTURES, len(records))).round().astype(int)
    return held_out(decode_all([records[i] for i in picks], config.model.channels), config.model, config.degrade)
