"""Checkpoints: one safetensors file and a JSON that names it. A reader sees the old one or the new one, never half."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from limner.errors import LimnerError

STATE = "checkpoint.json"


def save(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write `tensors` and the JSON `state` (needs key "images"), then drop the checkpoint they replace."""
    name = f"checkpoint-{state['images']:012d}.safetensors"
    draft = folder / f".{name}.tmp"
    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, draft)
    _sync(draft)
    draft.replace(folder / name)
    write_json(folder / STATE, {**state, "file": name})
    for old in folder.glob("checkpoint-*.safetensors"):
        if old.name != name:
            old.unlink()


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest checkpoint, or None when there is none. Raises LimnerError on a damaged one."""
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        state = json.loads(path.read_text("utf-8"))
        return load_file(folder / state["file"]), state
    except (OSError, KeyError, json.JSONDecodeError, SafetensorError) as error:
        raise LimnerError(f"{path}: damaged checkpoint ({error}); delete the run folder and train again.") from None


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    _sync(draft)
    draft.replace(path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors named prefix.parameter.key."""
    state = optimizer.state_dict()["state"]
    return {f"{prefix}.{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str) -> None:
    """Inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in section(tensors, prefix).items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, entry in optimizer.state.items():  # fused optimizers walk over memory: it must be laid out alike
        for key, value in entry.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                entry[key] = torch.empty_like(parameter).copy_(value)


def section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries named prefix.rest, as rest -> tensor."""
    start = prefix + "."
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}


def load_weights(module: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Load `tensors` into `module`, all of them. Raises LimnerError naming the first weight that does not fit."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise LimnerError(
            f"{source}: weights do not fit this network ({reason}); use the same model settings."
        ) from None
