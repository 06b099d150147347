"""coffea's three executors with a window: chunks go out as others come back, and results are merged on the way.

coffea's own submit every chunk at once and merge when all are done: the scheduler then holds a task per chunk, and the
workers a result per chunk. Here at most a few chunks per core are under way, whatever their number; a chunk that kills its
worker is a failed chunk, not the end of the run.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import math
import pickle
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import lz4.frame
from coffea import processor as coffea_processor
from coffea.processor import accumulate
from coffea.processor.accumulator import set_accumulator
from coffea.processor.executor import FileMeta, WorkItem

from coffea_ad.progress import chunk_progress
from coffea_ad.running.adding import added
from coffea_ad.running.chunks import FAILED_TOPIC, unprocessed

__all__ = ["DaskExecutor", "FuturesExecutor", "IterativeExecutor"]

_GROUP = 20  # results that are merged at once
_ROUNDS = 2  # merges on the workers before a result comes to the client: it stands for _GROUP ** _ROUNDS chunks
_PER_CORE = 4  # chunks under way per core, so that no core waits for the client
_LEAST = 100  # chunks under way on a small cluster: submitting a few at a time would cost the scheduler more
_LOOK = 2.0  # s between looks at how many cores there are
_TRIES = 3


def _pack(result: Any) -> bytes:
    return lz4.frame.compress(pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL))  # type: ignore[no-any-return]


def _unpack(data: bytes) -> Any:
    return pickle.loads(lz4.frame.decompress(data))  # noqa: S301  made by our own workers


def _call(function: Callable[[Any], Any], item: Any, heavy: Any = None) -> bytes:
    return _pack(function(item if heavy is None else (item, heavy)))


def _merge(parts: list[bytes]) -> bytes:
    return _pack(added(_unpack(part) for part in parts))


def _same(value: Any) -> Any:
    return value


def _events(item: Any) -> int:
    return len(item) if isinstance(item, WorkItem) else 0


def _paths(items: Iterable[Any]) -> list[str]:
    return [str(item.filename) for item in list(items)]


def _failures(result: Any) -> int:
    return len(result.get("failed", ())) if isinstance(result, dict) else 0


def _finished(accumulator: Any) -> Any:
    """Return what has been accumulated, with the place for results that coffea expects, should no chunk have any."""
    if isinstance(accumulator, dict) and "processed" in accumulator:
        accumulator.setdefault("out", {})
    return accumulator


def _lost(item: Any, why: str) -> Any:
    """Return the result of a chunk, or of opening a file, that no worker survives."""
    if isinstance(item, FileMeta):
        facts = {**(item.metadata or {}), "error": "KilledWorker", "cause": f"{item.filename}: {why}"}
        return set_accumulator([FileMeta(item.dataset, item.filename, item.treename, facts)])
    return unprocessed(item, "KilledWorker", why)


@dataclass
class IterativeExecutor(coffea_processor.IterativeExecutor):
    """One chunk after the other, in this process."""

    def cores(self) -> int:
        """Return how many cores work."""
        return 1

    def __call__(self, items: Iterable[Any], function: Callable[[Any], Any], accumulator: Any) -> tuple[Any, int]:
        """Process all items and return what they accumulate to."""
        items = list(items)
        now: list[Any] = []
        with chunk_progress(
            self.desc, len(items), cores=self.cores(), shown=self.status, under_way=lambda: _paths(now)
        ) as advance:
            for item in items:
                now[:] = [item]
                result = function(item)
                advance(_events(item), _failures(result))
                accumulator = added([result], accumulator)
        return _finished(accumulator), 0


@dataclass
class FuturesExecutor(coffea_processor.FuturesExecutor):
    """A pool of processes, the same for opening files and for processing; a pool that broke is replaced."""

    pools: list[Any] = field(default_factory=list)

    def cores(self) -> int:
        """Return how many cores work."""
        return int(self.workers)

    def __call__(self, items: Iterable[Any], function: Callable[[Any], Any], accumulator: Any) -> tuple[Any, int]:
        """Process all items and return what they accumulate to."""
        queue = deque(items)
        suspects: deque[Any] = deque()  # were under way when a process died: they go one at a time, to find the one
        running: dict[concurrent.futures.Future[bytes], Any] = {}
        with chunk_progress(
            self.desc, len(queue), cores=self.cores(), shown=self.status, under_way=lambda: _paths(running.values())
        ) as advance:
            while queue or suspects or running:
                source, window = (suspects, 1) if suspects else (queue, _PER_CORE * self.workers)
                while source and len(running) < window:
                    item = source.popleft()
                    try:
                        running[self._pool().submit(_call, function, item)] = item
                    except BrokenProcessPool:  # it died while results were merged here
                        if not running:
                            self.close()
                        source.appendleft(item)
                        break
                if not running:
                    continue
                done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                dead = []
                for future in done:
                    item = running.pop(future)
                    error = future.exception()
                    if isinstance(error, BrokenProcessPool):
                        dead.append(item)
                        continue
                    if error is not None:
                        self.close()
                        raise error
                    result = _unpack(future.result())
                    advance(_events(item), _failures(result))
                    accumulator = added([result], accumulator)
                if dead:
                    dead += running.values()
                    running.clear()
                    self.close()
                    if len(dead) == 1:
                        accumulator = accumulate([_lost(dead[0], "it ends the process that works on it")], accumulator)
                        advance(_events(dead[0]), 1)
                    else:
                        suspects.extend(dead)
        return _finished(accumulator), 0

    def _pool(self) -> Any:
        if not self.pools:
            self.pools.append(self.pool(max_workers=self.workers))
        return self.pools[0]

    def close(self) -> None:
        """End the processes."""
        while self.pools:
            self.pools.pop().shutdown(wait=True, kill_workers=True)


@dataclass
class DaskExecutor(coffea_processor.DaskExecutor):
    """Chunks on a dask cluster, merged there in groups; every 400 chunks one result comes to the client.

    A result that lies on a worker can be computed again if the worker is lost; one that has come to the client is safe,
    and the scheduler forgets its chunks. So neither grows with the number of chunks.
    """

    rounds: int = _ROUNDS  # fewer where results are large

    def cores(self) -> int:
        """Return how many cores work, at the moment."""
        return sum(self.client.nthreads().values())

    def __call__(self, items: Iterable[Any], function: Callable[[Any], Any], accumulator: Any) -> tuple[Any, int]:
        """Process all items and return what they accumulate to."""
        waiting = list(items)
        if not waiting:
            return accumulator, 0
        under_way: dict[Any, tuple[Any, int, Any]] = {}  # key: future, its round (0 for a chunk), its chunk
        with chunk_progress(
            self.desc, len(waiting), cores=self.cores(), shown=self.status,
            under_way=lambda: _paths([item for _, n, item in list(under_way.values()) if n == 0]),
        ) as advance:  # fmt: skip
            # failures are told at once; results come later, merged
            self.client.subscribe_topic(FAILED_TOPIC, lambda _: advance(0, 1, 0))
            try:
                for part in self._results(waiting, function, advance, under_way):
                    accumulator = added([part], accumulator)
            finally:
                self.client.unsubscribe_topic(FAILED_TOPIC)
        return _finished(accumulator), 0

    def _results(
        self,
        waiting: list[Any],
        function: Any,
        advance: Callable[..., None],
        under_way: dict[Any, tuple[Any, int, Any]],
    ) -> Iterator[Any]:
        from distributed import as_completed

        client, source = self.client, iter(waiting)
        heavy = self._broadcast()
        ready: list[list[Any]] = [[] for _ in range(self.rounds)]
        suspects: deque[Any] = deque()  # were on a worker that died too often: again, but each alone, to find the one
        chunks, alone, pending = 0, False, as_completed()
        window, looked = _LEAST, -math.inf

        def submit() -> None:
            nonlocal chunks, alone
            nonlocal window, looked
            if chunks > window // 2:
                return
            if time.monotonic() > looked + _LOOK:
                window, looked = max(_PER_CORE * self.cores(), _LEAST), time.monotonic()
            batch = list(itertools.islice(source, window - chunks))
            if not batch and not chunks and suspects:
                batch, alone = [suspects.popleft()], True
            chunks += len(batch)
            options = {"pure": False, "retries": self.retries, "priority": self.priority}
            if heavy is not None:
                options["heavy"] = heavy
            futures = client.map(partial(_call, function), batch, **options)
            under_way.update({f.key: (f, 0, item) for f, item in zip(futures, batch, strict=True)})
            pending.update(futures)

        def merge(n: int) -> None:
            # before any further chunk: what is merged is held no longer
            future = client.submit(_merge, ready[n], pure=False, retries=_TRIES, priority=self.priority + 10)
            under_way[future.key] = (future, n + 1, None)
            ready[n] = []
            pending.add(future)

        try:
            submit()
            for future in pending:
                _, n, item = under_way.pop(future.key)
                chunks -= n == 0
                if future.status not in ("finished", "error"):
                    raise RuntimeError(f"the scheduler gave work up ({future.status})")
                failed = future.status == "error"
                if failed:
                    error = future.exception()
                    if n > 0 or type(error).__name__ != "KilledWorker":
                        raise error
                    if alone:
                        yield _lost(item, "it ends the workers that work on it (too little memory, or a crash)")
                    else:
                        suspects.append(item)
                elif n < self.rounds:
                    ready[n].append(future)
                else:
                    yield _unpack(future.result())
                if n == 0 and (alone or not failed):
                    advance(_events(item), int(failed))
                submit()
                for k in range(self.rounds):
                    if len(ready[k]) >= _GROUP or (ready[k] and not under_way):  # the last ones are fewer
                        merge(k)
        finally:
            client.cancel([f for f, _, _ in under_way.values()] + list(itertools.chain(*ready)))

    def _broadcast(self) -> Any:
        """Put the processor on the cluster once; `scatter` would not reach workers that come later."""
        if self.heavy_input is None:
            return None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")
            warnings.filterwarnings("ignore", "Large object of size")
            return self.client.submit(_same, self.heavy_input, pure=False)
