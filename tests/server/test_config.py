"""The server's configuration: files, flags, and a sentence for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from commandline import limner

from limner.errors import LimnerError, UsageError
from limner.server.access import digest
from limner.server.config import ServerConfig, load


def written(folder: Path, text: str, name: str = "limner.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    toml = load(written(tmp_path, 'models = ["icons"]\n[limits]\npictures = 4\n'))
    json = load(written(tmp_path, '{"models": ["icons"], "limits": {"pictures": 4}}', "limner.json"))
    assert toml == json and toml.limits.pictures == 4 and toml.batching.largest == 32


def test_flags_win(tmp_path: Path) -> None:
    path = written(tmp_path, "port = 1\nhost = '0.0.0.0'\n")
    found = load(path, port=2, host=None)
    assert (found.port, found.host) == (2, "0.0.0.0")
    assert load() == ServerConfig()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1", "unknown key 'prot'"),
        ("[limits]\npixels = 1", "unknown key 'limits.pixels'"),
        ("port = 70000", "port: "),
        ("port = 'x'", "port: "),
        ("[[keys]]\nname = 'a b'\nsha256 = 'x'", "keys.0.name: "),
        ("[[keys]]\nname = 'a'\nsha256 = 'x'", "keys.0.sha256: "),
        (f"keys = [{{name='a', sha256='{digest('x')}'}}, {{name='a', sha256='{digest('y')}'}}]", "same name"),
        (f"keys = [{{name='a', sha256='{digest('x')}'}}, {{name='b', sha256='{digest('x')}'}}]", "same sha256"),
    ],
)
def test_mistakes_are_named(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        load(written(tmp_path, text))
    assert "limner.toml" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.toml", written(tmp_path, "= 1"), written(tmp_path, "{", "x.json")):
        with pytest.raises(LimnerError, match=path.name):
            load(path)
    with pytest.raises(UsageError, match="keys and values"):
        load(written(tmp_path, "[]", "list.json"))


def test_a_bad_flag_is_told() -> None:
    with pytest.raises(UsageError, match="command line: port"):
        load(port=-1)


def test_new_key_prints_a_key_and_its_entry(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert limner("serve", "--new-key", "shop") == 0
    key, _, entry = capsys.readouterr().out.partition("\n\n")
    (found,) = load(written(tmp_path, entry)).keys
    assert (found.name, found.sha256) == ("shop", digest(key))
    assert limner("serve", "--new-key", "a b") == 2


@pytest.mark.parametrize("words", [["no-such-model"], ["--config", "no-such-file"], ["text-minilm"]])
def test_serve_says_what_is_wrong(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("serve", *words) in (1, 2)
    assert capsys.readouterr().err.startswith("error: ")
