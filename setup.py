"""The optional half of the build: the fused engine's kernels. Everything else is in pyproject.toml.

A failed compile, or no compiler at all, only means that there is no fused engine. LIMNER_NO_KERNELS=1 does not try.
The library has nothing of Python in it (ctypes loads it), so one file, and one wheel, serves every version of Python.
"""

import os
import sys
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = Path("src/limner/runtime/fused/csrc")
UNIX = ["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-pthread", "-g0", "-w"]
WINDOWS = ["/std:c++17", "/O2", "/EHsc", "/fp:precise", "/w"]


class BuildLibrary(build_ext):
    """A plain shared library instead of a Python module."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + (".pyd" if sys.platform == "win32" else ".so")

    def get_export_symbols(self, ext: Any) -> list[str]:
        return ext.export_symbols

    def build_extension(self, ext: Extension) -> None:
        msvc = self.compiler.compiler_type == "msvc"
        ext.extra_compile_args = WINDOWS if msvc else UNIX
        ext.extra_link_args = [] if msvc else ["-pthread"]
        super().build_extension(ext)


class AnyPythonWheel(bdist_wheel):
    """For this platform with kernels, for any where none were compiled."""

    def get_tag(self) -> tuple[str, str, str]:
        compiled = list(Path(self.get_finalized_command("build_ext").build_lib).glob("limner/runtime/fused/_kernels.*"))
        return "py3", "none", super().get_tag()[2] if compiled else "any"


KERNELS = Extension(
    "limner.runtime.fused._kernels",
    sources=sorted(str(path) for path in SOURCES.glob("*.cpp")),
    depends=sorted(str(path) for path in SOURCES.iterdir() if path.suffix in {".h", ".inc"}),
    optional=True,
)

if os.environ.get("LIMNER_NO_KERNELS"):
    setup()
else:
    setup(ext_modules=[KERNELS], cmdclass={"build_ext": BuildLibrary, "bdist_wheel": AnyPythonWheel})
