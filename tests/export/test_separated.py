"""`limner separate` on a tiny network: the graphs agree with torch, the bundle paints, the verdict shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commandline import limner
from separable_kit import Odd, dense
from torch import nn

import limner as library
from limner.bundle import UpscalerManifest, read
from limner.compress import importing
from limner.compress.separate import SeparateConfig, plan, quantized, replaced
from limner.export import separated
from limner.export.step_graph import build_steps
from limner.runtime.backends import open_engine
from limner.runtime.fused import native

QUICK = ("--size", "24x16", *(f"--set={pair}" for pair in ("crop=12", "batch=2", "calibration_crops=4", "steps=6")))
KNOBS = (*QUICK, "--set=layer_steps=2", "--set=rounding_steps=2")


@pytest.mark.parametrize(("network", "rank"), [(dense(), 1), (dense(), 2), (Odd(), 1)])
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "fused"])
def test_engines_compute_what_torch_does(network: nn.Module, rank: int, engine: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    steps, low = importing.from_torch(network.eval(), "it"), torch.rand(2, 3, 16, 16)
    integer = quantized(replaced(steps, plan(steps, low, SeparateConfig(rank=rank))[1]), low)
    (tmp_path / "int8.onnx").write_bytes(build_steps(integer, "it").SerializeToString())
    picture = np.random.default_rng(0).integers(0, 256, (1, 16, 20, 3), dtype=np.uint8)
    with torch.no_grad():
        wanted = integer(torch.from_numpy(picture).permute(0, 3, 1, 2) / 255)
    opened = open_engine(engine, tmp_path / "int8.onnx", 1)
    ours = opened.session(16, 20)(picture).astype(float)
    assert np.abs(ours - wanted.mul(255).clamp(0, 255).permute(0, 2, 3, 1).numpy()).mean() < 0.6
    assert opened.name in (engine, "openvino")


@pytest.mark.skipif(native.unavailable() is not None, reason=f"needs the extension: {native.unavailable()}")
def test_separating_the_tail_lets_the_fused_engine_run_it(tmp_path: Path) -> None:
    steps, low = importing.from_torch(dense(), "it"), torch.rand(2, 3, 16, 16)
    fitted = plan(steps, low, SeparateConfig(rank=1))[1]
    head = min(fitted)
    layers = {number: layer for number, layer in fitted.items() if number != head}
    for name, network in (("dense", steps), ("separable", replaced(steps, layers))):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(build_steps(quantized(network, low), "it").SerializeToString())
        assert open_engine("auto", path, 1).name == {"dense": "openvino", "separable": "fused"}[name]


def test_from_a_torch_module_to_a_bundle(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _fixed_times(monkeypatch, {"dense": 2.0, "separable": 1.0})
    out, figures = tmp_path / "mine", tmp_path / "figures.json"
    words = ("separable_kit:dense", "--data", str(pictures), "--out", str(out), *KNOBS, "--set=rank=2")
    assert limner("separate", *words, "--json", str(figures)) == 0
    assert "4 of 4 convolutions are separable now" in capsys.readouterr().out
    shown = json.loads(figures.read_text())
    assert [each["terms"] for each in shown["layers"]] == [2, 2, 2, 2]
    assert all(each["macs"][1] < each["macs"][0] for each in shown["layers"])
    assert set(shown["psnr_db"]) == {"dense float", "float", "int8"}
    opened = read(out, UpscalerManifest)
    assert opened.manifest.scores["separate"]["chosen"] == "separable"
    assert opened.manifest.macs_per_pixel < importing.from_torch(dense(), "it").macs_per_pixel()
    assert library.load(out).upscale(np.zeros((10, 12, 3), np.uint8)).shape == (20, 24, 3)


def test_it_says_when_separable_would_not_pay(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _fixed_times(monkeypatch, {"dense": 1.0, "separable": 2.0})
    words = ("separable_kit:dense", "--data", str(pictures), "--out", str(tmp_path / "mine"), *KNOBS, "--set=rank=2")
    assert limner("separate", *words, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "Separable does not pay on this machine: every layer stays dense." in text
    assert text.count("separable would be slower") >= 4
    assert not (tmp_path / "mine").exists()


def _fixed_times(monkeypatch: pytest.MonkeyPatch, times: dict[str, float]) -> None:
    def fixed(networks: Any, *_: Any) -> tuple[dict[str, float], dict[str, str]]:
        assumed = {name: times.get(name, 9.0) for name in networks}
        return assumed, dict.fromkeys(networks, "fused")

    monkeypatch.setattr(separated, "time_networks", fixed)


def test_times_are_measured_on_an_engine() -> None:
    steps = importing.from_torch(dense(), "it")
    low = torch.rand(2, 3, 16, 16)
    place = separated.Place(24, 16, repeats=2)
    record, _ = separated.decide(steps, low, SeparateConfig(rank=1), place)
    assert record.times["dense"] > 0 and set(record.ran.values()) <= {"fused", "openvino"}
    assert all(each.dense_ms and each.separable_ms for each in record.layers)


@pytest.mark.parametrize(
    ("network", "words", "code", "sentence"),
    [
        ("separable_kit:dense", ["--set", "rank=12"], 2, "layer 'head': rank 12 is out of range"),
        ("separable_kit:dense", ["--set", "rnk=1"], 2, "--set: unknown key 'rnk'"),
        ("separable_kit:dense", ["--set", "max_error=2"], 2, "--set: max_error: "),
        ("separable_kit:dense", ["--set", "rank"], 2, "--set 'rank': write it as key=value"),
        ("separable_kit:gated", [], 1, "which cannot be separated"),
        ("separable_kit:dense", ["--data", "nowhere"], 1, "nowhere"),
    ],
)
def test_bad_requests(
    network: str, words: list[str], code: int, sentence: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert limner("separate", network, "--data", str(pictures), "--out", "x", *QUICK, *words) == code
    assert sentence in capsys.readouterr().err
    assert not Path("x").exists()
