"""Painters: a prompt and a seed become a picture with alpha.

The same request gives the same picture, whatever it is batched with and however many threads there are; engines agree
to within the rounding of their integers.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from limner import bundle, images
from limner.errors import LimnerError, UsageError, one_of
from limner.runtime import alpha, provenance, safety
from limner.runtime.backends import AUTO
from limner.runtime.batched import GRAPHS, Network
from limner.runtime.painters import Upscaler
from limner.runtime.text import TextEncoder, TextStates, checked

if TYPE_CHECKING:
    import PIL.Image

log = logging.getLogger(__name__)

MAX_SEED = 2**63 - 1
MAX_PICTURES = 1000
FACTORS = (1, 2, 4)
AVOIDANCE = 0.5  # how far a negative prompt turns the text vectors; see `away`
TEXT_ENGINE = "openvino-int8"  # of painters in int8, whatever engine paints: all of them then see the same vectors
FINEST = ("y",)  # the graph's output, where only the finished picture is wanted
UPSCALERS = "icons"  # painters without upscalers of their own borrow those of this name

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Request:
    """One picture. `size`: its side in pixels, None for the painter's own; `style`: a name of `Painter.styles`;
    `negative`: what the picture should not show.
    """

    prompt: str
    seed: int
    negative: str | None = None
    style: str | None = None
    size: int | None = None


class Prepared(NamedTuple):
    """A request as the graph takes it: noise (h, w, c), states (L, width), mask (L,), pooled (width,)."""

    noise: Floats
    states: Floats
    mask: Floats
    pooled: Floats
    size: int


class Painter:
    """Paints pictures from prompts. One object may be used by any number of threads at once."""

    def __init__(
        self, opened: bundle.Bundle[bundle.PainterManifest], engine: str, precision: str, threads: int
    ) -> None:
        self.manifest, self._bundle = opened.manifest, opened
        self._engine, self._precision = engine, _precision(precision)
        self.engine = _engine(engine, opened)
        graph = opened.graph(self._precision)
        self._network = Network(self.engine, graph, threads)
        self.encoder = _encoder(opened, TEXT_ENGINE if self._precision == "int8" else self.engine)
        self._upscalers: dict[int, Upscaler] = {}
        self._filters: dict[str, safety.PromptFilter] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        name: str | os.PathLike[str],
        engine: str = "auto",
        precision: str = "int8",
        threads: int = 0,
    ) -> Painter:
        """Open a bundle by zoo name or folder, with its text bundle. `threads`: CPU threads, 0 for all cores.

        Raises UsageError for an unknown name, engine or precision, LimnerError for a damaged bundle and for a text
        bundle that is missing or not the one that the painter was trained with.
        """
        return cls(bundle.read(name, bundle.PainterManifest), engine, precision, threads)

    @property
    def size(self) -> int:
        """Side of a picture as the network paints it, pixels."""
        return self.manifest.size

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides that can be asked for, pixels; the larger ones go through an upscaler."""
        return tuple(self.size * factor for factor in FACTORS)

    @property
    def threads(self) -> int:
        return self._network.threads

    @property
    def styles(self) -> tuple[str, ...]:
        return tuple(self.manifest.styles)

    # ------------------------------------------------------------------------------------------------- painting

    def paint(
        self,
        prompt: str,
        *,
        n: int = 1,
        seed: int | None = None,
        negative: str | None = None,
        style: str | None = None,
        size: int | None = None,
        moderation: safety.Level = "auto",
    ) -> list[PIL.Image.Image]:
        """`n` pictures of a prompt, Pillow images of mode RGBA; their `info` holds "seed" and the XMP block "xmp".

        The pictures have the seeds `seed`, `seed + 1` and so on; None draws one. `moderation`: level of the prompt
        filter. `style`, `negative`, `size`: as in Request.

        Raises UsageError for a prompt that is no text or empty, and for n, seed, size or style out of range;
        LimnerError for a prompt that the filter flags.
        """
        requests = self.requests(prompt, n=n, seed=seed, negative=negative, style=style, size=size)
        self.refuse_unsafe(prompt, moderation)
        painted = zip(requests, self.paint_batch(requests), strict=True)
        return [_pil(self.picture(request, pixels), request.seed) for request, pixels in painted]

    def paint_array(
        self,
        prompt: str,
        *,
        n: int = 1,
        seed: int | None = None,
        negative: str | None = None,
        style: str | None = None,
        size: int | None = None,
        moderation: safety.Level = "auto",
    ) -> Pixels:
        """As `paint`, but an array (n, size, size, 4), RGBA with straight alpha."""
        requests = self.requests(prompt, n=n, seed=seed, negative=negative, style=style, size=size)
        self.refuse_unsafe(prompt, moderation)
        return np.stack(self.paint_batch(requests))

    def requests(
        self,
        prompt: str,
        *,
        n: int = 1,
        seed: int | None = None,
        negative: str | None = None,
        style: str | None = None,
        size: int | None = None,
    ) -> list[Request]:
        """`n` requests with consecutive seeds. Raises UsageError for n out of range and as `check` does."""
        if not _is_whole(n) or not 1 <= n <= MAX_PICTURES:
            raise UsageError(f"n={n} is impossible: ask for 1 to {MAX_PICTURES} pictures.")
        first = secrets.randbelow(2**31) if seed is None else seed
        asked = Request(prompt, first, negative, style, size)
        self.check(asked)
        self.check(replace(asked, seed=first + n - 1))
        return [replace(asked, seed=int(first) + index) for index in range(n)]

    def check(self, request: Request) -> None:
        """Raises UsageError for what `prepare` would refuse, without the work."""
        checked(request.prompt)
        if not _is_whole(request.seed) or not 0 <= request.seed <= MAX_SEED:
            raise UsageError(f"seed {request.seed} is impossible: give a whole number from 0 to {MAX_SEED}.")
        if request.style is not None and request.style not in self.manifest.styles:
            raise one_of("style", str(request.style), self.styles)
        if request.size is not None and request.size not in self.sizes:
            known = ", ".join(str(side) for side in self.sizes)
            raise UsageError(f"size {request.size} is impossible: {self.manifest.name} paints {known} pixels a side.")
        if request.negative is not None:
            _checked_negative(request.negative)

    def paint_batch(self, requests: Sequence[Request]) -> list[Pixels]:
        """A picture (size, size, 4) for every request, RGBA with straight alpha; no prompt filter.

        None depends on the others. Raises as `prepare` does; use `prepare` and `paint_prepared` where one bad request
        must not stop the others.
        """
        return self.paint_prepared([self.prepare(request) for request in requests])

    def prepare(self, request: Request) -> Prepared:
        """The half before the network: checks, text encoding, noise. Raises UsageError for a bad request."""
        self.check(request)
        text = self.encoder.encode([self.styled(request)])
        if request.negative is not None:
            text = away(text, self.encoder.encode([request.negative]).pooled)
        text = text.fitted(self.manifest.text_tokens)
        count, pooled = math.prod(self.manifest.noise), text.pooled[0]
        draws = noise(int(request.seed), (count + len(pooled),))
        own = draws[:count].reshape(self.manifest.noise)
        pooled = strayed(pooled, draws[count:], self.manifest.variety)
        return Prepared(own, text.states[0], text.mask[0].astype(np.float32), pooled, request.size or self.size)

    def paint_prepared(self, prepared: Sequence[Prepared]) -> list[Pixels]:
        """The half behind: one run of the network for all, then each to its size. As `paint_batch`."""
        if not prepared:
            return []
        raw = self.run_network(prepared)
        return [self.finish(picture, each.size) for picture, each in zip(raw, prepared, strict=True)]

    def run_network(self, prepared: Sequence[Prepared]) -> Pixels:
        """The image network alone: (N, size, size, 4) with premultiplied alpha, for N >= 1."""
        return self._firm(_bytes(self._network.run(_feeds(prepared), FINEST)[0]))

    def run_levels(self, prepared: Sequence[Prepared]) -> list[Pixels]:
        """As `run_network`, but all pictures of the network, coarse to fine: (N, 8, 8, 4) and so on."""
        *coarse, finest = (_bytes(each) for each in self._network.run(_feeds(prepared), self._levels))
        return [*coarse, self._firm(finest)]

    def _firm(self, pictures: Pixels) -> Pixels:
        gain = self.manifest.alpha_gain
        return alpha.firm(pictures, gain) if gain > 1 else pictures

    def levels(self, request: Request) -> Iterator[Pixels]:
        """The picture as it grows: (8, 8, 4), (16, 16, 4) and so on, at last the finished one in its size.

        The network makes all of them at once; they serve as previews.
        """
        prepared = self.prepare(request)
        *coarse, raw = self.run_levels([prepared])
        yield from (alpha.straight(each[0]) for each in coarse)
        yield self.finish(raw[0], prepared.size)

    def warm(self, batches: Sequence[int] = (1,), sizes: Sequence[int] = (), *, levels: bool = False) -> None:
        """Compile what batches of these numbers of pictures, and pictures of these sizes, will need. `levels`: for
        `run_levels` rather than `run_network`.
        """
        blank = self.prepare(Request("icon", 0))
        for count in batches:
            self._network.compile(count, self._levels if levels else FINEST)
            (self.run_levels if levels else self.run_network)([blank] * count)
        raw = np.zeros((self.size, self.size, 4), np.uint8)
        for size in sizes:
            self.finish(raw, size)

    def make_do(self) -> None:
        """From now on no run waits for the compiler while it can be cut into what `warm` has compiled."""
        self._network.patient = False

    @property
    def has_levels(self) -> bool:
        """Whether `run_levels` runs without the compiler."""
        return self._network.compiled(1, self._levels)

    # ------------------------------------------------------------------------------- what goes with a picture

    def warnings(self, prompt: str) -> list[str]:
        """What the text encoder will not understand of a prompt, one sentence each."""
        return self.encoder.warnings(prompt)

    def verdict(self, prompt: str, moderation: safety.Level = "auto") -> safety.Verdict:
        """What the prompt filter thinks of a prompt.

        Raises UsageError for an unknown level and for a prompt that is no text.
        """
        with self._lock:
            if moderation not in self._filters:
                self._filters[moderation] = safety.PromptFilter(moderation, encoder=self.encoder.hash)
            judge = self._filters[moderation]
        return judge.check(checked(prompt), None if moderation == "off" else self.encoder.encode([prompt]).pooled)

    def refuse_unsafe(self, prompt: str, moderation: safety.Level = "auto") -> None:
        """Raises LimnerError, with the categories, for a prompt that the filter flags at this level."""
        verdict = self.verdict(prompt, moderation)
        if verdict.flagged:
            raise LimnerError(verdict.reason)

    def picture(self, request: Request, pixels: Pixels, *, record_prompt: bool = False) -> images.Picture:
        """A painted (H, W, 4) array as a picture to write, its origin stated in XMP; the prompt only if asked to."""
        prompt = request.prompt if record_prompt else None
        origin = provenance.Provenance(self.manifest.name, self._hash, seed=int(request.seed), prompt=prompt)
        return provenance.stamp(images.from_array(pixels), origin)

    # ------------------------------------------------------------------------------------------------- insides

    @cached_property
    def _levels(self) -> tuple[str, ...]:
        """Outputs of the graph, coarse to fine."""
        return (*(f"y{side}" for side in self.manifest.levels), *FINEST)

    @cached_property
    def _hash(self) -> str:
        return provenance.bundle_hash(self._bundle)

    def styled(self, request: Request) -> str:
        """The prompt with the words of its style, as the text encoder reads it."""
        words = "" if request.style is None else self.manifest.styles[request.style]
        return request.prompt if words.lower() in request.prompt.lower() else f"{request.prompt}, {words}"

    def finish(self, picture: Pixels, size: int) -> Pixels:
        """From what `run_network` gave, (64, 64, 4) with premultiplied alpha, to straight alpha at the size wanted.

        Raises LimnerError where no upscaler stands ready for that size.
        """
        if size == self.size:
            return alpha.straight(picture)
        upscaler = self._upscaler(size // self.size)
        if upscaler.manifest.channels == 4:
            return alpha.straight(upscaler.enlarge_premultiplied(picture))
        return upscaler.upscale(alpha.straight(picture))

    def _upscaler(self, factor: int) -> Upscaler:
        with self._lock:
            if factor not in self._upscalers:
                folder = self._upscaler_folder(factor)
                self._upscalers[factor] = Upscaler.load(folder, self._engine, self._precision, self._network.threads)
            return self._upscalers[factor]

    def enlarges(self, size: int) -> bool:
        """Whether a bundle that was trained for icons stands ready for that size."""
        return size == self.size or self._own_upscaler(size // self.size) is not None

    def _own_upscaler(self, factor: int) -> Path | None:
        names = (f"{name}-x{factor}" for name in (self.manifest.name, UPSCALERS))
        return next(filter(None, (_beside(self._bundle.folder, name) for name in names)), None)

    def _upscaler_folder(self, factor: int) -> Path:
        own, wanted, plain = self._own_upscaler(factor), f"{UPSCALERS}-x{factor}", f"photo-x{factor}"
        if own is not None:
            return own
        stand_in = _beside(self._bundle.folder, plain)
        if stand_in is None:
            side, here = self.size * factor, self._bundle.folder
            raise LimnerError(f"size {side} needs the bundle {wanted}: copy it beside {here}, or ask for {self.size}.")
        log.warning("%s: there is no bundle %s; %s enlarges instead.", self.manifest.name, wanted, plain)
        return stand_in


def _precision(name: str) -> bundle.Precision:
    if name not in get_args(bundle.Precision):
        raise one_of("precision", name, get_args(bundle.Precision))
    return cast(bundle.Precision, name)


def _engine(name: str, opened: bundle.Bundle[Any]) -> str:
    """The engine that will paint: fused runs convolutions only, so that painters fall back to OpenVINO."""
    if name not in (AUTO, "fused"):
        return name
    if name == "fused":
        from limner.runtime.fused.engine import refusal

        reason = refusal(opened.graph("int8")) if "int8" in opened.manifest.graphs else "its graph is in float"
        log.warning("%s: the fused engine cannot run it (%s); OpenVINO does.", opened.manifest.name, reason)
    return next(iter(GRAPHS))


def _encoder(opened: bundle.Bundle[bundle.PainterManifest], engine: str) -> TextEncoder:
    """One thread: a prompt is too short to share, and servers encode several at once."""
    link = opened.manifest.text
    folder = _beside(opened.folder, link.bundle)
    if folder is None:
        raise LimnerError(f"{opened.folder}: its text bundle {link.bundle!r} is missing; copy that folder beside it.")
    encoder = TextEncoder.load(folder, threads=1, engine=engine)
    if encoder.hash != link.sha256:
        raise LimnerError(
            f"{opened.folder}: was trained with another text encoder ({link.sha256:.12}) than {folder} "
            f"({encoder.hash:.12}); copy the right {link.bundle!r} beside it, or train the painter again."
        )
    return encoder


def _beside(folder: Path, name: str) -> Path | None:
    """A bundle of that name next to `folder`, or else in the zoo."""
    if Path(name).name != name:
        return None
    places = (folder.resolve().parent / name, bundle.ZOO / name)
    return next((place for place in places if (place / bundle.MANIFEST).is_file()), None)


def _checked_negative(prompt: str) -> None:
    try:
        checked(prompt)
    except UsageError as error:
        raise UsageError(f"negative {error}") from None


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def noise(seed: int, shape: tuple[int, ...]) -> Floats:
    """Standard normal float32 numbers: a function of `seed` (0 <= seed < 2**128) that will not change.

    The 64-bit words of Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with key
    `seed` and counter 0, as numpy's Philox gives them, hold four 16-bit numbers k each, lowest bits first; a number
    becomes the quantile (k + 1/2) / 65536 of the normal distribution. numpy's own `standard_normal` may give other
    numbers in another version, and takes twice the time; the words will stay.
    """
    count = math.prod(shape)
    words = np.random.Philox(key=seed).random_raw(-(-count // 4)).astype("<u8")
    return _quantiles()[words.view("<u2")[:count]].reshape(shape)


def strayed(pooled: Floats, direction: Floats, distance: float) -> Floats:
    """A unit vector (width,) moved by `distance` in a `direction` of any length, and brought back to unit length.

    Where a painter knows one picture of a prompt its noise moves little; prompts beside it give other pictures of the
    thing. Sadat et al. 2024 (CADS) disturb the condition of a diffusion model to the same end.
    """
    if not distance:
        return pooled
    moved = pooled + np.float32(distance) * direction / np.linalg.norm(direction)
    return (moved / np.linalg.norm(moved)).astype(np.float32)


@cache
def _quantiles() -> Floats:
    """Of the normal distribution, at (k + 1/2) / 65536 for k = 0 to 65535."""
    inverse = NormalDist().inv_cdf
    upper = np.array([inverse((k + 0.5) / 65536) for k in range(32768, 65536)])
    return np.concatenate([-upper[::-1], upper]).astype(np.float32)


def away(text: TextStates, negative: Floats, strength: float = AVOIDANCE) -> TextStates:
    """The text vectors turned away from a negative prompt. `negative`: its pooled vector (1, width), unit length.

    With p the prompt's pooled vector and n the negative one, d = n - (n . p) p is what n adds to p. Every vector v,
    p itself and each state, becomes v - strength |v| d, scaled back to the length of v: the direction of the usual
    extrapolation p + g (p - n), at the length that the painter knows. A negative prompt that says the same as the
    prompt changes nothing.
    """
    along = (text.pooled * negative).sum(1, keepdims=True)
    added = negative - along * text.pooled
    return replace(
        text,
        states=_turned(text.states, strength * added[:, None]),
        pooled=_turned(text.pooled, strength * added),
    )


def _turned(vectors: Floats, step: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    moved = vectors - length * step
    moved *= length / np.maximum(np.linalg.norm(moved, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
    return moved.astype(np.float32)


def _feeds(prepared: Sequence[Prepared]) -> dict[str, Floats]:
    return {
        name: np.stack([getattr(each, name) for each in prepared]) for name in ("noise", "states", "mask", "pooled")
    }


def _bytes(raw: NDArray[Any]) -> Pixels:
    """What the graph gave, as uint8."""
    return raw if raw.dtype == np.uint8 else np.rint(raw.clip(0, 1) * np.float32(255)).astype(np.uint8)


def _pil(picture: images.Picture, seed: int) -> PIL.Image.Image:
    image = images.to_pil(picture)
    image.info["seed"] = seed
    return image


def grid(pictures: Sequence[Pixels], columns: int, gap: int = 4) -> Pixels:
    """Pictures (H, W, 4) of one size in rows of `columns`, `gap` transparent pixels between them and around."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = np.zeros((rows * (height + gap) + gap, columns * (width + gap) + gap, 4), np.uint8)
    for index, picture in enumerate(pictures):
        top, left = (gap + at * (side + gap) for at, side in zip(divmod(index, columns), (height, width), strict=True))
        sheet[top : top + height, left : left + width] = picture
    return sheet
