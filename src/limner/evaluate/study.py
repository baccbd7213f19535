"""What each judge studies: which pictures of a data set, in which words."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from limner.config import DataConfig
from limner.data.records import Record, open_records, passes, split_of
from limner.errors import LimnerError
from limner.evaluate.distribution import train_features
from limner.evaluate.judges import Embed, Lessons, decoded, half_of, lessons
from limner.evaluate.matcher import train_matcher
from limner.evaluate.probes import palette
from limner.evaluate.prompts import style_phrases, wordings

Judged = Literal["features", "matcher"]
TRAINERS: dict[str, Callable[..., object]] = {"features": train_features, "matcher": train_matcher}


def chosen(which: Judged, path: str | os.PathLike[str], config: DataConfig) -> list[Record]:
    """The training records of a judge among those at `path`.

    The feature encoder sees all that painters may learn from. The matcher sees the half of those that no loss may learn
    from (`half_of`), and all that `config` keeps from painters: a judge is no product, and stays independent so.
    Raises LimnerError when too few are left.
    """
    training = [record for record in open_records(path, config) if split_of(record, config) == "train"]
    if which == "features":
        kept = [record for record in training if passes(record, config)]
    else:
        kept = [record for record in training if not passes(record, config) or half_of(record.group) == "b"]
    if len(kept) < 2:
        raise LimnerError(f"{path}: {len(kept)} training pictures for the judge; it needs at least 2, better 5,000.")
    return kept


def lessons_of(which: Judged, records: Sequence[Record], embed: Embed, cache: Path | None = None) -> Lessons:
    """The lessons of a judge: captions as given for the feature encoder, three wordings of each for the matcher.

    `cache`: a folder that keeps the decoded pictures.
    """
    pictures = decoded(records, cache=cache)
    phrases = style_phrases(records)
    words = [wordings(record, phrases, shares) for record, shares in zip(records, palette(pictures), strict=True)]
    captions = [each[:1] for each in words] if which == "features" else words
    return lessons(records, pictures, captions, embed)
