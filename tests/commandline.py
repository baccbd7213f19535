"""Run the command line inside the test process."""

from __future__ import annotations

import pytest

from limner.cli import main


def limner(*words: str) -> int:
    """Run `limner WORDS...`. Returns its exit code; output is left to capsys."""
    with pytest.raises(SystemExit) as ended:
        main([*words])
    code = ended.value.code
    return code if isinstance(code, int) else 0
