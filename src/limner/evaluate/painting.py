"""Measure painters on tables of prompts, with real pictures and a retrieval baseline beside them.

A painter is anything callable: `paint(prompts, seeds)` -> (N, H, W, 4) uint8, RGBA with straight alpha.
"""

from __future__ import annotations

import logging
import math
import os
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from limner.config import DataConfig
from limner.data.records import Record, Split, load_split
from limner.errors import LimnerError
from limner.evaluate.distribution import Distance, Features, FeatureSpace, frechet, mmd, over_encoders
from limner.evaluate.intervals import Interval, of_mean, of_statistic
from limner.evaluate.judges import Embed, Pixels, decoded, half_of
from limner.evaluate.matcher import CANDIDATES, Matcher, retrieved
from limner.evaluate.probes import PixelIndex, copies, gradient_energy, nearest, obeys, palette, pixels, spread
from limner.evaluate.prompts import Kind, Prompt, colour_prompts, concept_prompts, style_prompts

if TYPE_CHECKING:
    from rich.table import Table

log = logging.getLogger(__name__)

Paint = Callable[[Sequence[str], Sequence[int]], Pixels]

SEEDS = (0, 1, 2)
REAL, SHUFFLED, RETRIEVAL = "real pictures", "real, shuffled", "retrieval"
# Figure -> heading and digits, in the order of the table.
FIGURES = {
    "r_precision": (f"R-prec. of {CANDIDATES}", 3),
    "style": ("style", 3),
    "colour": ("colour", 3),
    "own_kid": ("own-KID x100", 2),
    "own_fd": ("own-FD", 1),
    "sharpness": ("sharpness", 2),
    "diversity": ("diversity", 2),
    "diversity_pixels": ("in pixels", 2),
    "copies": ("copies", 3),
    "copies_pixels": ("in pixels", 3),
}


@dataclass(frozen=True)
class Judges:
    """The two trained judges, and the text encoder that the matcher learned with."""

    space: FeatureSpace
    matcher: Matcher
    embed: Embed


@dataclass(frozen=True)
class Exhibits:
    """Real pictures with their records: RGBA (N, H, W, 4)."""

    records: Sequence[Record]
    pictures: Pixels

    @cached_property
    def styles(self) -> NDArray[np.str_]:
        return np.array([record.style for record in self.records])


def exhibits(path: str | os.PathLike[str], split: Split, config: DataConfig, cache: Path | None = None) -> Exhibits:
    """The pictures of one split that `config` admits. `cache`: a folder that keeps the decoded pictures."""
    records = load_split(path, split, config)
    return Exhibits(records, decoded(records, cache=cache))


def tables(training: Exhibits, held_out: Exhibits, count: int = 500, seed: int = 0) -> dict[Kind, list[Prompt]]:
    """The four tables of prompts, up to `count` each; a kind of combination that the data does not allow is left out.

    Seen concepts come from the half of the training groups that the matcher never learned from, so that real pictures
    are as new to it as painted ones.
    """
    found: dict[Kind, list[Prompt]] = {
        "seen": concept_prompts(training.records, "seen", count, seed, lambda record: half_of(record.group) == "a"),
        "unseen": concept_prompts(held_out.records, "unseen", count, seed),
    }
    combinations: dict[Kind, Callable[[], list[Prompt]]] = {
        "colour": lambda: colour_prompts(training.records, palette(training.pictures), count, seed),
        "style": lambda: style_prompts(training.records, count, seed),
    }
    for kind, make in combinations.items():
        try:
            found[kind] = make()
        except LimnerError as error:
            log.warning("%s", error)
    return found


