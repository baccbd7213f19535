"""From a user's generator to a separable bundle: plan, time, keep dense what would not pay, distil, quantize, pack."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from torch import Tensor, nn

import limner
from limner import bundle
from limner.bundle import Bundle, Graph, Source, UpscalerManifest
from limner.compress import separate as method
from limner.compress.separate import LayerPlan, SeparateConfig
from limner.compress.steps import PICTURE, Separable, StepNetwork, quantize_steps
from limner.config import DataConfig, DegradeConfig, QuantizeConfig, TrainConfig
from limner.data.batches import CropSampler, decode_all
from limner.data.records import load_split
from limner.errors import LimnerError
from limner.evaluate.report import evaluate, to_json
from limner.evaluate.sets import PictureSet
from limner.export.step_graph import alone, build_steps
from limner.runtime.backends import AUTO, BACKENDS, open_engine
from limner.runtime.bench import interleaved
from limner.runtime.painters import Upscaler as Painter

TOLERANCE, INT8_TOLERANCE = 2e-3, 1.5
HELD_OUT = 2**31  # steps from here on are drawn for calibration and scores only
PAYS = 0.97  # a network that gains less than this against dense is not worth its error
Advance = Callable[[str, int, int], None]


class Place(NamedTuple):
    """Where times are taken: input size in pixels, engine, threads, and how often."""

    width: int = 160
    height: int = 90
    engine: str = AUTO
    threads: int = 1
    repeats: int = 15


@dataclass(frozen=True)
class Separated:
    """What was decided and measured. `times`: ms of the whole int8 network by candidate, see `decide`.
    `psnr`: dB on fresh crops of the user's pictures, by network. `chosen`: the candidate that was packed.
    """

    layers: tuple[LayerPlan, ...]
    times: dict[str, float]
    ran: dict[str, str]
    chosen: str
    psnr: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain data, figures rounded."""
        layers = [{key: _rounded(value) for key, value in asdict(each).items()} for each in self.layers]
        figures = {"times_ms": self.times, "psnr_db": self.psnr}
        rounded = {key: {name: round(each, 4) for name, each in values.items()} for key, values in figures.items()}
        return {"layers": layers, "ran": self.ran, "chosen": self.chosen, **rounded}


