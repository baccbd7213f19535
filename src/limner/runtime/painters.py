"""Painters: a bundle, an engine and everything around the network that makes it a picture in, picture out call."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast, get_args, overload

import numpy as np
from numpy.typing import NDArray

from limner import bundle, images
from limner.errors import LimnerError, UsageError, one_of
from limner.images import Picture
from limner.runtime import alpha as transparency
from limner.runtime import resize, tiles
from limner.runtime.backends import open_engine

if TYPE_CHECKING:
    import PIL.Image

MAX_OUTPUT_PIXELS = 16 * images.MAX_PIXELS

Progress = Callable[[int, int], None]
Size = tuple[int | None, int | None]


class Upscaler:
    """Makes pictures larger. One object may be used by any number of threads at once."""

    def __init__(
        self, opened: bundle.Bundle[bundle.UpscalerManifest], engine: str, precision: str, threads: int
    ) -> None:
        self.manifest = opened.manifest
        self._bundle, self._engine, self._threads = opened, engine, threads
        self._networks: dict[str, tiles.Network] = {}
        self._ran: dict[str, str] = {}
        self._lock = threading.Lock()
        self._precision: bundle.Precision = _precision(precision)
        self._network(self._precision)

    @classmethod
    def load(
        cls,
        name: str | os.PathLike[str],
        engine: str = "auto",
        precision: str = "int8",
        threads: int = 0,
    ) -> Upscaler:
        """Open a bundle by zoo name or folder. `threads`: CPU threads, 0 for all cores.

        Raises UsageError for an unknown name, engine or precision, LimnerError for a damaged bundle.
        """
        return cls(bundle.read(name, bundle.UpscalerManifest), engine, precision, threads)

    @property
    def scale(self) -> int:
        """The network's own factor."""
        return self.manifest.scale

    @property
    def engine(self) -> str:
        """Name of the engine that computes; another than the one asked for where that one fell back."""
        return self._ran[self._precision]

    @overload
    def upscale(
        self,
        image: NDArray[Any],
        *,
        scale: float | None = None,
        size: Size | None = None,
        strength: float = 1.0,
        progress: Progress | None = None,
    ) -> NDArray[Any]: ...

    @overload
    def upscale(
        self,
        image: PIL.Image.Image | images.Source,
        *,
        scale: float | None = None,
        size: Size | None = None,
        strength: float = 1.0,
        progress: Progress | None = None,
    ) -> PIL.Image.Image: ...

    def upscale(
        self,
        image: PIL.Image.Image | NDArray[Any] | images.Source,
        *,
        scale: float | None = None,
        size: Size | None = None,
        strength: float = 1.0,
        progress: Progress | None = None,
    ) -> PIL.Image.Image | NDArray[Any]:
        """Enlarge a PIL image or a picture file (both give a PIL image), or an array (gives an array of its kind).

        Arrays: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8, uint16, or float in 0..1, which comes back as
        float32. The other arguments and the errors are those of `upscale_picture`.
        """
        picture = self.upscale_picture(_picture(image), scale=scale, size=size, strength=strength, progress=progress)
        return _like(image, picture) if isinstance(image, np.ndarray) else images.to_pil(picture)

    def upscale_picture(
        self,
        picture: Picture,
        *,
        scale: float | None = None,
        size: Size | None = None,
        strength: float = 1.0,
        progress: Progress | None = None,
        turn: tiles.Turn = nullcontext,
    ) -> Picture:
        """Enlarge a decoded picture; its profile and other metadata are carried along.

        `scale`: factor, by default the network's own. `size`: (width, height) in pixels instead; None for either
        keeps the aspect. What the network does not give exactly is painted larger, then reduced (Lanczos); factors
        beyond its own take it several times; a picture that shall not grow is only reduced. `strength` in 0..1: 1 is
        the network alone, 0 is bicubic. `progress(done, total)` counts tiles and is called in the calling thread.
        uint16 pictures go through the float graph, whatever the precision asked for. `turn` gives a context that every
        tile is computed in: it may wait for others, or raise to stop, which ends this call.

        Raises UsageError for an impossible scale, size or strength, LimnerError when the engine fails.
        """
        if not 0 <= strength <= 1:
            raise UsageError(f"strength {strength} is impossible: choose 0 (bicubic) to 1 (the network alone).")
        width, height = target(picture.width, picture.height, self.scale, scale, size)
        network = self._network("float" if picture.maximum > 255 else self._precision)
        kind = _Painting if self.manifest.channels == 3 else _PremultipliedPainting
        painting = kind(network, height, width, strength, turn)
        try:
            return painting.of(picture, progress)
        except MemoryError:
            raise LimnerError(f"not enough memory for {width} x {height} pixels: ask for a smaller size.") from None

    def enlarge_premultiplied(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 4) with premultiplied alpha to (H * scale, W * scale, 4), by the network alone.

        For bundles of 4 channels; raises LimnerError when the engine fails.
        """
        assert self.manifest.channels == 4 and pixels.shape[2] == 4, (self.manifest.channels, pixels.shape)
        network = self._network(self._precision)
        return tiles.run(pixels, network, network.plan(*pixels.shape[:2]))

    def _network(self, precision: bundle.Precision) -> tiles.Network:
        with self._lock:
            if precision not in self._networks:
                self._networks[precision] = self._open(precision)
            return self._networks[precision]

    def _open(self, precision: bundle.Precision) -> tiles.Network:
        engine = open_engine(self._engine, self._bundle.graph(precision), self._threads)
        self._ran[precision] = engine.name
        manifest = self.manifest
        as_float = manifest.graphs[precision].dtype == "float32"
        return tiles.Network(
            engine.session, engine.threads, manifest.scale, manifest.radius, manifest.multiple, as_float
        )


def _precision(name: str) -> bundle.Precision:
    if name not in get_args(bundle.Precision):
        raise one_of("precision", name, get_args(bundle.Precision))
    return cast(bundle.Precision, name)


@dataclass(frozen=True)
class _Painting:
    """One call: the network and the size wanted, in pixels."""

    network: tiles.Network
    height: int
    width: int
    strength: float
    turn: tiles.Turn = nullcontext

    def of(self, picture: Picture, progress: Progress | None) -> Picture:
        alpha = picture.alpha
        sheer = alpha is not None and alpha.min() != alpha.max()
        route = self._route(picture)
        total = sum(len(self.network.plan(*size)) for size in route) * (2 if sheer else 1)
        tick = _counter(total, progress)
        if alpha is None or not sheer:
            flat = None if alpha is None else np.full((self.height, self.width), alpha[0, 0])
            return replace(picture, pixels=self._enlarged(picture.pixels, route, tick, picture.gray), alpha=flat)
        pixels = self._enlarged(transparency.bleed(picture.pixels, alpha), route, tick, picture.gray)
        return replace(picture, pixels=pixels, alpha=self._alpha(alpha, route, tick))

    def _alpha(self, alpha: NDArray[Any], route: list[tuple[int, int]], tick: tiles.Progress) -> NDArray[Any]:
        painted = self._enlarged(alpha, route, tick)
        if self.height >= alpha.shape[0] and self.width >= alpha.shape[1]:
            transparency.bound(painted, alpha)
        return painted

    def _route(self, picture: Picture) -> list[tuple[int, int]]:
        if self.strength == 0:
            return []
        return passes(picture.height, picture.width, self.height, self.width, self.network.scale)

    def _enlarged(
        self, image: NDArray[Any], route: list[tuple[int, int]], tick: tiles.Progress, gray: bool = False
    ) -> NDArray[Any]:
        """`image`: (H, W, 3), or a plane (H, W), of which flat tiles stay flat."""
        if self.strength == 0:
            return resize.bicubic(image, self.height, self.width)
        painted = image
        for size in route:
            small, plan = resize.lanczos(painted, *size), self.network.plan(*size)
            options = {"gray": gray, "skip_flat": image.ndim == 2, "progress": tick, "turn": self.turn}
            painted = tiles.run(small, self.network, plan, **options)
        painted = resize.lanczos(painted, self.height, self.width)
        painted = image.copy() if painted is image else painted
        if self.strength < 1:
            resize.blend_bicubic(painted, image, self.strength)
        return painted


class _PremultipliedPainting(_Painting):
    """Colours and alpha go through a network of four channels together."""

    def of(self, picture: Picture, progress: Progress | None) -> Picture:
        route = self._route(picture)
        tick = _counter(sum(len(self.network.plan(*size)) for size in route), progress)
        pixels, grown = transparency.straight_parts(self._enlarged(network_input(picture, 4), route, tick))
        return replace(picture, pixels=pixels, alpha=None if picture.alpha is None else grown)


def network_input(picture: Picture, channels: int) -> NDArray[Any]:
    """(H, W, channels): the colours, or for four channels RGBA with premultiplied alpha."""
    if channels == 3:
        return picture.pixels
    if picture.alpha is not None:
        return transparency.premultiplied(picture.pixels, picture.alpha)
    opaque = np.full((*picture.pixels.shape[:2], 4), picture.maximum, picture.pixels.dtype)
    opaque[..., :3] = picture.pixels
    return opaque


def target(width: int, height: int, own: int, scale: float | None, size: Size | None) -> tuple[int, int]:
    """(width, height) asked for, in pixels. `own`: the factor when neither `scale` nor `size` is given.

    Raises UsageError for both at once, for a scale or side that is not a positive number, and for more than
    MAX_OUTPUT_PIXELS.
    """
    if size is not None:
        if scale is not None:
            raise UsageError("scale and size are both given: choose one.")
        wide, high = _fitted(width, height, *size)
    else:
        factor = own if scale is None else scale
        if not (math.isfinite(factor) and factor > 0):
            raise UsageError(f"scale {factor} is impossible: give a positive factor, such as {own}.")
        wide, high = max(1, round(width * factor)), max(1, round(height * factor))
    if wide * high > MAX_OUTPUT_PIXELS:
        limit = f"the limit of {MAX_OUTPUT_PIXELS // 10**6} megapixels"
        raise UsageError(f"output of {wide} x {high} pixels is over {limit}: ask for a smaller scale or size.")
    return wide, high


def _fitted(width: int, height: int, wide: int | None, high: int | None) -> tuple[int, int]:
    if wide is None and high is None:
        raise UsageError("size has neither width nor height: give at least one.")
    for side in (wide, high):
        if side is not None and not (isinstance(side, int | np.integer) and side >= 1):
            raise UsageError(f"size {wide} x {high} is impossible: sides are whole numbers of pixels, 1 or more.")
    if wide is None:
        assert high is not None
        return max(1, round(width * high / height)), int(high)
    return int(wide), max(1, round(height * wide / width)) if high is None else int(high)


def passes(height: int, width: int, high: int, wide: int, scale: int) -> list[tuple[int, int]]:
    """The (height, width) that enters each pass of the network on the way from (height, width) to (high, wide).

    Before every pass but the first the picture is reduced to what that pass needs, so that no intermediate picture is
    much larger than the result. Empty when the picture shall not grow; one pass for a network of scale 1.
    """
    if scale > 1 and high <= height and wide <= width:
        return []
    route = [(height, width)]
    while scale > 1 and (route[-1][0] * scale < high or route[-1][1] * scale < wide):
        grown = route[-1][0] * scale, route[-1][1] * scale
        route.append((min(grown[0], -(-high // scale)), min(grown[1], -(-wide // scale))))
    return route


def _counter(total: int, progress: Progress | None) -> tiles.Progress:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return tick


def _picture(image: PIL.Image.Image | NDArray[Any] | images.Source) -> Picture:
    if isinstance(image, np.ndarray):
        return images.from_array(image)
    if isinstance(image, str | os.PathLike | bytes):
        return images.decode(image)
    return images.from_pil(image)


def _like(array: NDArray[Any], picture: Picture) -> NDArray[Any]:
    """The picture as an array with the channels and the kind of dtype of `array`."""
    samples = picture.pixels[..., :1] if picture.gray else picture.pixels
    if picture.alpha is not None:
        samples = np.concatenate([samples, picture.alpha[..., None]], axis=2)
    samples = np.ascontiguousarray(samples[..., 0] if array.ndim == 2 else samples)
    return samples / np.float32(picture.maximum) if array.dtype.kind == "f" else samples
