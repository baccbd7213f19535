"""A progress bar with the time left, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int, dict[str, float]], None]


@contextmanager
def progress_bar(title: str, total: int, start: int, show: bool) -> Iterator[Advance]:
    """Yields advance(images, losses). Silent on other ranks and when stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images"))
    bar = Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[losses]}"), console=console)
    bar.disable = not (show and console.is_terminal)
    with bar:
        task = bar.add_task(title, total=total, completed=start, losses="")

        def advance(images: int, losses: dict[str, float]) -> None:
            text = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
            bar.update(task, completed=min(images, total), losses=text)

        yield advance
