"""Picture files in and out: alpha, 16 bit, gray, ICC, EXIF, XMP, limits, and one clear sentence for every bad file.

libvips (pyvips) reads and writes the files, in strips, so that memory stays near the size of the pixels; Pillow only
serves the Python API (`from_pil`, `to_pil`). Both are imported inside the functions: importing this module is cheap.
Every function may be called from several threads at once.
"""

from __future__ import annotations

import io
import logging
import os
import re
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from limner import exif_tags, png
from limner.errors import LimnerError, UsageError, one_of

if TYPE_CHECKING:
    import PIL.Image

MAX_PIXELS = 200_000_000

Source = str | os.PathLike[str] | bytes


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture, upright (its EXIF orientation is already applied).

    `pixels`: (H, W, 3) RGB, uint8 or uint16, in the colour space of `icc` (sRGB when None). `alpha`: (H, W), same
    dtype, not premultiplied. `gray`: the source had one channel; writers encode the luma of `pixels` as one again.
    `icc`, `exif` (a block that starts with b"Exif\\0\\0"), `xmp`: carried along unread.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    gray: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 3 and self.pixels.shape[2] == 3, self.pixels.shape
        assert self.pixels.dtype in (np.uint8, np.uint16), self.pixels.dtype
        if self.alpha is not None:
            assert self.alpha.shape == self.pixels.shape[:2], (self.alpha.shape, self.pixels.shape)
            assert self.alpha.dtype == self.pixels.dtype, (self.alpha.dtype, self.pixels.dtype)

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def maximum(self) -> int:
        """The value of white: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)


@dataclass(frozen=True)
class Format:
    """What a file format can hold. `side`: largest width or height. `saver`: the libvips operation's prefix."""

    suffixes: tuple[str, ...]
    saver: str
    side: int
    deep: bool = False
    alpha: bool = True
    gray: bool = True
    lossy: bool = True


FORMATS: dict[str, Format] = {
    "png": Format((".png",), "pngsave", 2**31 - 1, deep=True, lossy=False),
    "jpeg": Format((".jpg", ".jpeg", ".jpe", ".jfif"), "jpegsave", 65500, alpha=False),
    "webp": Format((".webp",), "webpsave", 16383, gray=False),
    "tiff": Format((".tif", ".tiff"), "tiffsave", 2**31 - 1, deep=True, lossy=False),
    "avif": Format((".avif",), "heifsave", 16384, deep=True, gray=False),
}

READABLE = frozenset(suffix for form in FORMATS.values() for suffix in form.suffixes) | {".gif"}
"""Suffixes of the files that `decode` reads (it looks at the contents, not at the suffix)."""

_READS = "PNG, JPEG, WebP, TIFF, GIF or AVIF"
_LOADERS = {
    b"\x89PNG\r\n\x1a\n": "pngload",
    b"\xff\xd8\xff": "jpegload",
    b"GIF87a": "gifload",
    b"GIF89a": "gifload",
    b"II*\0": "tiffload",
    b"MM\0*": "tiffload",
    b"II+\0": "tiffload",
    b"MM\0+": "tiffload",
}
_DTYPES = {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32, "double": np.float64}
_LUMA = [0.299, 0.587, 0.114]  # ITU-R BT.601
_STRIP_BYTES = 4 << 20


@cache
def _vips() -> ModuleType:
    """pyvips with two threads, since it keeps hundreds of lines per thread even where the codec can use but one, and
    without its cache of operations, which would keep the pixels of past pictures alive.
    """
    chosen = os.environ.get("VIPS_CONCURRENCY")
    os.environ["VIPS_CONCURRENCY"] = chosen or "2"  # read once, while libvips starts
    os.environ.setdefault("VIPS_WARNING", "0")  # libvips is silent then
    import pyvips

    if chosen is None:
        os.environ.pop("VIPS_CONCURRENCY", None)
    pyvips.cache_set_max(0)
    # Faults are raised as sentences; the warnings behind them stay off stderr unless the caller sets up logging.
    logging.getLogger("pyvips").addHandler(logging.NullHandler())
    # Its handler writes warnings through `logging`; where the garbage collector frees a picture meanwhile, and that
    # warns in turn, GLib takes it for a recursion and aborts the process.
    pyvips._remove_log_handler()
    return pyvips