class Reference:
    """The real pictures a painter is held against, and what measuring needs to know of them once.

    `training`: what the painters learned from. `held_out`: what no painter and no judge has seen.
    """

    def __init__(self, training: Exhibits, held_out: Exhibits, judges: Judges) -> None:
        self.training, self.held_out = training, held_out
        self.features = judges.space.features(training.pictures)
        self.held_out_features = judges.space.features(held_out.pictures)
        self.index = PixelIndex(training.pictures)
        self.usual = nearest(self.held_out_features, self.features).distance
        self.usual_pixels = self.index.nearest(held_out.pictures).distance
        self.energy = _by_style(gradient_energy(training.pictures), training.styles)

    def picture(self, prompt: Prompt) -> Pixels:
        """The real picture that a prompt of a concept table was made from."""
        shown = self.held_out if prompt.kind == "unseen" else self.training
        return shown.pictures[prompt.reference]

    @cached_property
    def unrelated(self) -> tuple[float, float]:
        """Mean distance of real held-out pictures of one style and different groups: in features, in pixels."""
        first, second = _strangers(self.held_out)
        features = np.linalg.norm(self.held_out_features[first] - self.held_out_features[second], axis=1)
        apart = pixels(self.held_out.pictures[first]) - pixels(self.held_out.pictures[second])
        return float(features.mean()), float(np.linalg.norm(apart, axis=1).mean())

    def sample(self, styles: Sequence[str], seed: int) -> NDArray[np.intp]:
        """Rows of training pictures, one of each of these styles. What is drawn of a style depends on no other."""
        rows = {
            style: np.random.default_rng([seed, zlib.crc32(style.encode())])
            .permutation(np.flatnonzero(self.training.styles == style))
            .tolist()
            for style in set(styles)
        }
        return np.array([rows[style].pop() for style in styles])


def _by_style(values: NDArray[np.float64], styles: NDArray[np.str_]) -> dict[str, float]:
    return {str(style): float(values[styles == style].mean()) for style in np.unique(styles)}


