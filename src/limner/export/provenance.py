"""What every manifest says of its origin."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import limner
from limner.bundle import Source
from limner.config import RunConfig

LICENSE = "Apache-2.0"
FOLDERS = {
    "train": ("init", "teacher"),
    "adversarial": ("init",),
    "text": ("bundle", "cache"),
    "match": ("run",),
    "code": ("run",),
    "pairs": ("teacher", "folder"),
    "data": ("captions",),
}


def provenance(config: RunConfig, sources: list[dict[str, Any]]) -> dict[str, Any]:
    """The manifest's keys about licence, sources, recipe, date and version; `files` is filled in when it is written."""
    return {
        "license": LICENSE,
        "sources": tuple(Source.model_validate(source) for source in sources),
        "recipe": portable(config),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "limner": limner.__version__,
        "files": {},
    }


def portable(config: RunConfig) -> dict[str, Any]:
    """The recipe without folders of the machine it ran on: of files and other runs only the names are kept."""
    recipe = config.model_dump(mode="json")
    for section, keys in FOLDERS.items():
        for key in keys:
            recipe[section][key] = recipe[section][key] and Path(recipe[section][key]).name
    return recipe
