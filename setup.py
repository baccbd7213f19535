"""The optional half of the build: the fused engine's kernels, and a loop for training. The rest is in pyproject.toml.

A failed compile, or no compiler at all, only means that there is no fused engine and that depthwise layers train
slowly. LIMNER_NO_KERNELS=1 does not try. The libraries have nothing of Python in them (ctypes loads them), so one wheel
serves every version of Python.
"""

import os
import sys
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

PACKAGE = Path("src/limner")
UNIX = ["-std=c++17", "-O3", "-fvisibility=hidden", "-pthread", "-g0", "-w"]
WINDOWS = ["/std:c++17", "/O2", "/EHsc", "/w"]
# The engine promises the same bytes on every processor; gradients need no such thing.
EXACT = {"unix": "-ffp-contract=off", "msvc": "/fp:precise"}


class BuildLibrary(build_ext):
    """A plain shared library instead of a Python module."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + (".pyd" if sys.platform == "win32" else ".so")

    def get_export_symbols(self, ext: Any) -> list[str]:
        return ext.export_symbols

    def build_extension(self, ext: Extension) -> None:
        msvc = self.compiler.compiler_type == "msvc"
        exact = [EXACT["msvc" if msvc else "unix"]] if ext is KERNELS else []
        ext.extra_compile_args = (WINDOWS if msvc else UNIX) + exact
        ext.extra_link_args = [] if msvc else ["-pthread"]
        super().build_extension(ext)


class AnyPythonWheel(bdist_wheel):
    """For this platform with kernels, for any where none were compiled."""

    def get_tag(self) -> tuple[str, str, str]:
        built = Path(self.get_finalized_command("build_ext").build_lib)
        compiled = any(list(built.glob(str(Path(*ext.name.split("."))) + ".*")) for ext in (KERNELS, DEPTHWISE))
        return "py3", "none", super().get_tag()[2] if compiled else "any"


def library(name: str, folder: str) -> Extension:
    sources = PACKAGE / folder
    return Extension(
        name,
        sources=sorted(str(path) for path in sources.glob("*.cpp")),
        depends=sorted(str(path) for path in sources.iterdir() if path.suffix in {".h", ".inc"}),
        optional=True,
    )


KERNELS = library("limner.runtime.fused._kernels", "runtime/fused/csrc")
DEPTHWISE = library("limner.models._depthwise", "models/csrc")

if os.environ.get("LIMNER_NO_KERNELS"):
    setup()
else:
    setup(ext_modules=[KERNELS, DEPTHWISE], cmdclass={"build_ext": BuildLibrary, "bdist_wheel": AnyPythonWheel})
