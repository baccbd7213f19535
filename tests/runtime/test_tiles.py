"""Tiles leave no seam: tiled equals whole, on both engines, for every scale, multiple and odd size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kit import make_bundle, photo
from numpy.typing import NDArray

from limner import bundle
from limner.runtime import tiles
from limner.runtime.backends import open_engine

SHAPES = {"x2": (2, 1), "x3": (3, 1), "x2 unshuffled": (2, 2), "x4 unshuffled": (4, 2)}


def network(folder: Path, engine: str, precision: bundle.Precision, threads: int = 2) -> tiles.Network:
    opened = bundle.read(folder)
    manifest, session = opened.manifest, open_engine(engine, opened.graph(precision), threads).session
    size = manifest.scale, manifest.radius, manifest.multiple
    return tiles.Network(session, threads, *size, as_float=precision == "float")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bundles")
    return {
        name: make_bundle(root / name.replace(" ", "-"), scale=scale, multiple=multiple)
        for name, (scale, multiple) in SHAPES.items()
    }


def worst(a: NDArray[np.generic], b: NDArray[np.generic]) -> int:
    return int(np.abs(a.astype(np.int64) - b.astype(np.int64)).max())


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("precision", ["int8", "float"])
def test_tiled_equals_whole(bundles: dict[str, Path], name: str, engine: str, precision: bundle.Precision) -> None:
    net = network(bundles[name], engine, precision)
    image = photo(97, 131)
    whole = tiles.run(image, net, tiles.plan(97, 131, net.radius, net.multiple, side=512))
    cut = tiles.plan(97, 131, net.radius, net.multiple, side=48)
    assert len(cut) >= 9
    assert worst(tiles.run(image, net, cut), whole) <= 1
    assert whole.std() > 20


def test_a_radius_too_short_shows_seams(bundles: dict[str, Path]) -> None:
    """The test above can fail: tiles that overlap by less than the receptive field are wrong by more than 1."""
    net = network(bundles["x2"], "openvino", "int8")
    image = photo(97, 131)
    whole = tiles.run(image, net, tiles.plan(97, 131, net.radius, 1, side=512))
    assert worst(tiles.run(image, net, tiles.plan(97, 131, 0, 1, side=48)), whole) > 3


def test_sixteen_bits_tile_to_one_step(bundles: dict[str, Path]) -> None:
    net = network(bundles["x3"], "openvino", "float")
    image = photo(70, 90, dtype=np.uint16)
    whole = tiles.run(image, net, tiles.plan(70, 90, net.radius, 1, side=512))
    assert whole.dtype == np.uint16
    assert worst(tiles.run(image, net, tiles.plan(70, 90, net.radius, 1, side=48)), whole) <= 1


@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (2, 3), (5, 64)])
def test_pictures_smaller_than_the_radius(bundles: dict[str, Path], height: int, width: int) -> None:
    net = network(bundles["x4 unshuffled"], "openvino", "int8")
    assert net.radius > 5
    image = photo(height, width, seed=3)
    out = tiles.run(image, net, net.plan(height, width))
    assert out.shape == (4 * height, 4 * width, 3)
    padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    alone = net.session(*padded.shape[:2], 1)(padded[None])[0]
    assert worst(out, alone[: 4 * height, : 4 * width]) == 0


def test_a_plane_is_painted_as_gray(bundles: dict[str, Path]) -> None:
    net = network(bundles["x2"], "openvino", "int8")
    plane = photo(20, 30)[..., 0]
    painted = tiles.run(plane, net, net.plan(20, 30))
    colour = tiles.run(np.repeat(plane[..., None], 3, 2), net, net.plan(20, 30))
    assert painted.shape == (40, 60)
    assert worst(painted, np.rint(colour.mean(2))) == 0


def test_gray_pictures_keep_equal_channels(bundles: dict[str, Path]) -> None:
    net = network(bundles["x2"], "openvino", "int8")
    image = np.repeat(photo(20, 30)[..., :1], 3, 2)
    plain, gray = (tiles.run(image, net, net.plan(20, 30), gray=gray) for gray in (False, True))
    assert np.ptp(plain.astype(int), axis=2).max() > 0
    assert np.ptp(gray, axis=2).max() == 0


def test_flat_tiles_skip_the_network(bundles: dict[str, Path]) -> None:
    net = network(bundles["x2"], "openvino", "int8")
    plane = np.full((30, 40), 255, np.uint8)
    assert (tiles.run(plane, net, net.plan(30, 40), skip_flat=True) == 255).all()
    assert (tiles.run(plane, net, net.plan(30, 40)) < 255).any()


@pytest.mark.parametrize("size", [1, 47, 48, 49, 300, 385, 1000, 1234, 12_001])
@pytest.mark.parametrize("radius, multiple, side", [(0, 1, 48), (7, 1, 64), (9, 2, 128), (40, 4, 384), (30, 2, 8)])
def test_spans_partition_the_axis(size: int, radius: int, multiple: int, side: int) -> None:
    planned = tiles.plan(size, size, radius, multiple, side)
    padded = -(-size // multiple) * multiple
    assert planned.height % multiple == 0
    edges = [span.first for span in planned.rows] + [planned.rows[-1].last]
    assert edges[0] == 0 and edges[-1] == size and edges == sorted(set(edges))
    for span, after in zip(planned.rows, planned.rows[1:], strict=False):
        assert span.last == after.first
    for span in planned.rows:
        end = span.start + planned.height
        assert span.start % multiple == 0 and span.start >= 0 and end <= padded
        assert span.start == 0 or span.first - span.start >= radius
        assert end == padded or end - span.last >= radius


def test_tiles_are_bounded() -> None:
    for radius in (0, 10, 30, 100):
        planned = tiles.plan(8000, 12_000, radius, 2)
        assert max(planned.height, planned.width) <= tiles.LARGEST_SIDE
        overhead = len(planned) * planned.height * planned.width / (8000 * 12_000)
        assert overhead < 1.1 + radius / 64


def test_pictures_of_similar_size_share_a_tile() -> None:
    shapes = {(p.height, p.width) for p in (tiles.plan(1000 + k, 1500 + k, 12, 2) for k in range(12))}
    assert len(shapes) <= 4


def test_progress_counts_every_tile_in_the_calling_thread(bundles: dict[str, Path]) -> None:
    import threading

    net = network(bundles["x2"], "openvino", "int8")
    cut = tiles.plan(97, 131, net.radius, 1, side=48)
    seen: list[int] = []
    tiles.run(photo(97, 131), net, cut, progress=lambda: seen.append(threading.get_ident()))
    assert seen == [threading.get_ident()] * len(cut)


def test_an_error_in_one_tile_ends_the_call(bundles: dict[str, Path]) -> None:
    net = network(bundles["x2"], "openvino", "int8")

    def stop() -> None:
        raise RuntimeError("stopped by the caller")

    with pytest.raises(RuntimeError, match="stopped"):
        tiles.run(photo(97, 131), net, tiles.plan(97, 131, net.radius, 1, side=48), progress=stop)
