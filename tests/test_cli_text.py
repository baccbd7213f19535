"""`limner pack-text`: what it writes and prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from commandline import limner
from text_kit import save_model

from limner import bundle

HELD = ["the red cat", "a blue house with a dog", "pixel art apple", "a pear", "green", "dog and cat", "the art"]


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("held.txt").write_text("\n".join([*HELD, "", HELD[0]]) + "\n")
    Path("captions.txt").write_text("a red apple\na blue pear\nthe small house\n" * 3)
    Path("latin.txt").write_bytes("café".encode("latin-1"))
    return tmp_path


def test_a_bundle_is_written_and_its_figures_are_printed(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(Path("bert"), "bert")
    words = ["--held", "held.txt", "--captions", "captions.txt", "--keep", "0,2", "--steps", "2", "--min-cosine", "0.2"]
    credit = ["--license", "MIT", "--credit", "bert=MIT", "--credit", "a list = of words=CC0-1.0"]
    assert limner("pack-text", "bert", "--out", "tiny", *words, *credit) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "packed tiny into tiny: 0.0 MB, cosine 0." in printed.err
    manifest = bundle.read("./tiny", bundle.TextManifest).manifest
    assert [(each.source, each.license) for each in manifest.sources] == [
        ("bert", "MIT"),
        ("a list = of words", "CC0-1.0"),
    ]
    assert (manifest.license, manifest.recipe["captions"]) == ("MIT", 3)
    assert Path("tiny-run/polish.pt").is_file()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--keep", "a,b"], 2, "--keep 'a,b': write the numbers of layers as 0,4,5."),
        (["--credit", "nobody"], 2, "--credit 'nobody': write it as SOURCE=LICENCE."),
        (["--captions", "absent.txt"], 1, "absent.txt: cannot be read (No such file or directory)"),
        (["--texts", "latin.txt"], 1, "latin.txt: is not text in UTF-8; give a file with one text per line."),
        ([], 1, "nowhere: is no folder, and no such model can be fetched"),
    ],
)
def test_what_is_refused(
    words: list[str],
    code: int,
    sentence: str,
    in_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert limner("pack-text", "nowhere", "--out", "tiny", "--held", "held.txt", *words) == code
    assert sentence in capsys.readouterr().err.replace("\n", " ")
    assert not Path("tiny").exists()