# ---------------------------------------------------------------------------------------------------------- reading


def decode(source: Source, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a PNG, JPEG, WebP, TIFF, GIF or AVIF file (a path, or its bytes).

    The EXIF orientation is applied and reset to 1, palettes and sub-byte samples are expanded, CMYK and Lab are
    converted to sRGB through their profile. 16-bit samples stay uint16. Float samples (TIFF) become uint16: 0..1 maps
    to 0..65535 and values outside are clipped. Memory stays near the size of the result for files that can be decoded
    in strips (not WebP, AVIF, progressive JPEG and interlaced PNG, which their decoders hold whole).

    Raises LimnerError for a file that is missing, empty, truncated, damaged, not a picture, larger than `max_pixels`
    (checked before any pixel is decoded), made of NaN, or holds several pictures: animations and multi-page files are
    refused, since the first frame alone is rarely what was asked for.
    """
    with _opened(source) as (name, file), _explained(name):
        image = _load(name, file, source)
        _check_size(name, image.width, image.height, max_pixels)
        _check_frames(name, file, image)
        exif, xmp = _field(image, "exif-data") or exif_tags.from_tiff(file, image), _field(image, "xmp-data")
        plain = _plain(name, image)
        pixels, alpha = _fetch(name, plain, _orientation(image))
    icc = _field(image, "icc-profile-data") if plain is image else None
    height, width = pixels.shape[:2]
    exif, xmp = exif_tags.restated(exif, width, height), exif_tags.restated_xmp(xmp, width, height)
    return Picture(pixels, alpha, plain.bands < 3, icc, exif, xmp)


def header(source: Source) -> tuple[int, int]:
    """(width, height) of the picture as `decode` would return it, from the file's header alone.

    Raises LimnerError for a file that is missing, empty or not a picture; later damage is left to `decode`.
    """
    with _opened(source) as (name, file), _explained(name):
        image = _load(name, file, source)
        turned = _orientation(image) >= 5
        return (image.height, image.width) if turned else (image.width, image.height)


def embedded_xmp(source: Source) -> bytes | None:
    """The XMP packet of a picture file as it stands there, from the file's header alone.

    Raises LimnerError for a file that is missing, empty or not a picture; later damage is left to `decode`.
    """
    with _opened(source) as (name, file), _explained(name):
        return _field(_load(name, file, source), "xmp-data")


@contextmanager
def _opened(source: Source) -> Iterator[tuple[str, BinaryIO]]:
    """The name to use in messages, and the open file."""
    if isinstance(source, bytes):
        yield "input", io.BytesIO(source)
        return
    path = Path(source)
    _check_readable(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise LimnerError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from None
    with file:
        yield str(path), file


def _check_readable(path: Path) -> None:
    try:
        status = path.stat()
    except PermissionError:
        raise LimnerError(f"{path}: cannot be read; check the permissions of its folder.") from None
    except (OSError, ValueError):
        raise LimnerError(f"{path}: no such file; check the name.") from None
    if path.is_dir():
        raise LimnerError(f"{path}: is a folder, not a picture; name a file in it.")
    if not path.is_file():
        raise LimnerError(f"{path}: is not a regular file; copy it to one, or pipe it in through '-'.")
    if status.st_size == 0:
        raise LimnerError(f"{path}: is empty (0 bytes); copy or export it again.")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """libvips reports faults in several lines from a buffer that all threads share: state what it means instead."""
    vips = _vips()
    try:
        yield
    except vips.Error as error:
        raise LimnerError(
            f"{name}: cannot be decoded, because it is truncated, damaged or of an unsupported kind; export it again."
        ) from error
    except OSError as error:
        raise LimnerError(f"{name}: cannot be read ({error.strerror}); copy it to another disk.") from error
    except MemoryError:
        raise LimnerError(f"{name}: there is not enough memory for its pixels; shrink or split it.") from None


def _load(name: str, file: BinaryIO, source: Source) -> Any:
    """A lazy libvips image: only the header has been read."""
    vips = _vips()
    head = file.read(64)
    if not head:
        raise LimnerError(f"{name}: is empty (0 bytes); copy or export it again.")
    if b"avis" in _brands(head)[:1]:
        raise _animated(name, _avif_frames(file))
    loader = _loader(head)
    if loader is None:
        raise LimnerError(f"{name}: is not a {_READS} picture; convert it to one of them.")
    origin = vips.Source.new_from_memory(source) if isinstance(source, bytes) else _reopened(file)
    # A JPEG file that ends early decodes to half a picture with only a warning; other formats warn of harmless things.
    fail_on = "warning" if loader == "jpegload" else "error"
    return getattr(vips.Image, f"{loader}_source")(origin, access="sequential", fail_on=fail_on)


def _reopened(file: BinaryIO) -> Any:
    """A libvips source with a file position of its own; by descriptor, since in names it reads "[...]" as options."""
    descriptor = os.open(file.name, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        return _vips().Source.new_from_descriptor(descriptor)
    finally:
        os.close(descriptor)


def _loader(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webpload"
    if b"avif" in _brands(head):
        return "heifload"
    return next((loader for magic, loader in _LOADERS.items() if head.startswith(magic)), None)


def _brands(head: bytes) -> list[bytes]:
    """Major, then compatible brands of an ISO media file (AVIF, HEIC)."""
    if head[4:8] != b"ftyp":
        return []
    box = head[: int.from_bytes(head[:4], "big")]
    return [box[8:12], *(box[at : at + 4] for at in range(16, len(box), 4))]


def _field(image: Any, name: str) -> Any:
    return image.get(name) if image.get_typeof(name) else None


def _orientation(image: Any) -> int:
    value = _field(image, "orientation")
    return value if value in range(1, 9) else 1


def _check_size(name: str, width: int, height: int, limit: int) -> None:
    if width * height > limit:
        raise LimnerError(
            f"{name}: {width} x {height} pixels are more than the limit of {limit:,}; "
            "if you trust the file, raise the limit with --max-pixels."
        )


def _check_frames(name: str, file: BinaryIO, image: Any) -> None:
    loader = image.get("vips-loader")
    pages = _field(image, "n-pages") or 1
    if loader.startswith("pngload"):
        pages = _apng_frames(file)
    elif loader.startswith("heifload"):
        pages = 1  # a collection: libvips has opened its primary picture
    elif loader.startswith("tiffload"):
        pages = _tiff_pages(name, file)
    if pages > 1:
        raise _animated(name, pages)


def _animated(name: str, frames: int | str) -> LimnerError:
    return LimnerError(f"{name}: holds {frames} frames or pages, and video is not supported yet; extract them first.")


def _apng_frames(file: BinaryIO) -> int:
    """libvips reads the first frame of an animated PNG and does not tell: look for the acTL chunk."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"acTL":
            return int.from_bytes(file.read(4), "big")
        if kind == b"IDAT":
            break
        file.seek(length + 4, os.SEEK_CUR)
    return 1


def _avif_frames(file: BinaryIO) -> int | str:
    """libvips does not open AVIF sequences; Pillow counts their frames, where it can read them."""
    from PIL import Image

    file.seek(0)
    try:
        with Image.open(file, formats=("AVIF",)) as sequence:
            return getattr(sequence, "n_frames", 1)
    except (OSError, Image.DecompressionBombError):
        return "several"


def _tiff_pages(name: str, file: BinaryIO) -> int:
    """Full pictures in a TIFF file; thumbnails, pyramid levels and masks (NewSubfileType 1 and 4) do not count."""
    try:
        tags = exif_tags.Tags(file)
        kinds = [tags.number(entries[254]) if 254 in entries else 0 for entries in tags.directories()]
    except ValueError:
        raise LimnerError(f"{name}: is truncated or damaged; copy or export it again.") from None
    if kinds[0] & 1:
        raise LimnerError(f"{name}: begins with a thumbnail, as camera raw files do; develop it to a TIFF file first.")
    return sum(not kind & 5 for kind in kinds)


def _plain(name: str, image: Any) -> Any:
    """`image` itself when its samples are gray or RGB as they stand, else converted to sRGB."""
    if image.interpretation == "cmyk":
        depth = 16 if image.format == "ushort" else 8
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth, intent="relative")
    elif image.interpretation in ("lab", "labs", "xyz", "lch"):
        image = image.colourspace("rgb16")
    if image.format not in _DTYPES:
        raise LimnerError(f"{name}: has {image.format} samples; save it with 8 or 16 bits, or as float in 0..1.")
    if image.bands > 4:
        raise LimnerError(f"{name}: has {image.bands} channels; save it as gray or RGB, with or without alpha.")
    return image


