"""limner: small text-guided image generators that answer in milliseconds on an ordinary CPU."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal, overload

if TYPE_CHECKING:
    import os

    from limner.runtime.generate import Painter
    from limner.runtime.painters import Upscaler

try:
    __version__ = version("limner")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__", "load"]


@overload
def load(name: Literal["icons"], *, engine: str = ..., precision: str = ..., threads: int = ...) -> Painter: ...


@overload
def load(
    name: Literal["photo-x2", "photo-x4", "photo-x4-hq", "icons-x2", "icons-x4"],
    *,
    engine: str = ...,
    precision: str = ...,
    threads: int = ...,
) -> Upscaler: ...


@overload
def load(name: str | os.PathLike[str], *, engine: str = ..., precision: str = ..., threads: int = ...) -> Any: ...


def load(
    name: str | os.PathLike[str],
    *,
    engine: str = "auto",
    precision: str = "int8",
    threads: int = 0,
) -> Painter | Upscaler:
    """Open a bundle: a Painter for a task `generate`, an Upscaler for `upscale`.

    `limner.load("icons").paint("a red apple")[0].save("apple.png")`;
    `limner.load("photo-x4").upscale("photo.jpg").save("big.png")`.

    `name`: a name in the zoo, a bundle folder or a Hugging Face id `owner/name` (extra `hub`). `engine`: "auto" (the
    fastest that runs it here), "fused", "openvino" or "onnxruntime". `precision`: "int8" or "float". `threads`: CPU
    threads, 0 for all cores. Raises LimnerError (a ValueError) with one sentence.
    """
    from limner import bundle
    from limner.errors import LimnerError

    opened = bundle.read(name)
    if isinstance(opened.manifest, bundle.PainterManifest):
        from limner.runtime.generate import Painter

        return Painter(bundle.Bundle(opened.folder, opened.manifest), engine, precision, threads)
    if isinstance(opened.manifest, bundle.UpscalerManifest):
        from limner.runtime.painters import Upscaler

        return Upscaler(bundle.Bundle(opened.folder, opened.manifest), engine, precision, threads)
    raise LimnerError(f"{name}: is a bundle for {opened.manifest.task!r}, which neither paints nor upscales.")
