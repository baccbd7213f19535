"""Models and a server that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from server_kit import Running, configured, make_zoo, serving


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zoo(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def running(zoo: Path) -> Iterator[Running]:
    """A server with every default: whatever a test does to it, it must stay up for the others."""
    with serving(configured(zoo)) as each:
        yield each
