"""What all commands share: where output goes, how files are written, which extra is missing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.errors import LimnerError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def data() -> Console:
    """stdout: what the user asked for. Piped tables are as wide as they need."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 200)


def log() -> Console:
    """stderr: progress, notes and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def complain(sentence: str, console: Console | None = None) -> None:
    """One error line on stderr; `console` when a progress bar is on it."""
    from rich.text import Text

    (console or log()).print(Text.assemble(("error: ", "bold red"), sentence))


def progress(unit: str, quiet: bool = False) -> Progress:
    """A progress bar on stderr, silent when stderr is not a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = log()
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn(f"{{task.completed:.0f}}/{{task.total}} {unit}")
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=_silent(console, quiet))


def _silent(console: Console, quiet: bool) -> bool:
    return quiet or not console.is_terminal


def write_json(target: str, payload: Any) -> None:
    """JSON into the file `target`, whole or not at all; `-` is stdout."""
    text = json.dumps(payload, indent=1, ensure_ascii=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    path = Path(target)
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        draft.write_text(text, "utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise LimnerError(f"{path}: cannot be written ({error.strerror}); choose another file.") from None


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Turn a missing package of the optional dependencies `name` into a sentence that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("limner"):
            raise
        raise UsageError(f"this needs the package {error.name!r}: pip install 'limner[{name}]'.") from None
