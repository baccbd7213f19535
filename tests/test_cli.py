"""The command line as a whole: start-up, exit codes, where output goes, flags, the reference page."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import limner

from limner.cli import docs

HEAVY = ("numpy", "openvino", "onnxruntime", "torch", "pyvips", "PIL", "pydantic")
MOST_FLAGS = 18  # a new flag must push an old one out, or become part of a config file
ROOT = Path(__file__).parents[1]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import sys
from limner.cli import main
try:
    main(["--help"])
except SystemExit:
    print("loaded:", [name for name in {HEAVY} if name in sys.modules])
"""
    text = run_python(code).stdout
    assert "upscale" in text
    assert text.splitlines()[-1] == "loaded: []"


def test_help_is_quick() -> None:
    """Processor time of the whole process, best of three, so that a busy machine does not decide."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run_python("from limner.cli import main; main(['--help'])")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.5


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from limner import __version__

    assert limner("--version") == 0
    assert capsys.readouterr().out == f"limner {__version__}\n"


def test_failures_exit_with_1_and_wrong_requests_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert limner("info", str(tmp_path)) == 1
    assert limner("info", "photo-x5") == 2
    assert limner("info") == 2
    assert limner("info", "--jsn", "photo-x4") == 2
    assert limner("inof") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {tmp_path}: no manifest.json there")
    assert "error: unknown model 'photo-x5'" in printed.err
    assert "Traceback" not in printed.err


def test_an_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("limner.bundle.zoo", interrupted)
    assert limner("models") == 130


def test_a_closed_pipe_is_quiet() -> None:
    code = "import time; from limner.cli import main; time.sleep(0.3); main(['models', '--json'])"
    ended = subprocess.run(
        f'{sys.executable} -c "{code}" | true', shell=True, capture_output=True, text=True, check=False
    )
    assert ended.stderr == ""


@pytest.mark.parametrize("no_color", [True, False])
def test_errors_are_coloured_only_where_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_color: bool
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    limner("info", "photo-x5")
    assert ("\x1b[1;31m" in capsys.readouterr().err) is not no_color


def test_no_command_has_too_many_flags() -> None:
    counts = {name: len(docs.flags(command)) for name, command in docs.commands()}
    assert max(counts.values()) <= MOST_FLAGS, counts


def test_every_flag_explains_itself() -> None:
    silent = [f"{name} {each.opts}" for name, command in docs.commands() for each in command.params if not each.help]
    assert silent == []


def test_the_reference_page_is_current() -> None:
    assert (ROOT / "docs/cli.md").read_text("utf-8") == docs.reference(), "run: python -m limner.cli.docs docs/cli.md"
