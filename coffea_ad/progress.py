"""A progress bar for everything that takes longer than a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["chunk_progress", "progress", "say"]


@contextmanager
def progress(title: str, total: float) -> Iterator[Callable[..., None]]:
    """Show a bar on standard error and yield `advance(amount, note="")`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(amount: float = 1, note: str = "") -> None:
            bar.update(task, advance=amount, note=note)

        yield advance


def say(sentence: str) -> None:
    """Print a sentence on standard error, where the bars are."""
    Console(stderr=True).print(sentence, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def chunk_progress(title: str, total: int, *, cores: int, shown: bool = True) -> Iterator[Callable[..., None]]:
    """Show chunks, events per second and per core, time left and failures; yield `advance(events, failed=0, chunks=1)`."""
    if not shown:
        yield lambda *_: None
        return
    started, events, failures = time.monotonic(), 0, 0
    with progress(title, total) as bar:

        def advance(more: int, failed: int = 0, chunks: int = 1) -> None:
            nonlocal events, failures
            events += more
            failures += failed
            rate = events / max(time.monotonic() - started, 1e-9) / 1000
            note = f"{rate:.1f} kHz, {rate / max(cores, 1):.2f} kHz per core" if events else ""
            bar(chunks, note + (f", {failures} failed" if failures else ""))

        yield advance
