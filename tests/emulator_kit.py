"""A whole x86 machine under Bochs, for instruction sets that the processor at hand lacks.

The machine starts a Linux kernel from a CD of 10 MB whose memory disk holds static programs; the first of them
(`emulated/init.cpp`) runs a list of commands, tells on the serial port how each ended and switches the machine off.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from ctypes import POINTER
from pathlib import Path

import numpy as np
from fused_kit import noise, random_film, random_plan

from limner.runtime.fused import native, reference
from limner.runtime.fused.plan import Plan

BOCHS = os.environ.get("LIMNER_BOCHS", "bochs")
ISOLINUX = (Path("/usr/lib/ISOLINUX/isolinux.bin"), Path("/usr/lib/syslinux/modules/bios/ldlinux.c32"))
MODEL = "sapphire_rapids"  # has AVX-512 VNNI and AVX-VNNI
# What Linux 6.12 and Bochs 3.0 do not agree on: switching ACPI on, and the state of the matrix unit (feature 600).
OPTIONS = "console=ttyS0 quiet nokaslr mitigations=off panic=-1 acpi=off nopcid clearcpuid=600 random.trust_cpu=on"
REGULAR, EXECUTABLE, FOLDER, DEVICE = 0o100644, 0o100755, 0o040755, 0o020600

CONFIGURATION = """\
cpu: model=sapphire_rapids, count=1, ips=50000000
romimage: file=$BXSHARE/BIOS-bochs-latest
vgaromimage: file=$BXSHARE/VGABIOS-lgpl-latest
memory: guest=256, host=256
ata0-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial.txt
display_library: term
vga: extension=vbe, update_freq=1
clock: sync=none
log: bochs.log
panic: action=fatal
"""


def missing() -> str | None:
    """What the emulated machine needs and is not here, with what to do; None when all is there."""
    if shutil.which(BOCHS) is None:
        return "needs Bochs (packages bochs, bochs-term, bochsbios, vgabios; LIMNER_BOCHS names another command)"
    if MODEL not in _models():
        return f"needs Bochs 3.0 or newer, which knows {MODEL}"
    if not all(part.exists() for part in ISOLINUX) or shutil.which("xorriso") is None:
        return "needs packages isolinux, syslinux-common and xorriso"
    if kernel() is None:
        return "needs a Linux kernel, version 6.12: LIMNER_EMULATOR_KERNEL=vmlinuz-... (runs/emulated.sh)"
    return None


def kernel() -> Path | None:
    """The kernel to start: LIMNER_EMULATOR_KERNEL, or none."""
    name = os.environ.get("LIMNER_EMULATOR_KERNEL", "")
    return Path(name) if name and Path(name).is_file() else None


def _models() -> set[str]:
    """Processors that this Bochs knows."""
    told = subprocess.run(
        [BOCHS, "--help", "cpu"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return set((told.stdout + told.stderr).split())


def run(folder: Path, files: Mapping[str, bytes], commands: Sequence[str], seconds: float) -> str:
    """What the machine wrote to its serial port until it ended or `seconds` passed. `files`: programs and data at /."""
    _write_disc(folder, {**files, "commands": "".join(f"{line}\n" for line in commands).encode()})
    (folder / "bochsrc").write_text(CONFIGURATION, "ascii")
    with (folder / "screen.txt").open("wb") as screen:
        # Without a terminal as its input: Bochs would wait a millisecond for a key, thousands of times a second.
        machine = subprocess.Popen(
            [BOCHS, "-q", "-f", "bochsrc"],
            cwd=folder,
            env={**os.environ, "TERM": "vt100"},
            stdin=subprocess.DEVNULL,
            stdout=screen,
            stderr=subprocess.STDOUT,
        )
        try:
            return _watch(machine, folder / "serial.txt", seconds)
        finally:
            machine.kill()
            machine.wait()


def _watch(machine: subprocess.Popen[bytes], serial: Path, seconds: float) -> str:
    end = time.monotonic() + seconds
    told = ""
    while time.monotonic() < end and machine.poll() is None and "\nEND" not in told:
        time.sleep(0.5)
        told = serial.read_text("utf-8", "replace").replace("\r", "") if serial.exists() else ""
    return told


def _write_disc(folder: Path, files: Mapping[str, bytes]) -> None:
    found = kernel()
    assert found is not None
    disc = folder / "disc"
    disc.mkdir()
    for part in ISOLINUX:
        shutil.copy(part, disc)
    shutil.copy(found, disc / "vmlinuz")
    (disc / "initrd").write_bytes(_memory_disk(files))
    lines = "default one", "prompt 0", "label one", "kernel /vmlinuz", f"append initrd=/initrd {OPTIONS}", ""
    (disc / "isolinux.cfg").write_text("\n".join(lines), "ascii")
    how = ["-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]
    command = ["xorriso", "-as", "mkisofs", "-quiet", *how, "-o", "boot.iso", "disc"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def _memory_disk(files: Mapping[str, bytes]) -> bytes:
    """A cpio archive of kind newc: a console, and the files at its root. Programs are what begins as ELF does."""
    entries = [_entry(1, "dev", FOLDER), _entry(2, "dev/console", DEVICE, device=(5, 1))]
    for number, (name, data) in enumerate(files.items(), 3):
        entries.append(_entry(number, name, EXECUTABLE if data.startswith(b"\x7fELF") else REGULAR, data))
    return b"".join([*entries, _entry(0, "TRAILER!!!", 0)])


def _entry(number: int, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    fields = number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0
    head = b"070701" + "".join(f"{field:08X}" for field in fields).encode() + name.encode() + b"\0"
    return _aligned(head) + _aligned(data)


def _aligned(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def record(cases: Sequence[tuple[Plan, int, int]]) -> bytes:
    """For emulated/recorded.cpp: plans, each with a picture of (height, width) cells and what reference.py paints."""
    return b"".join([_ints(len(cases)), *(_case(seed, *case) for seed, case in enumerate(cases))])


def plans() -> list[tuple[Plan, int, int]]:
    """One of every kind of layer and end, at sizes that are no multiple of anything."""
    separable = ((32, 3, 0), (32, 1, 1)) * 2
    return [
        (random_plan(1, separable, scale=4), 9, 70),
        (random_plan(2, ((64, 5, 0), (64, 1, 1)), scale=3), 8, 19),
        (random_plan(3, ((48, 3, 0), (48, 1, 1)), residuals=True, film=True), 7, 33),
        (random_plan(4, ((32, 3, 1), (64, 3, 2), (16, 5, 1))), 6, 21),
        (random_plan(5, separable, unshuffle=2, colours=4), 5, 18),
        (random_plan(6, separable, peak=127, residuals=True), 1, 37),
        (random_plan(7, separable, film=True, scale=1), 11, 1),
        (random_plan(8, separable, peak=1), 1, 1),
    ]


def _case(seed: int, plan: Plan, height: int, width: int) -> bytes:
    picture, film = noise(height * plan.unshuffle, width * plan.unshuffle, seed, plan.colours), random_film(seed, plan)
    if seed % 3 == 2:
        picture = (picture > 127).astype(np.uint8) * np.uint8(255)
    floats = np.concatenate([part for pair in film for part in pair]) if film else np.zeros(0, np.float32)
    kept: list[object] = []
    head = native._Plan(len(plan.stages), plan.colours, plan.unshuffle, plan.scale, POINTER(native._Layer)())
    layers = [
        bytes(native._layer(stage, kept)) + stage.weight.tobytes() + stage.bias.tobytes() + stage.multiplier.tobytes()
        for stage in plan.stages
    ]
    painted = reference.run(plan, picture, film)
    sizes = _ints(*picture.shape[:2])
    return b"".join(
        [bytes(head), *layers, _ints(floats.size), floats.tobytes(), sizes, picture.tobytes(), painted.tobytes()]
    )


def _ints(*values: int) -> bytes:
    return np.array(values, np.int32).tobytes()
