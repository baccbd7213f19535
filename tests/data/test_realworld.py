from __future__ import annotations

import numpy as np
import pytest

from limner.data import realworld
from limner.data.realworld import (
    blur_kernel,
    convolve,
    degrade_realworld,
    gaussian_noise,
    jpeg,
    poisson_noise,
    random_kernel,
    resize,
    sinc_kernel,
)
from limner.errors import UsageError


def crop(height: int = 96, width: int = 120) -> np.ndarray:
    y, x = np.mgrid[:height, :width] / 30
    return np.stack([np.sin(x) * np.cos(y), np.sin(x + y), np.cos(2 * x)], -1).astype(np.float32) / 2 + np.float32(0.5)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("second_round", [True, False])
def test_shape_type_and_range(scale: int, second_round: bool) -> None:
    for seed in range(12):
        low = degrade_realworld(crop(), scale, rng(seed), second_round)
        assert low.shape == (96 // scale, 120 // scale, 3)
        assert low.dtype == np.float32
        assert low.min() >= 0
        assert low.max() <= 1


def test_it_is_a_function_of_the_generator() -> None:
    first, same, other = (degrade_realworld(crop(), 4, rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, same)
    assert np.abs(first - other).mean() > 0.005


def test_the_input_is_left_alone() -> None:
    picture = crop()
    degrade_realworld(picture, 4, rng())
    assert np.array_equal(picture, crop())


def test_degraded_pictures_still_show_the_scene() -> None:
    plain = crop().reshape(24, 4, 30, 4, 3).mean((1, 3))
    agreement = [np.corrcoef(degrade_realworld(crop(), 4, rng(s)).ravel(), plain.ravel())[0, 1] for s in range(20)]
    assert np.median(agreement) > 0.9


def test_the_second_round_degrades_further() -> None:
    plain = crop().reshape(24, 4, 30, 4, 3).mean((1, 3))
    error = {two: np.mean([np.abs(degrade_realworld(crop(), 4, rng(s), two) - plain).mean() for s in range(30)])
             for two in (False, True)}  # fmt: skip
    assert error[True] > error[False]


def test_impossible_crop() -> None:
    with pytest.raises(UsageError, match="120x97 cannot be degraded by 4"):
        degrade_realworld(crop(97), 4, rng())


def test_random_kernels_are_odd_sum_to_one_and_vary() -> None:
    kernels = [random_kernel((0.2, 3.0), rng(seed)) for seed in range(200)]
    assert {k.shape[0] for k in kernels} == set(range(7, 22, 2))
    assert all(k.shape[0] == k.shape[1] and abs(k.sum() - 1) < 1e-5 for k in kernels)
    ringing = np.mean([k.min() < -1e-6 for k in kernels])
    assert 0.03 < ringing < 0.2
    tilted = np.mean([not np.allclose(k, k.T, atol=1e-4) for k in kernels])
    assert 0.15 < tilted < 0.5
    assert all(np.allclose(k, k[::-1, ::-1], atol=1e-6) for k in kernels)


def test_gaussian_kernel_has_its_sigmas_along_its_axes() -> None:
    kernel = blur_kernel(21, (1.0, 2.5), 0.0, "gaussian")
    offset = np.arange(21) - 10
    assert np.sqrt((kernel.sum(0) * offset**2).sum()) == pytest.approx(1.0, rel=0.01)
    assert np.sqrt((kernel.sum(1) * offset**2).sum()) == pytest.approx(2.5, rel=0.01)
    assert np.allclose(blur_kernel(21, (1.0, 2.5), np.pi / 2, "gaussian"), kernel.T, atol=1e-6)


def test_shapes_differ_as_their_names_say() -> None:
    gaussian, generalized, plateau = (
        blur_kernel(21, (2.0, 2.0), 0.0, shape, beta)
        for shape, beta in (("gaussian", 1.0), ("generalized", 4.0), ("plateau", 2.0))
    )
    assert generalized[10, 11] / generalized[10, 10] > gaussian[10, 11] / gaussian[10, 10]
    assert plateau[10, 20] > gaussian[10, 20] * 10
    assert np.allclose(blur_kernel(21, (2.0, 2.0), 0.0, "generalized", 1.0), gaussian)


def test_sinc_kernel_is_a_low_pass_that_rings() -> None:
    kernel = sinc_kernel(21, np.pi / 3)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert kernel.min() < -1e-4
    spectrum = np.abs(np.fft.fft2(kernel, (64, 64)))[0]
    assert spectrum[4] > 0.9
    assert spectrum[24] < 0.1


def test_convolution_matches_scipy_and_keeps_flat_pictures() -> None:
    from scipy.ndimage import convolve as reference

    picture, kernel = crop(30, 40), blur_kernel(9, (1.0, 3.0), 0.7, "gaussian")
    expected = np.stack([reference(picture[..., c], kernel, mode="mirror") for c in range(3)], -1)
    assert np.allclose(convolve(picture, kernel), expected, atol=1e-5)
    assert np.allclose(convolve(np.full((8, 8, 3), 0.25, np.float32), kernel), 0.25, atol=1e-6)


def test_resize_draws_three_filters_and_keeps_the_mean() -> None:
    results = [resize(crop(), 24, 30, rng(seed)) for seed in range(20)]
    assert len({result.tobytes() for result in results}) == 3
    assert all(result.mean() == pytest.approx(crop().mean(), abs=0.003) for result in results)
    assert resize(crop(), 0, 0, rng()).shape == (1, 1, 3)


@pytest.mark.parametrize("gray", [True, False])
def test_gaussian_noise_has_its_sigma(gray: bool) -> None:
    flat = np.full((128, 128, 3), 0.5, np.float32)
    noise = gaussian_noise(flat, 10, gray, rng()) - flat
    assert noise.std() * 255 == pytest.approx(10, rel=0.03)
    assert abs(noise.mean()) * 255 < 0.3
    assert np.allclose(noise[..., 0], noise[..., 1], atol=1e-6) == gray


@pytest.mark.parametrize("gray", [True, False])
def test_poisson_noise_grows_with_brightness(gray: bool) -> None:
    ramp = np.repeat(np.linspace(0.05, 0.95, 256, dtype=np.float32)[None], 400, 0)[..., None].repeat(3, 2)
    noise = poisson_noise(ramp, 1.0, gray, rng()) - ramp
    dark, bright = noise[:, 20:40].std(), noise[:, 180:200].std()
    assert bright / dark == pytest.approx(np.sqrt(ramp[0, 190, 0] / ramp[0, 30, 0]), rel=0.1)
    assert bright == pytest.approx(np.sqrt(ramp[0, 190, 0] / 256), rel=0.1)
    assert np.allclose(noise[..., 0], noise[..., 2], atol=1e-6) == gray
    weak = poisson_noise(ramp, 0.25, gray, rng()) - ramp
    assert weak[:, 180:200].std() == pytest.approx(bright / 4, rel=0.1)


def test_jpeg_leaves_block_edges_that_quality_lessens() -> None:
    texture = np.clip(crop() + rng().normal(0, 0.08, (96, 120, 1)), 0, 1).astype(np.float32)

    def blockiness(picture: np.ndarray) -> float:
        steps = np.abs(np.diff(picture.mean(2), axis=1))
        return steps[:, 7::8].mean() / np.delete(steps, np.s_[7::8], 1).mean()

    assert blockiness(jpeg(texture, 10)) > 1.3
    assert 0.9 < blockiness(texture) < 1.1
    error = [np.abs(jpeg(texture, quality) - texture).mean() for quality in (30, 60, 95)]
    assert error == sorted(error, reverse=True)


def test_figures_are_the_papers() -> None:
    assert sum(realworld.KERNEL_ODDS) == pytest.approx(1)
    factors = [realworld._factor(realworld.FIRST, rng(seed)) for seed in range(2000)]
    assert np.mean([f > 1 for f in factors]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([f == 1 for f in factors]) == pytest.approx(0.1, abs=0.03)
    assert 0.15 <= min(factors) < 0.16
    assert 1.49 < max(factors) <= 1.5
