"""Random plans, sizes and damaged files, for minutes: a wrong byte, a crash or an unexpected error fails.

LIMNER_FUZZ_SECONDS sets how long each test goes on, LIMNER_FUZZ_SEED where it starts; the assertion names the seed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from fused_kit import Shape, TrunkGraph, noise, random_film, random_plan

from limner import bundle
from limner.runtime.fused import compiler, native, reader, reference
from limner.runtime.fused.plan import Layer, Plan, Unsupported

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("LIMNER_FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("LIMNER_FUZZ_SEED", "0"))
REASON = native.unavailable()
built = pytest.mark.skipif(REASON is not None, reason=f"needs the extension: {REASON}")
USABLE = ["none"] if REASON else [name for name, usable in native.isas().items() if usable]


def seeds() -> Iterator[int]:
    end = time.monotonic() + SECONDS
    seed = SEED
    while time.monotonic() < end:
        yield seed
        seed += 1


def shapes(random: np.random.Generator) -> list[Shape]:
    """One to five convolutions of any kind the kernels know, one after the other."""
    found: list[Shape] = []
    width = before = 16 * int(random.integers(1, 7))
    for _ in range(random.integers(1, 6)):
        kind = random.integers(4)
        kernel = int(random.choice([3, 5]))
        before, width = width, 16 * int(random.integers(1, 7))
        if kind == 0:
            width = before
            found.append((width, kernel, 0))
        elif kind == 1 and found:
            groups = int(np.gcd(before // 16, width // 16))
            found.append((width, kernel, groups))
        else:
            found.append((width, 1 if kind == 2 else kernel, 1))
    first = found[0]
    return found if first[2] else [(first[0], 1, 1), *found]


def plan_of(seed: int) -> tuple[Plan, np.ndarray, int]:
    """A plan, a picture and a number of threads."""
    random = np.random.default_rng(seed)
    unshuffle, colours = int(random.choice([1, 1, 1, 2])), int(random.choice([3, 3, 4]))
    plan = random_plan(
        seed,
        shapes(random),
        scale=int(random.integers(1, 5)),
        unshuffle=unshuffle,
        colours=colours,
        peak=int(random.choice([1, 63, 127])),
        residuals=bool(random.integers(2)),
        film=bool(random.integers(2)),
    )
    height, width = (int(side) * unshuffle for side in random.integers(1, [40, 70]))
    picture = noise(height, width, seed, colours)
    if random.integers(4) == 0:
        picture = (picture > 127).astype(np.uint8) * np.uint8(255)
    return plan, picture, int(random.integers(1, 5))


@built
@pytest.mark.timeout(SECONDS + 300)
def test_random_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    done = 0
    for seed in seeds():
        plan, picture, threads = plan_of(seed)
        film = random_film(seed, plan)
        expected = reference.run(plan, picture, film)
        for isa in USABLE:
            monkeypatch.setenv("LIMNER_FUSED_ISA", isa)
            assert np.array_equal(native.Network(plan).run(picture, threads, film), expected), f"seed {seed}, {isa}"
        done += 1
    assert done > 3


def damaged(plan: Plan, random: np.random.Generator) -> Plan:
    """One field of one layer set to a value that may be impossible."""
    at = int(random.integers(len(plan.layers)))
    layer = plan.layers[at]
    odd = int(random.choice([-(2**31), -1000, -2, -1, 0, 1, 2, 3, 7, 255, 256, 1000, 2**31 - 1]))
    weight = layer.weight
    choices: list[Layer] = [
        replace(layer, source=odd),
        replace(layer, zero=odd),
        replace(layer, groups=odd),
        replace(layer, zero_out=odd),
        replace(layer, low=odd),
        replace(layer, high=odd),
        replace(layer, weight=weight[:-1], bias=layer.bias[:-1], multiplier=layer.multiplier[:-1]),
        replace(layer, weight=np.zeros((16, weight.shape[1], 2, 2), np.int8)),
        replace(layer, weight=np.full_like(weight, -128)),
        replace(layer, multiplier=np.full_like(layer.multiplier, random.choice([np.nan, np.inf, -1.0, 3e38]))),
        replace(layer, bias=np.full_like(layer.bias, 2**31 - 1)),
    ]
    layers = list(plan.layers)
    layers[at] = choices[int(random.integers(len(choices)))]
    whole = replace(plan, layers=tuple(layers))
    return replace(whole, scale=odd) if random.integers(9) == 0 else whole


@built
@pytest.mark.timeout(SECONDS + 300)
def test_malformed_plans() -> None:
    """Refused in a sentence, or run to the end: never a crash. What runs gives the reference's bytes."""
    refused = 0
    for seed in seeds():
        random = np.random.default_rng(seed)
        plan = damaged(random_plan(seed, shapes(random)), random)
        try:
            network = native.Network(plan)
        except Unsupported as reason:
            refused += 1
            assert str(reason) and "\n" not in str(reason), f"seed {seed}"
            continue
        picture = noise(9, 11, seed)
        assert np.array_equal(network.run(picture, 2), reference.run(plan, picture)), f"seed {seed}"
    assert refused > 3


@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("name", ["small", "photo-x4"])
def test_damaged_files(name: str) -> None:
    """Any bytes: a plan, or Unsupported."""
    g = TrunkGraph(16)
    whole = g.finish(g.head).SerializeToString() if name == "small" else _shipped(name)
    planned = refused = 0
    for seed in seeds():
        random = np.random.default_rng(seed)
        data = bytearray(whole[: random.integers(len(whole))] if random.integers(4) == 0 else whole)
        for _ in range(random.integers(1, 9)):
            if data:
                data[random.integers(len(data))] = random.integers(256)
        try:
            compiler.compile_graph(reader.parse(bytes(data)))
            planned += 1
        except (Unsupported, reader.Unreadable):
            refused += 1
        except Exception as error:  # the seed is what makes it repeatable
            raise AssertionError(f"seed {seed}: {error!r}") from error
    assert planned and refused


def _shipped(name: str) -> bytes:
    return (bundle.ZOO / name / "int8.onnx").read_bytes()