def _strangers(shown: Exhibits, pairs: int = 1000) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Random rows of pictures that share their style but not their group."""
    random = np.random.default_rng(0)
    groups = np.unique([record.group for record in shown.records], return_inverse=True)[1]
    first = random.integers(0, len(groups), 50 * pairs)
    second = random.integers(0, len(groups), 50 * pairs)
    fits = (shown.styles[first] == shown.styles[second]) & (groups[first] != groups[second])
    if not fits.any():
        raise LimnerError("the held-out pictures have no two different things in one style; hold out more of them.")
    return first[fits][:pairs], second[fits][:pairs]


@dataclass(frozen=True)
class Row:
    """Figures of one painter on one table; a figure that does not apply is missing."""

    painter: str
    kind: Kind
    prompts: int
    figures: Mapping[str, Interval]


def retrieval(training: Exhibits, embed: Embed) -> Paint:
    """The baseline that paints nothing: the training picture whose caption is nearest to the prompt."""
    captions = embed([record.text for record in training.records])

    def paint(prompts: Sequence[str], seeds: Sequence[int]) -> Pixels:
        return training.pictures[(embed(prompts) @ captions.T).argmax(1)]

    return paint


def evaluate(
    painters: Mapping[str, Paint],
    tables: Mapping[Kind, Sequence[Prompt]],
    judges: Judges,
    reference: Reference,
    seeds: Sequence[int] = SEEDS,
    advance: Callable[[], None] = lambda: None,
) -> list[Row]:
    """One Row per table and painter, after the rows of real pictures, real pictures shuffled, and retrieval.

    `advance` is called after each of them. Raises LimnerError for an empty table and for a painter that returns
    something else than N pictures.
    """
    rows = []
    for kind, prompts in tables.items():
        if not prompts:
            raise LimnerError(f"the table of {kind} prompts is empty; give records that it can be built from.")
        rivals = [prompt for other in tables.values() if other is not prompts for prompt in other]
        for name, pictures in _shown(painters, prompts, judges, reference, seeds):
            rows.append(Row(name, kind, len(prompts), measure(pictures, prompts, judges, reference, rivals)))
            advance()
    return rows


def _shown(
    painters: Mapping[str, Paint], prompts: Sequence[Prompt], judges: Judges, reference: Reference, seeds: Sequence[int]
) -> list[tuple[str, Pixels]]:
    """Everything that is measured on a table: name, (K, N, H, W, 4)."""
    shown = []
    if all(prompt.reference is not None for prompt in prompts):
        real = np.stack([reference.picture(prompt) for prompt in prompts])
        order = np.random.default_rng(0).permutation(len(real))
        shown += [(REAL, real[None]), (SHUFFLED, real[order][None])]
    found = painted(retrieval(reference.training, judges.embed), prompts, seeds[:1])
    return [*shown, (RETRIEVAL, found), *((name, painted(paint, prompts, seeds)) for name, paint in painters.items())]


def painted(paint: Paint, prompts: Sequence[Prompt], seeds: Sequence[int]) -> Pixels:
    """Every prompt once for each of `seeds`, each time with a noise of its own: (K, N, H, W, 4)."""
    texts = [prompt.text for prompt in prompts]
    pictures = [paint(texts, [seed * len(texts) + i for i in range(len(texts))]) for seed in seeds]
    for each in pictures:
        if each.ndim != 4 or len(each) != len(texts) or each.shape[3] != 4 or each.dtype != np.uint8:
            raise LimnerError(
                f"the painter returned {each.dtype} of shape {each.shape} for {len(texts)} prompts: "
                f"it must return uint8 of shape ({len(texts)}, height, width, 4)."
            )
    return np.stack(pictures)


def measure(
    pictures: Pixels,
    prompts: Sequence[Prompt],
    judges: Judges,
    reference: Reference,
    rivals: Sequence[Prompt] = (),
) -> dict[str, Interval]:
    """All figures of (K, N, H, W, 4) pictures, K versions of one picture for each of N prompts.

    Intervals are over prompts; versions are averaged first. R-precision, style and colour words are shares in 0..1,
    colour only over the prompts that name one. In a table that is too small for R-precision, `rivals` from other
    tables stand beside its own prompts; without enough of them there is none. Own-KID and own-FD are against the
    held-out pictures (concept tables only: combinations show other things). Sharpness is gradient energy over that
    of real pictures of the same style. Diversity, for K > 1, is the distance of versions over that of unrelated
    real pictures of one style. Copies: the share that lies nearer to a training picture than 95 % of real held-out
    pictures do.
    """
    features = np.stack([judges.space.features(each) for each in pictures])
    candidates = [*prompts, *(rivals if _spare(prompts) < 0 else ())]
    figures = {
        **({"r_precision": of_mean(_precision(pictures, candidates, judges))} if _spare(candidates) >= 0 else {}),
        "style": of_mean(_style(features, prompts, judges)),
        "colour": of_mean(_colour(pictures, prompts)),
        "sharpness": _sharpness(pictures, prompts, reference),
        **_copying(pictures, features, reference),
    }
    if prompts[0].kind in ("seen", "unseen"):
        figures |= _distances(features, reference.held_out_features)
    if len(pictures) > 1:
        figures |= _diversity(pictures, features, reference)
    return {name: figures[name] for name in FIGURES if name in figures and not math.isnan(figures[name].value)}


def _spare(candidates: Sequence[Prompt]) -> int:
    """How many more rivals than R-precision draws there are for every prompt; negative where some has too few."""
    return len(candidates) - max(Counter(prompt.group for prompt in candidates).values()) - (CANDIDATES - 1)


def _precision(pictures: Pixels, prompts: Sequence[Prompt], judges: Judges) -> NDArray[np.float64]:
    """(N,) for (K, N, H, W, 4) pictures of the first N prompts."""
    text = judges.matcher.prompts(judges.embed([prompt.text for prompt in prompts]))
    groups = [prompt.group for prompt in prompts]
    return np.mean([retrieved(judges.matcher.pictures(each), text, groups) for each in pictures], axis=0)


def _style(features: NDArray[np.float32], prompts: Sequence[Prompt], judges: Judges) -> NDArray[np.float64]:
    asked = np.array([prompt.style for prompt in prompts])
    return np.mean([np.array(judges.space.style(each)) == asked for each in features], axis=0)


def _colour(pictures: Pixels, prompts: Sequence[Prompt]) -> NDArray[np.float64]:
    rows = [row for row, prompt in enumerate(prompts) if prompt.colour]
    kept = [
        [obeys(shares, prompts[row].colour) for row, shares in zip(rows, palette(each[rows]), strict=True)]
        for each in pictures
    ]
    return np.mean(kept, axis=0)


def _sharpness(pictures: Pixels, prompts: Sequence[Prompt], reference: Reference) -> Interval:
    energy = np.mean([gradient_energy(each) for each in pictures], axis=0)
    usual = np.array([reference.energy[prompt.style] for prompt in prompts])
    return of_statistic(lambda rows: float(energy[rows].sum() / usual[rows].sum()), len(prompts))


def _copying(pictures: Pixels, features: NDArray[np.float32], reference: Reference) -> dict[str, Interval]:
    near = [copies(nearest(each, reference.features).distance, reference.usual) for each in features]
    same = [copies(reference.index.nearest(each).distance, reference.usual_pixels) for each in pictures]
    return {"copies": of_mean(np.mean(near, axis=0)), "copies_pixels": of_mean(np.mean(same, axis=0))}


def _distances(features: NDArray[np.float32], real: Features) -> dict[str, Interval]:
    def mean_of(distance: Distance) -> Interval:
        def measured(rows: NDArray[np.intp]) -> float:
            return float(np.mean([over_encoders(distance, each[rows], real) for each in features]))

        return of_statistic(measured, features.shape[1], rounds=40)

    return {"own_kid": mean_of(mmd), "own_fd": mean_of(frechet)}


def _diversity(pictures: Pixels, features: NDArray[np.float32], reference: Reference) -> dict[str, Interval]:
    unrelated, unrelated_pixels = reference.unrelated
    return {
        "diversity": of_mean(spread(features) / unrelated),
        "diversity_pixels": of_mean(spread(np.stack([pixels(each) for each in pictures])) / unrelated_pixels),
    }


@dataclass(frozen=True)
class Floor:
    """What real pictures score against real pictures.

    Own-KID and own-FD of as many training pictures, of the same styles, against the held-out ones: means over draws,
    and between which ends 95 % of the draws lie. Own-KID is unbiased, so its mean is near 0 and may be negative: hold
    painters against the upper end.
    """

    pictures: int
    own_kid: Interval
    own_fd: Interval


def floor(prompts: Sequence[Prompt], reference: Reference, draws: int = 100) -> Floor:
    """The real-vs-real floor for a concept table. Raises KeyError for a style that the training pictures lack."""
    styles = [prompt.style for prompt in prompts]
    samples = [reference.features[reference.sample(styles, seed)] for seed in range(draws)]
    real = reference.held_out_features
    kids, distances = ([over_encoders(way, each, real) for each in samples] for way in (mmd, frechet))
    return Floor(len(styles), _over(kids), _over(distances))


def _over(values: Sequence[float]) -> Interval:
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(np.mean(values)), float(low), float(high))


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as plain data, figures to 5 digits after the point."""
    return [
        {"painter": row.painter, "kind": row.kind, "prompts": row.prompts}
        | {name: {key: round(value, 5) for key, value in asdict(each).items()} for name, each in row.figures.items()}
        for row in rows
    ]


def table(rows: Sequence[Row], title: str = "") -> Table:
    """A rich table, table by table: the figure, and half the width of its interval."""
    from rich.table import Table

    grid = Table(title=title or None, title_justify="left")
    for heading in ("prompts", "painter"):
        grid.add_column(heading, no_wrap=True)
    for heading, _ in FIGURES.values():
        grid.add_column(heading, justify="right", no_wrap=True)
    for i, row in enumerate(rows):
        grid.add_row(f"{row.kind} ({row.prompts})", row.painter, *_cells(row.figures))
        if i + 1 < len(rows) and rows[i + 1].kind != row.kind:
            grid.add_section()
    return grid


def _cells(figures: Mapping[str, Interval]) -> list[str]:
    return [_cell(figures.get(name), 100 if name == "own_kid" else 1, digits) for name, (_, digits) in FIGURES.items()]


def _cell(figure: Interval | None, factor: int, digits: int) -> str:
    if figure is None:
        return ""
    return f"{figure.value * factor:.{digits}f} ±{(figure.high - figure.low) / 2 * factor:.{digits}f}"
