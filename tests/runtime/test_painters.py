"""The upscaler as its users see it: kinds of picture, sizes, strength, alpha, 16 bits, threads, limits and memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from kit import make_bundle, photo

import limner
from limner import bundle, images, resample
from limner.errors import LimnerError, UsageError
from limner.images import Picture
from limner.runtime import painters, tiles
from limner.runtime.painters import Upscaler, passes, target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "double", scale=2, multiple=2)


@pytest.fixture(scope="module")
def upscaler(folder: Path) -> Upscaler:
    return Upscaler.load(folder, threads=2)


def gray_step(alpha: np.ndarray) -> Picture:
    """A red shape on transparent green."""
    pixels = np.where(alpha[..., None] > 0, [220, 20, 20], [0, 255, 0]).astype(np.uint8)
    return Picture(pixels, alpha)


def disc(side: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side] - side / 2 + 0.5
    return ((radius - np.hypot(x, y) + 0.5).clip(0, 1) * 255).astype(np.uint8)


class TestKinds:
    def test_pil_and_paths_give_pil(self, upscaler: Upscaler, tmp_path: Path) -> None:
        image = PIL.Image.fromarray(photo(21, 33))
        image.save(tmp_path / "photo.png")
        from_image, from_path = upscaler.upscale(image), upscaler.upscale(tmp_path / "photo.png")
        assert from_image.size == from_path.size == (66, 42)
        assert from_image.mode == "RGB"
        assert (np.asarray(from_image) == np.asarray(from_path)).all()
        assert (np.asarray(from_image) == upscaler.upscale(photo(21, 33))).all()

    @pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_arrays_keep_their_kind(self, upscaler: Upscaler, channels: tuple[int, ...], dtype: type) -> None:
        samples = np.concatenate([photo(12, 17), photo(12, 17, 1)[..., :1]], axis=2)
        samples = samples[..., : channels[0]] if channels else samples[..., 0]
        array = samples / np.float32(255) if dtype is np.float32 else samples.astype(dtype)
        out = upscaler.upscale(array)
        assert out.shape == (24, 34, *channels) and out.dtype == dtype
        assert out.std() > 0.1 * array.std()

    def test_load_is_the_front_door(self, folder: Path, upscaler: Upscaler) -> None:
        painter = limner.load(folder, engine="auto", precision="int8", threads=1)
        assert painter.scale == 2 and painter.manifest.name == "double"
        assert (painter.upscale(photo(8, 8)) == upscaler.upscale(photo(8, 8))).all()

    def test_gray_stays_gray(self, upscaler: Upscaler) -> None:
        image = PIL.Image.fromarray(photo(20, 20)[..., 0])
        assert upscaler.upscale(image).mode == "L"
        assert upscaler.upscale(image, strength=0.5, scale=3).mode == "L"

    def test_metadata_is_carried(self, upscaler: Upscaler) -> None:
        out = upscaler.upscale_picture(Picture(photo(9, 9), icc=b"profile", exif=b"Exif\0\0x", xmp=b"<x/>"))
        assert (out.icc, out.exif, out.xmp) == (b"profile", b"Exif\0\0x", b"<x/>")

    def test_float_precision_is_near_int8(self, folder: Path, upscaler: Upscaler) -> None:
        exact = Upscaler.load(folder, precision="float").upscale(photo(40, 40)).astype(int)
        assert 0 < np.abs(exact - upscaler.upscale(photo(40, 40))).mean() < 5


class TestSizes:
    @pytest.mark.parametrize("height, width", [(1, 1), (1, 30), (3, 2), (17, 31)])
    def test_any_input_size(self, upscaler: Upscaler, height: int, width: int) -> None:
        assert upscaler.upscale(photo(height, width)).shape == (2 * height, 2 * width, 3)

    @pytest.mark.parametrize("scale, shape", [(1.5, (45, 60)), (3, (90, 120)), (5.01, (150, 200)), (0.5, (15, 20))])
    def test_any_scale(self, upscaler: Upscaler, scale: float, shape: tuple[int, int]) -> None:
        image = photo(30, 40)
        out = upscaler.upscale(image, scale=scale)
        assert out.shape == (*shape, 3)
        plain = resample.resize_uint8(image, *shape)
        assert np.corrcoef(out.ravel(), plain.ravel())[0, 1] > 0.8

    @pytest.mark.parametrize(
        "size, shape", [((100, None), (75, 100)), ((None, 33), (33, 44)), ((50, 200), (200, 50)), ((7, 5), (5, 7))]
    )
    def test_any_size(self, upscaler: Upscaler, size: Any, shape: tuple[int, int]) -> None:
        assert upscaler.upscale(photo(30, 40), size=size).shape == (*shape, 3)

    def test_a_smaller_scale_is_the_network_reduced(self, upscaler: Upscaler) -> None:
        image = photo(30, 40)
        reduced = resample.resize_uint8(upscaler.upscale(image), 45, 60, "lanczos").astype(int)
        assert np.abs(reduced - upscaler.upscale(image, scale=1.5)).max() <= 8

    def test_the_network_repeats(self, upscaler: Upscaler) -> None:
        image = photo(15, 20)
        assert (upscaler.upscale(image, scale=4) == upscaler.upscale(upscaler.upscale(image))).all()

    def test_scale_one_copies(self, upscaler: Upscaler) -> None:
        image = photo(15, 20)
        out = upscaler.upscale(image, scale=1)
        assert (out == image).all() and not np.shares_memory(out, image)

    def test_passes(self) -> None:
        assert passes(100, 200, 400, 800, 4) == [(100, 200)]
        assert passes(100, 200, 600, 1200, 4) == [(100, 200), (150, 300)]
        assert passes(100, 200, 100, 200, 4) == passes(100, 200, 50, 10, 4) == []
        assert passes(100, 100, 1700, 30, 4) == [(100, 100), (400, 8), (425, 8)]
        assert passes(100, 100, 300, 300, 1) == [(100, 100)]

    @pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
    def test_impossible_scales(self, upscaler: Upscaler, scale: float) -> None:
        with pytest.raises(UsageError, match=f"scale {scale} is impossible"):
            upscaler.upscale(photo(4, 4), scale=scale)

    @pytest.mark.parametrize("size", [(0, 5), (5, -1), (2.5, 4), (float("nan"), None)])
    def test_impossible_sizes(self, upscaler: Upscaler, size: Any) -> None:
        with pytest.raises(UsageError, match="is impossible: sides are whole"):
            upscaler.upscale(photo(4, 4), size=size)

    def test_contradictory_and_absurd_sizes(self, upscaler: Upscaler) -> None:
        with pytest.raises(UsageError, match="neither width nor height"):
            upscaler.upscale(photo(4, 4), size=(None, None))
        with pytest.raises(UsageError, match="choose one"):
            upscaler.upscale(photo(4, 4), size=(8, 8), scale=2)
        with pytest.raises(UsageError, match=r"1000000 x 1000000 .* over the limit of 3200 megapixels"):
            upscaler.upscale(photo(4, 4), size=(10**6, 10**6))
        with pytest.raises(UsageError, match="over the limit"):
            target(10, 10, 2, 1e300, None)

    def test_a_picture_is_never_reduced_to_nothing(self) -> None:
        assert target(1000, 3, 4, 0.1, None) == (100, 1)
        assert target(1000, 3, 4, None, (100, None)) == (100, 1)


class TestStrength:
    @pytest.mark.parametrize("scale", [2, 3.3, 0.4])
    def test_zero_is_bicubic(self, upscaler: Upscaler, scale: float) -> None:
        image = photo(31, 45)
        out = upscaler.upscale(image, scale=scale, strength=0)
        assert (out == resample.resize_uint8(image, *out.shape[:2])).all()

    def test_half_lies_between(self, upscaler: Upscaler) -> None:
        image = photo(31, 45)
        none, half, full = (upscaler.upscale(image, strength=s).astype(float) for s in (0.0, 0.5, 1.0))
        assert np.abs(half - (none + full) / 2).max() <= 1
        assert np.abs(none - full).mean() > 2

    @pytest.mark.parametrize("strength", [-0.1, 1.01, float("nan")])
    def test_impossible_strengths(self, upscaler: Upscaler, strength: float) -> None:
        with pytest.raises(UsageError, match="strength"):
            upscaler.upscale(photo(4, 4), strength=strength)


class TestAlpha:
    def test_hidden_colours_do_not_leak(self, upscaler: Upscaler) -> None:
        """The same picture with another colour under full transparency gives the same visible pixels."""
        alpha = disc(60, 20)
        green = gray_step(alpha)
        blue = Picture(np.where(alpha[..., None] > 0, green.pixels, np.uint8([0, 0, 255])).astype(np.uint8), alpha)
        a, b = upscaler.upscale_picture(green), upscaler.upscale_picture(blue)
        assert a.alpha is not None and b.alpha is not None
        assert (a.alpha == b.alpha).all()
        assert (a.pixels[a.alpha > 0] == b.pixels[b.alpha > 0]).all()
        assert a.pixels[a.alpha > 0][:, 1].max() < 100

    def test_opaque_and_clear_areas_stay_exact(self, upscaler: Upscaler) -> None:
        alpha = disc(60, 20)
        out = upscaler.upscale_picture(gray_step(alpha))
        assert out.alpha is not None and out.alpha.shape == (120, 120)
        assert (out.alpha[disc(120, 34) > 0] == 255).all()
        assert (out.alpha[disc(120, 46) == 0] == 0).all()
        assert len(np.unique(out.alpha)) > 10

    @pytest.mark.parametrize("value", [255, 128, 0])
    def test_flat_alpha_costs_no_second_pass(self, upscaler: Upscaler, value: int) -> None:
        calls: list[tuple[int, int]] = []
        picture = Picture(photo(20, 20), np.full((20, 20), value, np.uint8))
        out = upscaler.upscale_picture(picture, progress=lambda *at: calls.append(at))
        assert out.alpha is not None and (out.alpha == value).all() and out.alpha.shape == (40, 40)
        assert calls == [(1, 1)]
        assert (out.pixels == upscaler.upscale(photo(20, 20))).all()

    @pytest.mark.parametrize("scale", [1.5, 0.5, 5])
    def test_alpha_follows_any_scale(self, upscaler: Upscaler, scale: float) -> None:
        out = upscaler.upscale_picture(gray_step(disc(40, 12)), scale=scale, strength=0.7)
        assert out.alpha is not None and out.alpha.shape == out.pixels.shape[:2]
        middle, corner = int(20 * scale), 0
        assert out.alpha[middle, middle] == 255 and out.alpha[corner, corner] == 0

    def test_pil_with_alpha(self, upscaler: Upscaler) -> None:
        image = PIL.Image.fromarray(np.dstack([photo(20, 20), disc(20, 8)]))
        assert upscaler.upscale(image).mode == "RGBA"


class TestSixteenBits:
    def test_a_gradient_has_no_bands(self, upscaler: Upscaler) -> None:
        ramp = np.linspace(20_000, 24_000, 600).astype(np.uint16)
        out = upscaler.upscale(np.broadcast_to(ramp[None, :, None], (8, 600, 3)).copy())
        assert out.dtype == np.uint16
        assert len(np.unique(out[8, :, 0])) > 256
        every_fourth = out[8, 20:-20:4, 0].astype(int)  # the random network treats each pixel of a 4x4 cell its own way
        assert 0 < np.abs(np.diff(every_fourth)).mean() < 257 / 4

    def test_it_is_the_float_graph(self, upscaler: Upscaler, folder: Path) -> None:
        image = photo(20, 30)
        deep = upscaler.upscale(image.astype(np.uint16) * 257)
        exact = Upscaler.load(folder, precision="float").upscale(image)
        assert np.abs(deep / 257 - exact).max() <= 0.51

    def test_alpha_has_sixteen_bits_too(self, upscaler: Upscaler) -> None:
        alpha = disc(40, 12).astype(np.uint16) * 257
        out = upscaler.upscale_picture(Picture(photo(40, 40, dtype=np.uint16), alpha))
        assert out.alpha is not None and out.alpha.dtype == np.uint16
        assert out.alpha.max() == 65535 and len(np.unique(out.alpha)) > 100


class TestCalls:
    def test_eight_threads_equal_one(self, upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tiles, "SIDE", 64)
        pictures = [photo(60 + 2 * (seed % 3), 90, seed) for seed in range(16)]
        serial = [upscaler.upscale(picture) for picture in pictures]
        with ThreadPoolExecutor(8) as pool:
            threaded = list(pool.map(upscaler.upscale, pictures))
        assert all((a == b).all() for a, b in zip(serial, threaded, strict=True))

    def test_requests_do_not_mix(self, upscaler: Upscaler) -> None:
        """Calls of different scale and strength share no state."""
        hows: list[dict[str, Any]] = [{"scale": 1.5}, {"strength": 0.3}, {"scale": 3, "strength": 0.6}, {}]
        image = photo(24, 30)
        serial = [upscaler.upscale(image, **how) for how in hows]
        with ThreadPoolExecutor(8) as pool:
            threaded = list(pool.map(lambda how: upscaler.upscale(image, **how), hows * 4))
        assert all((a == b).all() for a, b in zip(serial * 4, threaded, strict=True))

    def test_progress_reaches_its_total(self, upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tiles, "SIDE", 64)
        seen: list[tuple[int, int]] = []
        picture = Picture(photo(100, 150), disc(150, 40)[:100])
        upscaler.upscale_picture(picture, scale=3, progress=lambda *at: seen.append(at))
        total = seen[0][1]
        assert seen == [(done, total) for done in range(1, total + 1)]
        assert total > 8

    def test_the_input_is_left_alone(self, upscaler: Upscaler) -> None:
        image, alpha = photo(30, 30), disc(30, 9)
        kept = image.copy(), alpha.copy()
        for scale in (0.5, 1, 2, 3):
            upscaler.upscale_picture(Picture(image, alpha), scale=scale, strength=0.5)
        assert (image == kept[0]).all() and (alpha == kept[1]).all()


class TestErrors:
    def test_unknown_names(self, folder: Path) -> None:
        with pytest.raises(UsageError, match="unknown engine 'tensorflow'"):
            Upscaler.load(folder, engine="tensorflow")
        with pytest.raises(UsageError, match="unknown precision 'int4': did you mean 'int8'"):
            Upscaler.load(folder, precision="int4")
        with pytest.raises(UsageError, match="unknown model"):
            Upscaler.load("photo-x77")

    def test_a_bundle_without_float_graph_refuses_sixteen_bits(self, folder: Path, tmp_path: Path) -> None:
        opened = bundle.read(folder)
        only = opened.manifest.model_copy(update={"graphs": {"int8": opened.manifest.graphs["int8"]}})
        bundle.write(tmp_path / "int8-only", only, {"int8.onnx": folder / "int8.onnx"})
        small = Upscaler.load(tmp_path / "int8-only")
        assert small.upscale(photo(8, 8)).shape == (16, 16, 3)
        with pytest.raises(UsageError, match="precision 'float'"):
            small.upscale(photo(8, 8, dtype=np.uint16))

    def test_bad_pictures(self, upscaler: Upscaler, tmp_path: Path) -> None:
        with pytest.raises(LimnerError, match="no such file"):
            upscaler.upscale(tmp_path / "missing.png")
        with pytest.raises(LimnerError, match="shape"):
            upscaler.upscale(np.zeros((4, 4, 5), np.uint8))

    def test_too_little_memory_is_one_sentence(self, upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise MemoryError

        monkeypatch.setattr(painters.tiles, "run", refuse)
        with pytest.raises(LimnerError, match="not enough memory for 8 x 8 pixels"):
            upscaler.upscale(photo(4, 4))


def test_a_fresh_process_loads_no_torch(folder: Path) -> None:
    code = f"""
        import sys, numpy, limner
        out = limner.load({str(folder)!r}, threads=1).upscale(numpy.zeros((8, 8, 3), numpy.uint8))
        assert out.shape == (16, 16, 3)
        print(sorted({{"torch", "onnx", "onnxruntime", "lightning"}} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ninety_six_megapixels_stay_under_two_gibibytes(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "tiny", scale=2, multiple=2, width=16, depth=1)
    code = f"""
        import numpy, limner
        from limner.images import Picture
        from limner.runtime.bench import peak_memory
        row = numpy.arange(12_000 * 3, dtype=numpy.uint32)
        pixels = numpy.empty((8_000, 12_000, 3), numpy.uint8)
        for y in range(8_000):
            pixels[y] = ((row * 7 + y * 3) % 251).reshape(-1, 3)
        out = limner.load({str(folder)!r}).upscale_picture(Picture(pixels))
        assert out.pixels.shape == (16_000, 24_000, 3) and out.pixels[-1, -1].any()
        print(peak_memory() / 2**30)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 1.3 < float(done.stdout) < 2.0


def test_the_output_limit_follows_the_input_limit() -> None:
    assert painters.MAX_OUTPUT_PIXELS >= 4**2 * images.MAX_PIXELS
