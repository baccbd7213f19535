"""`limner bench`, on a tiny bundle: the table, the JSON, the plot and the comparison."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commandline import limner
from kit import make_bundle

from limner import bundle
from limner.runtime.fused import native

QUICK = ("--size", "40x30", "--repeats", "2")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    make_bundle(folder / "photo-x2", scale=2)
    return folder


@pytest.fixture(autouse=True)
def here(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bundle, "ZOO", zoo)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def default_engine() -> str:
    """What `auto` is here for the kit's bundles."""
    return "openvino" if native.unavailable() else "fused"


def test_the_whole_zoo_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("bench", *QUICK) == 0
    text = capsys.readouterr().out
    assert "40x30 in; yardstick" in text
    (line,) = [line for line in text.splitlines() if "photo-x2" in line]
    assert [cell.strip() for cell in line.split("│")[2:5]] == [default_engine(), "int8", "1"]


def test_every_combination_in_json(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engines = ("--engine", "openvino", "--engine", "onnxruntime", "--precision", "int8", "--precision", "float")
    assert limner("bench", str(zoo / "photo-x2"), *QUICK, *engines, "--json", "-") == 0
    shown = json.loads(capsys.readouterr().out)
    combinations = [(row["engine"], row["precision"]) for row in shown["rows"]]
    assert combinations == [(e, p) for e in ("openvino", "onnxruntime") for p in ("int8", "float")]
    assert all(row["p50_ms"] > 0 and row["repeats"] == 2 for row in shown["rows"])


def test_a_plot(here: Path) -> None:
    pytest.importorskip("matplotlib")
    assert limner("bench", *QUICK, "--plot", "bars.png") == 0
    assert Path("bars.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("earlier", "code", "verdict"), [(1e-6, 1, "slower"), (1e6, 0, "faster")])
def test_slower_than_before_fails(earlier: float, code: int, verdict: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("bench", *QUICK, "--json", "old.json") == 0
    old = json.loads(Path("old.json").read_text())
    old["rows"][0]["ratio"] = earlier
    Path("old.json").write_text(json.dumps(old))
    capsys.readouterr()
    assert limner("bench", *QUICK, "--compare", "old.json") == code
    errors = capsys.readouterr().err
    assert f"photo-x2 int8, {default_engine()}, threads 1: {verdict}" in errors
    assert ("error: 1 of 1 are slower than in old.json" in errors) is (code == 1)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--size", "big"], 2, "--size 'big': write it as WIDTHxHEIGHT"),
        (["--engine", "tensorrt"], 2, "unknown engine 'tensorrt'"),
        (["photo-x9"], 2, "unknown model 'photo-x9'"),
        (["--compare", "absent.json"], 1, "absent.json: cannot be read"),
    ],
)
def test_bad_requests(words: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("bench", *words) == code
    assert f"error: {sentence}" in capsys.readouterr().err


def test_an_empty_zoo(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bundle, "ZOO", here)
    assert limner("bench") == 2
    assert "the zoo is empty" in capsys.readouterr().err


def test_fused_without_its_kernels_says_what_ran(
    zoo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMNER_FUSED_ISA", "none")
    assert limner("bench", str(zoo / "photo-x2"), *QUICK, "--engine", "fused", "--profile") == 0
    text = capsys.readouterr().out
    assert "fused (openvino ran)" in text and "stage" not in text


@pytest.mark.skipif(native.unavailable() is not None, reason=f"needs the extension: {native.unavailable()}")
def test_profile_of_the_fused_engine(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ("--engine", "fused", "--profile")
    assert limner("bench", str(zoo / "photo-x2"), *QUICK, *how, "--json", "-") == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["ran"] == "fused"
    assert [stage["name"] for stage in row["stages"]][:2] == ["0 dense 3x3, 3 -> 16", "1 depthwise 3x3, 16 -> 16"]
    assert sum(stage["time_share"] for stage in row["stages"]) == pytest.approx(1)
    assert limner("bench", str(zoo / "photo-x2"), *QUICK, *how) == 0
    assert "% of int8 peak" in capsys.readouterr().out


@pytest.mark.skipif(native.unavailable() is not None, reason=f"needs the extension: {native.unavailable()}")
def test_profile_of_pictures_with_alpha(capsys: pytest.CaptureFixture[str]) -> None:
    shipped = Path(bundle.__file__).parent / "zoo" / "icons-x2"
    assert limner("bench", str(shipped), *QUICK, "--engine", "fused", "--profile", "--json", "-") == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["ran"] == "fused"
    assert sum(stage["time_share"] for stage in row["stages"]) == pytest.approx(1)
