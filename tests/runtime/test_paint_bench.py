"""The benchmark of painters: the stages that the targets name, and figures that fit together."""

from __future__ import annotations

from pathlib import Path

import pytest
from painter_kit import make_icon_upscaler, make_painter

from limner.errors import UsageError
from limner.runtime import paint_bench
from limner.runtime.bench import compare, report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("zoo")
    make_icon_upscaler(place / "icons-x4", scale=4)
    return make_painter(place / "icons")


def test_stages_and_batches(folder: Path) -> None:
    steps: list[tuple[int, int]] = []
    rows = paint_bench.bench([folder], batches=(1, 8), repeats=3, progress=lambda *step: steps.append(step))
    stages = [(row.stage, row.batch, row.width) for row in rows]
    assert stages == [("prompt", 1, 64), ("prompt to 256 px", 1, 256), ("network", 1, 64), ("network", 8, 64)]
    assert steps[-1] == (3, 3)
    for row in rows:
        assert 0 < row.p50_ms <= row.p95_ms and row.load_ms > 0
        assert row.ratio == pytest.approx(row.p50_ms / row.yardstick_ms)
        assert row.megapixels_per_s == pytest.approx(row.pictures_per_s * row.width**2 / 1e6)
    assert rows[-1].label == "icons, network x 8"
    assert rows[1].p50_ms > rows[2].p50_ms
    changes = compare(report(rows), report(rows))
    assert len({row.key for row in rows}) == len(rows) and {change.verdict for change in changes} == {"same"}


def test_every_prompt_is_new() -> None:
    """Else the encoder's cache would be timed."""
    assert len({paint_bench._prompt(index) for index in range(2000)}) == 2000


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"batches": (0, 1)}, {"batches": ()}])
def test_impossible_requests(folder: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="all must be at least 1"):
        paint_bench.bench([folder], **wrong)  # pyright: ignore[reportArgumentType]
