"""Named runs: functions that return a whole RunConfig and derive from each other. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from limner.config import (
    DataConfig,
    LossConfig,
    QuantizeConfig,
    RunConfig,
    TrainConfig,
    UpscalerConfig,
)

# Terms that rule out shipping the weights: share-alike, and pictures for research only.
NOT_SHIPPABLE = ("by-sa", "non-commercial")


def photo_x4() -> RunConfig:
    """The fast photo upscaler: groups of 16 channels, then 1x1, at full input resolution."""
    return RunConfig(
        name="photo-x4",
        data=DataConfig(exclude_licenses=NOT_SHIPPABLE),
        model=UpscalerConfig(scale=4, kind="grouped", width=32, depth=6),
        loss=LossConfig(pixel="l1"),
        train=TrainConfig(images=120_000, batch=8, lr=4e-3, threads=1, sample_every=20_000, checkpoint_every=8_000),
        quantize=QuantizeConfig(images=12_000),
    )


def photo_x4_hq() -> RunConfig:
    """The better photo upscaler: three times the time."""
    return tuned(
        photo_x4(),
        "photo-x4-hq",
        model={"kind": "dense", "width": 48, "depth": 8},
        train={"images": 110_000, "lr": 3e-3},
        quantize={"images": 8_000},
    )


def photo_x2() -> RunConfig:
    """Twice the size: a separable trunk. It starts from the bundle that ships (train.init=none starts afresh)."""
    return tuned(
        photo_x4_hq(),
        "photo-x2",
        model={"scale": 2, "kind": "separable", "width": 64, "depth": 16},
        train={"images": 40_000, "lr": 1.5e-3, "init": "photo-x2"},
        quantize={"images": 8_000, "lr": 3e-4},
    )


def photo_x4_sharp() -> RunConfig:
    """photo-x4-hq with the adversarial term: crisper, less faithful. Start it from that run with train.init."""
    return tuned(
        photo_x4_hq(),
        "photo-x4-sharp",
        loss={"l2_share": 0.0},
        adversarial={"weight": 0.005, "start_share": 0.0},
        train={"images": 80_000, "lr": 2e-4},
        pack={"min_gain": -2.0},
    )


def photo_x4_real() -> RunConfig:
    """photo-x4-hq for pictures that were blurred, resized, noisy and compressed before they came here."""
    return tuned(photo_x4_hq(), "photo-x4-real", degrade={"kind": "realworld"}, pack={"min_gain": -2.0})


def tuned(config: RunConfig, name: str | None = None, **sections: dict[str, object]) -> RunConfig:
    """`config` with some keys of some sections replaced: tuned(photo_x4(), "mine", model={"depth": 4})."""
    raw: dict[str, Any] = config.model_dump() | ({"name": name} if name else {})
    for key, change in sections.items():
        raw[key] = raw[key] | change
    return RunConfig.model_validate(raw)


RECIPES: dict[str, Callable[[], RunConfig]] = {
    "photo-x2": photo_x2,
    "photo-x4": photo_x4,
    "photo-x4-hq": photo_x4_hq,
    "photo-x4-real": photo_x4_real,
    "photo-x4-sharp": photo_x4_sharp,
}
