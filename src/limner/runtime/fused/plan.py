"""What the fused engine runs: a chain of integer convolutions on uint8 tensors, channels last.

A tensor has one float scale and a zero point of 0 or 128 (a signed grid is stored plus 128). Tensor 0 is the picture,
tensor n the result of layer n - 1. docs/fused.md has the arithmetic; reference.py is its executable form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["dense", "grouped", "depthwise", "pointwise"]


class Unsupported(Exception):
    """Why something cannot run on the fused engine: a few words, without the file's name."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """What head, layers and tail share: stride 1, padded by kernel // 2 with the zero point of its input.

    `source`: number of the tensor it reads; `zero`: that tensor's zero point. `weight`: int8 (out, in / groups, k, k),
    -127..127. `bias`: int32 (out,), with -zero * sum(weight) folded in, so that it is added to sums over the stored
    bytes. `multiplier`: float32 (out,), from sums to steps of the result. The sums fit 32 bits whatever the input.
    """

    source: int
    zero: int
    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    multiplier: NDArray[np.float32]
    groups: int

    @property
    def inputs(self) -> int:
        """Channels it reads."""
        return self.weight.shape[1] * self.groups

    @property
    def outputs(self) -> int:
        """Channels it makes."""
        return self.weight.shape[0]

    @property
    def kernel(self) -> int:
        """Side of its kernel, pixels."""
        return self.weight.shape[2]

    @property
    def kind(self) -> Kind:
        """How its channels are connected."""
        if self.groups == 1:
            return "pointwise" if self.kernel == 1 else "dense"
        return "depthwise" if self.groups == self.inputs == self.outputs else "grouped"

    @property
    def macs(self) -> int:
        """Multiply-accumulates per place of its result."""
        return self.weight.size


@dataclass(frozen=True)
class Residual:
    """Added before rounding: (byte of tensor `source` - `zero`) * `multiplier`, in steps of the result."""

    source: int
    zero: int
    multiplier: np.float32


@dataclass(frozen=True, eq=False)
class Layer(Convolution):
    """A convolution whose result is a tensor: rounded half to even, plus `zero_out`, clamped to `low`..`high`.

    `film`: every call brings a scale and a shift per channel: the multiplier becomes multiplier * scale, and the shift,
    in steps of the result, is added before rounding.
    """

    zero_out: int
    low: int
    high: int
    residual: Residual | None = None
    film: bool = False


@dataclass(frozen=True)
class Modulation:
    """Where a FiLM layer's values lie in the graph's second input: scales at `scale`, shifts at `shift`.

    `plus` is added to each scale; shifts come in units of `step` of the layer's result.
    """

    scale: int
    shift: int
    plus: float
    step: float


@dataclass(frozen=True, eq=False)
class Plan:
    """Layers in the order they run, then the tail. `modulations`: of the FiLM layers of a graph, in that order.

    Pictures have `colours` channels. Layers work on cells of `unshuffle` x `unshuffle` pixels, channels ordered (row,
    column, colour); so are the tail's colours * (scale * unshuffle)**2 channels. The tail's sums are in units of the
    picture's last bit: rounded, the nearest pixel is added, and clamped to 0..255.
    """

    layers: tuple[Layer, ...]
    tail: Convolution
    scale: int
    unshuffle: int = 1
    colours: int = 3
    modulations: tuple[Modulation, ...] = ()

    def film(self, values: NDArray[np.float32]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """(scales, shifts) of every FiLM layer, from what the graph's second input would hold: (count,) float32."""
        layers = [layer for layer in self.layers if layer.film]
        return [_modulated(layer.outputs, at, values) for layer, at in zip(layers, self.modulations, strict=True)]

    @property
    def stages(self) -> tuple[Convolution, ...]:
        """Layers and tail."""
        return (*self.layers, self.tail)

    @property
    def macs_per_pixel(self) -> float:
        """Multiply-accumulates per input pixel."""
        return sum(stage.macs for stage in self.stages) / self.unshuffle**2

    @property
    def weight_bytes(self) -> int:
        """Weights, biases and multipliers."""
        return sum(stage.weight.nbytes + stage.bias.nbytes + stage.multiplier.nbytes for stage in self.stages)


def _modulated(
    count: int, at: Modulation, values: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    scales, shifts = (values[start : start + count] for start in (at.scale, at.shift))
    return scales + np.float32(at.plus), shifts * np.float32(1 / at.step)
