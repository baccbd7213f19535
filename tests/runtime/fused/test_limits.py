"""The ends of what the engine takes: empty, one pixel, millions of columns, 20,000 x 20,000; never a crash."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fused_kit import noise, random_plan
from kit import make_bundle

from limner.errors import LimnerError
from limner.runtime.backends import open_engine
from limner.runtime.fused import native, reference
from limner.runtime.fused.engine import FusedEngine
from limner.runtime.fused.plan import Plan
from limner.runtime.painters import Upscaler

REASON = native.unavailable()
built = pytest.mark.skipif(REASON is not None, reason=f"needs the extension: {REASON}")
SMALL = random_plan(0)
SEPARABLE = random_plan(3, ((16, 5, 0), (16, 1, 1)) * 2, residuals=True, scale=4)
MARGIN = 5  # no plan here looks further

Places = Iterator[tuple[slice, slice]]


def same_in_places(plan: Plan, picture: np.ndarray, painted: np.ndarray, places: Places) -> None:
    """The result at `places` (input pixels) is what reference.py makes of their neighbourhood."""
    scale, (height, width) = plan.scale, picture.shape[:2]
    for rows, columns in places:
        top, left = max(0, rows.start - MARGIN), max(0, columns.start - MARGIN)
        around = picture[top : min(height, rows.stop + MARGIN), left : min(width, columns.stop + MARGIN)]
        wanted = reference.run(plan, np.ascontiguousarray(around))
        inside = wanted[(rows.start - top) * scale :, (columns.start - left) * scale :]
        found = painted[rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale]
        assert np.array_equal(found, inside[: found.shape[0], : found.shape[1]]), (rows, columns)


def places(height: int, width: int, side: int = 40) -> Places:
    """Corners and middle."""
    for top in {0, max(0, height // 2 - 7), max(0, height - side)}:
        for left in {0, max(0, width // 2 - 7), max(0, width - side)}:
            yield slice(top, min(height, top + side)), slice(left, min(width, left + side))


@built
@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (0, 0)])
def test_an_empty_picture_is_an_error(height: int, width: int) -> None:
    with pytest.raises(LimnerError, match=f"{width} x {height}"):
        native.Network(SMALL).run(np.zeros((height, width, 3), np.uint8), 1)


@built
@pytest.mark.parametrize("threads", [1, 2, 1000, 2**31 - 1])
def test_any_number_of_threads(threads: int) -> None:
    picture = noise(37, 41)
    assert np.array_equal(native.Network(SEPARABLE).run(picture, threads), reference.run(SEPARABLE, picture))


@built
@pytest.mark.parametrize("width", range(1, 40))
def test_every_small_width(width: int) -> None:
    """Vectors are 4 to 16 pixels wide: no width is a special case."""
    picture = noise(3, width, width)
    assert np.array_equal(native.Network(SEPARABLE).run(picture, 1), reference.run(SEPARABLE, picture))


@built
@pytest.mark.parametrize(("height", "width"), [(1, 300_000), (50_000, 1)])
def test_a_picture_of_one_row_or_column(height: int, width: int) -> None:
    picture = noise(height, width)
    same_in_places(SMALL, picture, native.Network(SMALL).run(picture, 2), places(height, width))


def test_one_pixel_through_the_whole_runtime(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "small", scale=2)
    pixel = np.full((1, 1, 3), 77, np.uint8)
    both = [open_engine(name, folder / "int8.onnx", 1).session(1, 1)(pixel[None]) for name in ("fused", "openvino")]
    assert both[0].shape == both[1].shape == (1, 2, 2, 3)
    assert np.abs(both[0].astype(int) - both[1]).max() <= 1
    assert Upscaler.load(folder, engine="fused").upscale(pixel).shape == (2, 2, 3)


@built
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_thousand_squared_by_the_engine_alone() -> None:
    """1.2 GB in, 1.2 GB out, through one call; memory beyond that is rows."""
    plan = random_plan(9, ((16, 3, 0), (16, 1, 1)), scale=1)
    row = np.arange(20_000 * 3, dtype=np.uint32)
    picture = np.empty((20_000, 20_000, 3), np.uint8)
    for y in range(20_000):
        picture[y] = ((row * 7 + y * 3 + (y * row >> 9)) % 251).reshape(-1, 3)
    network = native.Network(plan)
    same_in_places(plan, picture, network.run(picture, 2), places(20_000, 20_000))
    assert network.workspace_bytes < 64 * 2**20


@built
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_thousand_squared_by_the_command(tmp_path: Path) -> None:
    """Refused with the limit's sentence; beyond the limit enlarged to 40,000 x 40,000 within 10 GiB."""
    folder = make_bundle(tmp_path / "small", scale=2)
    assert isinstance(open_engine("fused", folder / "int8.onnx", 1), FusedEngine)
    code = f"""
        import sys, pyvips
        from limner.cli import main
        from limner.runtime.bench import peak_memory
        name = {str(tmp_path / "large.tif")!r}
        if len(sys.argv) == 1:
            pyvips.Image.xyz(20_000, 20_000).linear([0.01, 0.013], [0, 5]).bandjoin(80).cast("uchar").copy(
                interpretation="srgb").tiffsave(name, compression="deflate", tile=True)
            sys.exit()
        try:
            main(["upscale", name, "--model", {str(folder)!r}, "--engine", "fused", "--quality", "50", *sys.argv[1:]])
        finally:
            print("peak", peak_memory() / 2**30)
    """

    def process(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", textwrap.dedent(code), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert process().returncode == 0
    target = tmp_path / "larger.jpg"
    refused = process("-o", str(target))
    assert refused.returncode == 1 and "20000 x 20000 pixels are more than the limit" in refused.stderr
    assert not target.exists()
    done = process("-o", str(target), "--max-pixels", "400000000")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 10
    import pyvips

    large = pyvips.Image.new_from_file(str(target))
    assert (large.width, large.height) == (40_000, 40_000)
