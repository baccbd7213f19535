"""Random plans against plain C++ loops (driver.cpp): with sanitizers, and for processors other than this one.

Each builds the kernels anew, which takes a minute; skipped where the compiler, emulator or header is missing.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import limner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HERE = Path(__file__).parent
SOURCES = Path(limner.__file__).parent / "runtime" / "fused" / "csrc"
X86 = platform.machine() in {"x86_64", "AMD64"}


def build(folder: Path, compiler: str, flags: Sequence[str], own: dict[str, Sequence[str]] | None = None) -> Path:
    """The driver with all kernels; `own`: more flags for single files."""
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    objects = []
    for source in (*sorted(SOURCES.glob("*.cpp")), HERE / "driver.cpp"):
        objects.append(str(folder / f"{source.stem}.o"))
        more = (own or {}).get(source.name, ())
        common = ("-std=c++17", "-ffp-contract=off", "-w", f"-I{SOURCES}", "-c", str(source), "-o", objects[-1])
        subprocess.run([compiler, *flags, *more, *common], check=True)
    driver = folder / "driver"
    subprocess.run([compiler, *flags, *objects, "-pthread", "-o", str(driver)], check=True)
    return driver


def run(command: Sequence[str | Path], seed: int, count: int) -> str:
    result = subprocess.run(
        [*map(str, command), str(seed), str(count)], capture_output=True, text=True, timeout=1200, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize(("sanitizer", "count"), [("address,undefined", 100), ("thread", 12)])
def test_sanitizers_find_nothing(sanitizer: str, count: int, tmp_path: Path) -> None:
    # Clones of functions are chosen before a sanitizer is ready.
    flags = ("-O1", "-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-DLF_CLONES=")
    assert run([build(tmp_path, "g++", flags)], 1, count).startswith("ok")


def test_neon_under_an_emulator(tmp_path: Path) -> None:
    emulator = shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("needs qemu-aarch64")
    driver = build(tmp_path, "aarch64-linux-gnu-g++", ("-O2", "-static"))
    assert "neon" in run([emulator, "-cpu", "max", driver], 1, 60)


@pytest.mark.skipif(not X86, reason="needs an x86 processor")
def test_vnni_with_emulated_instructions(tmp_path: Path) -> None:
    if not Path("/usr/include/simde").exists():
        pytest.skip("needs the SIMDe headers")
    emulated = f"-I{HERE / 'emulated'}"
    own = {f"kernels_{isa}.cpp": (emulated, "-mavx2", "-mfma") for isa in ("avxvnni", "avx512vnni")}
    driver = build(tmp_path, "g++", ("-O1", "-DLF_EMULATED"), own)
    assert {"avxvnni", "avx512vnni"} <= set(run([driver], 1, 120).split())
