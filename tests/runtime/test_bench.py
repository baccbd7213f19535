"""The benchmark: sensible rows, JSON that comes back, comparisons, and clear errors."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from kit import make_bundle

from limner.errors import LimnerError, UsageError
from limner.runtime import bench
from limner.runtime.bench import Report, Row, compare


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "small", scale=2, width=16, depth=1)


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[Row]:
    how = {"size": (40, 30), "repeats": 5}
    plain = bench.bench([folder], ["openvino", "onnxruntime"], **how)
    return [*plain, *bench.bench([folder], ["onnxruntime"], memory=True, **how)]


def row(**changed: object) -> Row:
    plain = Row(
        bundle="a",
        engine="openvino",
        precision="int8",
        threads=1,
        width=160,
        height=90,
        scale=4,
        repeats=9,
        p50_ms=10,
        p95_ms=12,
        pictures_per_s=100,
        megapixels_per_s=23,
        load_ms=200,
        peak_mb=None,
        yardstick_ms=20,
        ratio=0.5,
    )
    return plain.model_copy(update=changed)


def report(*rows: Row) -> Report:
    return Report(machine={"cpu": "test"}, rows=rows)


def test_rows_are_sensible(rows: list[Row]) -> None:
    assert [(r.engine, r.threads) for r in rows] == [("openvino", 1), ("onnxruntime", 1), ("onnxruntime", 1)]
    for r in rows:
        assert (r.bundle, r.width, r.height, r.scale, r.repeats) == ("small", 40, 30, 2, 5)
        assert 0 < r.p50_ms <= r.p95_ms
        assert r.load_ms > 0
        assert r.ratio == pytest.approx(r.p50_ms / r.yardstick_ms)
        assert r.megapixels_per_s == pytest.approx(r.pictures_per_s * 80 * 60 / 1e6)
    peaks = [r.peak_mb for r in rows]
    assert peaks[:2] == [None, None] and peaks[2] is not None and 30 < peaks[2] < 1000
    assert rows[0].yardstick_ms == rows[1].yardstick_ms


def test_a_tiny_network_beats_the_yardstick(rows: list[Row]) -> None:
    """A twelfth of the pixels and a hundredth of the work: clear on any machine."""
    assert rows[0].ratio < 0.7


def test_the_yardstick_is_the_network_of_its_definition() -> None:
    model = bench._plain_network(90, 160)
    assert list(model.output(0).shape) == [1, 3, 360, 640]
    filters = [op.input_value(1).get_shape() for op in model.get_ordered_ops() if op.get_type_name() == "Convolution"]
    assert [(f[1], f[0], f[2]) for f in filters] == [(3, 32, 3), *[(32, 32, 3)] * 4, (32, 48, 3)]
    assert sum(op.get_type_name() == "Relu" for op in model.get_ops()) == 5
    assert bench.yardstick()()[0].std() > 0


def test_rounds_are_interleaved() -> None:
    order: list[str] = []
    runs = [lambda: order.append("a"), lambda: order.append("b")]
    assert bench.turns(runs, 3, lambda done, total: None).shape == (2, 2, 3)
    assert order == ["a", "a", "b", "b"] * 4
    assert bench.interleaved(runs, 5, lambda done, total: None).shape == (2, 5)


def test_the_first_call_of_a_turn_is_told_apart() -> None:
    """A run that is slow whenever another has run before it, as caches make it."""
    last = [""]

    def run(name: str) -> None:
        time.sleep(0.02 if last[0] != name else 0.0)
        last[0] = name

    cold, warm = bench.turns([lambda: run("a"), lambda: run("b")], 3, lambda done, total: None)
    assert cold.min() >= 20 and np.median(warm) < 10


def test_json_comes_back(rows: list[Row], tmp_path: Path) -> None:
    measured = bench.report(rows)
    bench.write(measured, tmp_path / "bench.json")
    assert bench.read(tmp_path / "bench.json") == measured
    assert measured.machine["openvino"] != "not installed" and measured.machine["cpu"]
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


def test_compare() -> None:
    old = report(row(bundle="a"), row(bundle="b"), row(bundle="c"), row(bundle="gone"))
    new = report(
        row(bundle="a", ratio=0.52), row(bundle="b", ratio=0.25), row(bundle="c", ratio=0.6), row(bundle="new")
    )
    changes = compare(old, new)
    assert [change.verdict for change in changes] == ["same", "faster", "slower", "removed", "added"]
    assert [change.ratio for change in changes] == pytest.approx([1.04, 0.5, 1.2, None, None])


def test_compare_cancels_the_machine() -> None:
    """Twice the time on a machine on which the yardstick takes twice the time is no change."""
    slow = row(p50_ms=20, yardstick_ms=40)
    assert compare(report(row()), report(slow))[0].verdict == "same"


def test_compare_needs_equal_settings() -> None:
    changes = compare(report(row(threads=1)), report(row(threads=2)))
    assert [change.verdict for change in changes] == ["removed", "added"]


@pytest.mark.parametrize("text", ["", "[]", '{"machine": {}, "rows": [{"bundle": "a"}]}', "{"])
def test_unreadable_reports(tmp_path: Path, text: str) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(LimnerError, match=r"old\.json.*measure it again") as caught:
        bench.read(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(LimnerError, match="cannot be read"):
        bench.read(tmp_path / "missing.json")


def test_unwritable_report(tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match="cannot be written"):
        bench.write(report(row()), tmp_path / "nowhere" / "bench.json")


@pytest.mark.parametrize("how", [{"repeats": 0}, {"size": (0, 90)}, {"size": (160, -1)}])
def test_impossible_requests(folder: Path, how: dict) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        bench.bench([folder], **how)


def test_unknown_engine(folder: Path) -> None:
    with pytest.raises(UsageError, match="unknown engine"):
        bench.bench([folder], ["abacus"], repeats=1)


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    bench.plot([row(), row(bundle="b", p50_ms=14, p95_ms=13)], tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_plot_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="pip install matplotlib"):
        bench.plot([row()], tmp_path / "bench.png")
    assert not list(tmp_path.iterdir())


def test_peak_memory_is_this_process(folder: Path) -> None:
    assert 2**24 < bench.peak_memory() < 2**36
    assert json.loads(row().model_dump_json())["peak_mb"] is None
