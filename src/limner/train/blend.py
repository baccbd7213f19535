"""A network between two: one that is faithful, and one that an adversary made vivid from it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from limner.config import RunConfig
from limner.errors import LimnerError, UsageError
from limner.models import NETWORKS
from limner.train import checkpoint
from limner.train.runs import CONFIG, derive_run, load_network
from limner.train.start import centred, warm_start

RECORD = "blended.json"


def blend(faithful: str | Path, vivid: Path, out: Path, share: float) -> None:
    """Write the run folder `out`: the network (1 - share) * faithful + share * vivid, with the settings of `vivid`.

    `faithful`: a run folder, or the bundle (name or folder) that `vivid` began with.

    Network interpolation (Wang et al. 2018, ESRGAN, eq. 4): weights are mixed, not pictures, so that it costs nothing
    at run time. It needs `vivid` to have begun as `faithful` (train.init); of unrelated runs nothing useful comes out.
    Branches of upscalers are mixed before they are folded.

    Raises UsageError for a share outside 0..1 or an `out` that exists, LimnerError when the networks differ in shape.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"share={share} is out of range: give 0 (all {Path(faithful).name}) to 1 (all {vivid.name}).")
    if out.exists():
        raise UsageError(f"{out}: exists already; choose another --out.")
    config, network = load_network(vivid, nn.Module)
    before = _beginning(config, faithful).state_dict()
    mixed = {name: _mixed(name, before, weight, share, faithful) for name, weight in network.named_parameters()}
    tensors = {f"{part}.{name}": weight.clone() for part in ("network", "ema") for name, weight in mixed.items()}
    record = {"faithful": str(faithful), "vivid": str(vivid), "share": share}
    found = checkpoint.load(vivid)
    assert found is not None
    derive_run(vivid, out, config, tensors, found[1]["images"], record, RECORD)


def _beginning(config: RunConfig, source: str | Path) -> nn.Module:
    """The network of a run folder; that of a bundle as a run with these settings begins with it, branch by branch."""
    if (Path(source) / CONFIG).is_file():
        return load_network(Path(source), nn.Module)[1]
    torch.manual_seed(config.train.seed)
    network = NETWORKS[config.objective](config)
    warm_start(network, str(source))
    return network


def _mixed(name: str, before: dict[str, Tensor], weight: Tensor, share: float, source: str | Path) -> Tensor:
    other = before.get(name)
    other = None if other is None else centred(other, weight)
    if other is None or other.shape != weight.shape:
        raise LimnerError(f"{source}: its network has another {name}; blend two runs of the same model settings.")
    return other.lerp(weight.detach(), share)
