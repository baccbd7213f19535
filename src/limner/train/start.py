"""Where the weights of a run come from before its first step, and who teaches it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limner import bundle
from limner.config import RunConfig
from limner.errors import LimnerError
from limner.models.coder import Coder
from limner.models.painter import Painter
from limner.models.upscaler import Upscaler, shipped_order
from limner.train import checkpoint
from limner.train.grow import folded_kernels, grow
from limner.train.objectives.painting import Teacher as PaintingTeacher
from limner.train.objectives.upscale import Teacher
from limner.train.runs import CONFIG, load_network, load_painter, load_run, load_run_weights, read_config


def warm_start(network: nn.Module, init: str) -> None:
    """Begin with the weights of `init`: a run folder; for upscalers also a bundle, by folder or name in the zoo."""
    if isinstance(network, Painter):
        begin_as(network, painter_in(Path(init)), init)
    elif (Path(init) / CONFIG).is_file() or not isinstance(network, Upscaler):
        if not begin_larger(network, Path(init)):
            load_run_weights(network, Path(init))
    else:
        load_bundle_weights(network, bundle.read(init, bundle.UpscalerManifest))


def painter_in(run: Path) -> Painter:
    """The painter of a run folder, or the one that decodes in that of a coder."""
    if read_config(run).objective == "code":
        return load_network(run, Coder)[1].painter
    return load_painter(run)[1]


def begin_as(network: Painter, other: Painter, source: str) -> None:
    """Take the weights of another painter; a flow becomes a painter of one step by fixing its time at noise alone.

    Heads of whole pictures are of no use for detail: where only the new painter is a pyramid, its detail starts at 0.
    A smaller kernel becomes the middle of a larger one.
    """
    if not network.config.timed:
        other.fold()
    own = network.state_dict()
    taken = {name: centred(weight, own[name]) if name in own else weight for name, weight in other.state_dict().items()}
    checkpoint.load_weights(network, taken, source)
    for side, head in network.heads.items():
        if network.details(int(side)) and not other.details(int(side)):
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]


def centred(kernel: Tensor, like: Tensor) -> Tensor:
    """`kernel` (O, I, k, k) with zeros around it, up to the size of `like`; anything else as it is."""
    around = (like.shape[-1] - kernel.shape[-1]) // 2 if kernel.ndim == like.ndim == 4 else 0
    return F.pad(kernel, (around,) * 4) if around > 0 else kernel


def begin_larger(network: nn.Module, run: Path) -> bool:
    """Become the same function as the smaller upscaler of `run`; False where it is no smaller one of the same kind."""
    model = read_config(run).model
    if not isinstance(network, Upscaler):
        return False
    own = network.config
    if (model.kind, model.expansion) != (own.kind, own.expansion):
        return False
    smaller = (model.channels, model.width, model.depth) != (own.channels, own.width, own.depth)
    if smaller and model.width <= own.width and model.depth <= own.depth:
        return grow(network, folded_kernels(load_run(run)[1])) > 0
    return False


def load_bundle_weights(network: Upscaler, shipped: bundle.Bundle[bundle.UpscalerManifest]) -> None:
    """Load the kernels of a bundle's float graph in the order they run; a larger network becomes the same function."""
    import onnx  # part of the extra `compress`, which only this way of starting needs

    graph = onnx.load(shipped.graph("float")).graph
    constants = {each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in graph.initializer}
    convs = [[constants[name] for name in node.input[1:3]] for node in graph.node if node.op_type == "Conv"]
    cell = network.config.unshuffle
    if cell > 1:
        head = convs[0][0]
        convs[0][0] = head[:, np.argsort(shipped_order(cell, head.shape[1] // cell**2))]
    loaded = grow(network, [(kernel, bias) for kernel, bias in convs])
    if loaded < 2:
        raise LimnerError(
            f"{shipped.folder}: its network has no layers in common with this one; check the model settings."
        )


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
