"""`limner upscale`, through tiny bundles of random weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commandline import limner
from kit import make_bundle, photo

from limner import bundle, images
from limner.images import Picture


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    make_bundle(folder / "photo-x2", scale=2)
    make_bundle(folder / "photo-x4", scale=4)
    return folder


@pytest.fixture(autouse=True)
def here(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two pictures, and the tiny zoo."""
    monkeypatch.setattr(bundle, "ZOO", zoo)
    monkeypatch.chdir(tmp_path)
    for name, height, width in (("in/a.png", 20, 30), ("in/trip/b.jpg", 16, 16)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        images.write(Picture(photo(height, width)), path)
    return tmp_path


def test_one_picture_beside_its_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("upscale", "in/a.png", "--threads", "1") == 0
    assert images.header("in/a-x4.png") == (120, 80)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "1 done\n"


@pytest.mark.parametrize(
    ("options", "name", "size"),
    [
        (["--scale", "2"], "a-x2.png", (60, 40)),
        (["--scale", "1.5"], "a-x1.5.png", (45, 30)),
        (["--scale", "3"], "a-x3.png", (90, 60)),
        (["--size", "64x48"], "a-64x48.png", (64, 48)),
        (["--width", "100"], "a-100w.png", (100, 67)),
        (["--format", "webp"], "a-x4.webp", (120, 80)),
        (["--strength", "0"], "a-x4.png", (120, 80)),
        (["--engine", "onnxruntime", "--precision", "float"], "a-x4.png", (120, 80)),
        (["-o", "b.tif"], "../b.tif", (120, 80)),
        (["-o", "out"], "../out/a.png", (120, 80)),
    ],
)
def test_sizes_formats_and_names(options: list[str], name: str, size: tuple[int, int]) -> None:
    assert limner("upscale", "in/a.png", "--threads", "1", *options) == 0
    assert images.header(Path("in", name)) == size


def test_the_model_follows_the_scale(zoo: Path) -> None:
    """x2 comes from photo-x2 rather than from a halved photo-x4; a bundle folder is as good as a name."""
    assert limner("upscale", "in/a.png", "--scale", "2", "-o", "default.png", "--threads", "1") == 0
    assert limner("upscale", "in/a.png", "--model", str(zoo / "photo-x2"), "-o", "named.png", "--threads", "1") == 0
    assert limner("upscale", "in/a.png", "-m", "photo-x4", "-s", "2", "-o", "halved.png", "--threads", "1") == 0
    default, named, halved = (images.decode(f"{name}.png").pixels for name in ("default", "named", "halved"))
    np.testing.assert_array_equal(default, named)
    assert (default != halved).any()


def test_a_folder_is_done_once_and_goes_on_after_errors(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in/broken.png").write_bytes(Path("in/a.png").read_bytes()[:100])
    Path("in/empty.webp").touch()
    assert limner("upscale", "in", "-o", "out", "--threads", "1") == 1
    assert sorted(str(path) for path in Path("out").rglob("*.*")) == ["out/a.png", "out/trip/b.jpg"]
    errors = capsys.readouterr().err
    assert "error: in/broken.png: cannot be decoded" in errors
    assert "error: in/empty.webp: is empty" in errors
    assert errors.endswith("2 done, 2 failed\n")
    assert limner("upscale", "in/a.png", "in/trip/*.jpg", "-o", "out", "--threads", "1") == 0
    assert "1 done, 1 skipped (--overwrite makes them again)" in capsys.readouterr().err


def test_quiet_prints_errors_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("upscale", "in/a.png", "missing.png", "--quiet", "--threads", "1") == 1
    assert capsys.readouterr().err == "error: missing.png: no such file; check the name.\n"


def test_quality_reaches_the_file() -> None:
    for quality in ("20", "95"):
        assert limner("upscale", "in/trip/b.jpg", "-o", f"{quality}.jpg", "-q", quality, "--threads", "1") == 0
    assert Path("95.jpg").stat().st_size > 1.5 * Path("20.jpg").stat().st_size


def test_stdin_to_stdout_in_a_pipe(zoo: Path) -> None:
    words = ["upscale", "-", "-m", str(zoo / "photo-x2"), "-f", "webp", "--threads", "1"]
    code = f"from limner.cli import main; main({words})"
    ended = subprocess.run(
        [sys.executable, "-c", code], input=Path("in/a.png").read_bytes(), capture_output=True, check=True
    )
    assert images.header(ended.stdout) == (60, 40)
    assert ended.stderr == b"1 done\n"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["in/a.png", "-m", "photo-x5"], 2, "unknown model 'photo-x5': did you mean 'photo-x"),
        (["in/a.png", "--engine", "opnvino"], 2, "unknown engine 'opnvino': did you mean 'openvino'?"),
        (["in/a.png", "--precision", "int4"], 2, "unknown precision 'int4'"),
        (["in/a.png", "--format", "bmp"], 2, "unknown format 'bmp'"),
        (["in/a.png", "--scale", "2", "--width", "9"], 2, "exclude each other"),
        (["in/a.png", "--scale", "0"], 2, "--scale 0 is impossible"),
        (["in/a.png", "--scale", "nan"], 2, "--scale nan is impossible"),
        (["in/a.png", "--size", "640"], 2, "--size '640': write it as WIDTHxHEIGHT"),
        (["in/a.png", "--size", "0x10"], 2, "--size '0x10': write it as WIDTHxHEIGHT"),
        (["in/a.png", "-o", "in/a.png"], 2, "in/a.png: the output would replace an input"),
        (["in", "-o", "b.png"], 2, "one output for several inputs"),
        (["in/a.png", "--max-pixels", "599"], 1, "in/a.png: 30 x 20 pixels are more than the limit of 599"),
        (["missing.png"], 1, "missing.png: no such file"),
        (["in/*.webp"], 1, "in/*.webp: no pictures there"),
    ],
)
def test_bad_requests(
    words: list[str], code: int, sentence: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(here.rglob("*"))
    assert limner("upscale", "--threads", "1", *words) == code
    printed = capsys.readouterr()
    assert f"error: {sentence}" in printed.err or sentence in printed.err
    assert sorted(here.rglob("*")) == before


def test_pictures_stay_out_of_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert limner("upscale", "in/a.png", "-o", "-") == 2
    assert "send stdout to a file" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert limner("upscale", "-", "-o", "b.png") == 2
    assert "reads a picture from a pipe" in capsys.readouterr().err
