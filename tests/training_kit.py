"""A run so small that a test can afford it."""

from __future__ import annotations

from limner.config import RunConfig
from limner.recipes import photo_x4, tuned

TINY = {"images": 64, "batch": 4, "crop": 16, "checkpoint_every": 8, "sample_every": 64, "log_every": 8, "threads": 1}


def tiny(**changes: dict[str, object]) -> RunConfig:
    sections: dict[str, dict[str, object]] = {
        "model": {"kind": "separable", "width": 16, "depth": 2},
        "train": {},
        "data": {"validation_fraction": 0.3},
    }
    for key, change in changes.items():
        sections[key] = sections.get(key, {}) | change
    sections["train"] = TINY | sections["train"]
    return tuned(photo_x4(), **sections)
