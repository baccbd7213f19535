"""Prints the time that the gradient of one kernel takes, then crops a second of a training step in bf16 (forward and
backward, batch 16, crops of 48, one thread): as torch does it, and with our gradients of depthwise layers. Half a
minute on a quiet core with AVX512-BF16, many on one without.
"""

import time
from statistics import median
from unittest import mock

import torch

from limner.config import UpscalerConfig
from limner.models import depthwise
from limner.models.upscaler import Upscaler

BATCH, CROP, STEPS = 16, 48, 3
SHAPES = ((96, 16, 3), (128, 16, 3), (96, 16, 5), (128, 16, 5))  # width, depth, kernel


def crops_per_second(shape: tuple[int, int, int]) -> float:
    width, depth, kernel = shape
    config = UpscalerConfig(scale=4, width=width, depth=depth, kernel=kernel)
    network = Upscaler(config).to(memory_format=torch.channels_last)
    low = torch.rand(BATCH, 3, CROP, CROP).to(memory_format=torch.channels_last)
    targets = [torch.rand(BATCH, 3, CROP * scale, CROP * scale) for scale in network.scales]
    started = 0.0
    for step in range(2 + STEPS):
        started = time.perf_counter() if step == 2 else started
        with torch.autocast("cpu", torch.bfloat16):
            pairs = zip(network.levels(low), targets, strict=True)
            loss = torch.stack([(level.float() - target).abs().mean() for level, target in pairs]).sum()
        loss.backward()
    return BATCH * STEPS / (time.perf_counter() - started)


def kernel_ms(dtype: torch.dtype) -> float:
    """Median time of the gradient of a 5x5 kernel of 128 channels, 8 pictures."""
    x, gradient = (torch.rand(8, 128, CROP, CROP).to(dtype, memory_format=torch.channels_last) for _ in range(2))
    times = []
    for _ in range(15):
        started = time.perf_counter()
        depthwise.kernel_gradient(x, gradient, 5)
        times.append(time.perf_counter() - started)
    return 1000 * median(times)


def main() -> None:
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.bfloat16):
        print(f"gradient of a 5x5 kernel, 128 channels, {dtype}: {kernel_ms(dtype):.1f} ms")
    with mock.patch.object(depthwise, "library", lambda: None):
        plain = [crops_per_second(shape) for shape in SHAPES]
    ours = [crops_per_second(shape) for shape in SHAPES]
    print("| separable | torch | our gradients |\n| --- | --- | --- |")
    for (width, depth, kernel), *speeds in zip(SHAPES, plain, ours, strict=True):
        print(f"| {width} x {depth}, {kernel}x{kernel} | " + " | ".join(f"{speed:.1f}" for speed in speeds) + " |")


if __name__ == "__main__":
    main()
