"""Pairs of (noise, caption) and the picture that a flow paints from them, in files: what a one-step student learns."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from limner.config import FlowConfig, PainterConfig, RunConfig
from limner.data.painting import PromptVectors
from limner.data.records import Record
from limner.errors import LimnerError
from limner.models.painter import Painter, Text
from limner.train.objectives.flow import sample
from limner.train.objectives.painting import Material, encode
from limner.train.progress import progress_bar

CHUNK = 32


@dataclass(frozen=True)
class Pairs:
    """`pictures` (M, S, S, 4) uint8, premultiplied; the noise of pair i is `noise_of(seeds[i])`. `names`: the record
    whose caption it is, "" where the caption was recombined.
    """

    pictures: NDArray[np.uint8]
    seeds: NDArray[np.int64]
    captions: tuple[str, ...]
    names: tuple[str, ...]


def noise_of(seed: int, painter: PainterConfig) -> NDArray[np.float32]:
    """Standard normal (G, G, channels): the same numbers as `runtime` draws for a seed of a user."""
    shape = (painter.grids[0], painter.grids[0], painter.noise)
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape, np.float32)


def noises(seeds: Sequence[int] | NDArray[np.int64], painter: PainterConfig) -> Tensor:
    """(N, channels, G, G), channels last in memory."""
    return torch.from_numpy(np.stack([noise_of(int(seed), painter) for seed in seeds])).permute(0, 3, 1, 2)


def recombined(records: Sequence[Record], draws: np.random.Generator) -> tuple[str, str]:
    """A caption and its record's name; the caption is one record's own name with the style words of another's."""
    what, how = (records[int(i)] for i in draws.integers(0, len(records), 2))
    style = how.text.removeprefix(str(how.extra.get("name", ""))).lstrip(", ")
    name = str(what.extra.get("name", ""))
    return (f"{name}, {style}", "") if name and style and style != how.text else (what.text, what.name)


def planned(config: RunConfig, records: Sequence[Record], found: Material) -> Iterator[tuple[int, str, str]]:
    """(seed, caption, record name) of every pair: a function of the configuration and the records."""
    sampler = found.sampler
    for pair in range(config.pairs.count):
        draws = np.random.default_rng([config.train.seed, pair])
        if draws.random() < config.pairs.recombined:
            yield pair, *recombined(records, draws)
        else:
            epoch, picture = sampler.drawn(pair)
            yield pair, sampler.captions.texts[sampler.captions.row(picture, epoch)], records[picture].name


def write_pairs(
    config: RunConfig,
    teacher: tuple[RunConfig, Painter],
    records: Sequence[Record],
    found: Material,
    out: Path,
    device: torch.device,
) -> None:
    """Paint config.pairs.count pairs into `out`, shard by shard; shards that are there are kept."""
    plan, size = list(planned(config, records, found)), config.pairs.shard
    vectors = encode(config, [caption for _, caption, _ in plan], found.cache)[0]
    easel = _Easel(teacher[0].painter, config.flow, teacher[1].to(device), device)
    with progress_bar(out.name, len(plan), 0, show=True) as advance:
        for start in range(0, len(plan), size):
            path = out / f"pairs-{start // size:06d}.safetensors"
            part = plan[start : start + size]
            if not path.is_file():
                _save(path, easel.painted([seed for seed, _, _ in part], vectors, start), part)
            advance(start + len(part), {})


@dataclass(frozen=True)
class _Easel:
    """A teacher, set up."""

    shape: PainterConfig
    flow: FlowConfig
    painter: Painter
    device: torch.device

    def painted(self, seeds: Sequence[int], vectors: PromptVectors, first: int) -> Tensor:
        """Pictures (N, S, S, 4) uint8 of the noise of each seed and the captions from row `first` on."""
        parts = []
        for start in range(0, len(seeds), CHUNK):
            chunk = seeds[start : start + CHUNK]
            rows = np.arange(first + start, first + start + len(chunk))
            text = Text(*(part.to(self.device) for part in vectors.rows(rows)))
            noise = noises(chunk, self.shape).to(self.device)
            parts.append(sample(self.painter, noise, text, self.shape, self.flow))
        return torch.cat(parts).mul(255).round().byte().permute(0, 2, 3, 1).cpu()


def _save(path: Path, pictures: Tensor, part: Sequence[tuple[int, str, str]]) -> None:
    seeds, captions, names = zip(*part, strict=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    about = {"captions": json.dumps(captions), "names": json.dumps(names)}
    save_file({"pictures": pictures.contiguous(), "seeds": torch.tensor(seeds)}, draft, about)
    draft.replace(path)


def read_pairs(folder: Path) -> Pairs:
    """All pairs of a run folder. Raises LimnerError when there are none, or a file is damaged."""
    paths = sorted(folder.glob("pairs-*.safetensors"))
    if not paths:
        raise LimnerError(f"{folder}: holds no pairs; paint them first with `limner train icons-pairs`.")
    parts = [_read(path) for path in paths]
    return Pairs(
        np.concatenate([part.pictures for part in parts]),
        np.concatenate([part.seeds for part in parts]),
        tuple(caption for part in parts for caption in part.captions),
        tuple(name for part in parts for name in part.names),
    )


def _read(path: Path) -> Pairs:
    try:
        with safe_open(path, "np") as file:
            about = file.metadata()
            captions, names = (tuple(json.loads(about[key])) for key in ("captions", "names"))
            return Pairs(file.get_tensor("pictures"), file.get_tensor("seeds"), captions, names)
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise LimnerError(f"{path}: damaged ({error}); delete it and run `limner train icons-pairs` again.") from None
