"""limner: small text-guided image generators that answer in milliseconds on an ordinary CPU."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from limner.runtime.painters import Upscaler

try:
    __version__ = version("limner")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__", "load"]


def load(
    name: str | os.PathLike[str],
    *,
    engine: str = "openvino",
    precision: str = "int8",
    threads: int = 0,
) -> Upscaler:
    """Open a bundle as a painter: `limner.load("photo-x4").upscale("photo.jpg").save("big.png")`.

    `name`: a name in the zoo, a bundle folder or a Hugging Face id `owner/name` (extra `hub`).
    `engine`: "openvino" or "onnxruntime". `precision`: "int8" or
    "float". `threads`: CPU threads, 0 for all cores. Raises LimnerError (a ValueError) with one sentence.
    """
    from limner.runtime.painters import Upscaler

    return Upscaler.load(name, engine=engine, precision=precision, threads=threads)
