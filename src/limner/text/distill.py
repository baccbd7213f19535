"""Fewer layers that say the same: fitted in closed form, then polished by gradients. Only BERT-like encoders.

Both stages compare with the teacher token by token, so the student learns from a few thousand texts what distillation
from scores or labels needs millions for.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertModel

from limner.errors import LimnerError, UsageError
from limner.text.encoder import padded
from limner.text.graph import packed, unpacked

Progress = Callable[[int, int], None]
Layer = Any  # a BertLayer, whose parts torch types as tensors or modules
Ids = tuple[list[int], list[int]]  # token numbers of one text: the teacher's, the student's
BATCH = 32
RIDGE = 1e-4
WARMUP = 20  # steps
CHECKPOINT = "polish.pt"


@dataclass(frozen=True)
class Polish:
    """The gradient stage. `steps` of BATCH texts; a checkpoint every `checkpoint_every` steps."""

    steps: int = 400
    lr: float = 3e-4
    seed: int = 0
    checkpoint_every: int = 20


def with_vocabulary(network: BertModel, kept: Sequence[int]) -> BertModel:
    """A copy with the vectors of the `kept` tokens alone, rounded to the 4 bits in which they ship."""
    smaller = copy.deepcopy(network)
    rows = network.embeddings.word_embeddings.weight[list(kept)].detach().numpy()
    table = nn.Embedding(*rows.shape)
    table.weight.data = torch.from_numpy(unpacked(*packed(rows)))
    smaller.embeddings.word_embeddings = table
    smaller.config.vocab_size = len(rows)
    return smaller


def goals(keep: Sequence[int], layers: int) -> list[int]:
    """For every kept layer the layer of the teacher after which both shall agree: half way to the next kept one.

    Where exactly hardly matters: of MiniLM's six, 0, 4, 5 fitted to 1, 2 or 3 (then 4, 5) came to cosines of 0.937 to
    0.941. Raises UsageError for layers the teacher has not, or not in order.
    """
    if not keep or list(keep) != sorted(set(keep)) or keep[0] < 0 or keep[-1] >= layers:
        raise UsageError(f"layers {list(keep)} are impossible: name some of 0 to {layers - 1}, in order.")
    return [(own + following) // 2 for own, following in zip(keep, (*keep[1:], layers), strict=True)]


@torch.no_grad()
def fit(student: BertModel, teacher: BertModel, ids: Sequence[Ids], keep: Sequence[int]) -> None:
    """Leave the student the layers `keep` and re-solve the last matrix of each, in order.

    Ridge regression from the layer's hidden activations to what takes the residual stream where the teacher has it
    after `goals(keep)`; the ridge pulls towards the old matrix.
    """
    targets = goals(keep, len(teacher.encoder.layer))
    batches = [_batch(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH)]
    wanted = [_streams(teacher, batch.teacher, batch.mask) for batch in batches]
    x = [student.embeddings(batch.student) for batch in batches]
    layers: list[Layer] = [copy.deepcopy(student.encoder.layer[number]) for number in keep]
    for layer, goal in zip(layers, targets, strict=True):
        halves = [_half(layer, each, batch.mask) for each, batch in zip(x, batches, strict=True)]
        _solve(layer, halves, [streams[goal] for streams in wanted], [batch.mask for batch in batches])
        layer.output.LayerNorm = copy.deepcopy(_layers(teacher)[goal].output.LayerNorm)
        x = [layer.output.LayerNorm(middle + layer.output.dense(hidden)) for middle, hidden in halves]
    student.encoder.layer = nn.ModuleList(layers)
    student.config.num_hidden_layers = len(layers)


@dataclass(frozen=True)
class _Batch:
    teacher: Tensor
    student: Tensor
    mask: Tensor


def _batch(ids: Sequence[Ids]) -> _Batch:
    teacher, mask = padded([each for each, _ in ids])
    return _Batch(teacher, padded([each for _, each in ids])[0], mask)


def _layers(network: BertModel) -> list[Layer]:
    return list(network.encoder.layer)


def _half(layer: Layer, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(after attention, hidden activations of the feed-forward part)."""
    absent = (1 - mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
    middle = layer.attention(x, attention_mask=absent)
    middle = middle[0] if isinstance(middle, tuple) else middle
    return middle, layer.intermediate(middle)


def _streams(network: BertModel, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """The residual stream after every layer, before its last normalization."""
    x, found = network.embeddings(ids), []
    for layer in _layers(network):
        middle, hidden = _half(layer, x, mask)
        found.append(middle + layer.output.dense(hidden))
        x = layer.output.LayerNorm(found[-1])
    return found


def _solve(layer: Layer, halves: list[tuple[Tensor, Tensor]], wanted: list[Tensor], masks: list[Tensor]) -> None:
    dense = layer.output.dense
    size = dense.in_features + 1
    moments, products = torch.zeros(size, size), torch.zeros(size, dense.out_features)
    for (middle, hidden), goal, mask in zip(halves, wanted, masks, strict=True):
        inputs = F.pad(hidden[mask > 0], (0, 1), value=1.0)
        rest = (goal - middle - dense(hidden))[mask > 0]
        moments += inputs.T @ inputs
        products += inputs.T @ rest
    moments += torch.eye(size) * moments.diagonal().mean() * RIDGE
    change = torch.linalg.solve(moments.double(), products.double()).float()
    dense.weight += change[:-1].T
    dense.bias += change[-1]


def polish(
    student: BertModel,
    teacher: BertModel,
    ids: Sequence[Ids],
    run: Path,
    settings: Polish,
    progress: Progress | None = None,
) -> None:
    """Train all but the tokens' vectors towards the teacher's states; goes on from `run`/CHECKPOINT when it is there.

    Loss: squared error of the states relative to their size, plus 1 - cosine of the pooled vectors. A batch is a
    function of (seed, step), texts of about one length. Raises LimnerError for a checkpoint of another student.
    """
    student.requires_grad_(True).train()
    student.embeddings.word_embeddings.requires_grad_(False)
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    weights = [each for each in student.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.0)
    ordered = sorted(ids, key=lambda each: len(each[0]))
    for step in range(_resumed(run, student, optimizer), settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * _rate(step, settings.steps)
        loss = _loss(student, teacher, _drawn(ordered, settings.seed, step))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
            _save(run, step + 1, student, optimizer)
        if progress is not None:
            progress(step + 1, settings.steps)
    student.eval().requires_grad_(False)


def resumes(run: Path) -> bool:
    """Whether `polish` would go on from a checkpoint, so that the student needs no fitting."""
    return (run / CHECKPOINT).exists()


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _drawn(ordered: Sequence[Ids], seed: int, step: int) -> _Batch:
    random = np.random.default_rng((seed, step))
    window = 4 * BATCH
    start = int(random.integers(0, max(1, len(ordered) - window)))
    near = ordered[start : start + window]
    return _batch([near[each] for each in random.permutation(len(near))[:BATCH]])


def _loss(student: BertModel, teacher: BertModel, batch: _Batch) -> Tensor:
    present = batch.mask[..., None].float()
    with torch.no_grad():
        wanted = teacher(input_ids=batch.teacher, attention_mask=batch.mask).last_hidden_state * present
    found = student(input_ids=batch.student, attention_mask=batch.mask).last_hidden_state * present
    apart = (found - wanted).square().sum() / wanted.square().sum()
    return apart + 1 - F.cosine_similarity(found.sum(1), wanted.sum(1), dim=-1).mean()


def _save(run: Path, step: int, student: BertModel, optimizer: torch.optim.Optimizer) -> None:
    run.mkdir(parents=True, exist_ok=True)
    draft = run / f"polish-{os.getpid()}.draft"
    state = {"step": step, "student": student.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, draft)
    draft.replace(run / CHECKPOINT)


def _resumed(run: Path, student: BertModel, optimizer: torch.optim.Optimizer) -> int:
    """The step to go on with."""
    if not resumes(run):
        return 0
    path = run / CHECKPOINT
    try:
        state = torch.load(path, weights_only=True)
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise LimnerError(f"{path}: is no checkpoint of this student ({reason}); remove it.") from None
    return int(state["step"])


def recombined(captions: Sequence[str], count: int, seed: int) -> list[str]:
    """New captions from old ones: the head (to the first comma) of one with a word of another in place of its own,
    and the tail of a third.
    """
    random = np.random.default_rng(seed)
    heads = [caption.split(",")[0].split() for caption in captions]
    tails = [caption.partition(",")[2] for caption in captions]
    made = []
    for first, second, third in random.integers(0, len(captions), (count, 3)):
        words, others = list(heads[first]) or ["thing"], heads[second] or ["thing"]
        words[random.integers(len(words))] = others[random.integers(len(others))]
        made.append(" ".join(words) + ("," + tails[third] if tails[third] else ""))
    return made
