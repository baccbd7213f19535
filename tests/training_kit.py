"""A run so small that a test can afford it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from limner.config import RunConfig
from limner.recipes import photo_x4, tuned

TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
SCRIPT = """
import json, sys
from pathlib import Path
from limner.config import parse
from limner.train.loop import train
train(parse(json.load(open(sys.argv[1])), "test"), Path(sys.argv[2]), Path(sys.argv[3]))
"""

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


def start(config: RunConfig, pictures: Path, run: Path, *launcher: str) -> subprocess.Popen[bytes]:
    """`train` in a process of its own; `launcher`: arguments of Python before the script, such as TWO_PROCESSES."""
    path = run.with_suffix(".json")
    path.write_text(config.model_dump_json())
    script = run.with_suffix(".py")
    script.write_text(SCRIPT)
    command = [sys.executable, *launcher, str(script), str(path), str(pictures), str(run)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
