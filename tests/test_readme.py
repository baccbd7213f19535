"""What the README shows works: its shell and Python blocks are run, in order, in a folder with two photographs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READMES = ["README.md", "README.zh-CN.md"]
# The README trains for hours; here the same commands run for seconds.
SHORT = {
    "train": "--set train.images=16 --set train.batch=4 --set train.crop=16 --set model.width=16 --set model.depth=2",
    "pack": "--set quantize.images=0 --set pack.max_drop=50 --set pack.min_gain=-50",
}


def blocks(readme: str, language: str) -> list[str]:
    text = (ROOT / readme).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "examples" / "strawberries.jpg", tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("garden", "kitchen", "market"):
        shutil.copy(ROOT / "examples" / "strawberries.jpg", tmp_path / "photos" / f"{name}.jpg")
    return tmp_path


def command(line: str) -> list[str]:
    words = shlex.split(line)
    if words[0] == "pip":
        return []
    assert words[0] == "limner", f"the README test cannot run {line!r}"
    return [sys.executable, "-m", "limner.cli", *words[1:], *shlex.split(SHORT.get(words[1], ""))]


def test_shell_blocks_run(desk: Path) -> None:
    lines = [line for block in blocks("README.md", "sh") for line in block.splitlines()]
    assert len(lines) >= 8
    for line in filter(None, map(command, lines)):
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(line, cwd=desk, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(line)}: {done.stderr}"
    for made in (
        "big.png",
        "larger/market.jpg",
        "out/strawberries.webp",
        "mine/manifest.json",
        "mine.png",
    ):
        assert (desk / made).exists(), [str(p.relative_to(desk)) for p in desk.rglob("*")]


def test_python_blocks_run(desk: Path) -> None:
    code = blocks("README.md", "python")
    assert code
    for block in code:
        done = subprocess.run([sys.executable, "-c", block], cwd=desk, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (desk / "big.png").stat().st_size > 10_000


def test_both_languages_show_the_same_commands_and_figures() -> None:
    english, chinese = READMES
    assert blocks(english, "sh") == blocks(chinese, "sh")
    tables = [re.findall(r"^\| `.*\|$", (ROOT / name).read_text("utf-8"), re.MULTILINE) for name in READMES]
    assert tables[0] and tables[0] == tables[1]


@pytest.mark.parametrize("readme", READMES)
def test_links_lead_somewhere(readme: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / readme).read_text("utf-8"))
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
