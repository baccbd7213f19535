"""Instruction sets that the processor at hand lacks, byte for byte: AVX-512 VNNI and AVX-VNNI on a machine under Bochs,
NEON under qemu-aarch64. Unlike test_driver.py's SIMDe, what runs is the compiled kernel, found by its own cpuid.

Minutes; skipped with what is missing. `runs/emulated.sh` fetches the emulators and runs this file.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import emulator_kit
import pytest

import limner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

HERE = Path(__file__).parent
SOURCES = Path(limner.__file__).parent / "runtime" / "fused" / "csrc"
PROGRAMS = {
    "driver": HERE / "driver.cpp",
    "recorded": HERE / "emulated/recorded.cpp",
    "init": HERE / "emulated/init.cpp",
}
SEEDS = "1 4"


def build(folder: Path, compiler: str, names: Sequence[str]) -> dict[str, bytes]:
    """Static programs, each with all kernels."""
    how = [compiler, "-std=c++17", "-O2", "-ffp-contract=off", "-w", f"-I{SOURCES}"]
    kernels = []
    for source in sorted(SOURCES.glob("*.cpp")):
        kernels.append(str(folder / f"{source.stem}.o"))
        subprocess.run([*how, "-c", str(source), "-o", kernels[-1]], check=True)
    whole = ["-static", "-Wl,--whole-archive", "-lpthread", "-Wl,--no-whole-archive"]
    for name in names:
        subprocess.run([*how, str(PROGRAMS[name]), *kernels, *whole, "-o", str(folder / name)], check=True)
    return {name: (folder / name).read_bytes() for name in names}


def needs(*commands: str) -> None:
    for command in commands:
        if shutil.which(command) is None:
            pytest.skip(f"needs {command}")


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="needs an x86 processor")
def test_vnni_on_an_emulated_machine(tmp_path: Path) -> None:
    if reason := emulator_kit.missing():
        pytest.skip(reason)
    needs("g++")
    files = build(tmp_path, "g++", tuple(PROGRAMS)) | {"cases": emulator_kit.record(emulator_kit.plans())}
    commands = ["/recorded /cases scalar avxvnni avx512vnni", f"/driver {SEEDS}"]
    told = emulator_kit.run(tmp_path, files, commands, seconds=3000)
    assert [f"PASS: {command}" in told for command in commands] == [True, True], told
    assert "ok scalar avx2 avxvnni avx512vnni" in told


def test_neon_gives_the_bytes_of_the_reference(tmp_path: Path) -> None:
    needs("qemu-aarch64", "aarch64-linux-gnu-g++")
    build(tmp_path, "aarch64-linux-gnu-g++", ["recorded", "driver"])
    (tmp_path / "cases").write_bytes(emulator_kit.record(emulator_kit.plans()))
    for command in (["recorded", "cases", "scalar", "neon"], ["driver", *SEEDS.split()]):
        emulated = ["qemu-aarch64", "-cpu", "max", f"./{command[0]}", *command[1:]]
        done = subprocess.run(emulated, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "neon" in done.stdout, done.stdout + done.stderr
