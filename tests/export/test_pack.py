"""A bundle ships only when every engine agrees with torch and int8 keeps the quality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training_kit import tiny

import limner
from limner import bundle
from limner.errors import LimnerError
from limner.export.pack import pack
from limner.export.parity import torch_painter
from limner.train.loop import train


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = tiny(
        train={"images": 1600, "lr": 3e-3, "warmup": 40, "checkpoint_every": 800},
        quantize={"images": 0},
        pack={"max_drop": 50, "min_gain": -50},
    )
    train(config, pictures, folder)
    return folder


def test_packed_bundle_carries_its_record_and_paints(run: Path, pictures: Path, tmp_path: Path) -> None:
    manifest = pack(run, tmp_path / "tiny", [pictures])
    opened = bundle.read(tmp_path / "tiny")
    assert opened.manifest == manifest
    assert set(manifest.files) == {"float.onnx", "int8.onnx"}
    assert manifest.sources[0].pictures >= 1
    assert manifest.recipe["model"]["width"] == 16
    for engine, errors in manifest.scores["parity"].items():
        assert errors["float"] < 2e-4, engine
    low = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    ours, torchs = limner.load(tmp_path / "tiny", precision="float").upscale(low), torch_painter(run)(low)
    assert np.abs(np.asarray(ours).astype(int) - torchs).max() <= 1


def test_quantization_aware_training_resumes_and_is_packed(run: Path, pictures: Path, tmp_path: Path) -> None:
    knobs = ["quantize.images=80", "quantize.weight_bits=3"]
    first = pack(run, tmp_path / "first", [pictures], pictures, knobs)
    again = pack(run, tmp_path / "again", [pictures], pictures, knobs)
    assert len(list((run / "int8").glob("*/checkpoint.json"))) == 1
    assert first.files == again.files


@pytest.mark.parametrize(
    ("knob", "reason"),
    [
        ("pack.max_drop=0.0001", r"int8 loses .* dB, more than max_drop"),
        ("pack.min_gain=30.0", r"gains .* dB over bicubic, less than min_gain"),
        ("pack.tolerance=1e-12", r"float graph on \w+ differs from torch"),
    ],
)
def test_gates_refuse_with_figures_and_write_nothing(
    run: Path, pictures: Path, tmp_path: Path, knob: str, reason: str
) -> None:
    with pytest.raises(LimnerError, match=reason):
        pack(run, tmp_path / "out", [pictures], overrides=[knob])
    assert list(tmp_path.iterdir()) == []


def test_needs_a_run_and_a_test_set(run: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match="not a run folder"):
        pack(tmp_path, tmp_path / "out", [pictures])
    with pytest.raises(LimnerError, match="--eval"):
        pack(run, tmp_path / "out", [])


def test_a_run_starts_from_a_bundle(run: Path, pictures: Path, tmp_path: Path) -> None:
    pack(run, tmp_path / "tiny", [pictures])
    changes = {"init": str(tmp_path / "tiny"), "images": 4, "lr": 1e-12, "lr_final": 0}
    train(tiny(train=changes), pictures, tmp_path / "again")
    low = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    before, after = torch_painter(run)(low), torch_painter(tmp_path / "again")(low)
    assert np.abs(before.astype(int) - after).max() <= 1
    with pytest.raises(LimnerError, match="no layers in common"):
        train(tiny(train=changes, model={"width": 8}), pictures, tmp_path / "other")


def test_a_bundle_with_an_unshuffled_trunk_starts_a_run(pictures: Path, tmp_path: Path) -> None:
    model = {"unshuffle": 2, "scale": 2}
    config = tiny(model=model, quantize={"images": 0}, pack={"max_drop": 90, "min_gain": -90})
    train(config, pictures, tmp_path / "run")
    pack(tmp_path / "run", tmp_path / "tiny", [pictures])
    changes = {"init": str(tmp_path / "tiny"), "images": 4, "lr": 1e-12, "lr_final": 0}
    train(tiny(model=model, train=changes), pictures, tmp_path / "again")
    low = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    gap = torch_painter(tmp_path / "run")(low).astype(int) - torch_painter(tmp_path / "again")(low)
    assert np.abs(gap).max() <= 1


def test_pictures_with_alpha_are_learned_packed_and_enlarged(tmp_path: Path) -> None:
    folder, rng = tmp_path / "icons", np.random.default_rng(0)
    folder.mkdir()
    for i in range(6):
        small = Image.fromarray(rng.integers(0, 256, (12, 12, 4), np.uint8))
        small.resize((160, 160), Image.Resampling.BICUBIC).save(folder / f"p{i}.png")
    knobs = {"images": 16, "adversarial": 0.01}  # the adversary sees alpha too
    config = tiny(
        model={"channels": 4},
        adversarial={"width": 4, "start_share": 0.0},
        quantize=knobs,
        pack={"max_drop": 50, "min_gain": -50},
    )
    train(config, folder, tmp_path / "run")
    manifest = pack(tmp_path / "run", tmp_path / "icons-x4", [folder])
    assert manifest.channels == 4
    assert manifest.scores["fidelity"]["int8"][0]["pictures"] == 6
    low = np.zeros((9, 12, 4), np.uint8)
    low[:, 6:] = (200, 0, 0, 255)
    upscaler = limner.load(tmp_path / "icons-x4")
    assert upscaler.enlarge_premultiplied(low).shape == (36, 48, 4)
    ours, torchs = upscaler.enlarge_premultiplied(low), torch_painter(tmp_path / "run")(low)
    assert np.abs(ours.astype(int) - torchs).mean() < 4
