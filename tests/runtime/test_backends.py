"""Engines: same pictures from both, explicit threads, safe under concurrency, one sentence for every fault."""

from __future__ import annotations

import importlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import make_bundle, photo

from limner.errors import LimnerError, UsageError
from limner.runtime import backends
from limner.runtime.backends import BACKENDS, OpenVINOEngine, open_engine
from limner.runtime.fused import native

PACKAGES = ["openvino", "onnxruntime"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "small", scale=3, multiple=2)


def test_the_engines_are_there() -> None:
    assert list(BACKENDS) == [*PACKAGES, "fused"]


def test_engines_agree_on_int8(folder: Path) -> None:
    """To 1 LSB on 95 % of the samples.

    ONNX Runtime rounds biases to int32, OpenVINO keeps them in float: about 1 activation in 200 falls on the other
    side of a rounding step, and later layers spread that.
    """
    x = photo(60, 80)[None]
    a, b = (open_engine(name, folder / "int8.onnx", 1).session(60, 80)(x).astype(int) for name in PACKAGES)
    assert a.shape == (1, 180, 240, 3)
    assert (np.abs(a - b) <= 1).mean() > 0.95
    assert abs((a - b).mean()) < 0.05
    assert a.std() > 20


def test_engines_agree_on_float(folder: Path) -> None:
    """Both compute in float32: with bfloat16 the difference would be about 7e-3."""
    x = np.float32(photo(60, 80)[None] / 255)
    a, b = (open_engine(name, folder / "float.onnx", 1).session(60, 80)(x) for name in PACKAGES)
    assert np.abs(a - b).max() < 1e-5


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("streams", [1, 2])
def test_concurrent_calls_equal_serial_ones(folder: Path, name: str, streams: int) -> None:
    engine = open_engine(name, folder / "int8.onnx", 2)
    inputs = [photo(40, 50 + 2 * (seed % 3), seed)[None] for seed in range(24)]

    def run(x: np.ndarray) -> np.ndarray:
        return engine.session(x.shape[1], x.shape[2], streams)(x)

    serial = [run(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(run, inputs))
    assert all((a == b).all() for a, b in zip(serial, threaded, strict=True))
    assert len({a.tobytes() for a in serial}) == len(inputs)


@pytest.mark.parametrize("name", BACKENDS)
def test_results_belong_to_the_caller(folder: Path, name: str) -> None:
    session = open_engine(name, folder / "int8.onnx", 1).session(20, 20)
    first = session(photo(20, 20, 1)[None])
    kept = first.copy()
    session(photo(20, 20, 2)[None])
    assert (first == kept).all()


def test_only_the_last_shapes_stay_compiled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "CACHED_SHAPES", 2)
    engine = OpenVINOEngine(folder / "int8.onnx", 1)
    first = engine.session(8, 8)
    assert engine.session(8, 8) is first
    for side in (10, 12):
        engine.session(8, side)
    assert len(engine._sessions) == 2
    assert engine.session(8, 8) is not first


def test_threads(folder: Path) -> None:
    assert open_engine("openvino", folder / "int8.onnx", 0).threads == backends.cores() >= 1
    assert open_engine("onnxruntime", folder / "int8.onnx", 3).threads == 3
    with pytest.raises(UsageError, match="threads=-1"):
        open_engine("openvino", folder / "int8.onnx", -1)


def test_unknown_engine(folder: Path) -> None:
    with pytest.raises(UsageError, match="unknown engine 'openvno': did you mean 'openvino'"):
        open_engine("openvno", folder / "int8.onnx")


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_named(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = importlib.import_module

    def import_module(wanted: str) -> Any:
        if wanted == name:
            raise ModuleNotFoundError(f"No module named {wanted!r}")
        return whole(wanted)

    monkeypatch.setattr(importlib, "import_module", import_module)
    backends._core.cache_clear()
    with pytest.raises(LimnerError, match=f"pip install {name}"):
        open_engine(name, folder / "int8.onnx")


@pytest.mark.parametrize("name", BACKENDS)
def test_a_file_that_is_no_graph(tmp_path: Path, name: str) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\x00\x01broken" * 50)
    with pytest.raises(LimnerError, match=r"broken\.onnx") as caught:
        open_engine(name, path, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_size_the_graph_cannot_take(folder: Path, name: str) -> None:
    """The trunk works on 2x2 blocks: 7 rows are impossible."""
    with pytest.raises(LimnerError, match=r"int8\.onnx") as caught:
        open_engine(name, folder / "int8.onnx", 1).session(7, 8)(photo(7, 8)[None])
    assert "\n" not in str(caught.value)


def test_auto_takes_the_kernels_where_they_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fastest = "openvino" if native.unavailable() else "fused"
    assert open_engine("auto", folder / "int8.onnx").name == fastest
    assert open_engine("auto", folder / "float.onnx").name == "openvino"
    monkeypatch.setenv("LIMNER_FUSED_ISA", "none")
    assert open_engine("auto", folder / "int8.onnx").name == "openvino"
    assert not caplog.records


def test_openvino_reports_nothing_to_its_makers() -> None:
    """In a process of its own: this one may have imported OpenVINO by another way."""
    code = (
        "import sys, threading; from limner.runtime.backends import openvino_core; openvino_core();"
        "assert sys.modules['openvino_telemetry'] is None; assert threading.active_count() == 1, threading.enumerate()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_first_tensors_may_be_made_by_several_threads() -> None:
    """OpenVINO alone stops here for ever."""
    code = (
        "from concurrent.futures import ThreadPoolExecutor; import sys, threading; import numpy as np\n"
        "from limner.runtime.backends import openvino_core\n"
        "sys.setswitchinterval(1e-6); openvino_core(); import openvino as ov; together = threading.Barrier(4)\n"
        "def make(k): together.wait(); return ov.Type.f32.to_dtype(), ov.Tensor(np.zeros(4, np.float32)).data.sum()\n"
        "with ThreadPoolExecutor(4) as pool: list(pool.map(make, range(4)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
