"""Named runs: functions that return a whole RunConfig and derive from each other. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from limner.config import (
    AdversarialConfig,
    DataConfig,
    LossConfig,
    PackConfig,
    PainterConfig,
    QuantizeConfig,
    RunConfig,
    TrainConfig,
    UpscalerConfig,
)

# Terms that rule out shipping the weights: share-alike, and pictures for research only.
NOT_SHIPPABLE = ("by-sa", "non-commercial")
EMOJI = ("fluent-3d", "fluent-color", "fluent-flat", "fluent-high-contrast", "noto", "twemoji")


def photo_x4() -> RunConfig:
    """The fast photo upscaler: a separable trunk at full input resolution."""
    return RunConfig(
        name="photo-x4",
        data=DataConfig(exclude_licenses=NOT_SHIPPABLE),
        model=UpscalerConfig(scale=4, width=64, depth=12),
        loss=LossConfig(pixel="l1"),
        train=TrainConfig(
            images=104_000,
            batch=16,
            optimizer="muon",
            lr=3e-3,
            threads=1,
            sample_every=40_000,
            checkpoint_every=8_000,
        ),
        quantize=QuantizeConfig(images=20_000),
    )


def photo_x4_hq() -> RunConfig:
    """The better photo upscaler: twice as wide, a third deeper, 5x5 kernels. Start it from photo-x4 with train.init, or
    from a network between the two, as runs/photo-x4-hq.sh does.
    """
    return tuned(
        photo_x4(),
        "photo-x4-hq",
        model={"width": 128, "depth": 16, "kernel": 5},
        train={"images": 124_000, "lr": 2e-3},
        quantize={"images": 8_000},
        pack={"int8_tolerance": 1.0},  # deep integer chains amplify single roundings, which engines do differently
    )


def photo_x2() -> RunConfig:
    """Twice the size. Start it (train.init) from a run of this recipe with model.width=64, and that from photo-x4."""
    return tuned(
        photo_x4(),
        "photo-x2",
        model={"scale": 2, "width": 96, "depth": 16},
        train={"images": 48_000, "lr": 2.5e-3},
        quantize={"images": 16_000, "lr": 4e-4},
        pack={"int8_tolerance": 1.0},
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


def icons_x4() -> RunConfig:
    """Icons with alpha, four times the side. Start it from a photo-x4 run of the same trunk with train.init."""
    return tuned(
        photo_x4(),
        "icons-x4",
        model={"channels": 4, "width": 32},
        train={"images": 28_000, "batch": 8, "optimizer": "adamw", "lr": 2e-3, "crop": 40},
        quantize={"images": 4_000, "learn_grids": True},
    )


def icons_x2() -> RunConfig:
    """Icons with alpha, twice the side."""
    # At 43 dB the rounding of 8-bit activations shows in the figure, not in the picture.
    return tuned(icons_x4(), "icons-x2", model={"scale": 2}, train={"images": 16_000}, pack={"max_drop": 1.5})


def icons_match() -> RunConfig:
    """The encoder of pictures and prompts inside the losses of painters. It learns from half of the groups."""
    return RunConfig(
        name="icons-match",
        task="generate",
        objective="match",
        data=DataConfig(exclude_licenses=NOT_SHIPPABLE),
        loss=LossConfig(alphas=(1.0,) * 4),
        adversarial=AdversarialConfig(width=64),
        train=TrainConfig(
            images=200_000,
            batch=64,
            optimizer="adamw",
            lr=2e-3,
            warmup=6_400,
            threads=1,
            checkpoint_every=19_200,
            sample_every=38_400,
        ),
    )


def icons_direct() -> RunConfig:
    """The icon painter, learned from the pictures themselves; an adversary joins for the last part."""
    return RunConfig(
        name="icons",
        task="generate",
        objective="direct",
        data=DataConfig(exclude_licenses=NOT_SHIPPABLE),
        painter=PainterConfig(noise=16),
        loss=LossConfig(pixel="l1", alphas=(0.5, 0.5, 0.5, 1.0), best_of=2),
        pack=PackConfig(alpha_gain=16),
        adversarial=AdversarialConfig(weight=0.5, balance=True, width=64, gamma=0.2, penalty_every=8, start_share=0.6),
        train=TrainConfig(
            images=1_200_000,
            batch=32,
            optimizer="adamw",
            lr=3e-3,
            warmup=6_400,
            threads=1,
            checkpoint_every=9_600,
            sample_every=38_400,
        ),
    )


def icons_code() -> RunConfig:
    """First stage of the painter that ships: its trunk learns to decode pictures from codes."""
    return tuned(
        icons_direct(),
        "icons-code",
        top={"objective": "code"},
        data={"styles": EMOJI, "recolour": 3, "looks": True},
        painter={
            "kind": "dense",
            "expansion": 1,
            "cell": 2,
            "widths": (32, 64, 128, 256),
            "down": (0, 0, 0),
            "up": (2, 2, 2),
            "middle": 0,
            "attention": (2,),
            "memory": 1024,
            "thoughts": 3,
            "code": 64,
            "noise": 8,
            "mood": True,
            "pyramid": True,
            "head_kernel": 3,
        },
        loss={"best_of": 1},
        adversarial={"weight": 0.0},
        train={
            "images": 320_000,
            "batch": 64,
            "optimizer": "muon",
            "lr": 2e-3,
            "checkpoint_every": 16_000,
            "sample_every": 64_000,
        },
    )


def icons_recall() -> RunConfig:
    """Second stage: text learns the codes of its pictures. code.run and train.init name the run of icons-code."""
    return tuned(
        icons_code(),
        "icons-recall",
        top={"objective": "recall"},
        loss={"best_of": 2},
        train={
            "images": 1_500_000,
            "batch": 256,
            "optimizer": "adamw",
            "lr": 1.5e-3,
            "warmup": 25_600,
            "checkpoint_every": 160_000,
            "sample_every": 320_000,
            "log_every": 16_000,
        },
    )


def icons_vivid() -> RunConfig:
    """Third stage: all of it, end to end, with an adversary. Start it from icons-recall with train.init."""
    return tuned(
        icons_code(),
        "icons",
        top={"objective": "direct"},
        data={"upright": ("symbols", "flags", "extras-unicode", "travel-places/time")},
        loss={"best_of": 2},
        # A weight of 2 throws away in minutes what was recalled (docs/log.md, 2026-11-27).
        adversarial={
            "weight": 1.0,
            "start_share": 0.0,
            "head_start": 0.05,
            "cell": 2,
            "width": 48,
            "lr": 1e-3,
            "versions": 1.0,
        },
        pack={"alpha_gain": 1.5, "variety": 0.15, "float_graph": False},
        train={
            "images": 144_000,
            "batch": 32,
            "lr": 4e-4,
            "optimizer": "adamw",
            "warmup": 1_600,
            "checkpoint_every": 6_400,
            "sample_every": 12_800,
        },
    )


def icons_gan() -> RunConfig:
    """The baseline: the same painter from the adversary and the text match alone."""
    return tuned(
        icons_direct(),
        "icons-gan",
        loss={"alphas": (0.0,) * 4, "best_of": 1},
        adversarial={"weight": 1.0, "balance": False, "start_share": 0.0},
        train={"lr": 4e-4},
    )


def icons_teacher() -> RunConfig:
    """Flow matching: many steps, and the pictures that the student learns from."""
    return tuned(
        icons_direct(),
        "icons-teacher",
        top={"objective": "flow"},
        painter={"noise": 64, "timed": True},
        loss={"alphas": (0.1, 0.1, 0.2, 1.0), "best_of": 1},
        adversarial={"weight": 0.0},
    )


def icons_pairs() -> RunConfig:
    """Noise, caption and the picture that icons-teacher paints from them. Name it with pairs.teacher."""
    return tuned(icons_teacher(), "icons-pairs", top={"objective": "pairs"})


def icons() -> RunConfig:
    """The one-step student of icons-teacher. Start it from that run with train.init; pairs.folder holds its pairs."""
    return tuned(
        icons_direct(),
        "icons",
        top={"objective": "student"},
        painter={"noise": 64},
        loss={"best_of": 1},
        adversarial={"start_share": 0.5},
    )


def tuned(config: RunConfig, name: str | None = None, **sections: dict[str, object]) -> RunConfig:
    """`config` with some keys of some sections replaced: tuned(photo_x4(), "mine", model={"depth": 4}).

    `top` replaces keys outside the sections.
    """
    raw: dict[str, Any] = config.model_dump() | ({"name": name} if name else {}) | sections.pop("top", {})
    for key, change in sections.items():
        raw[key] = raw[key] | change
    return RunConfig.model_validate(raw)


RECIPES: dict[str, Callable[[], RunConfig]] = {
    "icons": icons,
    "icons-code": icons_code,
    "icons-direct": icons_direct,
    "icons-gan": icons_gan,
    "icons-match": icons_match,
    "icons-pairs": icons_pairs,
    "icons-recall": icons_recall,
    "icons-teacher": icons_teacher,
    "icons-vivid": icons_vivid,
    "icons-x2": icons_x2,
    "icons-x4": icons_x4,
    "photo-x2": photo_x2,
    "photo-x4": photo_x4,
    "photo-x4-hq": photo_x4_hq,
    "photo-x4-real": photo_x4_real,
    "photo-x4-sharp": photo_x4_sharp,
}
