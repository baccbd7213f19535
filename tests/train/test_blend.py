"""A network between two runs: the weights lie where they should, and only runs of one shape are mixed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from training_kit import tiny

from limner.errors import LimnerError, UsageError
from limner.models import NETWORKS
from limner.recipes import photo_x4
from limner.train.blend import blend
from limner.train.loop import train
from limner.train.runs import load_run
from limner.train.start import warm_start


@pytest.fixture(scope="module")
def runs(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    train(tiny(train={"images": 16}), pictures, folder / "faithful")
    train(tiny(train={"images": 16, "init": str(folder / "faithful"), "seed": 1}), pictures, folder / "vivid")
    return folder / "faithful", folder / "vivid"


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_lie_between(share: float, runs: tuple[Path, Path], tmp_path: Path) -> None:
    blend(*runs, tmp_path / "mixed", share)
    (_, a), (_, b), (config, mixed) = load_run(runs[0]), load_run(runs[1]), load_run(tmp_path / "mixed")
    ends = zip(a.parameters(), b.parameters(), mixed.parameters(), strict=True)
    for first, second, between in ends:
        torch.testing.assert_close(between, (1 - share) * first + share * second)
    assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert config.train.seed == 1
    assert json.loads((tmp_path / "mixed" / "blended.json").read_text())["share"] == share
    assert (tmp_path / "mixed" / "calibration.safetensors").is_file()


def test_what_cannot_be_mixed_is_told(runs: tuple[Path, Path], pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"share=1\.5 is out of range"):
        blend(*runs, tmp_path / "mixed", 1.5)
    with pytest.raises(UsageError, match="exists already"):
        blend(*runs, runs[0], 0.5)
    train(tiny(train={"images": 16}, model={"width": 32}), pictures, tmp_path / "wide")
    with pytest.raises(LimnerError, match="blend two runs of the same model settings"):
        blend(tmp_path / "wide", runs[1], tmp_path / "mixed", 0.5)
    assert not (tmp_path / "mixed").exists()


def test_the_bundle_that_a_run_began_with(pictures: Path, tmp_path: Path) -> None:
    shape = photo_x4().model.model_dump()
    train(tiny(model=shape, train={"images": 8, "lr": 1e-3, "init": "photo-x4"}), pictures, tmp_path / "run")
    config, run = load_run(tmp_path / "run")
    begun = NETWORKS["upscale"](config)
    warm_start(begun, "photo-x4")
    blend("photo-x4", tmp_path / "run", tmp_path / "none", 0.0)
    low = torch.rand(1, 3, 12, 12)
    kept = load_run(tmp_path / "none")[1].eval()
    torch.testing.assert_close(kept(low), begun.eval()(low), atol=1e-5, rtol=0)
    assert not torch.allclose(kept(low), run.eval()(low), atol=1e-4)
