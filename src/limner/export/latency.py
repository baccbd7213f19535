"""How long a network of some settings takes here, before anything is trained: weights do not change the time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from limner.compress.quantize import quantize, quantize_painter
from limner.config import RunConfig
from limner.export.graph import build
from limner.export.painter_graph import build_painter
from limner.models.painter import Painter, Text
from limner.models.upscaler import Upscaler
from limner.runtime.backends import AUTO, open_engine
from limner.runtime.batched import Network
from limner.runtime.bench import YARDSTICK_SIZE


def milliseconds(config: RunConfig, engine: str = AUTO, repeats: int = 30) -> float:
    """Time of one picture with random int8 weights on one thread, the fastest of `repeats`.

    Upscalers: of 160 x 90 input pixels. Painters: the image network alone. Raises UsageError for an unknown engine.
    """
    with tempfile.TemporaryDirectory() as folder:
        opened = (_upscaler if config.task == "upscale" else _painter)(config, engine, Path(folder) / "int8.onnx")
        opened()
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            opened()
            times.append(time.perf_counter() - start)
    return min(times) * 1e3


def _upscaler(config: RunConfig, engine: str, path: Path) -> Callable[[], Any]:
    picture = random_upscaler(config, path)
    session = open_engine(engine, path, threads=1).session(*picture.shape[1:3])
    return lambda: session(picture)


def random_upscaler(config: RunConfig, path: Path) -> NDArray[np.uint8]:
    """Write the int8 graph of an upscaler with random weights to `path`; returns a picture of 160 x 90 for it."""
    model = config.model
    torch.manual_seed(0)
    network = quantize(Upscaler(model).eval(), torch.rand(2, model.channels, 24, 24), config.quantize)
    onnx.save(build(network, config.name), path)
    width, height = (side // model.unshuffle * model.unshuffle for side in YARDSTICK_SIZE)
    return np.random.default_rng(0).integers(0, 256, (1, height, width, model.channels), dtype=np.uint8)


def _painter(config: RunConfig, engine: str, path: Path) -> Callable[[], Any]:
    shape, tokens, width = config.painter, config.text.tokens, config.text.width
    torch.manual_seed(0)
    text = Text(
        torch.randn(2, tokens, width), torch.ones(2, tokens), torch.nn.functional.normalize(torch.randn(2, width))
    )
    noise = torch.randn(2, shape.noise, shape.grids[0], shape.grids[0])
    network = quantize_painter(Painter(shape, width), noise, text, config.quantize)
    onnx.save(build_painter(network, config.name, tokens), path)
    feeds = {"noise": noise.permute(0, 2, 3, 1), **text._asdict()}
    one = {name: np.ascontiguousarray(feed[:1].numpy()) for name, feed in feeds.items()}
    opened = Network("openvino" if engine in (AUTO, "fused") else engine, path, 1)
    return lambda: opened.run(one, ("y",))
