"""A painter's bundle: parity on every engine, its record, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from painting_kit import make_icons, tiny_painting

from limner import bundle
from limner.errors import LimnerError, UsageError
from limner.export.pack import pack
from limner.runtime.batched import GRAPHS
from limner.runtime.generate import Painter
from limner.train.loop import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = make_icons(tmp_path_factory.mktemp("packing") / "icons")
    config = tiny_painting("direct", data, adversarial={"weight": 0}, train={"images": 64, "lr": 2e-3})
    train(config, data, data.with_name("run"))
    return data.with_name("run")


def test_a_packed_painter_carries_its_record_and_paints(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run.with_name("text-kit"), tmp_path / "text-kit")
    manifest = pack(run, tmp_path / "icons", [])
    assert isinstance(manifest, bundle.PainterManifest)
    assert bundle.read(tmp_path / "icons").manifest == manifest
    assert manifest.levels == (8, 16, 32)
    assert manifest.noise == (16, 16, 16)
    assert manifest.alpha_gain == 16  # what the recipe says
    assert manifest.text.bundle == "text-kit"
    assert manifest.styles == {"flat": "flat style"}
    assert manifest.sources[0].license == "CC0-1.0"
    assert manifest.recipe["text"]["bundle"] == "text-kit"  # no folder of this machine
    assert manifest.scores["parity"].keys() == GRAPHS.keys()
    assert all(errors["float"] < 2e-4 and errors["int8"] < 0.5 for errors in manifest.scores["parity"].values())
    painted = {
        precision: Painter.load(tmp_path / "icons", precision=precision).paint_array("red apple", seed=3)
        for precision in ("float", "int8")
    }
    assert painted["int8"].shape == (1, 64, 64, 4)
    alphas = [picture[..., 3].astype(int) for picture in painted.values()]
    assert np.abs(alphas[0] - alphas[1]).mean() < 6


def test_a_bundle_may_carry_integers_alone(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run.with_name("text-kit"), tmp_path / "text-kit")
    manifest = pack(run, tmp_path / "icons", [], overrides=["pack.float_graph=false"])
    assert set(manifest.graphs) == {"int8"}
    assert not (tmp_path / "icons" / "float.onnx").exists()
    assert manifest.scores["parity"]["openvino"]["float"] < 2e-4, "the float graph was measured all the same"
    assert Painter.load(tmp_path / "icons").paint_array("red apple").shape == (1, 64, 64, 4)
    with pytest.raises(UsageError, match="float"):
        Painter.load(tmp_path / "icons", precision="float")


@pytest.mark.parametrize(
    ("knob", "reason"),
    [
        ("pack.max_gap=1e-9", r"int8 pictures differ by .* more than max_gap"),
        ("pack.tolerance=1e-12", r"float graph on \w+ differs from torch"),
        ("pack.int8_tolerance=1e-12", r"int8 graph on \w+ differs from torch"),
    ],
)
def test_what_misses_its_gate_is_refused(run: Path, tmp_path: Path, knob: str, reason: str) -> None:
    with pytest.raises(LimnerError, match=reason):
        pack(run, tmp_path / "bundle", [], None, [knob])
    assert not (tmp_path / "bundle").exists()


def test_a_flow_does_not_ship(run: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(run, teacher)
    config = tiny_painting("flow", run.with_name("icons"))
    (teacher / "config.json").write_text(config.model_dump_json())
    with pytest.raises(LimnerError, match="a run of 'flow' does not ship"):
        pack(teacher, tmp_path / "bundle", [])


def test_missing_calibration_is_named(run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(run, bare)
    (bare / "calibration.safetensors").unlink()
    with pytest.raises(LimnerError, match=r"calibration\.safetensors: missing"):
        pack(bare, tmp_path / "bundle", [])
    assert json.loads((bare / "text.json").read_text())["bundle"].endswith("text-kit")
