"""The compiled half of the fused engine (csrc/), loaded with ctypes, which lets other threads run during a call.

The library is optional: without it, or on a processor it has no kernels for, `unavailable` says why.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int8, c_int32, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limner.errors import LimnerError
from limner.runtime.fused.plan import Convolution, Layer, Plan, Unsupported

ABI = 2
CONV, TAIL = 0, 1
PICTURE, NONE, AUTO = -1, -2, -1

Film = Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, c_int32) for name in ("kind", "kernel", "groups", "in_channels", "out_channels", "input")),
        ("residual", c_int32),
        ("residual_zero", c_int32),
        ("residual_scale", c_float),
        *((name, c_int32) for name in ("in_zero", "out_zero", "lo", "hi", "film")),
        ("weight", POINTER(c_int8)),
        ("bias", POINTER(c_int32)),
        ("multiplier", POINTER(c_float)),
    )


class _Plan(ctypes.Structure):
    _fields_ = (
        *((name, c_int32) for name in ("layers", "picture_channels", "unshuffle", "scale")),
        ("layer", POINTER(_Layer)),
    )


SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "lf_abi": (c_int32, []),
    "lf_isa_name": (c_char_p, [c_int32]),
    "lf_isa_usable": (c_int32, [c_int32]),
    "lf_isa_chosen": (c_int32, [c_char_p, c_size_t]),
    "lf_create": (c_void_p, [POINTER(_Plan), c_int32, c_char_p, c_size_t]),
    "lf_destroy": (None, [c_void_p]),
    "lf_net_isa": (c_int32, [c_void_p]),
    "lf_run": (
        c_int32,
        [c_void_p, c_void_p, c_int32, c_int32, c_int64, c_void_p, c_int64, c_int32, c_void_p, c_char_p, c_size_t],
    ),
    "lf_workspace_bytes": (c_int64, [c_void_p]),
    "lf_profile": (None, [c_void_p, c_int32]),
    "lf_profile_read": (None, [c_void_p, POINTER(c_double)]),
    "lf_straight": (c_int32, [c_void_p, c_int32, c_int32, c_int32, c_void_p, c_void_p]),
    "lf_peak_macs": (c_double, [c_int32, c_double]),
    "lf_peak_read": (c_double, [c_size_t, c_double]),
}


def isas() -> dict[str, bool]:
    """Every instruction set the sources know, and whether this build has it and this processor runs it."""
    return {_name(isa): bool(_library().lf_isa_usable(isa)) for isa in range(_count())}


def chosen() -> str:
    """The instruction set networks will use: LIMNER_FUSED_ISA, or the fastest. Raises Unsupported."""
    return _name(_chosen())


def unavailable() -> str | None:
    """Why the engine cannot run here, with what to do; None when it can."""
    try:
        _chosen()
    except Unsupported as reason:
        return str(reason)
    return None


def peak_macs(seconds: float) -> float:
    """Multiply-accumulates per second of one core with the chosen instruction set; takes about `seconds`."""
    return _library().lf_peak_macs(_chosen(), seconds)


def peak_read(size: int, seconds: float) -> float:
    """Bytes per second that one core reads from a buffer of `size` bytes."""
    return _library().lf_peak_read(size, seconds)


def straighten(picture: NDArray[np.uint8], sheer: int, colours: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> None:
    """`runtime.alpha.straight` of one picture (H, W, 4), written to colours (H, W, 3) and alpha (H, W).

    Both lie without gaps, or both within one (H, W, 4). Raises Unsupported without the library.
    """
    library, (height, width, _) = _library(), picture.shape
    picture = np.ascontiguousarray(picture)
    apart = alpha.ctypes.data if colours.strides[1] == 3 else None
    if library.lf_straight(picture.ctypes.data, height, width, sheer, colours.ctypes.data, apart):
        raise MemoryError


class Network:
    """A plan compiled for this processor. Any number of threads may call `run` at once.

    `isa`: the name of its instruction set; default: `chosen`. Raises Unsupported when that or the plan cannot be run.
    """

    def __init__(self, plan: Plan, isa: str | None = None) -> None:
        library, self.plan = _library(), plan
        kept: list[Any] = []
        layers = [_layer(stage, kept) for stage in plan.stages]
        table = (_Layer * len(layers))(*layers)
        description = _Plan(len(layers), plan.colours, plan.unshuffle, plan.scale, table)
        error = ctypes.create_string_buffer(256)
        handle = library.lf_create(byref(description), _number(isa), error, len(error))
        if not handle:
            raise Unsupported(_sentence(error))
        self._handle = c_void_p(handle)
        weakref.finalize(self, library.lf_destroy, self._handle)
        self.isa = _name(library.lf_net_isa(self._handle))

    def run(self, picture: NDArray[np.uint8], threads: int, film: Film = ()) -> NDArray[np.uint8]:
        """(H, W, colours) to (H * scale, W * scale, colours). H and W are multiples of plan.unshuffle.

        The result does not depend on `threads`. `film`: (scales, shifts) of every FiLM layer. Raises LimnerError.
        """
        height, width, colours = picture.shape
        assert picture.dtype == np.uint8 and colours == self.plan.colours, (picture.dtype, picture.shape)
        if picture.strides[1:] != (colours, 1) or picture.strides[0] < width * colours:
            picture = np.ascontiguousarray(picture)
        out = np.empty((height * self.plan.scale, width * self.plan.scale, colours), np.uint8)
        values = self._film(film)
        error = ctypes.create_string_buffer(256)
        failed = _library().lf_run(
            self._handle,
            picture.ctypes.data,
            height,
            width,
            picture.strides[0],
            out.ctypes.data,
            out.strides[0],
            threads,
            values.ctypes.data if values.size else None,
            error,
            len(error),
        )
        if failed:
            raise LimnerError(f"the fused engine cannot run a picture of {width} x {height}: {_sentence(error)}")
        return out

    @property
    def workspace_bytes(self) -> int:
        """Memory that calls so far have made it keep, beside the weights."""
        return _library().lf_workspace_bytes(self._handle)

    def profile(self, on: bool) -> None:
        """Count the time of every stage from now on, or no longer. Costs a little speed."""
        _library().lf_profile(self._handle, int(on))

    def profile_seconds(self) -> list[float]:
        """Seconds in each of plan.stages since `profile(True)`, summed over threads and calls."""
        seconds = (c_double * len(self.plan.stages))()
        _library().lf_profile_read(self._handle, seconds)
        return list(seconds)

    def _film(self, film: Film) -> NDArray[np.float32]:
        layers = [layer for layer in self.plan.layers if layer.film]
        shapes = [(layer.outputs,) for layer in layers for _ in range(2)]
        values = [np.asarray(part, np.float32) for pair in film for part in pair]
        if [value.shape for value in values] != shapes:
            raise LimnerError(
                f"the network takes scales and shifts of {len(layers)} FiLM layers, not these {len(film)}."
            )
        return np.concatenate(values) if values else np.zeros(0, np.float32)


def _layer(stage: Convolution, kept: list[Any]) -> _Layer:
    """`kept` holds the arrays that the result points into."""
    weight = np.ascontiguousarray(stage.weight, np.int8)
    bias = np.ascontiguousarray(stage.bias, np.int32)
    multiplier = np.ascontiguousarray(stage.multiplier, np.float32)
    if weight.ndim != 4 or weight.shape[2] != weight.shape[3] or {bias.shape, multiplier.shape} != {weight.shape[:1]}:
        raise Unsupported("a layer whose weight, bias and multiplier differ in their lengths")
    kept.extend((weight, bias, multiplier))
    result = _Layer(
        kind=TAIL,
        kernel=stage.kernel,
        groups=stage.groups,
        in_channels=stage.inputs,
        out_channels=stage.outputs,
        input=stage.source - 1,
        residual=NONE,
        in_zero=stage.zero,
        weight=weight.ctypes.data_as(POINTER(c_int8)),
        bias=bias.ctypes.data_as(POINTER(c_int32)),
        multiplier=multiplier.ctypes.data_as(POINTER(c_float)),
    )
    if isinstance(stage, Layer):
        _describe_output(result, stage)
    return result


def _describe_output(result: _Layer, layer: Layer) -> None:
    result.kind, result.film = CONV, int(layer.film)
    result.out_zero, result.lo, result.hi = layer.zero_out, layer.low, layer.high
    if layer.residual is not None:
        result.residual = layer.residual.source - 1
        result.residual_zero = layer.residual.zero
        result.residual_scale = float(layer.residual.multiplier)


@cache
def _library() -> ctypes.CDLL:
    found = sorted(path for path in Path(__file__).parent.glob("_kernels.*") if path.suffix in {".so", ".pyd"})
    if not found:
        raise Unsupported("its kernels are not built: install limner from a wheel, or from source with a C++ compiler")
    try:
        library = ctypes.CDLL(str(found[0]))
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise Unsupported(f"its kernels cannot be loaded ({error}): install limner again") from None
    if library.lf_abi() != ABI:
        raise Unsupported("its kernels are of another version: install limner again")
    return library


def _count() -> int:
    count = 0
    while _library().lf_isa_name(count):
        count += 1
    return count


def _name(isa: int) -> str:
    return _library().lf_isa_name(isa).decode()


def _number(isa: str | None) -> int:
    if isa is None:
        return AUTO
    names = list(isas())
    if isa not in names:
        raise Unsupported(f"instruction set {isa!r} is unknown: use one of {', '.join(names)}")
    return names.index(isa)


def _chosen() -> int:
    error = ctypes.create_string_buffer(256)
    isa = _library().lf_isa_chosen(error, len(error))
    if isa < 0:
        raise Unsupported(_sentence(error))
    return isa


def _sentence(error: ctypes.Array[Any]) -> str:
    return error.value.decode(errors="replace").rstrip(".")
