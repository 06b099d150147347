"""A progress bar for everything that takes longer than a second."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from html import escape

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from coffea_ad.files.names import is_url

__all__ = ["chunk_progress", "progress", "say"]


_PATIENCE = 20.0  # s without a result, before it is said what is waited for; then twice as long
_PAUSE = 0.2  # s between two states of a bar in a notebook


@contextmanager
def progress(
    title: str, total: float, under_way: Callable[[], Iterable[str]] | None = None
) -> Iterator[Callable[..., None]]:
    """Show a bar on standard error, or below the cell of a notebook, and yield `advance(amount, note="")`.

    Parameters
    ----------
    title, total : str, float
    under_way : callable, optional
        Returns the files that are worked on at the moment: remote ones are named when nothing comes back for a while.
    """
    console = Console(stderr=True, markup=False, emoji=False)
    with _in_notebook(title, total) if console.is_jupyter else _in_terminal(title, total, console) as update:
        watch = _Watch(console, under_way or tuple)

        def advance(amount: float = 1, note: str = "") -> None:
            watch.heard()
            update(amount, note)

        with watch:
            yield advance


@contextmanager
def _in_terminal(title: str, total: float, console: Console) -> Iterator[Callable[[float, str], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda amount, note: bar.update(task, advance=amount, note=note)


@contextmanager
def _in_notebook(title: str, total: float) -> Iterator[Callable[[float, str], None]]:
    """Show one output that is replaced: it needs no widgets, takes no other output away, and stays in a notebook that is saved."""
    from IPython.display import display

    started, drawn, done, said = time.monotonic(), 0.0, 0.0, ""

    def content() -> dict[str, str]:
        seconds = time.monotonic() - started
        left = f", {seconds * (total - done) / done:.0f} s left" if 0 < done < total else ""
        bar = f'<progress value="{done:g}" max="{max(total, 1):g}"></progress> '
        text = f"{done:g}/{total:g}, {seconds:.0f} s{left} {said}"
        return {"text/plain": f"{title} {text}", "text/html": f"{escape(title)} {bar}{escape(text)}"}

    handle = display(content(), raw=True, display_id=True)

    def update(amount: float, note: str) -> None:
        nonlocal drawn, done, said
        done, said = done + amount, note
        if time.monotonic() - drawn > _PAUSE:
            drawn = time.monotonic()
            handle.update(content(), raw=True)

    try:
        yield update
    finally:
        handle.update(content(), raw=True)


class _Watch:
    """Says what is waited for when nothing comes back: a server that died is otherwise silence."""

    def __init__(self, console: Console, under_way: Callable[[], Iterable[str]]) -> None:
        self.console, self.under_way = console, under_way
        self.last, self.patience = time.monotonic(), _PATIENCE
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def heard(self) -> None:
        self.last, self.patience = time.monotonic(), _PATIENCE

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.over.wait(min(1.0, _PATIENCE)):
            silent = time.monotonic() - self.last
            if silent < self.patience:
                continue
            self.patience *= 2
            counts = Counter(path for path in self.under_way() if is_url(path))
            if counts:
                listed = [path + (f" ({n} chunks)" if n > 1 else "") for path, n in counts.most_common(3)]
                more = f" and {len(counts) - 3} more files" if len(counts) > 3 else ""
                sentence = f"nothing came back for {silent:.0f} s; waiting for {', '.join(listed)}{more}"
                self.console.print(sentence, soft_wrap=True, markup=False, highlight=False)


def say(sentence: str) -> None:
    """Print a sentence on standard error, where the bars are."""
    Console(stderr=True, markup=False, emoji=False).print(sentence, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def chunk_progress(
    title: str, total: int, *, cores: int, shown: bool = True, under_way: Callable[[], Iterable[str]] | None = None
) -> Iterator[Callable[..., None]]:
    """Show chunks, events per second and per core, time left and failures; yield `advance(events, failed=0, chunks=1)`."""
    if not shown:
        yield lambda *_: None
        return
    started, events, failures = time.monotonic(), 0, 0
    with progress(title, total, under_way) as bar:

        def advance(more: int, failed: int = 0, chunks: int = 1) -> None:
            nonlocal events, failures
            events += more
            failures += failed
            rate = events / max(time.monotonic() - started, 1e-9) / 1000
            note = f"{rate:.1f} kHz, {rate / max(cores, 1):.2f} kHz per core" if events else ""
            bar(chunks, note + (f", {failures} failed" if failures else ""))

        yield advance
