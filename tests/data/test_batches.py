from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from limner.config import DegradeConfig, TrainConfig
from limner.data.batches import MARGINS, CropSampler, decode_all
from limner.data.degrade import degrade, shrink
from limner.data.records import from_columns
from limner.errors import LimnerError
from limner.resample import resize, resize_uint8


def pictures(count: int = 3, side: int = 192) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [resize_uint8(rng.integers(0, 256, (side // 8, side // 8, 3), np.uint8), side, side) for _ in range(count)]


def sampler(scale: int = 2, **knobs: object) -> CropSampler:
    plan = TrainConfig.model_validate({"batch": 6, "crop": 16, **knobs})
    return CropSampler(pictures(), scale, plan, DegradeConfig())


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_pairs_line_up(scale: int) -> None:
    low, high = sampler(scale).batch(0)
    assert low.shape == (6, 3, 16, 16)
    assert high.shape == (6, 3, 16 * scale, 16 * scale)
    inner = shrink(high, scale).clamp(0, 1)[:, :, 4:-4, 4:-4]
    assert (inner - low[:, :, 4:-4, 4:-4]).abs().max() < 1 / 255


def test_crops_see_real_neighbours_not_a_mirror() -> None:
    """The border of `low` agrees with shrinking the whole picture."""
    picture = pictures(1, 96)[0]
    plan = TrainConfig(batch=1, crop=96 // 2 - 2 * MARGINS["bicubic"])
    low, _ = CropSampler([picture], 2, plan, DegradeConfig()).batch(0)
    whole = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float() / 255
    small = shrink(whole[None], 2).clamp(0, 1)[
        0, :, MARGINS["bicubic"] : -MARGINS["bicubic"], MARGINS["bicubic"] : -MARGINS["bicubic"]
    ]
    turned = [torch.rot90(t, k, (1, 2)) for t in (small, small.transpose(1, 2)) for k in range(4)]
    assert min((low[0] - t).abs().max().item() for t in turned) <= 0.5 / 255 + 1e-5


def test_draws_depend_on_seed_and_step_only() -> None:
    assert torch.equal(sampler().batch(7).high, sampler().batch(7).high)
    assert not torch.equal(sampler().batch(7).high, sampler().batch(8).high)
    assert not torch.equal(sampler().batch(7).high, sampler(seed=1).batch(7).high)


def test_ranks_share_the_global_batch() -> None:
    whole = sampler().batch(3)
    for rank in (0, 1):
        part = sampler().batch(3, rank, 2)
        assert torch.equal(part.low, whole.low[rank::2])
        assert torch.equal(part.high, whole.high[rank::2])


def test_multiscale_adds_shrunk_pictures() -> None:
    plain, pyramid = sampler(crop=8), sampler(crop=8, multiscale=True)
    assert len(pyramid.pictures) == 3 * len(plain.pictures)
    assert {p.shape[1] for p in pyramid.pictures} == {192, 144, 96}


def test_low_is_rounded_to_bytes() -> None:
    low = sampler().batch(0).low * 255
    assert torch.allclose(low, low.round(), atol=1e-4)
    assert low.min() >= 0
    assert low.max() <= 255


def test_too_small_pictures_are_named() -> None:
    with pytest.raises(LimnerError, match=r"lower train\.crop"):
        sampler(4, crop=48)


@pytest.mark.parametrize("kind", ["bicubic", "decimate"])
def test_torch_and_numpy_agree(kind: str) -> None:
    picture = pictures(1, 64)[0].astype(np.float32) / 255
    ours = shrink(torch.from_numpy(picture).permute(2, 0, 1)[None], 4, kind)[0].permute(1, 2, 0).numpy()
    assert np.allclose(ours, resize(picture, 16, 16, kind), atol=1e-5)  # type: ignore[arg-type]


def test_realworld_is_deterministic_and_worse() -> None:
    high = torch.from_numpy(np.stack(pictures(2, 64)).transpose(0, 3, 1, 2).copy()).float() / 255
    config = DegradeConfig(kind="realworld")
    first, second = (degrade(high, 4, config, [np.random.default_rng(i) for i in range(2)]) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (2, 3, 16, 16)
    assert not torch.allclose(first, shrink(high, 4), atol=0.02)


def test_realworld_batches_do_not_depend_on_the_number_of_processes() -> None:
    plan = TrainConfig(batch=4, crop=16)
    one = CropSampler(pictures(), 2, plan, DegradeConfig(kind="realworld"))
    assert torch.equal(one.batch(3, 1, 2).low, one.batch(3).low[1::2])


def test_transparent_pictures_are_seen_on_white() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(file, "PNG")
    record = from_columns("clear.png", {}, "group", file.getvalue)
    assert decode_all([record])[0].min() == 255
