"""The folder of a run: its settings, sources, calibration, and the network of its newest checkpoint."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from limner.config import RunConfig, parse
from limner.data.batches import CropSampler
from limner.data.records import Record
from limner.errors import LimnerError
from limner.models import NETWORKS
from limner.models.discriminator import PicturePrompt
from limner.models.painter import Painter, Text
from limner.models.upscaler import Upscaler
from limner.train import checkpoint
from limner.train.objectives.painting import Material

CONFIG, SOURCES, CALIBRATION, TEXT = "config.json", "sources.json", "calibration.safetensors", "text.json"
BODIES = {"trunk", "middle", "down", "up"}  # what networks must have in common for one to begin as another
NEVER_REACHED = 2**31  # steps from here on are drawn for calibration only
Network = TypeVar("Network", bound=nn.Module)


def open_run(config: RunConfig, records: list[Record], data: Path, out: Path) -> None:
    """Create the run folder, or check that the one there belongs to the same configuration."""
    # Parsed, the stored settings gain the defaults of keys that are younger than the run.
    path, resolved = out / CONFIG, config.model_dump(mode="json")
    if path.is_file():
        before = parse(json.loads(path.read_text("utf-8")), str(path)).model_dump(mode="json")
        changed = _differences(before, resolved)
        if changed:
            raise LimnerError(
                f"{out}: holds a run with another {changed[0]}: resume with its settings or choose another --out."
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    counts = Counter((record.source or data.name, record.license or "unknown") for record in records)
    listed = [{"source": s, "license": lic, "pictures": n} for (s, lic), n in sorted(counts.items())]
    checkpoint.write_json(out / SOURCES, {"data": str(data), "sources": listed})
    checkpoint.write_json(path, resolved)


def _differences(before: dict[str, Any], now: dict[str, Any], path: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted(before.keys() | now.keys()):
        a, b = before.get(key), now.get(key)
        where = f"{path}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, where + ".")
        elif a != b:
            found.append(where)
    return [key for key in found if key.split(".")[0] not in ("prune", "quantize", "pack")]


def derive_run(
    source: Path,
    out: Path,
    config: RunConfig,
    tensors: dict[str, Tensor],
    images: int,
    record: dict[str, Any],
    name: str,
) -> None:
    """Make the run folder `out` at once or not at all: other weights, with what `source` keeps for calibration.

    `tensors`: of a checkpoint after `images` pictures; `record`, in the file `name`: how they came about.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        draft = Path(folder) / "run"
        draft.mkdir()
        for kept in (SOURCES, CALIBRATION, TEXT):
            if (source / kept).is_file():
                shutil.copyfile(source / kept, draft / kept)
        checkpoint.save(draft, tensors, {"images": images})
        checkpoint.write_json(draft / name, record)
        checkpoint.write_json(draft / CONFIG, config.model_dump(mode="json"))
        draft.rename(out)


def save_calibration(config: RunConfig, sampler: CropSampler, out: Path) -> None:
    """Keep a few low-resolution crops (N, C, h, w) uint8 with the run, so that quantizing needs no data folder."""
    from safetensors.torch import save_file

    if (out / CALIBRATION).exists():
        return
    batches = math.ceil(config.quantize.calibration_crops / config.train.batch)
    crops = torch.cat([sampler.batch(NEVER_REACHED + i).low for i in range(batches)])
    low = crops[: config.quantize.calibration_crops].mul(255).round().byte().cpu().contiguous()
    draft = out / f".{CALIBRATION}.tmp"
    save_file({"low": low}, draft)
    draft.replace(out / CALIBRATION)


def save_painting_calibration(config: RunConfig, found: Material, out: Path) -> None:
    """Keep the noise and the text vectors of some pictures with the run: what calibration and parity feed the graph."""
    from safetensors.torch import save_file

    count, painter = config.quantize.calibration_crops, config.painter
    checkpoint.write_json(out / TEXT, {"bundle": config.text.bundle, "sha256": found.text_hash, "styles": found.styles})
    if (out / CALIBRATION).exists():
        return
    batches = [found.sampler.batch(NEVER_REACHED + i) for i in range(math.ceil(count / config.train.batch))]
    noise = np.random.default_rng(config.train.seed).standard_normal(
        (count, painter.grids[0], painter.grids[0], painter.noise), np.float32
    )
    text = {name: torch.cat([getattr(b, name) for b in batches])[:count].cpu() for name in Text._fields}
    draft = out / f".{CALIBRATION}.tmp"
    save_file({"noise": torch.from_numpy(noise), **text}, draft)
    draft.replace(out / CALIBRATION)


def read_config(run: Path) -> RunConfig:
    """The configuration of a run folder."""
    path = run / CONFIG
    if not path.is_file():
        raise LimnerError(f"{run}: is not a run folder (no {CONFIG}); give the --out of `limner train`.")
    return parse(json.loads(path.read_text("utf-8")), str(path))


def load_network(run: Path, kind: type[Network]) -> tuple[RunConfig, Network]:
    """Configuration and averaged network (eval mode) of a run folder. Raises LimnerError when it is no `kind`."""
    config = read_config(run)
    network = NETWORKS[config.objective](config)
    if not isinstance(network, kind):
        raise LimnerError(
            f"{run}: holds a {type(network).__name__} ({config.objective}), not a {kind.__name__}; choose another run."
        )
    load_run_weights(network, run)
    return config, network.eval()


def load_run(run: Path) -> tuple[RunConfig, Upscaler]:
    """Configuration and averaged upscaler (eval mode, branches not folded) of a run folder."""
    return load_network(run, Upscaler)


def load_painter(run: Path) -> tuple[RunConfig, Painter]:
    """Configuration and averaged painter (eval mode, time not fixed) of a run folder."""
    return load_network(run, Painter)


def load_encoder(run: Path) -> PicturePrompt:
    """The text-picture encoder of a run folder."""
    return load_network(run, PicturePrompt)[1]


def load_run_weights(network: nn.Module, run: Path) -> None:
    """Load the averaged weights of `run`; what differs in shape (another scale's heads) keeps its start values."""
    found = checkpoint.load(run)
    if found is None:
        raise LimnerError(f"{run}: has no checkpoint yet; train it first.")
    averaged, own = checkpoint.section(found[0], "ema"), dict(network.named_parameters())
    fitting = {n: w for n, w in averaged.items() if n in own and own[n].shape == w.shape}
    if not any(part in BODIES for name in fitting for part in name.split(".")[:2]):
        raise LimnerError(f"{run}: its network has no layer in common with this one; check the model settings.")
    network.load_state_dict(fitting, strict=False)
