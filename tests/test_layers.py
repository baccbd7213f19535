"""Data goes one way: imports only point left, and what serves never loads torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "limner"
SHARED = ["errors", "config", "bundle", "resample", "exif_tags", "png", "images"]
TRAINING = [
    "errors",
    "config",
    "recipes",
    *SHARED[2:],
    "data",
    "text",
    "models",
    "evaluate",
    "train",
    "compress",
    "export",
]
SERVING = [*SHARED, "runtime", "server"]


def imports(path: Path) -> set[str]:
    """First-level limner modules that a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("limner"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("limner.")}
    return found & {path.stem for path in SOURCE.iterdir()}


def files(module: str) -> list[Path]:
    single = SOURCE / f"{module}.py"
    return [single] if single.exists() else sorted((SOURCE / module).rglob("*.py"))


def allowed(module: str) -> set[str]:
    if module in SERVING:
        return set(SERVING[: SERVING.index(module) + 1])
    left = set(TRAINING[: TRAINING.index(module) + 1])
    # What is measured, and the vectors a painter learns from, must be what serves: these stages may call the runtime.
    return left | {"runtime"} if module in ("text", "evaluate", "export") else left


@pytest.mark.parametrize("module", sorted(set(TRAINING + SERVING)))
def test_imports_point_left(module: str) -> None:
    for path in files(module):
        assert imports(path) <= allowed(module), f"{path.relative_to(SOURCE)} imports to its right"


def test_every_module_has_a_place() -> None:
    present = {path.stem for path in SOURCE.iterdir() if path.suffix in ("", ".py") and not path.name.startswith("_")}
    assert present <= {*TRAINING, *SERVING, "cli", "zoo"}


def test_serving_half_loads_no_torch() -> None:
    code = (
        "import sys, pkgutil, importlib, limner, limner.runtime, limner.server, limner.bundle, limner.images\n"
        "for package in (limner.runtime, limner.server):\n"
        "    for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "print('torch' in sys.modules or 'onnx' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"
