"""What a manifest says of its origin: no folder of the machine it was made on."""

from __future__ import annotations

import json
from typing import Any

from limner.config import RunConfig
from limner.export.provenance import portable
from limner.recipes import icons_vivid


def placed(config: RunConfig, path: str) -> RunConfig:
    """`config` with `path` wherever one may be named: those settings are strings or nothing."""
    raw: dict[str, Any] = config.model_dump()
    for section, model in RunConfig.model_fields.items():
        for key, field in getattr(model.annotation, "model_fields", {}).items():
            if field.annotation == str | None:
                raw[section][key] = path
    return RunConfig.model_validate(raw)


def test_of_files_and_runs_only_the_names_are_kept() -> None:
    config = placed(icons_vivid(), "/home/somebody/runs/icons-on")
    assert config.adversarial.init and config.train.init and config.data.captions
    recipe = portable(config)
    assert "somebody" not in json.dumps(recipe)
    assert recipe["adversarial"]["init"] == recipe["train"]["init"] == "icons-on"
    assert portable(icons_vivid()) == icons_vivid().model_dump(mode="json")
