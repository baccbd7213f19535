"""Four ways of rounding one run, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from commandline import limner
from painting_kit import make_icons, tiny_painting
from PIL import Image
from training_kit import tiny

from limner import bundle
from limner.config import DataConfig
from limner.errors import UsageError
from limner.evaluate.distribution import FeatureNetwork, FeatureSpace
from limner.export import compare as comparing
from limner.export.compare import FREELY, by_features, compare, knobs
from limner.runtime.generate import Request
from limner.train.loop import train

WAYS = ["float", "post-training", "in training", "adversarial"]


def test_the_ways_differ_in_training_and_adversary() -> None:
    ways = knobs(tiny(), 80, None)
    assert ways["post-training"] == ["quantize.images=0"]
    assert ways["in training"] == ["quantize.images=80", "quantize.adversarial=0.0"]
    assert ways["adversarial"] == ["quantize.images=80", "quantize.adversarial=0.005"]
    own = tiny(adversarial={"weight": 0.02})
    assert knobs(own, 80, None)["adversarial"][1] == "quantize.adversarial=0.02"
    assert knobs(own, 80, 0.5)["adversarial"][1] == "quantize.adversarial=0.5"
    assert all(knob.startswith("pack.") for knob in FREELY)


@pytest.mark.parametrize(
    ("images", "weight", "reason"),
    [(0, None, "images=0: training through the rounding needs at least one batch"), (80, 0.0, "adversarial=0.0: must")],
)
def test_impossible_settings_are_refused(images: int, weight: float | None, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        knobs(tiny(), images, weight)


@pytest.mark.slow
def test_an_upscaler_is_compared(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (72, 80, 3), np.uint8)
    (tmp_path / "few").mkdir()
    Image.fromarray(noise).save(tmp_path / "few" / "noise.png")
    train(tiny(adversarial={"width": 4, "start_share": 0.0}), pictures, tmp_path / "run")
    words = ["compare-quantization", str(tmp_path / "run"), "--eval", str(tmp_path / "few"), "--images", "16"]
    assert limner(*words, "--repeats", "1", "--json", str(tmp_path / "found.json")) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert [line["way"] for line in found] == WAYS
    assert all(line["figures"].keys() == {"few PSNR", "few sharpness"} for line in found)
    assert all(line["ms"] > 0 and 0 < line["figures"]["few sharpness"] < 2 for line in found)
    assert found[0]["bytes"] > found[1]["bytes"] and abs(found[1]["figures"]["few PSNR"]) > 3
    assert all(way in capsys.readouterr().out for way in WAYS[:1])
    files = [
        bundle.read(tmp_path / "run" / "compared" / name).manifest.files for name in ("in-training", "adversarial")
    ]
    assert files[0]["int8.onnx"] != files[1]["int8.onnx"] and files[0]["float.onnx"] == files[1]["float.onnx"]


def test_painters_are_measured_against_held_out_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_icons(tmp_path / "icons")
    table = data / "metadata.jsonl"
    table.write_text(table.read_text("utf-8").replace("validation", "test"), "utf-8")
    torch.manual_seed(0)
    network = FeatureNetwork(12, 1, 8, members=2).eval()
    space = FeatureSpace(network, ("flat",), np.zeros(256, np.float32), np.ones(256, np.float32))
    monkeypatch.setattr(comparing, "load_features", lambda folder: space)
    measure = by_features(data, tmp_path, DataConfig())

    def real(requests: Sequence[Request]) -> list[np.ndarray]:
        held = [np.asarray(Image.open(data / name)) for name in ("red-cat.png", "blue-dog.png")]
        return [held["dog" in request.prompt] for request in requests]

    def noisy(requests: Sequence[Request]) -> list[np.ndarray]:
        return [np.random.default_rng(r.seed).integers(0, 256, (64, 64, 4), np.uint8) for r in requests]

    exact, wrong = measure(real), measure(noisy)
    assert exact["sharpness"] == pytest.approx(1)
    assert wrong["sharpness"] > 2
    assert wrong["own-KID x100"] > exact["own-KID x100"]


@pytest.mark.slow
def test_a_painter_is_compared_by_what_measures_it(tmp_path: Path) -> None:
    data = make_icons(tmp_path / "icons")
    train(
        tiny_painting("direct", data, adversarial={"start_share": 0.0}, pack={"float_graph": False}),
        data,
        tmp_path / "run",
    )
    with pytest.raises(UsageError, match="a painter is measured with --judge"):
        compare(tmp_path / "run", tmp_path, images=8)
    lines = compare(tmp_path / "run", tmp_path, measure=lambda paint: {"painted": 1.0}, images=8, repeats=1)
    assert [line.way for line in lines] == WAYS
    assert {line.engine for line in lines} == {"openvino"}
