"""An upscaler in service: small pictures at once, large ones tile by tile between them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from limner import images
from limner.errors import LimnerError
from limner.images import Picture
from limner.runtime import painters, resize, tiles
from limner.runtime.painters import Upscaler
from limner.server.config import Limits
from limner.server.errors import ApiError, refused
from limner.server.job import Job
from limner.server.metrics import Metrics
from limner.server.painting import Form
from limner.server.turns import Turns

# About one tile of an upscaler; larger pictures would keep small requests waiting.
SMALL_PIXELS = 384 * 384


@dataclass(frozen=True)
class EnlargeOrder:
    """A checked request. `image`, `mask`: open files that are read in the worker's thread. `format`: None for that of
    the picture sent. `charge` is told the pixels of the result and may refuse them.
    """

    image: BinaryIO
    mask: BinaryIO | None
    scale: float | None
    size: painters.Size | None
    strength: float
    format: str | None
    quality: int
    opaque: bool
    charge: Callable[[int], None]


@dataclass(frozen=True)
class Enlarged:
    """The result as a file."""

    data: bytes
    format: str
    width: int
    height: int

    @property
    def base64(self) -> str:
        return base64.b64encode(self.data).decode("ascii")


class Enlarging:
    """`small`: threads shared with painting; `large`: as many as large pictures may be in memory at once."""

    def __init__(
        self, upscaler: Upscaler, limits: Limits, metrics: Metrics, small: Executor, large: Executor, turns: Turns
    ) -> None:
        self.upscaler, self.name = upscaler, upscaler.manifest.name
        self._limits, self._metrics, self._turns = limits, metrics, turns
        self._small, self._large = small, large

    def start(self, order: EnlargeOrder, job: Job) -> Future[Enlarged]:
        """Begin; returns at once."""
        done: Future[Enlarged] = Future()
        self._small.submit(self._begin, order, job, done)
        return done

    def _begin(self, order: EnlargeOrder, job: Job, done: Future[Enlarged]) -> None:
        with _into(done):
            job.check()
            data = contents(order.image)
            width, height = self._inspect("image", data)
            self._check_result(order, width, height)
            if width * height <= SMALL_PIXELS:
                with self._turns.small():
                    done.set_result(self._enlarge(order, job, data, nullcontext))
                return
            # The file is read again then, so that what waits stays on disk.
            since = monotonic()
            self._large.submit(self._continue, order, job, done, since)

    def _continue(self, order: EnlargeOrder, job: Job, done: Future[Enlarged], since: float) -> None:
        with _into(done):
            job.check()
            self._metrics.queue.labels(self.name).observe(monotonic() - since)
            done.set_result(self._enlarge(order, job, contents(order.image), self._turn(job)))

    def _turn(self, job: Job) -> tiles.Turn:
        @contextmanager
        def turn() -> Any:
            with self._turns.tile():
                job.check()
                yield

        return turn

    def _inspect(self, param: str, data: bytes) -> tuple[int, int]:
        """(width, height) from the header. Raises ApiError for no picture and for too many pixels."""
        with _blamed(param):
            width, height = images.header(data)
        if width * height > self._limits.decoded_pixels:
            sizes = f"{width} x {height} pixels, more than the limit of {self._limits.decoded_pixels:,}"
            raise refused(param, f"{param} has {sizes}: send a smaller one.", "image_too_large")
        return width, height

    def _check_result(self, order: EnlargeOrder, width: int, height: int) -> None:
        try:
            wide, high = painters.target(width, height, self.upscaler.scale, order.scale, order.size)
        except LimnerError as error:
            raise refused("scale" if order.size is None else "size", str(error)) from None
        if wide * high > self._limits.output_pixels:
            limit = f"the limit of {self._limits.output_pixels:,}"
            raise refused("size", f"The result would have {wide} x {high} pixels, more than {limit}: ask for less.")
        order.charge(wide * high)

    def _enlarge(self, order: EnlargeOrder, job: Job, data: bytes, turn: tiles.Turn) -> Enlarged:
        stage = self._metrics.stage
        with stage(self.name, "decode"), _blamed("image"):
            picture = images.decode(data, max_pixels=self._limits.decoded_pixels)
            mask = None if order.mask is None else self._mask(order.mask, picture)
        job.check()
        with stage(self.name, "network"):
            result = self._painted(order, picture, mask, turn)
        job.check()
        with stage(self.name, "encode"):
            form = Form(order.format or own_format(data), order.quality, order.opaque)
            return Enlarged(_file(result, form), form.format, result.width, result.height)

    def _painted(
        self, order: EnlargeOrder, picture: Picture, mask: NDArray[np.uint8] | None, turn: tiles.Turn
    ) -> Picture:
        size = {"scale": order.scale, "size": order.size}
        painted = self.upscaler.upscale_picture(picture, **size, strength=order.strength, turn=turn)
        if mask is None:
            return painted
        kept = self.upscaler.upscale_picture(picture, **size, strength=0)
        return blended(painted, kept, mask)

    def _mask(self, file: BinaryIO, picture: Picture) -> NDArray[np.uint8]:
        """(H, W), 255 where the picture is to be kept. Raises ApiError for a mask that does not fit."""
        data = contents(file)
        self._inspect("mask", data)
        with _blamed("mask"):
            mask = images.decode(data, max_pixels=self._limits.decoded_pixels)
        if (mask.width, mask.height) != (picture.width, picture.height):
            sizes = f"{mask.width} x {mask.height}, the image {picture.width} x {picture.height}"
            raise refused("mask", f"The mask is {sizes}: they must be of one size.", "mask_size_mismatch")
        if mask.alpha is None:
            raise refused("mask", "The mask has no alpha channel: make transparent what is to be edited.")
        return mask.alpha if mask.maximum == 255 else (mask.alpha >> 8).astype(np.uint8)


def blended(painted: Picture, kept: Picture, mask: NDArray[np.uint8]) -> Picture:
    """`kept` where the mask, enlarged, is 255, and `painted` where it is 0."""
    share = resize.bicubic(mask, painted.height, painted.width)[..., None] / np.float32(255)
    pixels = np.rint(painted.pixels + share * (kept.pixels - painted.pixels.astype(np.float32)))
    return replace(painted, pixels=pixels.astype(painted.pixels.dtype))


def contents(file: BinaryIO) -> bytes:
    """The whole file, however far it was read before."""
    file.seek(0)
    return file.read()


def own_format(data: bytes) -> str:
    """The format of a picture file, by its first bytes; PNG for what limner reads and does not write."""
    kinds = {b"\xff\xd8\xff": "jpeg", b"RIFF": "webp", b"II": "tiff", b"MM": "tiff"}
    found = next((kind for magic, kind in kinds.items() if data.startswith(magic)), None)
    return found or ("avif" if data[4:8] == b"ftyp" else "png")


def _file(picture: Picture, form: Form) -> bytes:
    if form.opaque and picture.alpha is not None:
        share = picture.alpha[..., None] / np.float32(picture.maximum)
        pixels = np.rint(picture.pixels * share + picture.maximum * (1 - share)).astype(picture.pixels.dtype)
        picture = replace(picture, pixels=pixels, alpha=None)
    return images.encode(picture, form.format, quality=form.quality)


class _into:
    """Whatever is raised inside becomes the future's."""

    def __init__(self, done: Future[Any]) -> None:
        self.done = done

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is not None and not self.done.done():
            self.done.set_exception(error)
        return isinstance(error, Exception)


class _blamed:
    """A fault of a picture file becomes an error of the parameter that brought it."""

    def __init__(self, param: str) -> None:
        self.param = param

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, LimnerError):
            sentence = str(error).replace("input:", f"{self.param}:", 1)
            raise ApiError(400, sentence, param=self.param, code="invalid_image") from None
