"""The engine: the reference's bytes on every instruction set, size and thread count; a clean way back without it."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fused_kit import TrunkGraph, noise, painter_trunk, random_film, random_plan
from kit import make_bundle, photo

from limner import bundle
from limner.errors import LimnerError
from limner.runtime import tiles
from limner.runtime.backends import OpenVINOEngine, open_engine
from limner.runtime.fused import compiler, native, reader, reference
from limner.runtime.fused.engine import FusedEngine, open_fused, states
from limner.runtime.fused.plan import Plan, Unsupported
from limner.runtime.painters import Upscaler

REASON = native.unavailable()
built = pytest.mark.skipif(REASON is not None, reason=f"needs the extension: {REASON}")
USABLE = ["none"] if REASON else [name for name, usable in native.isas().items() if usable]

PLANS = {
    "separable": {},
    "separable 48": {"shapes": ((48, 3, 0), (48, 1, 1)) * 2, "scale": 4},
    "5x5": {"shapes": ((32, 5, 0), (32, 1, 1)) * 2, "scale": 3},
    "dense": {"shapes": ((32, 3, 1), (16, 5, 1)), "scale": 1},
    "grouped and expanded": {"shapes": ((64, 1, 1), (64, 3, 2), (32, 1, 1))},
    "residuals": {"shapes": ((32, 3, 0), (32, 1, 1)) * 3, "residuals": True},
    "film": {"shapes": ((16, 3, 0), (16, 1, 1)) * 2, "film": True, "residuals": True},
    "cells": {"unshuffle": 2, "scale": 3},
    "alpha": {"colours": 4, "scale": 4},
    "cells with alpha": {"colours": 4, "unshuffle": 2},
    "heavy weights": {"shapes": ((32, 3, 0), (32, 1, 1)), "peak": 127},
}
SIZES = [(1, 1), (1, 7), (6, 1), (2, 2), (5, 33), (18, 50)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "small")


def same(plan: Plan, picture: np.ndarray, threads: int = 1, seed: int = 0) -> None:
    film = random_film(seed, plan)
    assert np.array_equal(native.Network(plan).run(picture, threads, film), reference.run(plan, picture, film))


@built
@pytest.mark.parametrize("isa", USABLE)
@pytest.mark.parametrize("name", PLANS)
def test_bytes_are_those_of_the_reference(name: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_FUSED_ISA", isa)
    for seed, (height, width) in enumerate(SIZES):
        plan = random_plan(seed, **PLANS[name])
        assert native.Network(plan).isa == isa
        same(plan, noise(height * plan.unshuffle, width * plan.unshuffle, seed, plan.colours), seed=seed)


@built
@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_extreme_values(value: int) -> None:
    for seed in range(4):
        same(random_plan(seed, ((32, 3, 0), (32, 1, 1)) * 2, peak=127), np.full((7, 9, 3), value, np.uint8))


@built
@pytest.mark.parametrize("isa", USABLE)
@pytest.mark.parametrize("halves", [0.5, 0.25, 0.125])
def test_ties(halves: float, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Multipliers that put many sums half way between two bytes, in layers of every kind."""
    monkeypatch.setenv("LIMNER_FUSED_ISA", isa)
    for seed, more in enumerate(({}, {"residuals": True}, {"film": True})):
        plan = random_plan(seed, ((32, 3, 0), (32, 1, 1), (32, 3, 1)), peak=1, **more)
        layers = [replace(layer, multiplier=np.full(layer.outputs, halves, np.float32)) for layer in plan.layers]
        same(replace(plan, layers=tuple(layers)), noise(9, 20, seed) // 8, seed=seed)


@built
@pytest.mark.parametrize("name", ["photo-x2", "photo-x4", "photo-x4-hq", "icons-x2", "icons-x4"])
def test_shipped_bundles(name: str) -> None:
    plan = compiler.load(bundle.ZOO / name / "int8.onnx")
    same(plan, noise(37, 53, 0, plan.colours), threads=2)


@built
@pytest.mark.parametrize("isa", USABLE)
def test_a_trunk_of_a_painter(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a graph with FiLM in blocks to the reference's bytes, each call with values of its own."""
    monkeypatch.setenv("LIMNER_FUSED_ISA", isa)
    plan = compiler.compile_graph(reader.parse(painter_trunk(TrunkGraph(16)).SerializeToString()))
    network, picture = native.Network(plan), noise(17, 21)
    for seed in range(3):
        film = plan.film(np.random.default_rng(seed).normal(0, 0.2, 224).astype(np.float32))
        assert np.array_equal(network.run(picture, 2, film), reference.run(plan, picture, film))


def test_a_graph_with_film_is_not_for_the_runtime(tmp_path: Path) -> None:
    (tmp_path / "film.onnx").write_bytes(painter_trunk(TrunkGraph(16)).SerializeToString())
    with pytest.raises(Unsupported, match="a second input, for FiLM"):
        FusedEngine(tmp_path / "film.onnx", 1)


@built
def test_a_very_wide_row() -> None:
    same(random_plan(0), noise(2, 20_000))
    same(random_plan(0), noise(3000, 1))


@built
@pytest.mark.parametrize("threads", [2, 3, 16])
def test_threads_change_nothing(threads: int) -> None:
    """Threads meet at another row in every call, in layers of every kind."""
    for seed, more in enumerate(({"residuals": True}, {"unshuffle": 2}, {"film": True})):
        plan = random_plan(seed, ((32, 5, 0), (32, 1, 1), (32, 3, 1), (32, 3, 0), (32, 1, 1)), **more)
        network, film = native.Network(plan), random_film(seed, plan)
        for height in (2, 6, 14, 64, 130):
            picture = noise(height, 40, height)
            wanted = network.run(picture, 1, film)
            assert all(np.array_equal(network.run(picture, threads, film), wanted) for _ in range(8)), height


@built
def test_threads_meet_in_every_strip() -> None:
    """A picture so wide that it is cut, and more threads than strips."""
    plan = random_plan(2, ((64, 5, 0), (64, 1, 1)) * 4)
    network, picture = native.Network(plan), noise(40, 3000)
    wanted = network.run(picture, 1)
    assert np.array_equal(wanted[:, :200], reference.run(plan, picture[:, :120])[:, :200])
    assert all(np.array_equal(network.run(picture, threads), wanted) for threads in (2, 3, 5, 8))


@built
def test_misaligned_buffers() -> None:
    plan, picture = random_plan(2), noise(20, 31)
    expected = reference.run(plan, picture)
    network = native.Network(plan)
    for offset in (1, 3):
        bytes_ = np.zeros(picture.size + offset, np.uint8)
        moved = bytes_[offset:].reshape(picture.shape)
        moved[:] = picture
        assert np.array_equal(network.run(moved, 1), expected)
    wide = np.zeros((40, 62, 3), np.uint8)
    wide[3:23, 5:36] = picture
    assert np.array_equal(network.run(wide[3:23, 5:36], 1), expected), "a part of a larger picture"
    assert np.array_equal(network.run(picture[::-1, ::-1][::-1, ::-1], 1), expected)
    assert np.array_equal(network.run(np.asfortranarray(picture), 2), expected)


@built
def test_concurrent_calls_equal_serial_ones() -> None:
    network = native.Network(random_plan(3, ((32, 3, 0), (32, 1, 1)) * 2))
    pictures = [noise(20 + seed % 3, 30 + 5 * (seed % 4), seed) for seed in range(32)]
    serial = [network.run(picture, 1) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda picture: network.run(picture, 2), pictures))
    assert all(np.array_equal(a, b) for a, b in zip(serial, threaded, strict=True))
    assert len({a.tobytes() for a in serial}) == len(pictures)


@built
def test_the_profile_has_every_stage() -> None:
    plan = random_plan(4, ((32, 3, 0), (32, 1, 1)))
    network = native.Network(plan)
    network.profile(True)
    network.run(noise(60, 80), 1)
    seconds = network.profile_seconds()
    assert len(seconds) == len(plan.stages) and min(seconds) > 0 and sum(seconds) < 10
    network.profile(True)
    assert sum(network.profile_seconds()) == 0


@built
def test_the_engine_runs_a_bundle(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "int8.onnx"
    engine = open_engine("fused", path, 2)
    assert isinstance(engine, FusedEngine) and (engine.name, engine.threads) == ("fused", 2)
    picture = photo(40, 50)
    assert np.array_equal(engine.session(40, 50)(picture[None])[0], reference.run(compiler.load(path), picture))
    assert Upscaler.load(folder, engine="fused").engine == "fused"
    assert not caplog.records


@built
def test_tiled_equals_whole(folder: Path) -> None:
    engine, manifest = open_engine("fused", folder / "int8.onnx", 2), bundle.read(folder).manifest
    network = tiles.Network(engine.session, 2, manifest.scale, manifest.radius, 1, as_float=False)
    picture = photo(90, 100)
    plan = tiles.plan(90, 100, manifest.radius, 1, side=32)
    assert len(plan) > 6
    assert np.array_equal(tiles.run(picture, network, plan), engine.session(90, 100)(picture[None])[0])


@built
def test_sides_that_are_no_multiple(tmp_path: Path) -> None:
    make_bundle(tmp_path / "cells", multiple=2)
    with pytest.raises(LimnerError, match="multiples of 2, not 8 x 7"):
        open_engine("fused", tmp_path / "cells" / "int8.onnx", 1).session(7, 8)


def test_an_unsupported_processor_falls_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LIMNER_FUSED_ISA", "none")
    engine = open_engine("fused", folder / "int8.onnx", 1)
    assert isinstance(engine, OpenVINOEngine) and engine.name == "openvino"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "int8.onnx: the fused engine cannot run it (" in record.message and record.message.endswith("OpenVINO does.")
    assert Upscaler.load(folder, engine="fused").upscale(photo(8, 9)).shape == (16, 18, 3)
    state = next(state for state in states() if state.engine == "fused")
    assert not state.ready and state.detail


@pytest.mark.parametrize("isa", ["mmx", ""])
def test_an_unknown_instruction_set(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMNER_FUSED_ISA", raising=False)
    unset = native.unavailable()
    monkeypatch.setenv("LIMNER_FUSED_ISA", isa)
    assert (native.unavailable() is None) is (isa == "" and unset is None)


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_FUSED_ISA", "none")
    assert "switches it off" in str(native.unavailable()) or REASON is not None


def test_a_graph_it_cannot_run_falls_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_bundle(tmp_path / "narrow", width=20)
    picture = photo(12, 10)
    ours, theirs = (
        open_engine(name, folder / "int8.onnx", 1).session(12, 10)(picture[None]) for name in ("fused", "openvino")
    )
    assert np.array_equal(ours, theirs)
    assert "(a width of 20 channels, which is no multiple of 16)" in caplog.records[-1].message


def test_float_graphs_fall_back(folder: Path) -> None:
    assert isinstance(open_fused(folder / "float.onnx", 1), OpenVINOEngine)
    deep = photo(10, 12, dtype=np.uint16)
    assert Upscaler.load(folder, engine="fused").upscale(deep).dtype == np.uint16


def test_a_damaged_graph_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x08broken" * 20)
    with pytest.raises(Unsupported):
        FusedEngine(tmp_path / "broken.onnx", 1)
    with pytest.raises(LimnerError, match=r"broken\.onnx"):
        open_fused(tmp_path / "broken.onnx", 1)


@built
def test_states_name_the_instruction_set() -> None:
    state = next(state for state in states() if state.engine == "fused")
    assert state.ready and state.detail.split()[1] in USABLE
