"""Judges: small networks that measure painters. Tools of evaluation: they never ship in a bundle.

Two of them, of different architecture and learned from different pictures: the feature encoder (`distribution`) and the
matcher of pictures and prompts (`matcher`). Here is what they share: the halves of the training groups, pictures as one
array, one resumable loop, and the folder a judge is kept in.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from limner.config import Section
from limner.data.records import Record
from limner.errors import LimnerError
from limner.images import decode
from limner.text.cache import Encoder, open_encoder

Pixels = NDArray[np.uint8]
Embed = Callable[[Sequence[str]], NDArray[np.float32]]
Advance = Callable[[int, dict[str, float]], None]

_TEXTS = 2048  # captions encoded before they are kept
WEIGHTS, ABOUT, CHECKPOINT = "judge.safetensors", "judge.json", "checkpoint.safetensors"


class JudgeConfig(Section):
    """How a judge learns."""

    images: int = Field(default=200_000, ge=1, description="pictures to learn from, in all")
    batch: int = Field(default=128, ge=2)
    width: int = Field(default=32, ge=4, description="channels of the first level")
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    seed: int = 0
    checkpoint_every: int = Field(default=12_800, ge=1, description="pictures between checkpoints")


def half_of(group: str) -> Literal["a", "b"]:
    """The half of the training groups that `group` is in: losses may learn from a, the matcher learns from b."""
    return "ab"[hashlib.sha256(f"judge:{group}".encode()).digest()[0] % 2]  # type: ignore[return-value]


def on_white(pictures: Pixels) -> Pixels:
    """Straight-alpha (N, H, W, 4) over white: (N, H, W, 3), both uint8. Raises LimnerError for any other array."""
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 4:
        raise LimnerError(
            f"pictures of type {pictures.dtype} and shape {pictures.shape} cannot be measured: "
            "a painter must return uint8 of shape (N, height, width, 4), RGBA with straight alpha."
        )
    alpha = pictures[..., 3:].astype(np.uint16)
    mixed = pictures[..., :3] * alpha + 255 * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def decoded(records: Sequence[Record], side: int = 64, cache: Path | None = None) -> Pixels:
    """The pictures of `records` as one (N, side, side, 4) uint8 array, straight alpha.

    `cache`: a folder that keeps the array under a hash of the files' bytes, so that a second call only reads it.
    Raises LimnerError that names the first picture that is unreadable or of another size.
    """
    if cache is None:
        return _decoded(records, side)
    digest = hashlib.sha256(f"{side}".encode())
    for record in records:
        digest.update(hashlib.sha256(record.read()).digest())
    path = cache / f"pictures-{digest.hexdigest()[:16]}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.tmp.npy")
        np.save(draft, _decoded(records, side))
        draft.replace(path)
    return np.load(path)


def _decoded(records: Sequence[Record], side: int) -> Pixels:
    pictures = np.empty((len(records), side, side, 4), np.uint8)
    for i, record in enumerate(records):
        pictures[i] = _rgba(record, side)
    return pictures


def _rgba(record: Record, side: int) -> Pixels:
    try:
        picture = decode(record.read())
    except LimnerError as error:
        raise LimnerError(f"{record.name}: {error}") from None
    if picture.pixels.shape != (side, side, 3) or picture.maximum != 255:
        size = f"{picture.width}x{picture.height} pixels of {picture.pixels.dtype}"
        raise LimnerError(f"{record.name}: {size} where {side}x{side} of uint8 is needed; convert the picture.")
    alpha = np.full((side, side), 255, np.uint8) if picture.alpha is None else picture.alpha
    return np.dstack([picture.pixels, alpha])


def embedding(model: str | os.PathLike[str] | Encoder, cache: Path | None = None) -> Embed:
    """Pooled caption vectors (N, E), of unit length, by a text bundle (zoo name or folder), a Hugging Face model or an
    open encoder.

    `cache`: a folder that keeps them in one file for each model. Raises LimnerError for an unknown model.
    """
    encoder = open_encoder(model) if isinstance(model, str | os.PathLike) else model
    path = cache / f"vectors-{encoder.hash[:16]}.npz" if cache else None
    known = _kept(path) if path and path.is_file() else {}

    def embed(captions: Sequence[str]) -> NDArray[np.float32]:
        missing = sorted({caption for caption in captions if caption not in known}, key=len)
        for start in range(0, len(missing), _TEXTS):
            part = missing[start : start + _TEXTS]
            known.update(zip(part, encoder.encode(part).pooled, strict=True))
            if path:
                _keep_vectors(path, known)
        return np.array([known[caption] for caption in captions], np.float32)

    return embed


def _kept(path: Path) -> dict[str, NDArray[np.float32]]:
    try:
        with np.load(path) as file:
            return dict(zip(file["captions"].tolist(), file["vectors"], strict=True))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise LimnerError(f"{path}: not a readable file of caption vectors ({error}); remove it.") from None


def _keep_vectors(path: Path, known: dict[str, NDArray[np.float32]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez(draft, captions=np.array(list(known)), vectors=np.array(list(known.values()), np.float32))
    draft.replace(path)


@dataclass(frozen=True)
class Lessons:
    """What a judge learns from: N pictures, each with wordings of its caption, a style and a group.

    `pictures`: (N, S, S, 3) uint8 on white. `text`: (T, E) embeddings of all wordings; `wordings`: (N, W) rows of it.
    `styles`: (N,) index into `style_names`. `groups`: (N,) numbers; pictures that share one are versions of one thing.
    """

    pictures: Pixels
    text: NDArray[np.float32]
    wordings: NDArray[np.int64]
    styles: NDArray[np.int64]
    style_names: tuple[str, ...]
    groups: NDArray[np.int64]


def lessons(records: Sequence[Record], pictures: Pixels, captions: Sequence[Sequence[str]], embed: Embed) -> Lessons:
    """Lessons from `records` and their RGBA pictures (N, S, S, 4); `captions[i]`: wordings, equally many for each."""
    texts, rows = np.unique(np.array(captions), return_inverse=True)
    names, styles = np.unique([record.style for record in records], return_inverse=True)
    return Lessons(
        pictures=on_white(pictures),
        text=np.asarray(embed([str(text) for text in texts]), np.float32),
        wordings=rows.reshape(len(records), -1),
        styles=styles,
        style_names=tuple(str(name) for name in names),
        groups=np.unique([record.group for record in records], return_inverse=True)[1],
    )


@dataclass(frozen=True)
class Batch:
    """(N, 3, S, S) pictures in 0..1, their (N, E) caption embeddings, (N,) styles and (N,) groups."""

    pictures: Tensor
    text: Tensor
    styles: Tensor
    groups: Tensor


def draw(data: Lessons, config: JudgeConfig, step: int) -> Batch:
    """The batch of a step, a function of the seed and the step alone, so that a run resumes without loader state."""
    random = np.random.default_rng((config.seed, step))
    rows = random.choice(len(data.pictures), min(config.batch, len(data.pictures)), replace=False)
    wording = data.wordings[rows, random.integers(0, data.wordings.shape[1], len(rows))]
    return Batch(
        _moved(to_tensor(data.pictures[rows]), random),
        torch.from_numpy(data.text[wording]),
        torch.from_numpy(data.styles[rows]),
        torch.from_numpy(data.groups[rows]),
    )


def to_tensor(pictures: Pixels) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in 0..1, channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div_(255)


def _moved(pictures: Tensor, random: np.random.Generator) -> Tensor:
    """Shifted by up to 1/16 and zoomed by 0.85 to 1.15 on white. Never recoloured: captions name colours."""
    zoom, shift = random.uniform(0.87, 1.18, len(pictures)), random.uniform(-0.125, 0.125, (len(pictures), 2))
    matrices = np.zeros((len(pictures), 2, 3), np.float32)
    matrices[:, 0, 0] = matrices[:, 1, 1] = zoom
    matrices[:, :, 2] = shift
    grid = F.affine_grid(torch.from_numpy(matrices), list(pictures.shape), align_corners=False)
    return 1 - F.grid_sample(1 - pictures, grid, align_corners=False)


class Judge(nn.Module):
    """A network that is a judge: it says how far it is from its goal on a batch."""

    def loss(self, batch: Batch) -> Tensor:
        raise NotImplementedError


def fit(judge: Judge, data: Lessons, config: JudgeConfig, folder: Path, advance: Advance) -> None:
    """Train `judge` in place, or go on from the checkpoint in `folder`. AdamW, one-cycle learning rate.

    Ends with a checkpoint of all `config.images`; a second call then returns at once. `advance` gets (pictures seen,
    losses). Raises LimnerError for a damaged checkpoint or one of another shape.
    """
    optimizer = torch.optim.AdamW(judge.parameters(), config.lr, weight_decay=config.weight_decay)
    steps = -(-config.images // config.batch)
    every = max(1, config.checkpoint_every // config.batch)
    judge.train()
    for step in range(_resume(judge, optimizer, folder), steps):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _cycle(step / steps)
        loss = judge.loss(draw(data, config, step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        advance((step + 1) * config.batch, {"loss": loss.item()})
        if (step + 1) % every == 0 or step + 1 == steps:
            _save(judge, optimizer, step + 1, folder)
    judge.eval()


def _cycle(progress: float) -> float:
    """Linear warm-up over the first 5 %, then half a cosine to zero."""
    warm = min(1.0, progress / 0.05 + 0.02)
    return float(warm * 0.5 * (1 + np.cos(np.pi * progress)))


def _save(judge: Judge, optimizer: torch.optim.Optimizer, steps: int, folder: Path) -> None:
    state = optimizer.state_dict()["state"]
    moments = {f"optimizer.{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}
    weights = {f"judge.{key}": value for key, value in judge.state_dict().items()}
    _write_tensors(folder / CHECKPOINT, {**weights, **moments}, {"steps": str(steps)})


def _write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    save_file({key: value.contiguous() for key, value in tensors.items()}, draft, metadata)
    draft.replace(path)


def _resume(judge: Judge, optimizer: torch.optim.Optimizer, folder: Path) -> int:
    """Restore network and optimizer; the steps already done."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return 0
    tensors, metadata = read_tensors(path)
    fill(judge, {key.removeprefix("judge."): value for key, value in tensors.items() if key.startswith("judge.")}, path)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["steps"])


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises LimnerError when it is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), metadata
    except (OSError, SafetensorError) as error:
        raise LimnerError(f"{path}: not a readable judge ({error}); delete its folder and train it again.") from None


def fill(judge: Judge, weights: dict[str, Tensor], path: Path) -> None:
    """Load `weights` into `judge`. Raises LimnerError when they are of another shape."""
    try:
        judge.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise LimnerError(f"{path}: weights of another network ({reason}); use a new folder.") from None


def keep(judge: Judge, about: dict[str, Any], folder: Path) -> None:
    """Write the finished judge: weights first, then the JSON that makes the folder one."""
    _write_tensors(folder / WEIGHTS, judge.state_dict(), {})
    draft = folder / f".{ABOUT}.tmp"
    draft.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", "utf-8")
    draft.replace(folder / ABOUT)


def about(folder: Path, kind: str) -> dict[str, Any]:
    """What the JSON of a judge's folder says. Raises LimnerError when there is none of that kind."""
    path = folder / ABOUT
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LimnerError(f"{path}: no {kind} there ({error}); train one with runs/judges.sh.") from None
    if not isinstance(found, dict) or found.get("kind") != kind:
        raise LimnerError(f"{path}: not a {kind}; name the folder that runs/judges.sh made for it.")
    return found
