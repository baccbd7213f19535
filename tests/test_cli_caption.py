"""`limner data caption` as a user sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_kit import Server, said
from commandline import limner
from PIL import Image


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "fruit"
    folder.mkdir()
    for name in ("red_apple", "green_pear", "0003"):
        Image.new("RGB", (32, 32), "#d81e28").save(folder / f"{name}.png")
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    running.reply = lambda question, number: said("an apple or a pear on a plate")
    yield running
    running.close()


def test_a_summary_for_people_and_one_for_programs(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("data", "caption", str(data)) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{data}: 3 pictures, ")
    assert "template" in out
    assert "pictures without any    1" in out
    assert limner("data", "caption", str(data), "-n", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "path": str(data), "table": str(data / "captions.jsonl"), "pictures": 3, "captions": {"template": 4},
        "without": 1, "unusable": 0,
    }  # fmt: skip


def test_a_dry_run_prints_examples_and_writes_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("data", "caption", str(data), "--dry-run") == 0
    assert "green_pear.png\n  " in (out := capsys.readouterr().out)
    assert "[template]" in out
    assert limner("data", "caption", str(data), "--dry-run", "--json") == 0
    assert {row["file_name"] for row in json.loads(capsys.readouterr().out)} == {
        "red_apple.png",
        "green_pear.png",
        "0003.png",
    }
    assert not (data / "captions.jsonl").exists()


def test_models_at_an_endpoint_with_a_key(
    data: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    models = ("--endpoint", server.url, "--model", "writer", "--vision", "seer", "--key-env", "MY_KEY", "--json")
    assert limner("data", "caption", str(data), *models) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["captions"]["endpoint:writer"], told["captions"]["vision:seer"], told["without"]) == (2, 1, 0)
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer s3cret"}


def test_a_dead_endpoint_is_one_sentence(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = limner("data", "caption", str(data), "--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "--timeout", "1")
    assert code == 1
    told = capsys.readouterr()
    assert told.err.startswith("error: http://127.0.0.1:9/v1: cannot be reached")
    assert told.err.count("\n") == 1
    assert told.out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "m"], "--model m: give the address of the model as well, --endpoint URL"),
        (["--vision", "m"], "--vision m: give the address"),
        (["--endpoint", "http://localhost:1/v1"], "--endpoint needs --model NAME"),
        (["--endpoint", "nowhere", "--model", "m"], "give an address such as http://localhost:8000/v1"),
        (["--endpoint", "http://localhost:1/v1", "--model", "m", "--rewriter", "x"], "--rewriter and --model both"),
        (["--variants", "0"], "--variants"),
    ],
)  # fmt: skip
def test_requests_that_make_no_sense(
    data: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert limner("data", "caption", str(data), *words) == 2
    assert message in capsys.readouterr().err


def test_a_key_with_a_line_break_is_refused(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIMNER_API_KEY", "a\nHost: evil")
    assert limner("data", "caption", str(data), "--endpoint", "http://localhost:1/v1", "--model", "m") == 2
    assert "LIMNER_API_KEY: the key holds characters" in capsys.readouterr().err
    assert "evil" not in capsys.readouterr().err


def test_a_folder_that_is_no_language_model(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("data", "caption", str(data), "--rewriter", str(data)) == 1
    assert "no config.json" in capsys.readouterr().err


def test_templates_need_no_torch(data: Path) -> None:
    code = (
        "import sys\nfrom limner.cli import main\n"
        f"try:\n    main(['data', 'caption', {str(data)!r}])\nexcept SystemExit as end:\n    assert not end.code\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
