"""Named runs: functions that return a whole RunConfig and derive from each other. No torch."""

from __future__ import annotations

from collections.abc import Callable

from limner.config import (
    DataConfig,
    LossConfig,
    QuantizeConfig,
    RunConfig,
    Section,
    TrainConfig,
    UpscalerConfig,
)

# Terms that rule out shipping the weights: share-alike, and pictures for research only.
NOT_SHIPPABLE = ("by-sa", "non-commercial")


def photo_x4() -> RunConfig:
    """The fast photo upscaler: a separable trunk at full input resolution."""
    return RunConfig(
        name="photo-x4",
        data=DataConfig(exclude_licenses=NOT_SHIPPABLE),
        model=UpscalerConfig(scale=4, width=32, depth=12),
        loss=LossConfig(pixel="l1"),
        train=TrainConfig(images=280_000, batch=8, threads=1, sample_every=20_000, checkpoint_every=8_000),
        quantize=QuantizeConfig(images=24_000),
    )


def photo_x4_hq() -> RunConfig:
    """The better photo upscaler: twice as wide, a third deeper."""
    return tuned(photo_x4(), name="photo-x4-hq", model={"width": 64, "depth": 16}, train={"images": 140_000})


def tuned(config: RunConfig, **sections: dict[str, object]) -> RunConfig:
    """`config` with some keys of some sections replaced: tuned(photo_x4(), name=..., model={"depth": 4})."""
    update: dict[str, object] = {}
    for key, change in sections.items():
        section = getattr(config, key)
        update[key] = section.model_validate(section.model_dump() | change) if isinstance(section, Section) else change
    return RunConfig.model_validate({**dict(config), **update})


RECIPES: dict[str, Callable[[], RunConfig]] = {"photo-x4": photo_x4, "photo-x4-hq": photo_x4_hq}
