"""Does the bundle compute what torch computes? On every backend, before anything ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from limner.bundle import Bundle, UpscalerManifest
from limner.models.upscaler import Upscaler
from limner.runtime.backends import open_engine
from limner.train.runs import load_run
from limner.train.samples import paint

Bytes = NDArray[np.uint8]


class TorchPainter:
    """A network of a run folder as a function on (H, W, C) uint8 pictures; pads to the network's multiple."""

    def __init__(self, network: Upscaler) -> None:
        self.network, self.scale, self.multiple = network, network.config.scale, network.config.unshuffle
        self.channels = network.config.channels

    def __call__(self, low: Bytes) -> Bytes:
        height, width = low.shape[:2]
        padded = np.pad(low, ((0, -height % self.multiple), (0, -width % self.multiple), (0, 0)), mode="edge")
        return paint(self.network, padded)[: height * self.scale, : width * self.scale]


def torch_painter(run: Path) -> TorchPainter:
    """The averaged float network of a run folder, as a painter for `limner evaluate`."""
    return TorchPainter(load_run(run)[1].fold().eval())


def float_error(bundle: Bundle[UpscalerManifest], network: Upscaler, low: NDArray[np.float32], engine: str) -> float:
    """Largest |engine - torch| over pictures (N, H, W, C) in 0..1."""
    session = open_engine(engine, bundle.graph("float")).session(*low.shape[1:3])
    with torch.no_grad():
        true = network(torch.from_numpy(low).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    return max(float(np.abs(session(x[None]) - y).max()) for x, y in zip(low, true, strict=True))


def int8_error(bundle: Bundle[UpscalerManifest], network: Upscaler, low: Bytes, engine: str) -> float:
    """Mean |engine - fake-quantized torch| in units of the last bit, over pictures (N, H, W, C) uint8."""
    session = open_engine(engine, bundle.graph("int8")).session(*low.shape[1:3])
    gaps = [np.abs(session(x[None])[0].astype(np.int16) - paint(network, x)).mean() for x in low]
    return float(np.mean(gaps))
