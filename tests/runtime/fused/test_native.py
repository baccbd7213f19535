"""The library itself: what it refuses, what it leaves alone, memory and threads. test_engine.py compares its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fused_kit import noise, random_film, random_plan

from limner.errors import LimnerError
from limner.runtime.fused import native, reference
from limner.runtime.fused.plan import Plan, Unsupported

REASON = native.unavailable()
built = pytest.mark.skipif(REASON is not None, reason=f"needs the extension: {REASON}")
SEPARABLE = ((32, 3, 0), (32, 1, 1)) * 3


@pytest.fixture
def fresh() -> Iterator[None]:
    """The library is looked for anew in the test, and again after it."""
    native._library.cache_clear()
    yield
    native._library.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_a_missing_library_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    assert "not built" in (native.unavailable() or "")
    with pytest.raises(Unsupported, match="not built"):
        native.Network(random_plan(0))


@pytest.mark.usefixtures("fresh")
def test_a_broken_library_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_kernels.so").write_bytes(b"not a library")
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    assert "cannot be loaded" in (native.unavailable() or "")


@built
@pytest.mark.usefixtures("fresh")
def test_a_library_of_another_version_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "ABI", native.ABI + 1)
    assert "another version" in (native.unavailable() or "")


@built
def test_instruction_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    there = native.isas()
    assert there["scalar"] and there[native.chosen()]
    monkeypatch.setenv("LIMNER_FUSED_ISA", "scalar")
    assert native.Network(random_plan(0)).isa == native.chosen() == "scalar"
    monkeypatch.setenv("LIMNER_FUSED_ISA", next(isa for isa, usable in there.items() if not usable))
    assert "cannot run" in (native.unavailable() or "")
    monkeypatch.setenv("LIMNER_FUSED_ISA", "abacus")
    with pytest.raises(Unsupported, match="abacus"):
        native.Network(random_plan(0))
    with pytest.raises(Unsupported, match="sundial"):
        native.Network(random_plan(0), "sundial")


def spoilt(plan: Plan, number: int, **changes: object) -> Plan:
    layers = list(plan.layers)
    layers[number] = replace(layers[number], **changes)
    return replace(plan, layers=tuple(layers))


@built
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source": 7}, "earlier layer"),
        ({"zero": 256}, "in_zero"),
        ({"zero_out": -1}, "out_zero"),
        ({"low": 9, "high": 3}, "lo and hi"),
        ({"multiplier": np.full(32, np.nan, np.float32)}, "multiplier"),
        ({"multiplier": np.full(32, 1e9, np.float32)}, "overflow"),
        ({"bias": np.full(32, 2**31 - 1, np.int32)}, "32 bits"),
        ({"groups": 3}, "in_channels"),
        ({"groups": 2, "weight": np.ones((32, 16, 7, 7), np.int8)}, "kernel"),
        ({"bias": np.zeros(31, np.int32)}, "lengths"),
        ({"multiplier": np.ones(33, np.float32)}, "lengths"),
        ({"weight": np.ones((32, 1, 3, 5), np.int8)}, "lengths"),
        ({"weight": np.full((32, 1, 3, 3), -128, np.int8)}, "-128"),
        ({"weight": np.ones((32, 1, 7, 7), np.int8)}, "kernel"),
        (
            {
                "weight": np.ones((20, 32, 3, 3), np.int8),
                "bias": np.zeros(20, np.int32),
                "multiplier": np.ones(20, np.float32),
                "groups": 1,
            },
            "20 is no multiple of 16",
        ),
    ],
)
def test_malformed_plans_are_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        native.Network(spoilt(random_plan(0, SEPARABLE), 1, **changes))


@built
def test_bad_calls_are_errors() -> None:
    network = native.Network(random_plan(0, unshuffle=2))
    with pytest.raises(LimnerError, match="multiple of 2"):
        network.run(noise(3, 4), 1)
    with pytest.raises(LimnerError, match="threads=0"):
        network.run(noise(4, 4), 0)
    with pytest.raises(LimnerError, match="FiLM"):
        network.run(noise(4, 4), 1, [(np.ones(16, np.float32), np.ones(16, np.float32))])
    film = native.Network(random_plan(0, SEPARABLE, film=True))
    values = random_film(0, film.plan)
    with pytest.raises(LimnerError, match="not finite"):
        film.run(noise(4, 4), 1, [(scale * np.float32(np.nan), shift) for scale, shift in values])


@built
def test_views_and_single_rows_and_columns() -> None:
    plan = random_plan(3, SEPARABLE)
    network, large = native.Network(plan), noise(40, 60, 3)
    for picture in (large[3:19, 5:37], large[:, ::2], large[::-1], large[7:8], large[:, 9:10]):
        assert np.array_equal(network.run(picture, 2), reference.run(plan, np.ascontiguousarray(picture)))


@built
def test_a_wide_picture_does_not_depend_on_where_it_is_cut() -> None:
    """20,000 columns run in strips, each of which looks beyond its ends."""
    plan = random_plan(4, SEPARABLE)
    network, wide = native.Network(plan), noise(3, 20_000, 4)
    painted = network.run(wide, 1)
    assert np.array_equal(painted, network.run(wide, 3))
    for start in (0, 9_000, 19_900):
        part = reference.run(plan, wide[:, max(0, start - 8) : start + 108])
        margin = min(start, 8) * plan.scale
        wanted = part[:, margin : margin + 100 * plan.scale]
        assert np.array_equal(painted[:, start * plan.scale : (start + 100) * plan.scale], wanted)


@built
def test_calls_side_by_side_share_a_network_and_its_memory() -> None:
    plan = random_plan(5, SEPARABLE)
    network = native.Network(plan)
    pictures = [noise(24, 40, seed) for seed in range(12)]
    wanted = [reference.run(plan, picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda picture: network.run(picture, 2), pictures))
    assert all(np.array_equal(*pair) for pair in zip(found, wanted, strict=True))
    held = network.workspace_bytes
    for picture in pictures:
        network.run(picture, 2)
    assert network.workspace_bytes == held


@built
def test_memory_is_rows_not_pictures() -> None:
    network = native.Network(random_plan(6, SEPARABLE))
    network.run(noise(40, 64), 1)
    low = network.workspace_bytes
    network.run(noise(4000, 64), 1)
    assert network.workspace_bytes == low < 64 * 32 * 100


@built
def test_profile_and_limits() -> None:
    network = native.Network(random_plan(7, SEPARABLE))
    network.profile(True)
    network.run(noise(64, 64), 1)
    seconds = network.profile_seconds()
    assert len(seconds) == len(network.plan.stages)
    assert min(seconds[0], seconds[2], seconds[-1]) > 0
    network.profile(True)
    assert sum(network.profile_seconds()) == 0
    assert native.peak_macs(0.01) > 1e6 and native.peak_read(2**20, 0.01) > 1e6
