"""`limner models` and `limner info`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commandline import limner
from kit import make_bundle

from limner import bundle


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of two: one without scores, one with."""
    make_bundle(tmp_path / "photo-x2", scale=2)
    scored = bundle.read(make_bundle(tmp_path / "photo-x4", scale=4))
    rows = [{"set": "Set5", "scores": {"psnr_y": 31.234}}, {"set": "Set14", "scores": {"psnr_y": 28.0}}]
    manifest = scored.manifest.model_copy(update={"scores": {"fidelity": {"int8": rows}}})
    bundle.write(scored.folder, manifest, {name: tmp_path / "photo-x4-drafts" / name for name in manifest.files})
    monkeypatch.setattr(bundle, "ZOO", tmp_path)
    return tmp_path


def test_models_lists_the_zoo(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("models") == 0
    lines = capsys.readouterr().out.splitlines()
    small, large = (next(line for line in lines if f" {name} " in line) for name in ("photo-x2", "photo-x4"))
    assert "x2" in small
    assert f"{bundle.read('photo-x2').bytes / 1000:.0f} KB" in small
    assert "Set5 31.23, Set14 28.00" in large
    assert "Apache-2.0" in large


def test_models_as_json(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("models", "--json") == 0
    small, large = json.loads(capsys.readouterr().out)
    assert (small["name"], small["scale"], small["scores"]) == ("photo-x2", 2, {})
    assert large["bytes"] == bundle.read("photo-x4").bytes
    assert large["scores"]["fidelity"]["int8"][0]["set"] == "Set5"


def test_an_empty_zoo_is_an_empty_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bundle, "ZOO", tmp_path)
    assert limner("models", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_info_shows_the_manifest(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("info", str(zoo / "photo-x4")) == 0
    text = capsys.readouterr().out
    for part in (
        "upscale x4",
        "random weights for tests",
        "1 pictures of noise (CC0-1.0)",
        "int8 (int8.onnx)",
        "Set5 31.23",
    ):
        assert part in text


def test_info_as_json(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("info", "photo-x2", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["graphs"]["int8"]["dtype"] == "uint8"
    assert shown["bytes"] == sum((zoo / "photo-x2" / name).stat().st_size for name in shown["files"])


def test_info_checks_the_files(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (zoo / "photo-x2/int8.onnx").open("ab") as file:
        file.write(b"x")
    assert limner("info", "photo-x2") == 1
    assert "int8.onnx: sha256 differs" in capsys.readouterr().err


def test_scores_of_other_tools_do_no_harm(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = bundle.read("photo-x4")
    manifest = opened.manifest.model_copy(update={"scores": {"fidelity": {"int8": [{"psnr": 3}]}}})
    bundle.write(opened.folder, manifest, {name: zoo / "photo-x4-drafts" / name for name in manifest.files})
    assert limner("models") == 0
    assert "photo-x4" in capsys.readouterr().out


def test_info_on_engines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_FUSED_ISA", "none")
    assert limner("info", "--engines", "--json") == 0
    states = {state["engine"]: state for state in json.loads(capsys.readouterr().out)}
    assert list(states) == ["openvino", "onnxruntime", "fused"]
    assert states["openvino"]["ready"] and states["openvino"]["detail"][0].isdigit()
    assert not states["fused"]["ready"] and states["fused"]["detail"]
    assert limner("info", "--engines") == 0
    assert states["fused"]["detail"][:30] in capsys.readouterr().out


def test_info_wants_one_subject(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["photo-x2", "--engines"]):
        assert limner("info", *words) == 2
        assert "name one bundle, or give --engines" in capsys.readouterr().err
