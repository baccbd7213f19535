"""Settings and pictures that tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("NO_COLOR", "1")
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight smooth random 160 px pictures."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(8):
        small = Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8))
        small.resize((160, 160), Image.Resampling.BICUBIC).save(folder / f"p{i}.png")
    return folder