def _fetch(name: str, image: Any, orientation: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Decode strip by strip into arrays that are upright, contiguous and allocated once."""
    width, height, bands = image.width, image.height, image.bands
    shape = (width, height) if orientation >= 5 else (height, width)
    dtype = np.uint8 if image.format == "uchar" else np.uint16
    pixels = np.empty((*shape, 3), dtype)
    alpha = np.empty(shape, dtype) if bands in (2, 4) else None
    stored = _as_stored(pixels, orientation)
    stored_alpha = None if alpha is None else _as_stored(alpha, orientation)
    colours = 3 if bands >= 3 else 1
    for top, strip in _strips(image):
        samples = _integers(name, strip)
        stored[top : top + len(strip)] = samples[..., :colours]
        if stored_alpha is not None:
            stored_alpha[top : top + len(strip)] = samples[..., -1]
    return pixels, alpha


def _strips(image: Any) -> Iterator[tuple[int, np.ndarray]]:
    region = _vips().Region.new(image)
    dtype = np.dtype(_DTYPES[image.format])
    row = image.width * image.bands * dtype.itemsize
    rows = max(16, _STRIP_BYTES // row // 16 * 16)
    for top in range(0, image.height, rows):
        count = min(rows, image.height - top)
        data = region.fetch(0, top, image.width, count)
        yield top, np.frombuffer(data, dtype).reshape(count, image.width, image.bands)


def _as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """View of an upright array in the row and column order in which a file of that EXIF orientation stores it."""
    turned = upright.swapaxes(0, 1) if orientation >= 5 else upright
    rows = -1 if orientation in (3, 4, 6, 7) else 1
    columns = -1 if orientation in (2, 3, 7, 8) else 1
    return turned[::rows, ::columns]


def _integers(name: str, samples: np.ndarray) -> np.ndarray:
    """Float samples as uint16, clipped to 0..1; integers as they are."""
    if samples.dtype.kind != "f":
        return samples
    if not np.isfinite(samples).all():
        raise LimnerError(f"{name}: contains NaN or infinite values; replace them with numbers in 0..1.")
    return np.rint(samples.clip(0, 1) * 65535).astype(np.uint16)


# ---------------------------------------------------------------------------------------------------------- writing


def format_of(path: str | os.PathLike[str]) -> str:
    """The key of FORMATS for a file name. Raises UsageError when its suffix belongs to none."""
    suffix = Path(path).suffix.lower()
    if not suffix:
        raise UsageError(f"{path}: has no suffix that names a format; add one of {_suffixes()}, or name the format.")
    for name, form in FORMATS.items():
        if suffix in form.suffixes:
            return name
    raise UsageError(f"{path}: unknown suffix {suffix!r}; choose one of {_suffixes()}.")


def _suffixes() -> str:
    return ", ".join(form.suffixes[0] for form in FORMATS.values())


def _named(format: str) -> Format:
    key = format.lower().removeprefix(".")
    for name, form in FORMATS.items():
        if key == name or f".{key}" in form.suffixes:
            return form
    raise one_of("format", format, tuple(FORMATS))


def encode(picture: Picture, format: str, *, quality: int = 90) -> bytes:
    """The bytes of a file. `format`: a key of FORMATS or one of their suffixes. `quality`: 1..100, for lossy formats.

    PNG and TIFF hold 16 bits, AVIF 10; for JPEG and WebP uint16 is rounded to 8. JPEG holds no alpha: the picture is
    laid over white. `icc`, `exif` and `xmp` are embedded; a profile for another number of channels is left out.
    Raises UsageError for an unknown format or quality, LimnerError when the format cannot hold the size.
    """
    form = _named(format)
    options = _options(form, picture, quality)
    if form is FORMATS["png"] and _is_small_and_plain(picture):
        return png.encode(_samples(picture), exif_tags.restated_xmp(picture.xmp, picture.width, picture.height))
    image = _image(picture, form)
    try:
        data = getattr(image, f"{form.saver}_buffer")(**options)
    except _vips().Error as error:
        raise LimnerError(f"output: {_reason(error, form)}.") from error
    if form is not FORMATS["tiff"] or picture.exif is None:
        return data
    file = io.BytesIO(data)
    exif_tags.append_to_tiff(file, picture.exif, picture.width, picture.height)
    return file.getvalue()


def _is_small_and_plain(picture: Picture) -> bool:
    plain = picture.maximum == 255 and not picture.gray and picture.icc is None and picture.exif is None
    return plain and max(picture.width, picture.height) <= png.SIDE


def _samples(picture: Picture) -> np.ndarray:
    """(H, W, 3), or (H, W, 4) with alpha."""
    return picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])


def write(picture: Picture, path: str | os.PathLike[str], *, format: str | None = None, quality: int = 90) -> None:
    """Write a file whole or not at all (see `encode`); the format comes from the suffix unless it is named.

    The file is streamed to a temporary one beside it, then renamed. Raises LimnerError when the folder is missing,
    cannot be written or the disk is full.
    """
    path = Path(path)
    form = _named(format or format_of(path))
    image, options = _image(picture, form, str(path)), _options(form, picture, quality)
    with _draft(path) as file:
        try:
            getattr(image, f"{form.saver}_target")(_vips().Target.new_to_descriptor(file.fileno()), **options)
        except _vips().Error as error:
            raise LimnerError(f"{path}: {_reason(error, form)}.") from error
        if form is FORMATS["tiff"] and picture.exif is not None:
            exif_tags.append_to_tiff(file, picture.exif, picture.width, picture.height)
            file.flush()


def write_bytes(data: bytes, path: str | os.PathLike[str]) -> None:
    """Write what `encode` gave, whole or not at all. Raises LimnerError where the file cannot be written."""
    with _draft(Path(path)) as file:
        file.write(data)


@contextmanager
def _draft(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place on success and vanishes on any failure."""
    if path.exists() and not path.is_file():
        raise LimnerError(f"{path}: is not a regular file; choose another name for the output.")
    if not path.parent.is_dir():
        raise LimnerError(f"{path}: cannot be written, because its folder does not exist; create it first.")
    draft = path.with_name(f".limner-{secrets.token_hex(6)}.part")
    try:
        # "x" creates with the permissions of the user's umask, which mkstemp would not.
        with draft.open("xb+") as file:
            yield file
        draft.replace(path)
    except OSError as error:
        raise LimnerError(f"{path}: cannot be written ({error.strerror}); choose another folder.") from error
    finally:
        with suppress(OSError):
            draft.unlink()


def _reason(error: Any, form: Format) -> str:
    system = re.search(r"system error: (.+)", error.detail)
    if system:
        return f"cannot be written ({system[1].strip()}); free some space or choose another folder"
    if not _vips().type_find("VipsOperation", f"{form.saver}_target"):
        return f"the installed libvips cannot write {form.suffixes[0]}; install pyvips-binary or choose another format"
    return f"cannot be encoded as {form.suffixes[0]} ({error.detail.strip().splitlines()[-1]}); choose another format"


def _options(form: Format, picture: Picture, quality: int) -> dict[str, Any]:
    if not 1 <= quality <= 100:
        raise UsageError(f"quality {quality} is impossible: choose 1 to 100.")
    # Without a block of ours libvips would invent one.
    keep: dict[str, Any] = {"keep": "icc|xmp" if picture.exif is None else "icc|xmp|exif"}
    match form.saver:
        case "pngsave":
            # Measured on photographs: these two give 85% of the best size at three times the speed.
            return keep | {"compression": 2, "filter": "up"}
        case "tiffsave":
            huge = picture.pixels.nbytes * 4 / 3 > 3.5e9
            return keep | {"compression": "deflate", "level": 2, "predictor": "horizontal", "bigtiff": huge}
        case "heifsave":
            bits = 10 if picture.maximum > 255 else 8
            return keep | {"Q": quality, "compression": "av1", "effort": 2, "bitdepth": bits}
        case "webpsave":
            return keep | {"Q": quality, "effort": 2}
    return keep | {"Q": quality}


def _image(picture: Picture, form: Format, name: str = "output") -> Any:
    """A libvips image over the picture's own memory, with what the format can hold."""
    if max(picture.width, picture.height) > form.side:
        raise LimnerError(
            f"{name}: {picture.width} x {picture.height} is more than the {form.side} pixels a side that "
            f"{form.suffixes[0]} can hold; write .png or .tif."
        )
    gray = picture.gray and form.gray
    image = _luma(_wrap(picture.pixels)) if gray else _wrap(picture.pixels)
    if picture.alpha is not None:
        image = image.bandjoin(_wrap(picture.alpha))
    # 72 dots per inch, what readers assume when EXIF does not tell; libvips would write 25.4.
    image = image.copy(interpretation=_space(picture, gray), xres=72 / 25.4, yres=72 / 25.4)
    return _with_metadata(_reduced(image, picture, form, gray), picture, gray)


def _wrap(samples: np.ndarray) -> Any:
    height, width = samples.shape[:2]
    bands = 1 if samples.ndim == 2 else samples.shape[2]
    kind = "uchar" if samples.dtype == np.uint8 else "ushort"
    return _vips().Image.new_from_memory(np.ascontiguousarray(samples), width, height, bands, kind)


def _luma(image: Any) -> Any:
    """Luma, rounded; of three equal channels, the channel itself."""
    weights = _vips().Image.new_from_array([_LUMA])
    return image.recomb(weights).rint().cast(image.format)


def _space(picture: Picture, gray: bool) -> str:
    if picture.maximum == 255:
        return "b-w" if gray else "srgb"
    return "grey16" if gray else "rgb16"


def _reduced(image: Any, picture: Picture, form: Format, gray: bool) -> Any:
    """Without the alpha and the bits that the format cannot hold, rounded once."""
    flat = picture.alpha is not None and not form.alpha
    shallow = picture.maximum > 255 and not form.deep
    if flat:
        image = image.cast("float").flatten(background=picture.maximum, max_alpha=picture.maximum)
    if shallow:
        image = image * (255 / 65535)
    if not flat and not shallow:
        return image
    deep = picture.maximum > 255 and not shallow
    kind, space = ("ushort", "grey16" if gray else "rgb16") if deep else ("uchar", "b-w" if gray else "srgb")
    return image.rint().cast(kind).copy(interpretation=space)


def _with_metadata(image: Any, picture: Picture, gray: bool) -> Any:
    kinds, image = _vips().GValue, image.copy()
    blobs = {
        "icc-profile-data": picture.icc if _fits(picture.icc, gray) else None,
        "exif-data": exif_tags.restated(picture.exif, picture.width, picture.height),
        "xmp-data": exif_tags.restated_xmp(picture.xmp, picture.width, picture.height),
    }
    for name, blob in blobs.items():
        if blob is not None:
            image.set_type(kinds.blob_type, name, blob)
    return image


def _fits(icc: bytes | None, gray: bool) -> bool:
    """Whether the profile's colour space (ICC.1 section 7.2, bytes 16 to 19) has the channels to be written."""
    return icc is not None and icc[16:20] == (b"GRAY" if gray else b"RGB ")


# ------------------------------------------------------------------------------------------------- Pillow and numpy


def from_pil(image: PIL.Image.Image) -> Picture:
    """A Pillow image of any mode; of an animation, the frame it stands at. EXIF orientation is applied.

    Modes I;16 and I (0..65535) and F (0..1, clipped) become uint16. Raises LimnerError for NaN or values out of range.
    """
    from PIL import ImageOps

    try:
        image.load()
    except OSError as error:
        raise LimnerError(f"the Pillow image cannot be loaded ({error}); copy or export its file again.") from error
    icc, xmp = image.info.get("icc_profile"), image.info.get("xmp")
    exif = exif_tags.prefixed(image.getexif().tobytes()) if image.getexif() else None
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "CMYK":
        samples, icc = _from_cmyk(np.asarray(upright), icc), None
    else:
        samples = _pil_samples(upright)
    picture = from_array(samples[..., 0] if samples.ndim == 3 and samples.shape[2] == 2 else samples)
    alpha = np.ascontiguousarray(samples[..., -1]) if samples.ndim == 3 and samples.shape[2] in (2, 4) else None
    exif = exif_tags.restated(exif, picture.width, picture.height)
    return Picture(picture.pixels, alpha, picture.gray, icc, exif, xmp if isinstance(xmp, bytes) else None)


def _pil_samples(image: PIL.Image.Image) -> np.ndarray:
    """(H, W) or (H, W, 2 | 3 | 4) for every mode but CMYK."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        samples = np.asarray(image)
        if samples.dtype.kind == "f":
            return samples
        if samples.min() < 0 or samples.max() > 65535:
            raise LimnerError("the Pillow image has 32-bit values outside 0..65535; scale them to 8 or 16 bits.")
        return samples.astype(np.uint16)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode in ("LA", "La"):
        return np.asarray(image.convert("LA"))
    clear = "transparency" in image.info or image.mode in ("PA", "RGBA", "RGBa")
    return np.asarray(image.convert("RGBA" if clear else "RGB"))


def _from_cmyk(samples: np.ndarray, icc: bytes | None) -> np.ndarray:
    image = _wrap(samples).copy(interpretation="cmyk")
    if icc is not None:
        image.set_type(_vips().GValue.blob_type, "icc-profile-data", icc)
    with _explained("the Pillow image"):
        return _fetch("the Pillow image", _plain("the Pillow image", image), 1)[0]


def to_pil(picture: Picture) -> PIL.Image.Image:
    """A Pillow image of mode L, LA, RGB, RGBA, or I;16 for 16-bit gray; other uint16 is rounded to 8 bits.

    `info` holds icc_profile, exif and xmp; Pillow's `save` embeds the first by itself, the others when passed.
    """
    from PIL import Image

    samples = picture.pixels
    if picture.gray:
        samples = np.rint(samples @ np.array(_LUMA, np.float32)).astype(samples.dtype)
    if picture.alpha is not None:
        samples = np.dstack([samples, picture.alpha])
    if samples.ndim == 3 and picture.maximum > 255:
        samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(samples))
    exif = exif_tags.restated(picture.exif, picture.width, picture.height)
    known = {"icc_profile": picture.icc, "exif": exif, "xmp": picture.xmp}
    image.info.update({key: value for key, value in known.items() if value is not None})
    return image


def from_array(array: np.ndarray) -> Picture:
    """A picture from (H, W) or (H, W, 1) gray, (H, W, 3) RGB or (H, W, 4) RGB and alpha.

    uint8 and uint16 are taken as they are (RGB without a copy: leave the array alone afterwards); float in 0..1
    becomes uint16, clipped. Raises LimnerError for other shapes and dtypes, NaN, and floats that seem to be 0..255.
    """
    if not isinstance(array, np.ndarray):
        raise LimnerError(f"a picture array must be a numpy array, not {type(array).__name__}; convert it first.")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise LimnerError(f"an array of shape {array.shape} is no picture; give (H, W) or (H, W, 1, 3 or 4).")
    samples = _array_samples(array if array.ndim == 3 else array[..., None])
    gray = samples.shape[2] == 1
    pixels = np.repeat(samples, 3, axis=2) if gray else np.ascontiguousarray(samples[..., :3])
    alpha = np.ascontiguousarray(samples[..., 3]) if samples.shape[2] == 4 else None
    return Picture(pixels, alpha, gray)


def _array_samples(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        if np.nanmax(array, initial=0) > 2:
            raise LimnerError(f"the float array reaches {np.nanmax(array):g}; scale it to 0..1 or pass uint8.")
        return _integers("the float array", array)
    if array.dtype.kind == "u" and array.dtype.itemsize in (1, 2):
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    raise LimnerError(f"an array of dtype {array.dtype} is no picture; give uint8, uint16 or float in 0..1.")
