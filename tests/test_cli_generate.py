"""`limner generate` and `limner sheet`, through a tiny painter of random weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commandline import limner
from painter_kit import make_icon_upscaler, make_painter
from PIL import Image

from limner import bundle, images
from limner.runtime import provenance
from limner.runtime.generate import Painter


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    make_painter(folder / "icons")
    make_icon_upscaler(folder / "icons-x2", scale=2)
    return folder


@pytest.fixture(autouse=True)
def here(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bundle, "ZOO", zoo)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_paths_to_stdout_and_timing_to_stderr(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("generate", "a red apple, flat style", "-n", "3", "--seed", "7", "-o", "out/") == 0
    names = [f"out/a-red-apple-flat-style-{seed}.png" for seed in (7, 8, 9)]
    assert made(here) == names
    printed = capsys.readouterr()
    assert printed.out.splitlines() == names
    assert printed.err.startswith("3 pictures in ") and " ms each (loading " in printed.err
    assert [images.header(name) for name in names] == [(64, 64)] * 3


def test_the_file_holds_the_picture_of_its_seed(zoo: Path) -> None:
    assert limner("generate", "a red cat", "--seed", "3", "-o", "cat.png", "--record-prompt") == 0
    expected = Painter.load(zoo / "icons").paint_array("a red cat", seed=3)[0]
    np.testing.assert_array_equal(np.asarray(Image.open("cat.png")), expected)
    told = provenance.read("cat.png")
    assert told is not None
    assert (told.model, told.seed, told.prompt, told.source_type) == ("icons", 3, "a red cat", provenance.GENERATED)


@pytest.mark.parametrize(
    ("options", "name", "size"),
    [
        (["--format", "webp"], "a-red-cat-5.webp", (64, 64)),
        (["--format", "jpeg"], "a-red-cat-5.jpeg", (64, 64)),
        (["--size", "128"], "a-red-cat-5.png", (128, 128)),
        (["--style", "flat"], "a-red-cat-flat-5.png", (64, 64)),
        (["--negative", "dog"], "a-red-cat-5.png", (64, 64)),
        (["--grid", "-n", "4"], "a-red-cat-5-grid.png", (140, 140)),
        (["--grid", "-n", "2", "a dog"], "a-red-cat-5-grid.png", (140, 140)),
        (["--engine", "onnxruntime", "--precision", "float"], "a-red-cat-5.png", (64, 64)),
        (["-o", "deep/er"], "deep/er/a-red-cat-5.png", (64, 64)),
        (["-o", "one.webp"], "one.webp", (64, 64)),
    ],
)
def test_options(options: list[str], name: str, size: tuple[int, int], here: Path) -> None:
    assert limner("generate", "a red cat", "--seed", "5", "--threads", "1", *options) == 0
    assert made(here) == [name]
    assert images.header(name) == size
    told = provenance.read(name)
    assert told is not None and told.seed == 5 and told.prompt is None


def test_nothing_is_overwritten_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("generate", "a cat", "--seed", "1")
    assert limner(*words) == 0
    first = Path("a-cat-1.png").read_bytes()
    assert limner(*words, "--negative", "dog") == 2
    assert "a-cat-1.png: exists; choose another --seed or -o, or add --overwrite" in capsys.readouterr().err
    assert Path("a-cat-1.png").read_bytes() == first
    assert limner(*words, "--negative", "dog", "--overwrite") == 0
    assert Path("a-cat-1.png").read_bytes() != first


def test_prompts_from_a_file_go_on_after_a_bad_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("prompts.txt").write_text("a red cat\n\na blue\x07cat\n???\nA red cat!\nun chien rouge\n", "utf-8")
    assert limner("generate", "--file", "prompts.txt", "--seed", "1", "-o", "out", "--json") == 1
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert made(here / "out") == ["a-red-cat-1-2.png", "a-red-cat-1.png", "un-chien-rouge-1.png"]
    assert [each["path"] for each in report["files"]] == [
        "out/a-red-cat-1.png",
        "out/a-red-cat-1-2.png",
        "out/un-chien-rouge-1.png",
    ]
    assert report["files"][1]["pictures"] == [
        {"prompt": "A red cat!", "seed": 1, "style": None, "negative": None, "size": 64}
    ]
    assert [each["prompt"] for each in report["failed"]] == ["a blue\x07cat", "???"]
    assert report["ms"]["paint"] > 0
    assert "error: 'a blue\\x07cat': prompt has the control character U+0007" in printed.err
    assert "warning: 'un chien rouge': prompt" in printed.err


def test_quiet_prints_paths_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("generate", "un chien rouge", "--seed", "1", "--quiet") == 0
    printed = capsys.readouterr()
    assert printed == ("un-chien-rouge-1.png\n", "")


def test_stdin_to_stdout_in_a_pipe(zoo: Path) -> None:
    words = ["generate", "-", "-m", str(zoo / "icons"), "-f", "webp", "-o", "-", "--grid", "--seed", "1"]
    code = f"from limner.cli import main; main({words})"
    ended = subprocess.run([sys.executable, "-c", code], input=b"a cat\na dog\n", capture_output=True, check=True)
    assert images.header(ended.stdout) == (72, 140)
    assert b"2 pictures in" in ended.stderr


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([], 2, "there is no prompt"),
        ([""], 2, "prompt is empty"),
        (["  "], 2, "prompt is empty"),
        (["a " * 6000], 2, "prompt has 12000 characters"),
        (["a\x1bcat"], 2, "prompt has the control character U+001B at position 2"),
        (["!!!"], 2, "prompt '!!!' has no word in it"),
        (["a cat", "-n", "0"], 2, "n=0 is impossible: ask for 1 to 1000"),
        (["a cat", "--seed", "-1"], 2, "seed -1 is impossible"),
        (["a cat", "--size", "100"], 2, "size 100 is impossible: icons paints 64, 128, 256"),
        (["a cat", "--style", "flta"], 2, "unknown style 'flta': did you mean 'flat'?"),
        (["a cat", "--negative", " "], 2, "negative prompt is empty"),
        (["a cat", "--format", "bmp"], 2, "unknown format 'bmp'"),
        (["a cat", "-o", "a.png", "-f", "webp"], 2, "its suffix does not go with --format webp"),
        (["a cat", "-n", "2", "-o", "a.png"], 2, "one file for 2 pictures; give a folder, or add --grid"),
        (["a cat", "-o", "-", "--json"], 2, "--json and -o - would both go to stdout"),
        (["a cat", "--safety", "high"], 2, "unknown moderation level 'high'"),
        (["a cat", "--engine", "opnvino"], 2, "unknown engine 'opnvino': did you mean 'openvino'?"),
        (["a cat", "-m", "icon"], 2, "unknown model 'icon': did you mean 'icons'?"),
        (["a cat", "-m", "icons-x2"], 1, "is a bundle for 'upscale', not for 'generate'"),
        (["explicit hardcore porn"], 1, "the prompt was flagged as sexual"),
        (["--file", "missing.txt"], 1, "missing.txt: cannot be read"),
        (["a cat", "--file", "latin.txt"], 1, "latin.txt: is not UTF-8 text (byte 6)"),
        (["--file", "blank.txt"], 1, "blank.txt: holds no prompt"),
        (["a cat", "-o", "blank.txt/"], 1, "cannot be made"),
    ],
)
def test_bad_requests(
    words: list[str], code: int, sentence: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("latin.txt").write_bytes("a caf\xe9 sign".encode("latin-1"))
    Path("blank.txt").write_text("\n \n")
    before = made(here)
    assert limner("generate", "--threads", "1", *words) == code
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("error: ") == 1
    assert made(here) == before


def test_pictures_stay_out_of_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert limner("generate", "a cat", "-o", "-") == 2
    assert "send stdout to a file" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert limner("generate", "-") == 2
    assert "reads prompts from a pipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "columns"), [(["--seeds", "3"], 3), (["--styles"], 2), (["--columns", "2"], 2), ([], 4)]
)
def test_sheets(options: list[str], columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("sheet", "a red cat", "a dog", "-o", "out.png", *options) == 0
    assert capsys.readouterr().out == "out.png\n"
    labels = 0 if "--columns" in options else 170
    assert images.header("out.png")[0] == labels + columns * (64 + 6) + 6
    assert limner("sheet", "a red cat", "-o", "out.png") == 2
    assert "out.png: exists" in capsys.readouterr().err


def test_a_sheet_beside_the_nearest_training_pictures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, random = here / "data", np.random.default_rng(0)
    data.mkdir()
    for index in range(4):
        pixels = random.integers(0, 256, (64, 64, 4)).astype(np.uint8)
        Image.fromarray(pixels).save(data / f"thing{index}.png")
    assert limner("sheet", "a red cat", "-o", "near.png", "--nearest", str(data)) == 0, capsys.readouterr().err
    assert images.header("near.png")[0] == 170 + 2 * (64 + 6) + 6
    assert limner("sheet", "a red cat", "-o", "b.png", "--nearest", str(data), "--styles") == 2
    assert "exclude each other" in capsys.readouterr().err


def test_bench_times_painters_and_their_upscalers_and_leaves_text_out(
    zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("bench", "--repeats", "2", "--batch", "1", "--batch", "2", "--size", "24x24", "--json", "-")
    assert limner(*words) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["bundle"], row["stage"], row["batch"]) for row in rows] == [
        ("icons-x2", "", 1),
        ("icons", "prompt", 1),
        ("icons", "network", 1),
        ("icons", "network", 2),
    ]
    assert limner("bench", str(zoo / "text-kit")) == 2
    assert "there is no upscaler and no painter to time" in capsys.readouterr().err
