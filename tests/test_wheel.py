"""Wheels: with kernels for this platform, without for any, each installed where no compiler is at hand.

What the wheel depends on is taken from the environment of the tests, so that nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.runtime.fused import native

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[1]
ALL_IN = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "src")
WASTE = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
NO_COMPILER = {"CC": "false", "CXX": "false"}


def wheel(folder: Path, how: Mapping[str, str]) -> Path:
    """Built from a copy of the tree, with the environment `how` on top of this one."""
    folder.mkdir()
    for name in ALL_IN:
        source = ROOT / name
        shutil.copytree(source, folder / name, ignore=WASTE) if source.is_dir() else shutil.copy(source, folder)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        "dist",
        ".",
    ]
    done = subprocess.run(pip, cwd=folder, env={**os.environ, **how}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = (folder / "dist").iterdir()
    return built


def installed(folder: Path, built: Path) -> Path:
    """The `limner` command of a new environment."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()), "utf-8")
    pip = [folder / "bin/python", "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--force-reinstall", built]
    subprocess.run(pip, env={**os.environ, **NO_COMPILER}, check=True)
    return folder / "bin/limner"


def told(limner: Path, *arguments: str) -> str:
    """What the command prints, far from the source tree, on a PATH without compilers."""
    # -P would be ignored by the script: PYTHONSAFEPATH does the same.
    alone = {"PATH": str(limner.parent), "HOME": str(limner.parent), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [limner, *arguments], cwd=limner.parent, env=alone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(built: Path) -> set[str]:
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def fused(limner: Path) -> dict[str, object]:
    return next(each for each in json.loads(told(limner, "info", "--engines", "--json")) if each["engine"] == "fused")


def upscaled(limner: Path, folder: Path) -> tuple[int, int]:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)).save(folder / "in.png")
    told(limner, "upscale", str(folder / "in.png"), "-o", str(folder / "out.png"))
    return Image.open(folder / "out.png").size


@pytest.mark.skipif(native.unavailable() is not None, reason=f"needs the extension: {native.unavailable()}")
def test_a_wheel_brings_the_kernels_and_needs_no_compiler(tmp_path: Path) -> None:
    built = wheel(tmp_path / "source", {})
    assert built.name.split("-")[2:4] == ["py3", "none"] and "any" not in built.name
    names = contents(built)
    for wanted in ("zoo/photo-x4/int8.onnx", "server/page/index.html", "runtime/safety_data/terms.tsv", "py.typed"):
        assert f"limner/{wanted}" in names
    assert any(name.startswith("limner/runtime/fused/_kernels.") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"limner"}, "neither tests nor deploy"
    assert not any(name.endswith((".cpp", ".h", ".inc")) for name in names)
    assert built.stat().st_size < 40e6
    limner = installed(tmp_path / "venv", built)
    assert fused(limner)["ready"] is True
    assert upscaled(limner, tmp_path) == (48, 36)


@pytest.mark.parametrize("how", [{"LIMNER_NO_KERNELS": "1"}, NO_COMPILER], ids=["unwanted", "no compiler"])
def test_a_wheel_without_kernels_runs_everywhere(how: dict[str, str], tmp_path: Path) -> None:
    built = wheel(tmp_path / "source", how)
    assert built.name.endswith("-py3-none-any.whl")
    assert not any("_kernels." in name for name in contents(built))
    limner = installed(tmp_path / "venv", built)
    state = fused(limner)
    assert state["ready"] is False and "not built" in str(state["detail"])
    assert upscaled(limner, tmp_path) == (48, 36)
