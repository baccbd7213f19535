"""Where the weights of a run come from before its first step, and who teaches it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from limner import bundle
from limner.config import RunConfig
from limner.errors import LimnerError
from limner.models.coder import Coder
from limner.models.painter import Block, Painter
from limner.models.upscaler import Upscaler, shipped_order
from limner.train import checkpoint, shipped
from limner.train.grow import centred, folded_kernels, grow
from limner.train.objectives.base import Objective
from limner.train.objectives.painting import Teacher as PaintingTeacher
from limner.train.objectives.upscale import Teacher
from limner.train.runs import CONFIG, load_network, load_painter, load_run, load_run_weights, read_config


def warm_start(network: nn.Module, init: str) -> None:
    """Begin with the weights of `init`: a run folder, or a bundle by folder or name in the zoo."""
    if isinstance(network, Painter):
        begin_as(network, painter_in(init), init)
    elif isinstance(network, Coder) and not _of_a_coder(init):
        begin_as(network.painter, painter_in(init), init)
    elif (Path(init) / CONFIG).is_file() or not isinstance(network, Upscaler):
        if not begin_larger(network, Path(init)):
            load_run_weights(network, Path(init))
    else:
        load_bundle_weights(network, bundle.read(init, bundle.UpscalerManifest))


def _of_a_coder(init: str) -> bool:
    return (Path(init) / CONFIG).is_file() and read_config(Path(init)).objective == "code"


def painter_in(init: str) -> Painter:
    """The painter of a run folder or of a bundle, or the one that decodes in the run folder of a coder."""
    run = Path(init)
    if not (run / CONFIG).is_file():
        return shipped.painter(bundle.read(init, bundle.PainterManifest))
    if _of_a_coder(init):
        return load_network(run, Coder)[1].painter
    return load_painter(run)[1]


def begin_as(network: Painter, other: Painter, source: str) -> None:
    """Take the weights of another painter; a flow becomes a painter of one step by fixing its time at noise alone.

    Heads of whole pictures are of no use for detail: where only the new painter is a pyramid, its detail starts at 0.
    A smaller kernel becomes the middle of a larger one. Of a deeper stage the first blocks are taken; blocks and
    thoughts that the other painter lacks begin by passing what they get.
    """
    if not network.config.timed:
        other.fold()
    own = network.state_dict()
    taken = {name: centred(weight, own[name]) if name in own else weight for name, weight in other.state_dict().items()}
    taken |= {name: own[name] * 0 for name in own if name.startswith("thoughts.") and name not in taken}
    if depths(network) != depths(other):
        taken = restaged(network, other, taken)
    checkpoint.load_weights(network, taken, source)
    for side, head in network.heads.items():
        if network.details(int(side)) and not other.details(int(side)):
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]


def depths(painter: Painter) -> list[int]:
    """Number of blocks in every stage, in the order they run."""
    return [len(stage) for stage in painter.stages()]


def restaged(network: Painter, other: Painter, taken: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights `taken` from `other`, with the blocks that `network` has, and its part of the FiLM vector."""
    own, blocks = network.state_dict(), [name for name, module in network.named_modules() if isinstance(module, Block)]
    old = [name for name, module in other.named_modules() if isinstance(module, Block)]
    dropped = tuple(f"{name}." for name in old if name not in blocks)
    kept = {name: weight for name, weight in taken.items() if not name.startswith(dropped)}
    for name in blocks:
        if name not in old:
            kept |= {key: weight for key, weight in own.items() if key.startswith(f"{name}.")}
            kept |= {f"{name}.narrow.{part}": own[f"{name}.narrow.{part}"] * 0 for part in ("weight", "bias")}
    return kept | {f"film.{part}": film_rows(network, other, taken[f"film.{part}"]) for part in ("weight", "bias")}


def film_rows(network: Painter, other: Painter, film: Tensor) -> Tensor:
    """The rows of a FiLM layer for the blocks of `network`: those of the same blocks of `other`, 0 for new ones."""
    parts, widths = iter(film.split(other.film_widths())), iter(network.film_widths())
    rows: list[Tensor] = []
    for stage, old in zip(network.stages(), other.stages(), strict=True):
        known, wanted = [next(parts) for _ in old], [next(widths) for _ in stage]
        rows += known[: len(wanted)]
        rows += [film.new_zeros(width, *film.shape[1:]) for width in wanted[len(known) :]]
    return torch.cat(rows)


def begin_larger(network: nn.Module, run: Path) -> bool:
    """Become the same function as the smaller upscaler of `run`; False where it is no smaller one of the same kind."""
    model = read_config(run).model
    if not isinstance(network, Upscaler):
        return False
    own = network.config
    if (model.kind, model.expansion) != (own.kind, own.expansion):
        return False
    sizes = [(shape.width, shape.depth, shape.kernel) for shape in (model, own)]
    smaller = sizes[0] != sizes[1] or model.channels != own.channels
    if smaller and all(theirs <= ours for theirs, ours in zip(*sizes, strict=True)):
        return grow(network, folded_kernels(load_run(run)[1])) > 0
    return False


def load_bundle_weights(network: Upscaler, source: bundle.Bundle[bundle.UpscalerManifest]) -> None:
    """Load the kernels of a bundle's graph in the order they run; a larger network becomes the same function."""
    (head, offset), *others = shipped.kernels(source)
    cell = network.config.unshuffle
    if cell > 1:
        head = head[:, np.argsort(shipped_order(cell, head.shape[1] // cell**2))]
    if grow(network, [(head, offset), *others]) < 2:
        raise LimnerError(
            f"{source.folder}: its network has no layers in common with this one; check the model settings."
        )


def critic_of(config: RunConfig, objective: Objective) -> nn.Module | None:
    """The critic of the run adversarial.init; what judges places begins anew where that one judged wholes alone.

    Raises LimnerError when that run has no critic, or one of another shape.
    """
    source = config.adversarial.init
    if not (source and config.adversarial.weight):
        return None
    weights = critic_weights(Path(source))
    if not weights:
        raise LimnerError(f"{source}: no critic there to begin with; name a run that was trained with an adversary.")
    critic = objective.critic()
    places = {name: weight for name, weight in critic.state_dict().items() if name.startswith("part.")}
    checkpoint.load_weights(critic, places | weights, source)
    return critic


def critic_weights(run: Path) -> dict[str, Tensor]:
    """The weights of the adversary of a run; none where it had none or did not keep it."""
    found = checkpoint.load(run)
    return checkpoint.section(found[0], "critic") if found else {}


def teacher_of(config: RunConfig, device: torch.device) -> Teacher | None:
    if not (config.train.teacher and config.loss.distill):
        return None
    network = load_run(Path(config.train.teacher))[1].fold().to(device)
    return torch.no_grad()(network.__call__)


def painting_teacher_of(config: RunConfig, device: torch.device) -> PaintingTeacher | None:
    """The painter to distill from. Raises LimnerError when its noise or its pictures have another shape."""
    if not (config.train.teacher and config.loss.distill):
        return None
    network = load_painter(Path(config.train.teacher))[1].fold().to(device)
    theirs, ours = network.config, config.painter
    if (theirs.noise, theirs.grids[0], theirs.sides) != (ours.noise, ours.grids[0], ours.sides):
        raise LimnerError(
            f"{config.train.teacher}: cannot teach this painter: its noise or the sizes of its pictures differ; "
            "keep painter.size, cell, noise and the number of widths."
        )
    return torch.no_grad()(network.levels)