def _rounded(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


class Crops:
    """Pictures of the user's, as the network's inputs and as the truth."""

    def __init__(self, data: Path, scale: int, config: SeparateConfig) -> None:
        records = load_split(data, "train", DataConfig(validation_fraction=0.0))
        train = TrainConfig(batch=config.batch, crop=config.crop, seed=config.seed)
        self.pictures, self.source = len(records), data.name
        self.sampler, self.config = CropSampler(decode_all(records), scale, train, DegradeConfig()), config

    def low(self, step: int) -> Tensor:
        return self.sampler.batch(step).low

    def calibration(self) -> Tensor:
        """(calibration_crops, 3, crop, crop) in 0..1."""
        count = self.config.calibration_crops
        batches = -(-count // self.config.batch)
        return torch.cat([self.low(HELD_OUT + step) for step in range(batches)])[:count]

    def score(self, network: nn.Module) -> float:
        """Mean PSNR in dB, RGB, of two batches that nothing learned from."""
        batches = [self.sampler.batch(2 * HELD_OUT + step) for step in range(2)]
        with torch.no_grad():
            errors = [(network(low).clamp(0, 1) - high).square().mean((1, 2, 3)) for low, high in batches]
        return float((-10 * torch.cat(errors).clamp_min(1e-10).log10()).mean())


def separate(
    network: StepNetwork,
    crops: Crops,
    config: SeparateConfig,
    place: Place,
    advance: Advance = lambda *_: None,
) -> tuple[Separated, StepNetwork, StepNetwork]:
    """Plan, measure, decide and distil. Returns the record, the float network, and the integer one.

    Raises UsageError that names the layer when config.rank is out of range.
    """
    torch.manual_seed(config.seed)
    low = crops.calibration()
    record, layers = decide(network, low, config, place, advance)
    student = method.replaced(network, layers)
    if layers:
        method.distil_layers(student, network, low, config, partial(advance, "layers"))
        method.distil(student, network, crops.low, config.steps, config.lr, partial(advance, "end to end"))
    integer = method.quantized(student, low)
    rounding = partial(advance, "through the rounding")
    method.distil(integer, network, crops.low, config.rounding_steps, config.lr / 5, rounding)
    scored = {"dense float": network, "float": student, "int8": integer}
    psnr = {name: crops.score(each) for name, each in scored.items()}
    return Separated(record.layers, record.times, record.ran, record.chosen, psnr), student, integer


def decide(
    network: StepNetwork, low: Tensor, config: SeparateConfig, place: Place, advance: Advance = lambda *_: None
) -> tuple[Separated, dict[int, Separable]]:
    """Which layers become separable: those that are faster alone, unless the whole network then is not.

    Candidates timed as a whole: all dense; as planned layer by layer; everything separable that can be; the same but
    for what reads the picture, whose three channels the fused engine takes only dense.
    """
    plans, fitted = method.plan(network, low, config)
    method.check_ranks(plans, config)
    plans = time_layers(network, plans, fitted, place, partial(advance, "timing layers"))
    paying = {plan.number: fitted[plan.number] for plan in plans if plan.verdict == "separable"}
    inner = {number: layer for number, layer in fitted.items() if PICTURE not in network.steps[number - 1].inputs}
    wanted = {"dense": {}, "separable": fitted, "separable inside": inner, "planned": paying}
    choices: dict[str, dict[int, Separable]] = {}
    for name, each in wanted.items():
        if (each or name == "dense") and each not in choices.values():
            choices[name] = each
    small = low[:2]
    candidates = {name: quantize_steps(method.replaced(network, each), small, _QUICK) for name, each in choices.items()}
    times, ran = time_networks(candidates, place)
    chosen = min(times, key=lambda name: times[name] * (PAYS if name == "dense" else 1))
    plans = [_final(plan, choices[chosen]) for plan in plans]
    return Separated(tuple(plans), times, ran, chosen, {}), choices[chosen]


_QUICK = QuantizeConfig(learn_grids=False, calibration="minmax")


def _final(plan: LayerPlan, chosen: Mapping[int, Separable]) -> LayerPlan:
    if plan.number in chosen:
        return plan if plan.verdict == "separable" else replace(plan, verdict="separable", reason=_TOGETHER)
    return plan.kept("the whole network is faster dense") if plan.verdict == "separable" else plan


_TOGETHER = "slower alone, but the whole network is faster with it"


def time_layers(
    network: StepNetwork,
    plans: Sequence[LayerPlan],
    fitted: Mapping[int, Separable],
    place: Place,
    advance: Callable[[int, int], None] = lambda *_: None,
) -> list[LayerPlan]:
    """The plans with the int8 time of every layer that could be separable, dense and as terms. Equal shapes are timed
    once.
    """
    sides, known, timed = network.resolutions(), {}, []
    for done, plan in enumerate(plans, 1):
        part = network.parts[plan.number - 1]
        if plan.number in fitted and isinstance(part, nn.Conv2d):
            key = plan.shape, plan.terms, sides[plan.number]
            if key not in known:
                pair = {"dense": part, "separable": fitted[plan.number]}
                around = {name: alone(each, part.in_channels, part.out_channels) for name, each in pair.items()}
                grids = {name: quantize_steps(each, torch.rand(1, 3, 16, 16), _QUICK) for name, each in around.items()}
                known[key] = time_networks(grids, place, sides[plan.number])
            times, ran = known[key]
            plan = plan.timed(times["dense"], times["separable"], (ran["dense"], ran["separable"]))  # noqa: PLW2901
        timed.append(plan)
        advance(done, len(plans))
    return timed


def time_networks(
    networks: Mapping[str, StepNetwork], place: Place, side: float = 1.0
) -> tuple[dict[str, float], dict[str, str]]:
    """Least ms per picture of integer networks, in turns, and the engine that ran each. `side`: enlarges the input.

    The least, not the median: on a busy machine long runs are interrupted and short ones are not, which would make
    small networks look far better than they are.
    """
    height, width = round(place.height * side), round(place.width * side)
    picture = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    sessions, ran = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, network in networks.items():
            path = Path(folder) / f"{name}.onnx"
            onnx.save(build_steps(network, name), path)
            engine = open_engine(place.engine, path, place.threads)
            sessions[name], ran[name] = partial(engine.session(height, width), picture), engine.name
        times = interleaved(list(sessions.values()), place.repeats, lambda done, total: None)
    return {name: float(own.min()) for name, own in zip(sessions, times, strict=True)}, ran


def pack_separated(
    record: Separated,
    networks: tuple[StepNetwork, StepNetwork],
    crops: Crops,
    out: Path,
    *,
    source: str,
    license: str,
    config: SeparateConfig,
    sets: Sequence[PictureSet] = (),
) -> Bundle[UpscalerManifest]:
    """Write the bundle of the float and the integer network. Raises LimnerError when an engine differs from torch."""
    exact, integer = networks
    with tempfile.TemporaryDirectory() as draft:
        files = {f"{kind}.onnx": Path(draft) / f"{kind}.onnx" for kind in ("float", "int8")}
        for network, path in zip(networks, files.values(), strict=True):
            onnx.save(build_steps(network, out.name), path)
        manifest = UpscalerManifest(
            name=out.name,
            description=f"{Path(source).name}, made separable",
            scale=exact.scale,
            radius=exact.radius,
            graphs={
                "float": Graph(file="float.onnx", dtype="float32"),
                "int8": Graph(file="int8.onnx", dtype="uint8"),
            },
            license=license,
            sources=(Source(source=crops.source, license=license, pictures=crops.pictures),),
            parameters=exact.parameters_shipped(),
            macs_per_pixel=exact.macs_per_pixel(),
            recipe={"separate": config.model_dump(mode="json"), "network": Path(source).name},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            limner=limner.__version__,
            files={},
        )
        trial = bundle.write(Path(draft) / "trial", manifest, files)
        scores: dict[str, Any] = {"parity": _parity(trial, exact, integer, crops), "separate": record.to_json()}
        if sets:
            scores["fidelity"] = _fidelity(trial, sets)
        return bundle.write(out, manifest.model_copy(update={"scores": scores}), files)


def _fidelity(trial: Bundle[UpscalerManifest], sets: Sequence[PictureSet]) -> dict[str, Any]:
    painters = {kind: Painter.load(trial.folder, precision=kind) for kind in ("float", "int8")}
    return {kind: to_json(evaluate(each.upscale, sets, each.scale)) for kind, each in painters.items()}


@torch.no_grad()
def _parity(
    trial: Bundle[UpscalerManifest], exact: StepNetwork, integer: StepNetwork, crops: Crops
) -> dict[str, dict[str, float]]:
    """Largest float error and mean int8 error (LSB) of every engine on a few crops."""
    low = crops.low(HELD_OUT)[:2].permute(0, 2, 3, 1).contiguous()
    levels = low.mul(255).round().byte()
    fed = {"float": low.numpy(), "int8": levels.numpy()}
    wanted = {
        "float": exact(low.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy(),
        "int8": integer(levels.permute(0, 3, 1, 2) / 255).mul(255).round().clamp(0, 255).permute(0, 2, 3, 1).numpy(),
    }
    found: dict[str, dict[str, float]] = {}
    for engine in BACKENDS:
        gaps = {kind: _gap(trial, kind, engine, fed[kind], wanted[kind]) for kind in ("float", "int8")}
        found[engine] = {"float": round(float(gaps["float"].max()), 7), "int8": round(float(gaps["int8"].mean()), 5)}
        if found[engine]["float"] > TOLERANCE or found[engine]["int8"] > INT8_TOLERANCE:
            raise LimnerError(
                f"{trial.manifest.name}: {engine} differs from torch by {found[engine]}, more than {TOLERANCE} (float) "
                f"or {INT8_TOLERANCE} last bits (int8); nothing was written, please report the network."
            )
    return found


def _gap(trial: Bundle[UpscalerManifest], kind: bundle.Precision, engine: str, low: Any, wanted: Any) -> Any:
    session = open_engine(engine, trial.graph(kind)).session(*low.shape[1:3])
    return np.abs(np.concatenate([session(each[None]) for each in low]).astype(np.float64) - wanted)
